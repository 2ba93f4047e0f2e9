"""A PostgreSQL of the tests' own: Debian's programs; a data folder, a socket and a port of its own; an ordinary user.

One server for each process of tests is started when the first test asks for a database, and stopped with the run. It
syncs its files like an operator's. Each folder of a test has a database of its own, which is empty: a new one, or one
that an earlier test has left, emptied, because a new one costs its 7 MB of disk.
"""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import ClassVar, Final

import psycopg
import pytest

from strongroom.store.postgres.connection import Limits
from strongroom.store.postgres.schema import prepare_database
from strongroom.store.postgres.tables import TABLES
from support.nodes import free_port

WAIT_S: Final = 60.0
POLL_S: Final = 0.02
TEMPLATE: Final = "strongroom_template"
_TABLES: Final = tuple(table.quoted for table in TABLES.values())
_EMPTY_JOURNAL: Final = "UPDATE journal SET commits = 0, last_item = 0, last_ms = 0, peaks = '', forced = 0"
_INITDB: Final = (
    "initdb",
    "--auth=trust",
    "--username=postgres",
    "--encoding=UTF8",
    "--no-locale",
    "--no-instructions",
)
SETTINGS: Final = {
    "listen_addresses": "127.0.0.1",
    "max_connections": "60",
    "shared_buffers": "32MB",
    "autovacuum_naptime": "60s",
    "log_min_messages": "warning",
}


def programs() -> Path:
    """Return the folder of the newest PostgreSQL's programs, or the one named by POSTGRES_PROGRAMS, another version's.

    Fails the test where there is none.
    """
    if named := os.environ.get("POSTGRES_PROGRAMS"):
        return Path(named)
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[4]))
    if not found:
        pytest.fail("there is no PostgreSQL: install Debian's package 'postgresql', or run 'make dev' as root")
    return found[-1].parent


class PostgresServer:
    """A cluster in a new folder; `port` is that of loopback and of its socket."""

    def __init__(self, of: PostgresServer | None = None, **settings: str) -> None:
        """Make it new, or `of` another one: its standby, which follows it."""
        self.folder = Path(tempfile.mkdtemp(prefix="strongroom-postgres-"))
        self.port = free_port()
        self._settings = SETTINGS | settings
        self._process: subprocess.Popen[bytes] | None = None
        self._names = itertools.count(1)
        if os.getuid() == 0:
            user = pwd.getpwnam("postgres")
            os.chown(self.folder, user.pw_uid, user.pw_gid)
        initialise = [*_INITDB] if of is None else ["pg_basebackup", "--write-recovery-conf", "-d", of.dsn("postgres")]
        command = [*ordinary(), str(programs() / initialise[0]), *initialise[1:], "--pgdata", str(self.folder / "data")]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd="/")
        self.start()

    def dsn(self, database: str, port: int = 0) -> str:
        """Return how libpq finds a database by the socket, or through a port of loopback."""
        host = "127.0.0.1" if port else str(self.folder)
        return f"host={host} port={port or self.port} user=postgres dbname={database}"

    def start(self) -> None:
        """Start the server and return once it answers."""
        options = [f"--{name}={value}" for name, value in self._settings.items()]
        command = [str(programs() / "postgres"), "-D", str(self.folder / "data"), "-k", str(self.folder)]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*ordinary(), *command, f"--port={self.port}", *options], stdout=log, stderr=log, cwd="/"
            )
        deadline_s = time.monotonic() + WAIT_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline_s:
                pytest.fail(f"PostgreSQL does not start: {(self.folder / 'log').read_text()[-2000:]}")
            time.sleep(POLL_S)

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.dsn("postgres"), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def kill(self) -> None:
        """Kill the server with all its processes at once, as a loss of power would for whoever is connected."""
        assert self._process is not None
        pid = self._process.pid
        os.kill(pid, signal.SIGSTOP)
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for child in (*map(int, children), pid):
            os.kill(child, signal.SIGKILL)
        self._process.wait(WAIT_S)
        # Nobody can start on these data while one of them still holds the memory that they share.
        deadline_s = time.monotonic() + WAIT_S
        while any(Path(f"/proc/{child}").exists() for child in children) and time.monotonic() < deadline_s:
            time.sleep(POLL_S)

    def stop(self) -> None:
        """Stop the server, whoever is connected, and remove its folder."""
        if self._process is not None and self._process.poll() is None:
            # Without a checkpoint: nobody will look at the data again.
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(WAIT_S)
        shutil.rmtree(self.folder)

    def run(self, sql: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """Execute SQL and return its rows."""
        with closing(psycopg.connect(self.dsn(database), autocommit=True)) as connection:
            cursor = connection.execute(sql.encode())
            return cursor.fetchall() if cursor.description else []

    def new_database(self) -> str:
        """Return the name of a new database, migrated and otherwise empty."""
        number = next(self._names)
        if number == 1:
            self.run(f"CREATE DATABASE {TEMPLATE}")
            prepare_database(self.dsn(TEMPLATE), Limits())
        self.run(f"CREATE DATABASE test_{number} TEMPLATE {TEMPLATE}")
        return f"test_{number}"

    def empty(self, database: str) -> None:
        """Make a database as it was when it was new, whoever may still be connected to it."""
        self._cut(database)
        emptied = "".join(f"DELETE FROM {table};" for table in ("item", "batch", "folio", "block", *_TABLES))
        # A replica's role fires no triggers, so that even what is append-only can go.
        self.run(f"BEGIN; SET LOCAL session_replication_role = replica; {emptied} {_EMPTY_JOURNAL}; COMMIT", database)

    def _cut(self, database: str) -> None:
        self.run(f"SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = '{database}'")

    def copied(self, database: str) -> str:
        """Return the name of a new copy of a database, whose connections are all cut for it."""
        self._cut(database)
        name = f"test_{next(self._names)}"
        self.run(f"CREATE DATABASE {name} TEMPLATE {database}")
        return name


class _Shared:
    server: PostgresServer | None = None
    databases: ClassVar[dict[Path, str]] = {}
    left: ClassVar[list[str]] = []


def shared_server() -> PostgresServer:
    """Return the server that this process of tests shares."""
    if _Shared.server is None:
        _Shared.server = PostgresServer()
    return _Shared.server


def database_of(folder: Path) -> str:
    """Return how the database that belongs to a folder is found; made when it is first asked for."""
    server = shared_server()
    if folder not in _Shared.databases:
        _Shared.databases[folder] = _emptied(server, _Shared.left.pop()) if _Shared.left else server.new_database()
    return server.dsn(_Shared.databases[folder])


def database_through(folder: Path, port: int) -> str:
    """Return how the database of a folder is found through a port of loopback that leads to the server's."""
    _ = database_of(folder)
    return shared_server().dsn(_Shared.databases[folder], port)


def leave_databases() -> None:
    """Let other tests have the databases that a test has asked for: it is over."""
    _Shared.left += _Shared.databases.values()
    _Shared.databases.clear()


def _emptied(server: PostgresServer, database: str) -> str:
    server.empty(database)
    return database


def copy_database(folder: Path, target: Path) -> None:
    """Copy the database of a folder as it is now: the copy is that of the target folder."""
    _Shared.databases[target] = shared_server().copied(_Shared.databases[folder])


def stop_shared_server() -> None:
    """Stop the shared server, if one was started."""
    if _Shared.server is not None:
        _Shared.server.stop()
        _Shared.server = None


def ordinary(at_our_end: signal.Signals = signal.SIGQUIT) -> list[str]:
    """Return what makes a program run as an ordinary user, when we are root, and be told of our end in any case."""
    user = ["--reuid", "postgres", "--regid", "postgres", "--init-groups"] if os.getuid() == 0 else []
    return ["setpriv", *user, "--pdeathsig", at_our_end.name.removeprefix("SIG")]
