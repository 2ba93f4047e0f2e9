"""Readers of a node: each answers one thread, from what the node remembers and else from the database."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

from strongroom.engine.command import Row
from strongroom.engine.port import DiskFailed
from strongroom.engine.state import State
from strongroom.records.kept import Kept, Key
from strongroom.store.postgres.connection import Limits
from strongroom.store.postgres.following import Follower
from strongroom.store.postgres.listeners import Listeners
from strongroom.store.postgres.reads import PostgresReads
from strongroom.store.postgres.remembered import Remembered
from strongroom.store.postgres.route import Route


class Node(NamedTuple):
    """What all readers of a node share: the way to the database, what is heard of it, and what is remembered."""

    route: Route
    limits: Limits
    follower: Follower
    listeners: Listeners
    remembered: Remembered


class NodeReader(PostgresReads):
    """`Reads` for one thread of a node.

    Rows that may change are kept in memory by the event loop's reader alone: in another thread, one could be read
    before a change and kept behind it, and nobody would ever say that it is old.
    """

    def __init__(self, node: Node) -> None:
        super().__init__(node.route, node.limits)
        self._node = node
        self._keep = node.remembered.keep_lasting

    @property
    def is_shared(self) -> bool:
        """Return yes: other nodes commit as well."""
        return True

    @property
    def is_current(self) -> bool:
        """Whether subscribers were told of everything that any node had committed half a second ago."""
        return self._node.follower.is_current

    def subscribe(self, listener: Callable[[State], None]) -> None:
        """Call the listener, in the event loop, with the state of each commit: of this node before anyone is answered;
        of another with the rows that servers keep in memory or wait for, once it is heard of.
        """
        self._node.listeners.subscribe(listener)

    def check_reachable(self) -> None:
        """Raise `DiskFailed` at once while the database is away: whoever asks would wait for it at every request."""
        if self._node.follower.is_away:
            raise DiskFailed("the database does not answer")

    def row(self, kind: type[Row], *key: int | str | bytes) -> Row:
        """Return the committed row, or the absent one; what most requests ask for from memory (`remembered`).

        Users and settings are then as old as `is_current` allows; commands are decided over those of the moment.
        """
        found = self._node.remembered.find(kind, key, is_current=self.is_current)
        if found is None:
            found = super().row(kind, *key)
            self._keep(found, key)
        return cast(Row, found)

    def rows_at(self, keys: Sequence[Key]) -> list[Kept]:
        """Return the rows at these addresses; what is remembered from memory, as `row` does."""
        is_current, find = self.is_current, self._node.remembered.find
        known = {key: find(key[0], key[1:], is_current=is_current) for key in keys}
        asked = [key for key, row in known.items() if row is None]
        for key, row in zip(asked, super().rows_at(asked), strict=True):
            self._keep(row, key[1:])
            known[key] = row
        return [cast(Kept, known[key]) for key in keys]
