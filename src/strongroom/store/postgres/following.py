"""Following: hearing several times a second what other nodes have committed, on a connection of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from time import monotonic
from typing import Final

import psycopg

from strongroom.store.postgres.announcements import Heard, News, read_changed
from strongroom.store.postgres.connection import Connection, Limits, connect_reader
from strongroom.store.postgres.copies import Commit
from strongroom.store.postgres.route import Route
from strongroom.store.postgres.schema import known_schema, standing_of

EVERY_S: Final = 0.2
CURRENT_S: Final = 0.5
"""For so long what was heard is good enough to answer from memory."""

SILENT_S: Final = 3.0
"""A database that was not heard of for so long is in trouble."""

BEHIND: Final = "Ledger has lost commits: stop all nodes and run 'strongroom restore --here'"
"""Whatever was decided on such books might be done a second time, a payment for one."""

_LIMITS: Final = Limits(connect_s=2, read_s=1.0)
_TRIES: Final = 3
"""The connection that there is, a new one, and one more should that be lost in the same moment."""


class Follower:
    """What this node has heard of the commits of all nodes: all up to the one `heard`, as of a moment.

    `outdated` says why this node may not use the database any more, once a newer release has brought it further.
    `arrived` is called, in the follower's thread, with the server that a new connection leads to, once that answers;
    the route is told before.
    """

    def __init__(self, route: Route, arrived: Callable[[str], None]) -> None:
        self.heard = Heard()
        self.outdated = ""
        self._known = known_schema()
        self._arrived = arrived
        self._route = route
        self._heard_s = monotonic()
        self._thread = ThreadPoolExecutor(1, "strongroom-follower")
        self._reader: Connection | None = None
        self._is_away = False
        self._is_behind = False
        self._is_new = False

    @property
    def is_away(self) -> bool:
        """Whether the database does not answer at the moment, as far as is known: whoever asked would wait in vain."""
        return self._is_away

    @property
    def trouble(self) -> str:
        """Why nothing can be read at the moment, as far as is known; empty when all is well.

        Where the database lacks commits that this node has heard of, a failover, or a restore, has lost them.
        """
        if self.outdated:
            return self.outdated
        if self._is_behind:
            return BEHIND
        silent_s = self.silent_s
        return f"Ledger not heard of for {silent_s:.0f} s" if self._is_away or silent_s >= SILENT_S else ""

    @property
    def is_current(self) -> bool:
        """Whether everything that was committed up to half a second ago was heard."""
        return self.silent_s < CURRENT_S and not self._is_behind

    @property
    def silent_s(self) -> float:
        """How many seconds ago that was last known for certain."""
        return monotonic() - self._heard_s

    def note(self, heard: Heard, commits: int, asked_s: float) -> None:
        """Note that commits were heard of, of those that there were at a moment of the monotonic clock."""
        self.heard = max(self.heard, heard)
        if self.heard.number >= commits:
            self._heard_s = max(self._heard_s, asked_s)

    def note_silence(self) -> None:
        """Note that the database does not answer; it is heard of again by whoever asks for news."""
        self._is_away = True

    async def news(self) -> News | None:
        """Ask what was committed since; None while the database does not answer, or lacks what was heard before."""
        asked_s = monotonic()
        told = await asyncio.get_running_loop().run_in_executor(self._thread, self._ask)
        if told is None or self._is_behind:
            return None
        commits, news = told
        self.note(news.heard, commits, asked_s)
        return news

    def close(self) -> None:
        """Close the connection."""
        self._thread.shutdown()
        self._drop()

    def _ask(self) -> tuple[int, News] | None:
        """Ask over the connection that there is, and where that is lost at once over new ones."""
        for _ in range(_TRIES):
            began_s = monotonic()
            try:
                told = self._told()
            except psycopg.Error:
                self._drop()
                if monotonic() - began_s < _LIMITS.read_s:
                    continue
                # Nothing comes. Others need not wait to find out, while a new connection is tried.
                self._is_away = True
                if self._is_new:
                    break
            else:
                self._is_away = False
                return told
        self._is_away = True
        return None

    def _told(self) -> tuple[int, News]:
        """Return how many commits there are, and what those were that were not heard of. Raises `psycopg.Error`."""
        self._is_new = self._reader is None
        if self._reader is None:
            self._reader = connect_reader(self._route.around, _LIMITS)
        reader, heard = self._reader, self.heard
        with reader.within(_LIMITS.read_s):
            if self._is_new:
                reader.ask_server()
            self.outdated = standing_of(reader).refusal(self._known)
            if self.outdated:
                # There is more than is heard, and nothing of it is for this node.
                return self.heard.number + 1, News(self.heard, {})
            # The number first: whatever it counts is seen by the questions behind it.
            [(commits,)] = reader.run("SELECT commits FROM journal").fetchall()
            found = list(map(Commit._make, reader.run(*heard.news).fetchall()))
            rows = read_changed(reader, heard.unheard(found))
        if self._is_new:
            self._route.note(reader.info.host, reader.info.port)
            self._arrived(reader.server)
        after = heard.after(commits, found)
        self._is_behind = after is None
        return commits, News(after or heard, rows, found)

    def _drop(self) -> None:
        if self._reader is not None:
            with suppress(psycopg.Error):
                self._reader.close()
            self._reader = None
