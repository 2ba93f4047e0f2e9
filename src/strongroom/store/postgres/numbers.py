"""Numbers: each running node has one, so that no two nodes make the same order references.

A number is an advisory lock that all sessions of a node that commit share, so that it is free as soon as the last of
them is gone. A session that was lost shares it again; whether another node had the number meanwhile, because all were
lost at once, is told by who holds it in the table.
"""

from __future__ import annotations

from threading import Lock
from typing import Final

from strongroom.clock import MAX_NODES, Ids
from strongroom.engine.port import DiskFailed
from strongroom.store.postgres.connection import Connection, DatabaseUnfit

_NUMBERS: Final = 0x5374726F
"""The class of the advisory locks that are nodes' numbers."""

_TAKE: Final = "SELECT pg_try_advisory_lock(%s::int, %s::int)"
_LET_GO: Final = "SELECT pg_advisory_unlock(%s::int, %s::int)"
_SHARE: Final = "SELECT pg_try_advisory_lock_shared(%s::int, %s::int)"
_LEAVE: Final = "SELECT pg_advisory_unlock_shared(%s::int, %s::int)"
COUNT: Final = (
    "SELECT count(DISTINCT objid) FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 2"
    f" AND classid = {_NUMBERS} AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)
"""Counts the numbers that are taken."""

_HOLDER: Final = "SELECT holder::text FROM node WHERE number = %s"
_HOLD: Final = "INSERT INTO node VALUES (%s, %s) ON CONFLICT (number) DO UPDATE SET holder = EXCLUDED.holder"


class NodeNumber:
    """The number of this node, for every session of it that commits; for any thread."""

    def __init__(self, ids: Ids) -> None:
        self._ids = ids
        self._holder = ids.uuid()
        self._number: int | None = None
        self._lock = Lock()

    def hold(self, writer: Connection) -> None:
        """Have a session hold the number, for as long as it lasts, and references be made with it.

        Raises `DiskFailed` where another node had it meanwhile, so that references that were made until now may be that
        node's too; `DatabaseUnfit` where no number is left; `psycopg.Error`.
        """
        with self._lock:
            before = self._number
            if before is not None and self._shares(writer, before):
                return
            number = _take_one(writer, self._holder)
            [(last_ms,)] = writer.run("SELECT last_ms FROM journal").fetchall()
            self._ids.number_node(number, last_ms)
            self._number = number
        if before is not None:
            raise DiskFailed("another node had the number of this one: what waited is to be asked for again")

    def _shares(self, writer: Connection, number: int) -> bool:
        """Share a number that was this node's, if it still is."""
        [(shared,)] = writer.run(_SHARE, (_NUMBERS, number))
        if shared and writer.run(_HOLDER, (number,)).fetchall() != [(self._holder,)]:
            writer.run(_LEAVE, (_NUMBERS, number))
            return False
        return bool(shared)


def _take_one(writer: Connection, holder: str) -> int:
    """Take a number that no session has, and let the holder's other sessions share it. Raises `DatabaseUnfit`."""
    for number in range(MAX_NODES):
        [(taken,)] = writer.run(_TAKE, (_NUMBERS, number))
        if taken:
            writer.run(_HOLD, (number, holder))
            writer.run(_SHARE, (_NUMBERS, number))
            writer.run(_LET_GO, (_NUMBERS, number))
            return number
    raise DatabaseUnfit(f"{MAX_NODES} nodes have this database open, and no more can")
