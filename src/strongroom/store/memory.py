"""The store in memory: the same port as the durable ones, for the simulator, property tests and comparisons.

It keeps nothing after the process ends and says so: it is never offered as an operator's store.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import cast

from strongroom.engine.command import Row
from strongroom.engine.port import StoredItem
from strongroom.engine.sealing import leaf_of, stored_item
from strongroom.engine.state import State
from strongroom.errors import check
from strongroom.ledger.seals import Frontier
from strongroom.records.heads import Head
from strongroom.records.history import Line
from strongroom.records.kept import Kept, Key


class MemoryStore:
    """`Store` and `Reads` over dictionaries."""

    def __init__(self) -> None:
        self.kept: dict[Key, Kept] = {}
        self.journal: list[StoredItem] = []
        self._lines: dict[int, Line] = {}
        self._frontier = Frontier()
        self._last_ms = 0
        self._listeners: list[Callable[[Collection[Key]], None]] = []

    async def begin(self, keys: Collection[Key]) -> State:
        """Return the rows at these addresses."""
        rows = {key: self.kept.get(key) or key[0].absent(key) for key in keys}
        return State(rows, len(self.journal) + 1, self._last_ms)

    async def commit(self, state: State) -> None:
        """Take over the state's changes and items."""
        check(state.first_item == len(self.journal) + 1, "items are numbered without gaps")
        for item in state.items:
            stored = stored_item(item, b"")
            self.journal.append(stored)
            self._lines.update((line.number, line) for line in item.lines)
            self._frontier = self._frontier.append(leaf_of(stored))
            self._last_ms = item.at_ms
        self.kept.update(state.changed)
        for listener in self._listeners:
            listener(state.changed.keys())

    async def resolve(self) -> bool:
        """Return that nothing is in doubt: memory takes over all or nothing."""
        return True

    def row(self, kind: type[Row], *key: int | str | bytes) -> Row:
        """Return the row, or the absent one."""
        found = self.kept.get((kind, *key)) or kind(*key)
        return cast(Row, found)

    def rows(
        self, kind: type[Row], equal: Mapping[str, int | str | bytes], limit: int, *, newest_first: bool = False
    ) -> list[Row]:
        """Return at most `limit` rows whose fields equal these values, in the order of their keys."""
        found = [
            row
            for row in self.kept.values()
            if isinstance(row, kind) and all(getattr(row, name) == value for name, value in equal.items())
        ]
        return sorted(found, key=lambda row: row.key()[1:], reverse=newest_first)[:limit]

    def each(self, kind: type[Row]) -> Iterator[Row]:
        """Yield every row of a kind in the order of their keys."""
        yield from self.rows(kind, {}, len(self.kept))

    def line(self, number: int) -> Line:
        """Return a history line; the absent one if there is none."""
        return self._lines.get(number) or Line(number)

    def last(self) -> tuple[int, int]:
        """Return the number and the stamp of the newest item."""
        return len(self.journal), self._last_ms

    def items(self, first: int, limit: int) -> list[StoredItem]:
        """Return journal items from a number on."""
        return self.journal[first - 1 : first - 1 + limit]

    def frontier(self) -> Frontier:
        """Return the seal over all items."""
        return self._frontier

    def seals(self) -> Iterator[Frontier]:
        """Yield the newest seal: earlier ones are not kept in memory."""
        yield self._frontier

    def balances(self) -> Iterator[tuple[int, int, int]]:
        """Yield (packed account, balance, count) of every account."""
        for row in self.kept.values():
            if isinstance(row, Head):
                yield row.account, row.after, row.count

    def subscribe(self, listener: Callable[[Collection[Key]], None]) -> None:
        """Call the listener with the addresses that each commit changed."""
        self._listeners.append(listener)
