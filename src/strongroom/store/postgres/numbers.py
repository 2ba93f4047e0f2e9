"""Numbers: each running node has one, so that no two nodes make the same order references.

A number is an advisory lock of the session that commits, so that it is free as soon as its node is gone. A node whose
session was lost takes its number again; whether another node had it meanwhile is told by who holds it in the table.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from strongroom.clock import MAX_NODES
from strongroom.store.postgres.connection import Connection, DatabaseUnfit

_NUMBERS: Final = 0x5374726F
"""The class of the advisory locks that are nodes' numbers."""

_LOCK: Final = "SELECT pg_try_advisory_lock(%s::int, %s::int)"
COUNT: Final = (
    "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 2"
    f" AND classid = {_NUMBERS} AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)
"""Counts the numbers that are taken."""

_HOLD: Final = "INSERT INTO node VALUES (%s, %s) ON CONFLICT (number) DO UPDATE SET holder = EXCLUDED.holder"


class Claim(NamedTuple):
    """A node's number; `kept` says that it is the one from before, and that nobody else had it meanwhile."""

    number: int
    kept: bool


def claim_number(writer: Connection, holder: str, before: int | None) -> Claim:
    """Take a number for as long as the session lasts: the one from before, if that is free.

    `holder` is a UUID of this process. Raises `DatabaseUnfit` where no number is left, `psycopg.Error`.
    """
    numbers = [] if before is None else [before]
    numbers += [number for number in range(MAX_NODES) if number != before]
    for number in numbers:
        [(taken,)] = writer.run(_LOCK, (_NUMBERS, number))
        if taken:
            held = writer.run("SELECT holder::text FROM node WHERE number = %s", (number,)).fetchall()
            if held == [(holder,)]:
                return Claim(number, True)
            writer.run(_HOLD, (number, holder))
            return Claim(number, False)
    raise DatabaseUnfit(f"{MAX_NODES} nodes have this database open, and no more can")
