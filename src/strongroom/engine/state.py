"""The state a batch is decided over: committed rows, with the effects of the batch's earlier commands laid on top."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Protocol, TypeAlias, cast

import msgspec

from strongroom.engine.command import Command, Row
from strongroom.errors import check
from strongroom.ledger.entries import Booked
from strongroom.records.guards import Nonce, Reply
from strongroom.records.heads import Head
from strongroom.records.history import Line, Thread
from strongroom.records.kept import Kept, Key

ThreadKey: TypeAlias = tuple[int, int, int]
"""A thread's owner, asset and type."""

NonceKey: TypeAlias = tuple[int, bytes]
"""A key's number and a signature made with it."""


class Item(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One row of the journal: a command with all its effects, or with the name of the refusal it met.

    `rows` are the kept rows it wrote that are sealed, each with the name of its kind.
    """

    number: int
    at_ms: int
    command: Command
    refusal: str = ""
    postings: Sequence[Booked] = ()
    lines: Sequence[Line] = ()
    rows: Sequence[tuple[str, Kept]] = ()


class Committed(Protocol):
    """Committed rows by their address; a row that was never written is the absent one."""

    def head(self, account: int) -> Head:
        """Return the head of a packed account."""
        ...

    def thread(self, key: ThreadKey) -> Thread:
        """Return a thread."""
        ...

    def nonce(self, key: NonceKey) -> Nonce:
        """Return what is remembered of a signature."""
        ...

    def kept(self, key: Key) -> Kept:
        """Return the row of any other kind."""
        ...


class Effects(msgspec.Struct, frozen=True, gc=False):
    """What one command changes: `item` is None where nothing is journaled, `nonce` where no signature is used up."""

    item: Item | None = None
    nonce: Nonce | None = None
    heads: Sequence[Head] = ()
    threads: Sequence[Thread] = ()
    rows: Sequence[Kept] = ()


class State:
    """The rows that one batch has changed so far, over the committed ones, and the items it has made.

    `heads`, `threads`, `nonces` and `rows` (all other kinds) are those to write, by their address; `items` go to the
    journal from `first_item` on.
    """

    def __init__(self, committed: Committed, first_item: int, last_ms: int) -> None:
        self.committed = committed
        self.first_item = first_item
        self.last_ms = last_ms
        self.heads: dict[int, Head] = {}
        self.threads: dict[ThreadKey, Thread] = {}
        self.nonces: dict[NonceKey, Nonce] = {}
        self.rows: dict[Key, Kept] = {}
        self.items: list[Item] = []

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to write."""
        return not (self.items or self.nonces or self.rows or self.heads or self.threads)

    def open_for(self, command: Command) -> None:
        """Begin the next command."""

    def get(self, kind: type[Row], *key: int | str | bytes) -> Row:
        """Return the row as the batch sees it."""
        address: Key = (kind, *key)
        if (row := self.rows.get(address)) is not None:
            return cast(Row, row)
        if (find := _OF_KIND.get(kind)) is not None:
            return cast(Row, find(self, key))
        return cast(Row, self.committed.kept(address))

    def head(self, account: int) -> Head:
        """Return the head of a packed account as the batch sees it."""
        return self.heads.get(account) or self.committed.head(account)

    def thread(self, key: ThreadKey) -> Thread:
        """Return a thread as the batch sees it."""
        return self.threads.get(key) or self.committed.thread(key)

    def nonce(self, key: NonceKey) -> Nonce:
        """Return what is remembered of a signature as the batch sees it."""
        return self.nonces.get(key) or self.committed.nonce(key)

    def apply(self, effects: Effects) -> None:
        """Lay a command's effects on top: nothing here can fail half-way."""
        if effects.item is not None:
            self.items.append(effects.item)
        if (nonce := effects.nonce) is not None:
            self.nonces[nonce.api_key, nonce.signature] = nonce
        for head in effects.heads:
            self.heads[head.account] = head
        for thread in effects.threads:
            self.threads[thread.owner, thread.asset, thread.type] = thread
        for row in effects.rows:
            if isinstance(row, Nonce):
                self.nonces[row.api_key, row.signature] = row
            else:
                self.rows[row.key()] = row

    def next_item(self) -> int:
        """Return the number of the item that the current command will be."""
        return self.first_item + len(self.items)

    def changed(self) -> Iterable[Key]:
        """Return the address of every changed row."""
        yield from ((Head, account) for account in self.heads)
        yield from ((Thread, *key) for key in self.threads)
        yield from ((Nonce, *key) for key in self.nonces)
        yield from self.rows


_OF_KIND: Final[dict[type[Kept], Callable[[State, Any], Kept]]] = {
    Head: lambda state, key: state.head(*key),
    Thread: lambda state, key: state.thread(key),
    Nonce: lambda state, key: state.nonce(key),
}


class DeclaredState(State):
    """A state that lets each command read and change only the rows it declared, guards included.

    A store that must fetch or lock rows before it decides has no others. The store in memory is one of these so that
    every test and simulation finds a command that declares too little.
    """

    def __init__(self, committed: Committed, first_item: int, last_ms: int) -> None:
        super().__init__(committed, first_item, last_ms)
        self._declared: frozenset[Key] = frozenset()

    def open_for(self, command: Command) -> None:
        """Let the next command read the rows it declared and no others."""
        self._declared = frozenset(needs_of(command))

    def get(self, kind: type[Row], *key: int | str | bytes) -> Row:
        """Return a row; raises `InvariantBroken` if the current command did not declare it."""
        self._check((kind, *key))
        return super().get(kind, *key)

    def head(self, account: int) -> Head:
        """Return a declared account's head."""
        self._check((Head, account))
        return super().head(account)

    def thread(self, key: ThreadKey) -> Thread:
        """Return a declared thread."""
        self._check((Thread, *key))
        return super().thread(key)

    def nonce(self, key: NonceKey) -> Nonce:
        """Return a declared signature."""
        self._check((Nonce, *key))
        return super().nonce(key)

    def apply(self, effects: Effects) -> None:
        """Lay effects on top; raises `InvariantBroken`, and changes nothing, where a row was not declared."""
        for row in (*effects.heads, *effects.threads, *effects.rows):
            self._check(row.key())
        super().apply(effects)

    def _check(self, key: Key) -> None:
        check(key in self._declared, "a decision reads and changes only the rows its command declared")


def needs_of(command: Command) -> list[Key]:
    """Return every address that settling the command may touch: what it declares, and its guards."""
    guard, keys = command.guard, list(command.needs())
    if guard.signature:
        keys.append((Nonce, guard.api_key, guard.signature))
    if guard.digest:
        keys.append((Reply, guard.owner, guard.digest))
    return keys
