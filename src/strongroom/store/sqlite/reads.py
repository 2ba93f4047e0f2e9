"""Queries on the committed state of the embedded store: point look-ups only, so that none gets slower with age."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import apsw

from strongroom.engine.command import Row
from strongroom.engine.port import Equal, Sealed, StoredItem
from strongroom.engine.sealing import read_item, read_lines
from strongroom.errors import check
from strongroom.ledger.seals import Frontier
from strongroom.records.history import LINES_PER_ITEM, Line, Thread
from strongroom.records.kept import Kept, Key
from strongroom.store.athand import AtHand
from strongroom.store.journal import frontier_of
from strongroom.store.sqlite.connection import run
from strongroom.store.sqlite.standing import standing_balances, standing_threads
from strongroom.store.sqlite.tables import TABLES
from strongroom.store.tables import Table


def load(connection: apsw.Connection, key: Key) -> Kept:
    """Return the row at an address as its table has it, or the absent one."""
    table = TABLES[key[0]]
    found = run(connection, table.select_one, key[1:]).fetchone()
    return key[0].absent(key) if found is None else table.decode(found)


def load_commits(connection: apsw.Connection) -> int:
    """Return how many commits there were."""
    return run(connection, "SELECT commits FROM progress").fetchone()[0]


def load_frontier(connection: apsw.Connection) -> tuple[int, Frontier]:
    """Return the newest batch's stamp, and the seal after it."""
    newest = run(connection, "SELECT at_ms, last_item, peaks FROM batch ORDER BY number DESC LIMIT 1").fetchone()
    if newest is None:
        return 0, Frontier()
    at_ms, last_item, peaks = newest
    return at_ms, frontier_of(last_item, peaks)


class DiskReads(AtHand):
    """What `Reads` asks of the tables as they are on disk: the same for a store at work and for a snapshot.

    Whoever inherits says what stands in memory before them: `row`, and the newest item and seal in `_frontier` and
    `_last_ms`.
    """

    def __init__(self, reader: apsw.Connection, frontier: Frontier, last_ms: int) -> None:
        self._reader = reader
        self._frontier = frontier
        self._last_ms = last_ms

    @property
    def is_shared(self) -> bool:
        """Return no: one process at a time has the folder."""
        return False

    @property
    def is_current(self) -> bool:
        """Return yes: subscribers are told with the commit."""
        return True

    def rows(self, kind: type[Row], equal: Equal, limit: int, *, newest_first: bool = False) -> list[Row]:
        """Return at most `limit` rows whose fields equal these values, in the order of their keys."""
        table = _whole_table(kind)
        sql, values = table.select_where(equal, limit, newest_first=newest_first)
        return [cast(Row, table.decode(found)) for found in run(self._reader, sql, values)]

    def each(self, kind: type[Row]) -> Iterator[Row]:
        """Yield every row of a kind in the order of their keys, as they stand on disk; threads owner by owner."""
        if kind is Thread:
            yield from cast(Iterator[Row], standing_threads(self._reader))
            return
        table = _whole_table(kind)
        for found in run(self._reader, *table.select_where({}, -1)):
            yield cast(Row, table.decode(found))

    def line(self, number: int) -> Line:
        """Return a history line; the absent one if there is none."""
        item, place = divmod(number, LINES_PER_ITEM)
        found = run(self._reader, "SELECT text FROM item WHERE number = ?", (item,)).fetchone()
        lines = read_lines(found[0].encode()) if found else []
        return lines[place] if place < len(lines) else Line(number)

    def last(self) -> tuple[int, int]:
        """Return the number and the stamp (Unix ms) of the newest journal item."""
        return self._frontier.count, self._last_ms

    def journal(self, first: int, limit: int) -> list[Sealed]:
        """Return journal items from a number on, as they are kept."""
        # Cast, a text goes from the file to whoever decodes it without becoming a `str` in between.
        sql = "SELECT number, CAST(text AS BLOB), salt FROM item WHERE number >= ? ORDER BY number LIMIT ?"
        return list(map(Sealed._make, run(self._reader, sql, (first, limit))))

    def items(self, first: int, limit: int) -> list[StoredItem]:
        """Return what journal items say, from a number on."""
        return [read_item(sealed.text) for sealed in self.journal(first, limit)]

    def frontier(self) -> Frontier:
        """Return the seal over all items so far."""
        return self._frontier

    def seals(self, after: int = 0) -> Iterator[Frontier]:
        """Yield the seal after every batch, oldest first; only those over more items than `after`."""
        # Without a condition a seal that says it covers less is still seen, and can be told.
        where = "WHERE last_item > ?1" if after else "WHERE ?1 = 0"
        for last_item, peaks in run(
            self._reader, f"SELECT last_item, peaks FROM batch {where} ORDER BY number", (after,)
        ):
            yield frontier_of(last_item, peaks)

    def balances(self) -> Iterator[tuple[int, int, int]]:
        """Yield (packed account, balance, count) of every account, as the view `balance` has them."""
        yield from standing_balances(self._reader)


def _whole_table(kind: type[Kept]) -> Table:
    """Return the table of a kind that stands on disk whole: neither swept behind the commits nor kept in memory."""
    check(kind in TABLES, "trailing rows are read one by one")
    return TABLES[kind]
