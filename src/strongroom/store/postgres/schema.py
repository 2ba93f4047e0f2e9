"""The schema: numbered migrations, and which releases may use a database while another one has brought it further.

A migration that leaves older releases working says so in its first line, `-- compatible from N`: releases that know N
migrations or more may go on. That is for new tables, new indices, and new columns with a default, where rows are right
even if a node that does not know them has written them. Without such a line none may but those that know it.
"""

from __future__ import annotations

import re
from contextlib import closing
from importlib import resources
from typing import Final, NamedTuple

from strongroom.engine.port import StoreError
from strongroom.store.postgres.connection import Connection, Limits, check_server, connect

STANDING: Final = "SELECT coalesce(max(number), 0), coalesce(max(compatible_from), 0) FROM migration"
"""Asks how far a database was brought, and which schema a release must know at least to use it."""

_TURN: Final = 0x5374726F6E67
"""The number of the advisory lock under which one node at a time brings the schema up to date."""

_LOCK_TIMEOUT: Final = "SET LOCAL lock_timeout = '5s'"
"""Whoever waits for a table in which others read makes everybody behind it wait too."""

_TABLE: Final = "CREATE TABLE IF NOT EXISTS migration (number BIGINT PRIMARY KEY, compatible_from BIGINT NOT NULL)"
_COMPATIBLE: Final = re.compile(r"-- compatible from (\d+)\n")


class DatabaseNewer(StoreError):
    """The database was brought further by a newer release, which this one is not compatible with."""


class Migration(NamedTuple):
    """One step: its SQL, and the number of the migration that a release must know at least to work behind it."""

    sql: str
    compatible_from: int


class Standing(NamedTuple):
    """How far a database was brought, and which migration a release must know at least to use it."""

    version: int
    compatible_from: int

    def refusal(self, known: int) -> str:
        """Return why a release that knows so many migrations may not use the database; empty where it may."""
        if known >= self.compatible_from:
            return ""
        needed = f"and only one that knows {self.compatible_from} may use it: upgrade this node"
        return f"the database has schema {self.version}, this release knows {known}, {needed}"


def migrations() -> list[Migration]:
    """Return every migration, in the order of their numbers, which start at 1 and have no gap."""
    folder = resources.files("strongroom.store.postgres") / "migrations"
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    return [_read((folder / name).read_text(), number) for number, name in enumerate(names, 1)]


def _read(sql: str, number: int) -> Migration:
    said = _COMPATIBLE.match(sql)
    return Migration(sql, int(said[1]) if said else number)


def known_schema() -> int:
    """Return how many migrations this release knows."""
    return len(migrations())


def standing_of(connection: Connection) -> Standing:
    """Ask how far a database was brought. Raises `psycopg.Error`."""
    [found] = connection.run(STANDING).fetchall()
    return Standing(*found)


def prepare_database(conninfo: str, limits: Limits) -> None:
    """Check the server and apply the migrations that the database has not seen, all of them or none.

    Raises `DatabaseUnfit`, `DatabaseNewer`, `psycopg.Error`.
    """
    with closing(connect(conninfo, limits)) as connection, connection.within(limits.answer_s):
        check_server(connection)
        connection.run("BEGIN")
        take_turn(connection)
        bring_up_to_date(connection)
        connection.run("COMMIT")


def take_turn(connection: Connection) -> None:
    """Wait until nobody else changes the schema, and let nobody until the transaction ends. Raises `psycopg.Error`."""
    connection.run("SELECT pg_advisory_xact_lock(%s)", (_TURN,))


def bring_up_to_date(connection: Connection) -> None:
    """Apply the migrations that the database has not seen; whoever calls it has the turn.

    No batch of a node that runs is in its middle meanwhile: each finds out under the lock of its next one what came.
    Raises `DatabaseNewer`, `psycopg.Error`.
    """
    connection.run(_TABLE)
    standing, scripts = standing_of(connection), migrations()
    if refusal := standing.refusal(len(scripts)):
        raise DatabaseNewer(refusal)
    if 0 < standing.version < len(scripts):
        connection.run(_LOCK_TIMEOUT)
        connection.run("SELECT 1 FROM journal FOR UPDATE")
    for number, script in enumerate(scripts[standing.version :], standing.version + 1):
        # Without values, so that a script may have many statements.
        connection.execute(script.sql.encode())
        connection.run("INSERT INTO migration VALUES (%s, %s)", (number, script.compatible_from))
