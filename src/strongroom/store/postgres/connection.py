"""Connections to the database, each with a limit on everything it waits for."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from time import monotonic
from typing import Any, Final, NamedTuple, TypeVar

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import TupleRow

from strongroom.engine.port import StoreError
from strongroom.store.postgres.driving import drive

RECONNECT_S: Final = 2
"""A server of those in `conninfo` that does not answer holds a new connection up for so long; libpq knows no less."""

OLDEST_VERSION: Final = 150_000
_BOUNDS_TRANSACTIONS: Final = 170_000
"""From this version on the server ends a transaction that takes too long in whatever state it is."""

_BY_KEY: Final = {"jit": "off", "enable_seqscan": "off", "enable_hashjoin": "off", "enable_mergejoin": "off"}
"""All statements look rows up by their keys. Without statistics, as in a new database, the planner would rather read
whole tables, which are small at that moment, and keep to it while they grow."""

_SERVER: Final = "SELECT pg_postmaster_start_time()::text"

Answer = TypeVar("Answer")


class Limits(NamedTuple):
    """How long what may be waited for: seconds for whoever waits here, milliseconds for the server.

    `idle_ms` bounds how long a node that was paused in its batch holds up the others, who wait `lock_ms` for the lock.
    """

    connect_s: int = 5
    answer_s: float = 30.0
    read_s: float = 5.0
    idle_ms: int = 5_000
    lock_ms: int = 20_000


class DatabaseUnfit(StoreError):
    """The server is too old, does not keep what it reports as kept, or has another encoding than UTF-8."""


class Connection(psycopg.Connection[TupleRow]):
    """A connection on which nothing is waited for longer than `within` says; after that it is closed.

    It commits nothing by itself: who wants a transaction says BEGIN.
    """

    until_s: float = 0.0
    """The moment of the monotonic clock up to which is waited."""

    warned: str = ""
    """What the server warned of last."""

    prepared: set[str]
    """The statements that the server has a plan of."""

    server: str = ""
    """Which server is at the other end, by the moment of its start; only where that was asked."""

    @contextmanager
    def within(self, limit_s: float) -> Generator[None]:
        """Bound all that is waited for in the block, together."""
        self.until_s = monotonic() + limit_s
        yield

    def wait(self, gen: Generator[Any, Any, Answer], interval: float = 0.1, timeout: float | None = None) -> Answer:
        """Wait for the server as long as there is time. Raises `psycopg.OperationalError` when there is none."""
        with self._ended_with_its_time():
            return super().wait(gen, interval, max(0.0, self.until_s - monotonic()))

    async def wait_in_loop(self, gen: Generator[Any, Any, Answer]) -> Answer:
        """Wait as `wait` does, in the event loop."""
        with self._ended_with_its_time():
            return await drive(gen, self.fileno(), max(0.0, self.until_s - monotonic()))

    @contextmanager
    def _ended_with_its_time(self) -> Generator[None]:
        try:
            yield
        except psycopg.OperationalError:
            # Out of time: what the server will say yet would be taken for the answer to something else.
            if monotonic() >= self.until_s:
                self.close()
            raise

    def run(self, sql: str, values: Sequence[Any] = ()) -> psycopg.Cursor[TupleRow]:
        """Execute SQL and return its cursor; the one place that talks to a connection.

        What has no values has no plan that would be worth keeping at the server.
        """
        return self.execute(sql.encode(), values or None, prepare=None if values else False, binary=True)

    def ask_server(self) -> None:
        """Find out which server is at the other end. Raises `psycopg.Error`."""
        [(self.server,)] = self.run(_SERVER)

    @property
    def is_lost(self) -> bool:
        """Whether there is no server at the other end any more, as far as is known."""
        return self.closed or self.info.transaction_status == psycopg.pq.TransactionStatus.UNKNOWN


def connect(conninfo: str, limits: Limits, **settings: str) -> Connection:
    """Return a new connection with these settings of its session. Raises `psycopg.Error`."""
    options = [str(conninfo_to_dict(conninfo).get("options") or "")]
    options += [f"-c {name}={value}" for name, value in (_BY_KEY | settings).items()]
    connection = Connection.connect(
        conninfo,
        autocommit=True,
        prepare_threshold=2,
        connect_timeout=limits.connect_s,
        application_name="strongroom",
        client_encoding="UTF8",
        keepalives_idle=5,
        keepalives_interval=2,
        keepalives_count=3,
        options=" ".join(options).strip(),
    )
    connection.prepared = set()
    connection.add_notice_handler(lambda notice: setattr(connection, "warned", notice.message_primary or ""))
    return connection


def connect_writer(conninfo: str, limits: Limits) -> Connection:
    """Return a connection for commits, each of which is durable when it is answered. Raises `psycopg.Error`."""
    connection = connect(
        conninfo,
        limits,
        idle_in_transaction_session_timeout=str(limits.idle_ms),
        lock_timeout=str(limits.lock_ms),
        plan_cache_mode="force_generic_plan",
        client_connection_check_interval="1000",
        # A node whose machine is gone, and not only its process, is noticed by the server's system.
        tcp_keepalives_idle="5",
        tcp_keepalives_interval="2",
        tcp_keepalives_count="3",
    )
    # At a ROLLBACK the driver drops what it has prepared, and with it what `pipeline` has.
    connection.prepare_threshold = None
    with connection.within(limits.answer_s):
        if connection.info.server_version >= _BOUNDS_TRANSACTIONS:
            connection.run("SELECT set_config('transaction_timeout', %s, false)", (str(limits.lock_ms),))
        _commit_durably(connection)
    return connection


def connect_carrier(conninfo: str, limits: Limits) -> Connection:
    """Return a connection for one long transaction, which is durable when it is answered. Raises `psycopg.Error`."""
    connection = connect(
        conninfo,
        limits,
        lock_timeout=str(limits.lock_ms),
        statement_timeout="0",
        idle_in_transaction_session_timeout="0",
        # What is left of a carrier that was killed ends soon, and with it all that it did.
        client_connection_check_interval="1000",
        tcp_keepalives_idle="5",
        tcp_keepalives_interval="2",
        tcp_keepalives_count="3",
    )
    with connection.within(limits.answer_s):
        if connection.info.server_version >= _BOUNDS_TRANSACTIONS:
            connection.run("SELECT set_config('transaction_timeout', '0', false)")
        _commit_durably(connection)
    return connection


def _commit_durably(connection: Connection) -> None:
    mode = "current_setting('synchronous_commit') NOT IN ('on', 'remote_apply')"
    connection.run(f"SELECT set_config('synchronous_commit', 'on', false) WHERE {mode}")


def connect_reader(conninfo: str, limits: Limits) -> Connection:
    """Return a connection that changes nothing. Raises `psycopg.Error`."""
    connection = connect(conninfo, limits, statement_timeout=str(int(limits.read_s * 1000)))
    try:
        with connection.within(limits.read_s):
            # Not before: `target_session_attrs=read-write` finds the server that writes by this very setting.
            connection.run("SET default_transaction_read_only = on")
    except BaseException:
        connection.close()
        raise
    return connection


def check_server(connection: Connection) -> None:
    """Raise `DatabaseUnfit` unless the server is new enough, and keeps what it says is kept."""
    if connection.info.server_version < OLDEST_VERSION:
        raise DatabaseUnfit(f"PostgreSQL {OLDEST_VERSION // 10_000} or newer is needed")
    for name, wanted in (("server_encoding", "UTF8"), ("fsync", "on"), ("full_page_writes", "on")):
        [(found,)] = connection.run("SELECT current_setting(%s)", (name,))
        if found != wanted:
            raise DatabaseUnfit(f"the database has {name} {found}, and must have {wanted}")
