"""A snapshot: the books of a data folder at one moment, read from disk beside a server that goes on writing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import cast

from strongroom.engine.command import Row
from strongroom.engine.state import State
from strongroom.ledger.seals import Frontier
from strongroom.records.heads import Head
from strongroom.records.history import Thread
from strongroom.store.journal import frontier_of
from strongroom.store.sqlite.connection import open_reader, run
from strongroom.store.sqlite.folios import Folios
from strongroom.store.sqlite.reads import DiskReads, load, load_frontier
from strongroom.store.sqlite.recovery import unswept


class SqliteSnapshot(DiskReads):
    """`Reads` in one read transaction, for one thread: no lock on the folder, nothing newer is seen."""

    def __init__(self, folder: Path) -> None:
        """Open the folder's database as it is now; it must have the newest schema."""
        reader = open_reader(folder)
        run(reader, "BEGIN")
        last_ms, frontier = load_frontier(reader)
        super().__init__(reader, frontier, last_ms)

    @cached_property
    def _folios(self) -> Folios:
        """The heads and threads that were asked for; an audit has no use for them one by one."""
        return Folios(self._reader, unswept(self._reader))

    def close(self) -> None:
        """End the transaction."""
        self._reader.close()

    def heads(self, owner: int, accounts: Sequence[int]) -> list[Head]:
        """Return the heads of an owner's packed accounts."""
        return [self._folios.head(account) for account in accounts]

    def row(self, kind: type[Row], *key: int | str | bytes) -> Row:
        """Return the row, or the absent one."""
        if kind is Head:
            return cast(Row, self._folios.head(*cast(tuple[int], key)))
        if kind is Thread:
            return cast(Row, self._folios.thread(cast(tuple[int, int, int], key)))
        return cast(Row, load(self._reader, (kind, *key)))

    def seal_over(self, items: int) -> Frontier:
        """Return the first seal over so many items or more; the empty one if there is none."""
        sql = "SELECT last_item, peaks FROM batch WHERE last_item >= ? ORDER BY number LIMIT 1"
        found = run(self._reader, sql, (items,)).fetchone()
        return frontier_of(*found) if found else Frontier()

    def subscribe(self, listener: Callable[[State], None]) -> None:
        """Do nothing: a snapshot never changes."""
