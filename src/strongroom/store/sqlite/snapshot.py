"""A snapshot: the books of a data folder at one moment, read from disk beside a server that goes on writing."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import cast

from strongroom.engine.command import Row
from strongroom.engine.port import StoredItem
from strongroom.ledger.seals import Frontier
from strongroom.records.history import Line
from strongroom.records.kept import Key
from strongroom.store.sqlite import reads
from strongroom.store.sqlite.connection import open_reader, run
from strongroom.store.sqlite.recovery import unswept_rows


class SqliteSnapshot:
    """`Reads` in one read transaction, for one thread: no cache, no lock on the folder, nothing newer is seen."""

    def __init__(self, folder: Path) -> None:
        """Open the folder's database as it is now; it must have the newest schema."""
        self._reader = open_reader(folder)
        run(self._reader, "BEGIN")
        _, self._last_ms, self._frontier = reads.load_frontier(self._reader)
        self._unswept = unswept_rows(self._reader)

    def close(self) -> None:
        """End the transaction."""
        self._reader.close()

    def row(self, kind: type[Row], *key: int | str | bytes) -> Row:
        """Return the row, or the absent one."""
        address: Key = (kind, *key)
        return cast(Row, self._unswept.get(address) or reads.load(self._reader, address))

    def rows(
        self, kind: type[Row], equal: Mapping[str, int | str | bytes], limit: int, *, newest_first: bool = False
    ) -> list[Row]:
        """Return at most `limit` rows whose fields equal these values, in the order of their keys."""
        return reads.load_where(self._reader, kind, equal, limit, newest_first=newest_first)

    def each(self, kind: type[Row]) -> Iterator[Row]:
        """Yield every row of a kind in the order of their keys."""
        return reads.load_each(self._reader, kind)

    def line(self, number: int) -> Line:
        """Return a history line; the absent one if there is none."""
        return reads.load_line(self._reader, number)

    def last(self) -> tuple[int, int]:
        """Return the number and the stamp (Unix ms) of the newest item."""
        return self._frontier.count, self._last_ms

    def items(self, first: int, limit: int) -> list[StoredItem]:
        """Return journal items from a number on, with their postings and lines."""
        return reads.load_items(self._reader, first, limit)

    def frontier(self) -> Frontier:
        """Return the seal over all items."""
        return self._frontier

    def seals(self) -> Iterator[Frontier]:
        """Yield the seal after every batch, oldest first."""
        return reads.load_seals(self._reader)

    def balances(self) -> Iterator[tuple[int, int, int]]:
        """Yield (packed account, balance, count of postings) of every account."""
        return reads.load_balances(self._reader)

    def subscribe(self, listener: Callable[[Collection[Key]], None]) -> None:
        """Do nothing: a snapshot never changes."""
