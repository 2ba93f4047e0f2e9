"""The store on PostgreSQL: a batch begins by locking the one row of the journal and ends with the commit that frees it.

So the batches of all nodes follow one another: items are numbered without gaps in the order of their commits, each
decision sees all that was committed before it, and no two transactions ever wait for each other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, cast

import psycopg

from strongroom.clock import Ids
from strongroom.engine.command import Row
from strongroom.engine.port import DiskFailed
from strongroom.engine.state import State
from strongroom.records.kept import Kept, Key
from strongroom.store.postgres.announcements import Heard
from strongroom.store.postgres.connection import Limits
from strongroom.store.postgres.copies import Copies
from strongroom.store.postgres.following import EVERY_S, Follower
from strongroom.store.postgres.lane import Lane
from strongroom.store.postgres.listeners import Listeners
from strongroom.store.postgres.numbers import COUNT, NodeNumber
from strongroom.store.postgres.reads import PostgresReads
from strongroom.store.postgres.remembered import Remembered
from strongroom.store.postgres.schema import prepare_database
from strongroom.store.postgres.warming import warm

_LANES: Final = 2
"""While one commits the other begins; a third would only wait longer."""


class PostgresStore(PostgresReads):
    """`Store` and `Reads` over a PostgreSQL database, which other nodes may use as well."""

    def __init__(self, conninfo: str, ids: Ids, limits: Limits | None = None) -> None:
        """Open the database, migrated. Raises `DatabaseUnfit`, `DatabaseNewer`, `psycopg.Error`.

        `conninfo` is libpq's; it must lead to the server itself, not to a pooler that shares its sessions.
        """
        super().__init__(conninfo, limits or Limits())
        prepare_database(conninfo, self._limits)
        self._remembered = Remembered()
        self._copies = copies = Copies()
        self._listeners = Listeners(self._remembered, copies)
        self._lanes: list[Lane] = []
        self._follower = Follower(self._route, self._cut_unless)
        self._follower.heard = Heard(self._commits())
        number = NodeNumber(ids)
        try:
            for _ in range(_LANES):
                self._lanes.append(
                    Lane(self._route, self._limits, ids, number, self._follower, self._listeners, copies)
                )
        except BaseException:
            self.close()
            raise

    @property
    def lanes(self) -> Sequence[Lane]:
        """Return the lanes: one can begin a batch while another commits."""
        return self._lanes

    @property
    def is_shared(self) -> bool:
        """Return yes: other nodes commit as well."""
        return True

    @property
    def is_current(self) -> bool:
        """Whether subscribers were told of everything that any node had committed half a second ago."""
        return self._follower.is_current

    @property
    def log_pages(self) -> int:
        """Return 0: the log is the server's."""
        return 0

    @property
    def trouble(self) -> str:
        """Why nothing can be read at the moment, as far as is known; empty when all is well."""
        return self._follower.trouble

    @property
    def nodes(self) -> int:
        """How many nodes have the database open, this one included. Raises `DiskFailed`."""
        [(count,)] = self._ask(COUNT)
        return count

    def check_reachable(self) -> None:
        """Raise `DiskFailed` at once while the database is away: the event loop cannot wait for it at every request."""
        if self._follower.is_away:
            raise DiskFailed("the database does not answer")

    def note_silence(self) -> None:
        """Have nobody else wait before the database has been heard of again.

        What follows it could not find out: whoever waited held up the event loop that lets it ask.
        """
        self._follower.note_silence()

    def close(self) -> None:
        """Close the connections."""
        self._follower.close()
        self.close_reader()
        for lane in self._lanes:
            lane.close()

    def subscribe(self, listener: Callable[[State], None]) -> None:
        """Call the listener with the state of each commit: of this node before anyone is answered; of another with the
        rows that servers keep in memory or wait for, once it is heard of.
        """
        self._listeners.subscribe(listener)

    def warm(self) -> None:
        """Read what the customers of the newest commits need (`warming`); before anything is followed or decided."""
        # Without it the first requests are slower, and whoever asks next is told what is the matter.
        with suppress(DiskFailed, psycopg.Error):
            reader = self._connect_anew()
            with reader.within(self._limits.read_s):
                warm(reader, self._follower.heard.number, self._copies, self._remembered)

    async def follow(self) -> None:
        """Tell subscribers what other nodes commit, several times a second, until cancelled."""
        while True:
            news = await self._follower.news()
            if news is not None:
                self._listeners.tell_news(news)
            await asyncio.sleep(EVERY_S)

    def row(self, kind: type[Row], *key: int | str | bytes) -> Row:
        """Return the committed row, or the absent one; what most requests ask for from memory (`remembered`).

        Users and settings are then as old as `is_current` allows; commands are decided over those of the moment.
        """
        found = self._remembered.find(kind, key, is_current=self.is_current)
        if found is None:
            found = super().row(kind, *key)
            self._remembered.keep(found, key)
        return cast(Row, found)

    def rows_at(self, keys: Sequence[Key]) -> list[Kept]:
        """Return the rows at these addresses; what is remembered from memory, as `row` does."""
        is_current = self.is_current
        known = {key: self._remembered.find(key[0], key[1:], is_current=is_current) for key in keys}
        asked = [key for key, row in known.items() if row is None]
        for key, row in zip(asked, super().rows_at(asked), strict=True):
            self._remembered.keep(row, key[1:])
            known[key] = row
        return [cast(Kept, known[key]) for key in keys]

    def _cut_unless(self, server: str) -> None:
        self._cable.cut_unless(server)
        for lane in self._lanes:
            lane.cut_unless(server)
