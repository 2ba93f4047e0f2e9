"""Following: hearing several times a second what other nodes have committed, on a connection of its own."""

from __future__ import annotations

from time import monotonic
from typing import Final

from strongroom.store.postgres.announcements import AT_ONCE, NEWS, News, heard_up_to, read_changed
from strongroom.store.postgres.connection import Connection, connect_reader
from strongroom.store.postgres.schema import known_schema, standing_of
from strongroom.store.postgres.session import Session, limits_of

EVERY_S: Final = 0.2
CURRENT_S: Final = 0.5
"""For so long what was heard is good enough to answer from memory."""

SILENT_S: Final = 3.0
"""A database that was not heard of for so long is in trouble."""

_LIMITS: Final = limits_of(1.0)


class Follower:
    """What this node has heard of the commits of all nodes: all up to number `heard`, as of a moment.

    `outdated` says why this node may not use the database any more, once a newer release has brought it further.
    """

    def __init__(self, conninfo: str, heard: int) -> None:
        self.heard = heard
        self.outdated = ""
        self._known = known_schema()
        self._heard_s = monotonic()
        self._session = Session("follower", lambda: connect_reader(conninfo, _LIMITS), _LIMITS.read_s)

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
        told = await self._session.ask(self._ask)
        if told is None:
            return None
        commits, news = told
        self.note(news.heard, commits, asked_s)
        return news

    def close(self) -> None:
        """Close the connection."""
        self._session.close()

    def _ask(self, reader: Connection) -> tuple[int, News] | None:
        self.outdated = standing_of(reader).refusal(self._known)
        if self.outdated:
            return None
        # The number first: whatever it counts is seen by the questions behind it.
        [(commits,)] = reader.run("SELECT commits FROM journal").fetchall()
        found = reader.run(NEWS, (self.heard, AT_ONCE)).fetchall() if commits > self.heard else []
        rows = read_changed(reader, (changed for _, changed in found))
        return commits, News(heard_up_to(commits, found), rows)
