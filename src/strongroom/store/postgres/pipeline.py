"""Pipelines: statements that are sent together, so that all of them cost one round trip.

Each is followed by a Sync, which the driver's own pipeline has only at its end, with a Flush behind it. The server
counts the time for which it waits within a transaction (`idle_in_transaction_session_timeout`) from a Sync on, and no
longer once anything else has come: a node that is paused while it sends must not hold the journal's lock for ever.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from functools import lru_cache
from hashlib import sha256
from typing import Any, Final, TypeAlias

import psycopg
from psycopg.adapt import Transformer
from psycopg.generators import fetch_many, pipeline_communicate
from psycopg.pq import ExecStatus, Format
from psycopg.pq.abc import PGconn, PGresult

from strongroom.store.postgres.connection import Connection
from strongroom.store.postgres.tables import Statement

_MARK: Final = re.compile("%s")
_NAME_DIGITS: Final = 32

Rows: TypeAlias = list[tuple[Any, ...]]


def run_together(connection: Connection, statements: Iterable[Statement]) -> list[Rows]:
    """Execute statements one after the other and return the rows of each, once all are answered.

    Each is sent as soon as it is there, so that the server works on it while the next is being made. Raises
    `psycopg.Error` for the first that failed; within a transaction the server refuses all behind it, and makes a
    ROLLBACK of a COMMIT. Raises what `statements` raises; the connection, and with it the transaction, is ended then.
    """
    wire, sending = connection.pgconn, _Sending(connection, iter(statements))
    wire.enter_pipeline_mode()
    try:
        results = connection.wait(_exchange(wire, sending))
    except BaseException:
        # What was sent cannot be taken back, and its answers would be taken for those to something else.
        connection.close()
        raise
    wire.exit_pipeline_mode()
    connection.prepared.update(sql for sql, at in sending.fresh.items() if results[at].status == ExecStatus.COMMAND_OK)
    for result in results:
        if result.status == ExecStatus.FATAL_ERROR:
            raise psycopg.errors.error_from_result(result, encoding="utf-8")
    return [_rows(connection, results[place]) for place in sending.places]


class _Sending:
    """Statements on their way: where among all results the answer to each will be, and to each that is prepared."""

    def __init__(self, connection: Connection, statements: Iterator[Statement]) -> None:
        self.places: list[int] = []
        self.fresh: dict[str, int] = {}
        self.count = 0
        self._wire = connection.pgconn
        self._prepared = connection.prepared
        self._statements = statements

    def send_next(self) -> bool:
        """Send the next statement, prepared before where it must be; say whether there was one."""
        statement = next(self._statements, None)
        if statement is None:
            return False
        sql, values = statement
        if values and sql not in self._prepared and sql not in self.fresh:
            self.fresh[sql] = self.count
            self._wire.send_prepare(_name(sql), _numbered(sql))
            self._sync()
        self.places.append(self.count)
        _send(self._wire, sql, values)
        self._sync()
        return True

    def _sync(self) -> None:
        self._wire.pipeline_sync()
        self.count += 1


def _exchange(wire: PGconn, sending: _Sending) -> Generator[Any, Any, list[PGresult]]:
    """Send statements while their answers come in, and return the result of each; each is followed by its Sync's."""
    commands = deque[Callable[[], None]]()

    def go_on() -> None:
        if sending.send_next():
            commands.append(go_on)

    commands.append(go_on)
    results = yield from pipeline_communicate(wire, commands)
    while len(results) < 2 * sending.count:
        results.append((yield from fetch_many(wire)))
    return [result for (result,) in results][::2]


def _send(wire: PGconn, sql: str, values: Sequence[Any]) -> None:
    """Write a statement; it leaves with its Sync."""
    if values:
        formats = [Format.BINARY if isinstance(value, bytes) else Format.TEXT for value in values]
        encoded = [value if isinstance(value, bytes) else str(value).encode() for value in values]
        wire.send_query_prepared(_name(sql), encoded, formats, Format.BINARY)
    else:
        wire.send_query_params(sql.encode(), None, result_format=Format.BINARY)


def _rows(connection: Connection, result: PGresult) -> Rows:
    if result.status != ExecStatus.TUPLES_OK:
        return []
    transformer = Transformer(connection)
    transformer.set_pgresult(result)
    return transformer.load_rows(0, result.ntuples, tuple)


@lru_cache(maxsize=256)
def _numbered(sql: str) -> bytes:
    """Return a statement with the server's own marks for its values."""
    parts = _MARK.split(sql)
    return "".join(part + (f"${place}" if place < len(parts) else "") for place, part in enumerate(parts, 1)).encode()


@lru_cache(maxsize=256)
def _name(sql: str) -> bytes:
    """Return the name that a statement is prepared under."""
    return sha256(sql.encode()).hexdigest()[:_NAME_DIGITS].encode()
