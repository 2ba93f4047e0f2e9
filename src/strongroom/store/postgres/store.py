"""The store on PostgreSQL: a batch begins by locking the one row of the journal and ends with the commit that frees it.

So the batches of all nodes follow one another: items are numbered without gaps in the order of their commits, each
decision sees all that was committed before it, and no two transactions ever wait for each other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import psycopg

from strongroom.clock import Ids
from strongroom.engine.port import DiskFailed, Reads
from strongroom.store.postgres.announcements import Heard
from strongroom.store.postgres.connection import Limits
from strongroom.store.postgres.copies import Copies
from strongroom.store.postgres.following import EVERY_S, Follower
from strongroom.store.postgres.lane import Lane
from strongroom.store.postgres.listeners import Listeners
from strongroom.store.postgres.numbers import COUNT, NodeNumber
from strongroom.store.postgres.reader import Node, NodeReader
from strongroom.store.postgres.remembered import Remembered
from strongroom.store.postgres.route import Route
from strongroom.store.postgres.schema import prepare_database
from strongroom.store.postgres.warming import warm

_LANES: Final = 2
"""While one commits the other begins; a third would only wait longer."""


class PostgresStore(NodeReader):
    """`Store` and `Reads` over a PostgreSQL database, which other nodes may use as well."""

    def __init__(self, conninfo: str, ids: Ids, limits: Limits | None = None) -> None:
        """Open the database, migrated. Raises `DatabaseUnfit`, `DatabaseNewer`, `psycopg.Error`.

        `conninfo` is libpq's; it must lead to the server itself, not to a pooler that shares its sessions.
        """
        limits = limits or Limits()
        prepare_database(conninfo, limits)
        self._copies = copies = Copies()
        self._lanes: list[Lane] = []
        self._readers: list[NodeReader] = []
        route, remembered = Route(conninfo), Remembered()
        follower, listeners = Follower(route, self._cut_unless), Listeners(remembered, copies)
        super().__init__(Node(route, limits, follower, listeners, remembered))
        self._keep = remembered.keep
        follower.heard = Heard(self._commits())
        number = NodeNumber(ids)
        try:
            for _ in range(_LANES):
                self._lanes.append(Lane(route, limits, ids, number, follower, listeners, copies))
        except BaseException:
            self.close()
            raise

    @property
    def lanes(self) -> Sequence[Lane]:
        """Return the lanes: one can begin a batch while another commits."""
        return self._lanes

    @property
    def log_pages(self) -> int:
        """Return 0: the log is the server's."""
        return 0

    @property
    def trouble(self) -> str:
        """Why nothing can be read at the moment, as far as is known; empty when all is well."""
        return self._node.follower.trouble

    @property
    def nodes(self) -> int:
        """How many nodes have the database open, this one included. Raises `DiskFailed`."""
        [(count,)] = self._ask(COUNT)
        return count

    def note_silence(self) -> None:
        """Have nobody else wait before the database has been heard of again.

        What follows it could not find out: whoever waited held up the event loop that lets it ask.
        """
        self._node.follower.note_silence()

    def readers(self, count: int) -> Sequence[Reads]:
        """Return so many others that read what this one does, each for a thread of its own and with a connection."""
        readers = [NodeReader(self._node) for _ in range(count)]
        self._readers += readers
        return readers

    def close(self) -> None:
        """Close the connections."""
        self._node.follower.close()
        self.close_reader()
        for reader in self._readers:
            reader.close_reader()
        for lane in self._lanes:
            lane.close()

    def warm(self) -> None:
        """Read what the customers of the newest commits need (`warming`); before anything is followed or decided."""
        # Without it the first requests are slower, and whoever asks next is told what is the matter.
        with suppress(DiskFailed, psycopg.Error):
            reader = self._connect_anew()
            with reader.within(self._limits.read_s):
                warm(reader, self._node.follower.heard.number, self._copies, self._node.remembered)

    async def follow(self) -> None:
        """Tell subscribers what other nodes commit, several times a second, until cancelled."""
        while True:
            news = await self._node.follower.news()
            if news is not None:
                self._node.listeners.tell_news(news)
            await asyncio.sleep(EVERY_S)

    def _cut_unless(self, server: str) -> None:
        for waiting in (self, *self._readers, *self._lanes):
            waiting.cut_unless(server)
