"""Connections to the one database file, and the numbered migrations that bring it up to date."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import IO, Any, Final

import apsw

from strongroom.engine.port import StoreError
from strongroom.files import claim

DATABASE_FILE: Final = "strongroom.sqlite"
LOCK_FILE: Final = "lock"
_CACHE_KIB: Final = 65_536
BUSY_TIMEOUT_MS: Final = 5_000
"""How long another program's write is waited for, where waiting holds nobody up."""

_STATEMENTS: Final = 1_000
"""Prepared statements that are kept: an insertion is prepared for every number of rows that occurs."""


class DataFolderBusy(StoreError):
    """Another server has this data folder open."""


class DataFolderNewer(StoreError):
    """The data folder was written by a newer release; there is no way back."""


def lock_folder(folder: Path) -> IO[str]:
    """Return the folder's lock, held until it is closed or the process ends. Raises `DataFolderBusy`."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    claim(folder / LOCK_FILE)
    lock = (folder / LOCK_FILE).open("a+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        holder = lock.read().strip() or "unknown"
        lock.close()
        raise DataFolderBusy(f"the data folder {folder} is in use by process {holder}") from None
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return lock


def open_writer(folder: Path, vfs: str | None = None) -> apsw.Connection:
    """Return the writing connection: WAL, every commit synced to disk, migrated to the newest schema.

    `vfs` names how SQLite reaches its files where that is not the usual way: tests put faults in between.
    """
    claim(folder / DATABASE_FILE)
    connection = _connect(folder, vfs=vfs, statementcachesize=_STATEMENTS)
    connection.set_busy_timeout(BUSY_TIMEOUT_MS)
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "wal_autocheckpoint=0"):
        run(connection, f"PRAGMA {pragma}")
    run(connection, f"PRAGMA cache_size=-{_CACHE_KIB}")
    migrate(connection)
    return connection


def open_beside(folder: Path, vfs: str | None = None) -> apsw.Connection:
    """Return a connection for another thread that may write: it copies the log into the database."""
    connection = _connect(folder, vfs=vfs)
    run(connection, "PRAGMA wal_autocheckpoint=0")
    return connection


def open_reader(folder: Path) -> apsw.Connection:
    """Return a read-only connection; it sees what is committed, and never waits for the writer."""
    connection = _connect(folder, flags=apsw.SQLITE_OPEN_READONLY)
    connection.set_busy_timeout(BUSY_TIMEOUT_MS)
    run(connection, f"PRAGMA cache_size=-{_CACHE_KIB}")
    return connection


def _connect(folder: Path, **options: Any) -> apsw.Connection:
    """Return a connection that prepares a statement once.

    Without the planner's stability guarantee one with a bound LIMIT, or on a partial index, is prepared anew at every
    execution, since its plan could depend on the values: 20 us instead of 4.
    """
    connection = apsw.Connection(str(folder / DATABASE_FILE), **options)
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
    return connection


def begin(connection: apsw.Connection, *, waiting: bool = False) -> None:
    """Begin to write; another program that writes is waited for some seconds or not at all. Raises `apsw.BusyError`."""
    connection.set_busy_timeout(BUSY_TIMEOUT_MS if waiting else 0)
    _ = run(connection, "BEGIN IMMEDIATE")


def run(connection: apsw.Connection, sql: str, values: Sequence[Any] = ()) -> Any:
    """Execute SQL and return its cursor; the one place that talks to a connection."""
    return connection.execute(sql, values)  # pyright: ignore[reportUnknownMemberType]


def migrations() -> list[str]:
    """Return the SQL of every migration, in the order of their numbers, which start at 1 and have no gap."""
    folder = resources.files("strongroom.store.sqlite") / "migrations"
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    return [(folder / name).read_text() for name in names]


def migrate(connection: apsw.Connection) -> None:
    """Apply the migrations that the database has not seen, each in a transaction of its own."""
    (version,) = run(connection, "PRAGMA user_version").fetchone()
    scripts = migrations()
    if version > len(scripts):
        raise DataFolderNewer(f"the database has schema {version}, this release knows {len(scripts)}")
    for number, script in enumerate(scripts[version:], version + 1):
        with connection:
            run(connection, script)
            run(connection, f"PRAGMA user_version={number}")
