"""Fetched: the committed rows that a batch's commands declared, as they stand while the journal is locked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeAlias, TypeVar

from strongroom.engine.state import NonceKey, ThreadKey
from strongroom.errors import check
from strongroom.ledger.accounts import owner_of
from strongroom.records.guards import Nonce
from strongroom.records.heads import Head
from strongroom.records.history import Thread
from strongroom.records.kept import Kept, Key
from strongroom.store.folio import Folio, decode_folio
from strongroom.store.postgres.tables import FOLIO, TABLES, Statement

Taker: TypeAlias = Callable[[Iterable[Sequence[Any]]], None]

Row = TypeVar("Row", bound=Kept)

_UNASKED: Final = "a batch reads and changes only the rows that its commands declared"


class Fetched:
    """`Committed` over what was fetched: what was asked for and not found is absent, and there is nothing else.

    Raises `InvariantBroken` for what was not asked for: taken for absent, a row that exists would be written over.
    """

    def __init__(self) -> None:
        self._folios: dict[int, Folio] = {}
        self._rows: dict[Key, Kept] = {}
        self._asked: set[Key] = set()
        self._owners: set[int] = set()

    def statements(self, keys: Iterable[Key]) -> list[tuple[Statement, Taker]]:
        """Return what to ask for to have the rows at these addresses, each with who takes its answer: one a kind."""
        self._asked = set(keys)
        self._owners, by_kind = _by_kind(self._asked)
        found = [(FOLIO.fetch([(owner,) for owner in self._owners]), self._take_folios)]
        found += [(TABLES[kind].fetch(wanted), self._taker(kind)) for kind, wanted in by_kind.items()]
        return [(statement, taker) for statement, taker in found if statement is not None]

    def folio(self, owner: int) -> Folio:
        """Return an owner's folio; an empty one if there is none yet."""
        found = self._folios.get(owner)
        if found is None:
            check(owner in self._owners, _UNASKED)
            found = self._folios[owner] = Folio({}, {})
        return found

    def head(self, account: int) -> Head:
        """Return the head of a packed account."""
        return self.folio(owner_of(account)).head(account)

    def thread(self, key: ThreadKey) -> Thread:
        """Return a thread."""
        return self.folio(key[0]).thread(key)

    def nonce(self, key: NonceKey) -> Nonce:
        """Return what is remembered of a signature."""
        found = self._rows.get((Nonce, *key))
        return found if isinstance(found, Nonce) else self._absent(Nonce(*key))

    def kept(self, key: Key) -> Kept:
        """Return the row of any other kind."""
        return self._rows.get(key) or self._absent(key[0].absent(key))

    def check_asked(self, key: Key) -> None:
        """Raise `InvariantBroken` unless the row at an address may be written: it is known what is there."""
        check(key in self._asked, _UNASKED)

    def _absent(self, row: Row) -> Row:
        self.check_asked(row.key())
        return row

    def _take_folios(self, rows: Iterable[Sequence[Any]]) -> None:
        self._folios.update((owner, decode_folio(heads, spines)) for owner, heads, spines in rows)

    def _taker(self, kind: type[Kept]) -> Taker:
        def take(rows: Iterable[Sequence[Any]]) -> None:
            kept = map(TABLES[kind].decode, rows)
            self._rows.update((row.key(), row) for row in kept)

        return take


def _by_kind(keys: set[Key]) -> tuple[set[int], dict[type[Kept], list[Any]]]:
    """Return the owners whose folios are needed, and the keys of all other rows by their kind."""
    owners: set[int] = set()
    by_kind: dict[type[Kept], list[Any]] = {}
    for key in keys:
        kind = key[0]
        if kind is Head:
            owners.add(owner_of(key[1]))
        elif kind is Thread:
            owners.add(key[1])
        else:
            by_kind.setdefault(kind, []).append(key[1:])
    return owners, by_kind
