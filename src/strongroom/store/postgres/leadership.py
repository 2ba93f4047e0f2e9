"""Leadership by advisory locks: each seat is a lock of a session that its node keeps awake.

A node that dies loses its session with its connection, and one that is paused is taken its session by the server: so
another has its seats within some seconds. It finds that out when it wakes, and stops its loops.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final
from zlib import crc32

import psycopg

from strongroom.engine.leadership import Seats, rest
from strongroom.engine.supervisor import Loop
from strongroom.store.postgres.connection import Connection, Limits, connect
from strongroom.store.postgres.schema import known_schema, standing_of

EVERY_S: Final = 0.5
AWAY_MS: Final = 2_500
"""A node that has not been heard of for so long loses its seats."""

_SEATS: Final = 0x53656174
"""The class of the advisory locks that are seats."""

_LIMITS: Final = Limits(connect_s=2, answer_s=1.0)
_LOCK: Final = "SELECT pg_try_advisory_lock(%s::int, %s::int)"
_SIGN_BIT: Final = 1 << 31


class PostgresLeadership:
    """The seats of one node over a database (`engine.leadership.Leadership`)."""

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo
        self._known = known_schema()
        self._seats = Seats()
        self._thread = ThreadPoolExecutor(1, "strongroom-leadership")
        self._session: Connection | None = None
        self._held: frozenset[str] = frozenset()

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
        running = asyncio.get_running_loop()
        try:
            while True:
                wanted = self._seats.wanted
                self._seats.hold(await running.run_in_executor(self._thread, self._ask, wanted))
                await asyncio.sleep(EVERY_S)
        finally:
            self._seats.hold(frozenset())

    def close(self) -> None:
        """End the session, and with it all leadership."""
        self._thread.shutdown()
        self._drop()

    def _ask(self, wanted: list[str]) -> frozenset[str]:
        """Return which of the seats are this node's now; none where the session cannot be kept."""
        try:
            if self._session is None or self._session.is_lost:
                self._drop()
                self._session = connect(self._conninfo, _LIMITS, **_SETTINGS)
            with self._session.within(_LIMITS.answer_s):
                if standing_of(self._session).refusal(self._known):
                    # What a newer release has brought is for nodes that know it to lead.
                    self._drop()
                    return self._held
                for seat in wanted:
                    if seat not in self._held:
                        [(taken,)] = self._session.run(_LOCK, (_SEATS, _number(seat))).fetchall()
                        self._held |= {seat} if taken else set()
        except psycopg.Error:
            self._drop()
        return self._held

    def _drop(self) -> None:
        self._held = frozenset()
        if self._session is not None:
            with suppress(psycopg.Error):
                self._session.close()
            self._session = None


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
