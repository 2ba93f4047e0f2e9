"""Leadership by advisory locks: each seat is a lock of a session that its node keeps awake.

A node that dies loses its session with its connection, and one that is paused is taken its session by the server: so
another has its seats within some seconds. It finds that out when it wakes, and stops its loops.
"""

from __future__ import annotations

import asyncio
from typing import Final
from zlib import crc32

from strongroom.engine.leadership import Seats, rest
from strongroom.engine.supervisor import Loop
from strongroom.store.postgres.connection import Connection, connect
from strongroom.store.postgres.schema import known_schema, standing_of
from strongroom.store.postgres.session import Session, limits_of

EVERY_S: Final = 0.5
AWAY_MS: Final = 2_500
"""A node that has not been heard of for so long loses its seats."""

_SEATS: Final = 0x53656174
"""The class of the advisory locks that are seats."""

_LIMITS: Final = limits_of(1.0)
_LOCK: Final = "SELECT pg_try_advisory_lock(%s::int, %s::int)"
_SIGN_BIT: Final = 1 << 31


class PostgresLeadership:
    """The seats of one node over a database (`engine.leadership.Leadership`)."""

    def __init__(self, conninfo: str) -> None:
        self._known = known_schema()
        self._seats = Seats()
        self._session = Session("leadership", lambda: connect(conninfo, _LIMITS, **_SETTINGS), _LIMITS.answer_s)
        self._held: frozenset[str] = frozenset()
        self._held_by: Connection | None = None

    @property
    def led(self) -> frozenset[str]:
        """The seats that this node has, as far as it knows."""
        return self._seats.held

    async def lead(self, seat: str, loop: Loop, standby: Loop = rest) -> None:
        """Run a loop whenever this node has the seat, and `standby` whenever it has not, until cancelled."""
        await self._seats.lead(seat, loop, standby)

    async def run(self) -> None:
        """Keep the session awake and ask for the seats that are not this node's, until cancelled.

        That is done from the event loop: a node that is too busy for it is too busy to lead.
        """
        try:
            while True:
                wanted = self._seats.wanted
                held = await self._session.ask(lambda session, wanted=wanted: self._ask(session, wanted))
                self._seats.hold(held or frozenset())
                await asyncio.sleep(EVERY_S)
        finally:
            self._seats.hold(frozenset())

    def close(self) -> None:
        """End the session, and with it all leadership."""
        self._session.close()

    def _ask(self, session: Connection, wanted: list[str]) -> frozenset[str]:
        """Return which of the seats are this node's now; what an earlier session had went with it."""
        if session is not self._held_by:
            self._held, self._held_by = frozenset(), session
        if standing_of(session).refusal(self._known):
            # What a newer release has brought is for nodes that know it to lead: the seats go with the session.
            session.close()
            return frozenset()
        for seat in wanted:
            if seat not in self._held:
                [(taken,)] = session.run(_LOCK, (_SEATS, _number(seat))).fetchall()
                self._held |= {seat} if taken else set()
        return self._held


_SETTINGS: Final = {
    "idle_session_timeout": str(AWAY_MS),
    # A machine that is gone, and not only its process, is noticed by the server's system.
    "tcp_keepalives_idle": "1",
    "tcp_keepalives_interval": "1",
    "tcp_keepalives_count": "2",
}


def _number(seat: str) -> int:
    """Return a seat's number as the database has them, with a sign. Two seats of one number go to the same node."""
    number = crc32(seat.encode())
    return number - 2 * _SIGN_BIT if number >= _SIGN_BIT else number
