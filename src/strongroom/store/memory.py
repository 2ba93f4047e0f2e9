"""The store in memory: the same port as the durable ones, for the simulator, property tests and comparisons.

It keeps nothing after the process ends and says so: it is never offered as an operator's store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import cast

from strongroom.engine.command import Command, Row
from strongroom.engine.port import Equal, Lane, Sealed, StoredItem
from strongroom.engine.sealing import leaf_of, read_item, seal_item
from strongroom.engine.state import DeclaredState, NonceKey, State, ThreadKey
from strongroom.errors import check
from strongroom.ledger.seals import Frontier
from strongroom.records.guards import Nonce
from strongroom.records.heads import Head
from strongroom.records.history import Line, Thread
from strongroom.records.kept import Kept, Key
from strongroom.store.athand import AtHand


class MemoryStore(AtHand):
    """`Store` and `Reads` over dictionaries. A command that does not declare what it needs fails here."""

    def __init__(self) -> None:
        self._kept: dict[Key, Kept] = {}
        self._journal: list[Sealed] = []
        self._lines: dict[int, Line] = {}
        self._frontier = Frontier()
        self._last_ms = 0
        self._listeners: list[Callable[[State], None]] = []

    @property
    def is_shared(self) -> bool:
        """Return no: nobody else commits."""
        return False

    @property
    def is_current(self) -> bool:
        """Return yes: subscribers are told with the commit."""
        return True

    @property
    def lanes(self) -> Sequence[Lane]:
        """Return itself: one batch at a time."""
        return (self,)

    async def begin(self, commands: Sequence[Command]) -> State:
        """Return a state over the committed rows."""
        return DeclaredState(self, len(self._journal) + 1, self._last_ms)

    async def commit(self, state: State) -> None:
        """Take over the state's changes and items."""
        check(state.first_item == len(self._journal) + 1, "items are numbered without gaps")
        for item in state.items:
            sealed = seal_item(item, b"")
            self._journal.append(sealed)
            self._lines.update((line.number, line) for line in item.lines)
            self._frontier = self._frontier.append(leaf_of(sealed.text, sealed.salt))
            self._last_ms = item.at_ms
        for row in (*state.heads.values(), *state.threads.values(), *state.nonces.values(), *state.rows.values()):
            self._kept[row.key()] = row
        for listener in self._listeners:
            listener(state)

    def head(self, account: int) -> Head:
        """Return the head of a packed account."""
        return self.row(Head, account)

    def thread(self, key: ThreadKey) -> Thread:
        """Return a thread."""
        return self.row(Thread, *key)

    def nonce(self, key: NonceKey) -> Nonce:
        """Return what is remembered of a signature."""
        return self.row(Nonce, *key)

    def kept(self, key: Key) -> Kept:
        """Return the row of any other kind."""
        return self.row(*key)

    async def resolve(self) -> bool:
        """Return that nothing is in doubt: memory takes over all or nothing."""
        return True

    def row(self, kind: type[Row], *key: int | str | bytes) -> Row:
        """Return the row, or the absent one."""
        found = self._kept.get((kind, *key)) or kind(*key)
        return cast(Row, found)

    def heads(self, owner: int, accounts: Sequence[int]) -> list[Head]:
        """Return the heads of an owner's packed accounts."""
        return [self.row(Head, account) for account in accounts]

    def rows(self, kind: type[Row], equal: Equal, limit: int, *, newest_first: bool = False) -> list[Row]:
        """Return at most `limit` rows whose fields equal these values, in the order of their keys."""
        found = [
            row
            for row in self._kept.values()
            if isinstance(row, kind) and all(_is_one(getattr(row, name), value) for name, value in equal.items())
        ]
        return sorted(found, key=lambda row: row.key()[1:], reverse=newest_first)[:limit]

    def each(self, kind: type[Row]) -> Iterator[Row]:
        """Yield every row of a kind in the order of their keys."""
        yield from self.rows(kind, {}, len(self._kept))

    def line(self, number: int) -> Line:
        """Return a history line; the absent one if there is none."""
        return self._lines.get(number) or Line(number)

    def last(self) -> tuple[int, int]:
        """Return the number and the stamp of the newest item."""
        return len(self._journal), self._last_ms

    def journal(self, first: int, limit: int) -> list[Sealed]:
        """Return journal items from a number on, as they are kept."""
        return self._journal[first - 1 : first - 1 + limit]

    def items(self, first: int, limit: int) -> list[StoredItem]:
        """Return what journal items say, from a number on."""
        return [read_item(sealed.text) for sealed in self.journal(first, limit)]

    def frontier(self) -> Frontier:
        """Return the seal over all items."""
        return self._frontier

    def seals(self) -> Iterator[Frontier]:
        """Yield the newest seal: earlier ones are not kept in memory."""
        yield self._frontier

    def balances(self) -> Iterator[tuple[int, int, int]]:
        """Yield (packed account, balance, count) of every account."""
        for row in self._kept.values():
            if isinstance(row, Head):
                yield row.account, row.after, row.count

    def subscribe(self, listener: Callable[[State], None]) -> None:
        """Call the listener with the state of each commit."""
        self._listeners.append(listener)


def _is_one(found: object, wanted: int | str | bytes | tuple[int, ...]) -> bool:
    return found in wanted if isinstance(wanted, tuple) else found == wanted
