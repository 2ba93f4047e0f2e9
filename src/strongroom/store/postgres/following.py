"""Following: hearing several times a second what other nodes have committed, on a connection of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from time import monotonic
from typing import Final

import psycopg

from strongroom.store.postgres.announcements import AT_ONCE, NEWS, News, heard_up_to, read_changed
from strongroom.store.postgres.connection import Connection, Limits, connect_reader
from strongroom.store.postgres.schema import known_schema, standing_of

EVERY_S: Final = 0.2
CURRENT_S: Final = 0.5
"""For so long what was heard is good enough to answer from memory."""

SILENT_S: Final = 3.0
"""A database that was not heard of for so long is in trouble."""

_LIMITS: Final = Limits(connect_s=2, read_s=1.0)


class Follower:
    """What this node has heard of the commits of all nodes: all up to number `heard`, as of a moment.

    `outdated` says why this node may not use the database any more, once a newer release has brought it further.
    `arrived` is called, in the follower's thread, with the server that a new connection leads to, once that answers.
    """

    def __init__(self, conninfo: str, heard: int, arrived: Callable[[str], None]) -> None:
        self.heard = heard
        self.outdated = ""
        self._known = known_schema()
        self._arrived = arrived
        self._conninfo = conninfo
        self._heard_s = monotonic()
        self._thread = ThreadPoolExecutor(1, "strongroom-follower")
        self._reader: Connection | None = None
        self._is_away = False

    @property
    def is_away(self) -> bool:
        """Whether the database does not answer at the moment, as far as is known: whoever asked would wait in vain."""
        return self._is_away

    @property
    def is_current(self) -> bool:
        """Whether everything that was committed up to half a second ago was heard."""
        return self.silent_s < CURRENT_S

    @property
    def silent_s(self) -> float:
        """How many seconds ago that was last known for certain."""
        return monotonic() - self._heard_s

    def note(self, heard: int, commits: int, asked_s: float) -> None:
        """Note that commits were heard of, of those that there were at a moment of the monotonic clock."""
        self.heard = max(self.heard, heard)
        if self.heard >= commits:
            self._heard_s = max(self._heard_s, asked_s)

    async def news(self) -> News | None:
        """Ask what was committed since; None while the database does not answer."""
        asked_s = monotonic()
        told = await asyncio.get_running_loop().run_in_executor(self._thread, self._ask)
        if told is None:
            return None
        commits, news = told
        self.note(news.heard, commits, asked_s)
        return news

    def close(self) -> None:
        """Close the connection."""
        self._thread.shutdown()
        self._drop()

    def _ask(self) -> tuple[int, News] | None:
        """Ask over the connection that there is; where that is lost, once more over a new one."""
        told = None if self._reader is None else self._told_by(self._reader)
        if told is None:
            self._drop()
            try:
                self._reader = connect_reader(self._conninfo, _LIMITS)
                with self._reader.within(_LIMITS.read_s):
                    self._reader.ask_server()
            except psycopg.Error:
                self._is_away = True
                return None
            told = self._told_by(self._reader)
            if told is not None:
                self._arrived(self._reader.server)
        self._is_away = told is None
        return told

    def _told_by(self, reader: Connection) -> tuple[int, News] | None:
        began_s = monotonic()
        try:
            with reader.within(_LIMITS.read_s):
                self.outdated = standing_of(reader).refusal(self._known)
                if self.outdated:
                    # There is more than is heard, and nothing of it is for this node.
                    return self.heard + 1, News(self.heard, {})
                # The number first: whatever it counts is seen by the questions behind it.
                [(commits,)] = reader.run("SELECT commits FROM journal").fetchall()
                found = reader.run(NEWS, (self.heard, AT_ONCE)).fetchall() if commits > self.heard else []
                rows = read_changed(reader, (changed for _, changed in found))
        except psycopg.Error:
            # A connection that is lost is replaced at once; where nothing comes, others need not wait to find out.
            self._is_away = self._is_away or monotonic() - began_s >= _LIMITS.read_s
            return None
        return commits, News(heard_up_to(commits, found), rows)

    def _drop(self) -> None:
        if self._reader is not None:
            with suppress(psycopg.Error):
                self._reader.close()
            self._reader = None
