"""Portions: everything that a house's books are made of, kind by kind, in words by which both stores are read and
written. The kept rows are all of `KINDS`; what belongs to one store only (a watermark, nodes' numbers) is none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import sha256
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec

from strongroom.records.guards import Nonce
from strongroom.records.kept import Kept
from strongroom.store.tables import KINDS, Table

PortionRow: TypeAlias = tuple[Any, ...]
"""One row's values: int64, str, bytes or bool, in the order and of the types of its portion's columns."""

_encode: Final = msgspec.msgpack.Encoder().encode


class Portion(NamedTuple):
    """One kind of row: its table, and its columns, of which the first `keys` are the key that sorts its rows."""

    name: str
    columns: tuple[str, ...]
    types: tuple[type, ...]
    keys: int = 1

    @property
    def select(self) -> str:
        """The query for the columns of the table of this name, sorted by key."""
        order = ", ".join(self.columns[: self.keys])
        return f'SELECT {", ".join(self.columns)} FROM "{self.name}" ORDER BY {order}'


class JournalEnd(NamedTuple):
    """How far a journal went: its commits, those that only ended a doubt, its newest item and stamp, and the seal's
    complete subtrees (32 bytes each, largest first).
    """

    commits: int
    forced: int
    last_item: int
    last_ms: int
    peaks: bytes


def _of_kind(kind: type[Kept]) -> Portion:
    table = Table(kind, "?")
    return Portion(table.name, table.columns, table.types, kind.KEY)


ITEM: Final = Portion("item", ("number", "text", "salt"), (int, str, bytes))
BATCH: Final = Portion("batch", ("number", "items", "last_item", "at_ms", "peaks"), (int, int, int, int, bytes))
"""The seals, one for each commit that appended items."""

FOLIO: Final = Portion("folio", ("owner", "heads", "spines"), (int, str, bytes))
"""Every owner's balances and threads, up to the newest item."""

NONCE: Final = _of_kind(Nonce)
PORTIONS: Final = (ITEM, BATCH, FOLIO, NONCE, *map(_of_kind, KINDS))
"""All of it."""


class Tally:
    """How many rows went by, and a digest of all their values in their order."""

    def __init__(self) -> None:
        self.rows = 0
        self._hash = sha256()

    def over(self, rows: Iterable[PortionRow]) -> Iterator[PortionRow]:
        """Yield rows, counted on their way."""
        update = self._hash.update
        for row in rows:
            # A row's encoding says where it ends, so that no two rows look like others.
            update(_encode(row))
            self.rows += 1
            yield row

    @property
    def digest(self) -> str:
        """The digest so far, hexadecimal."""
        return self._hash.hexdigest()
