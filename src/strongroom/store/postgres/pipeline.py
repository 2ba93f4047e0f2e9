"""Pipelines: statements that are sent together, so that all of them cost one round trip.

Each is followed by a Sync, which the driver's own pipeline has only at its end, with a Flush behind it. The server
counts the time for which it waits within a transaction (`idle_in_transaction_session_timeout`) from a Sync on, and no
longer once anything else has come: a node that is paused while it sends must not hold the journal's lock for ever.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Generator, Sequence
from functools import lru_cache, partial
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


def run_together(connection: Connection, statements: Sequence[Statement]) -> list[Rows]:
    """Execute statements one after the other and return the rows of each, once all are answered.

    Raises `psycopg.Error` for the first that failed; within a transaction the server refuses all behind it, and makes
    a ROLLBACK of a COMMIT.
    """
    wire, commands = connection.pgconn, deque[Callable[[], None]]()
    fresh: dict[str, int] = {}
    places: list[int] = []
    for sql, values in statements:
        if values and sql not in connection.prepared and sql not in fresh:
            fresh[sql] = len(commands)
            commands.append(partial(_prepare, wire, sql))
        places.append(len(commands))
        commands.append(partial(_send, wire, sql, values))
    wire.enter_pipeline_mode()
    # Every command is answered by a result and its Sync.
    results = [result for (result,) in connection.wait(_exchange(wire, commands, 2 * len(commands)))][::2]
    wire.exit_pipeline_mode()
    connection.prepared.update(sql for sql, at in fresh.items() if results[at].status == ExecStatus.COMMAND_OK)
    for result in results:
        if result.status == ExecStatus.FATAL_ERROR:
            raise psycopg.errors.error_from_result(result, encoding="utf-8")
    return [_rows(connection, results[place]) for place in places]


def _exchange(
    wire: PGconn, commands: deque[Callable[[], None]], count: int
) -> Generator[Any, Any, list[list[PGresult]]]:
    """Send commands while their answers come in, and return the results of each."""
    results = yield from pipeline_communicate(wire, commands)
    while len(results) < count:
        results.append((yield from fetch_many(wire)))
    return results


def _prepare(wire: PGconn, sql: str) -> None:
    wire.send_prepare(_name(sql), _numbered(sql))
    wire.pipeline_sync()


def _send(wire: PGconn, sql: str, values: Sequence[Any]) -> None:
    """Write a statement and its Sync, so that they leave together."""
    if values:
        formats = [Format.BINARY if isinstance(value, bytes) else Format.TEXT for value in values]
        encoded = [value if isinstance(value, bytes) else str(value).encode() for value in values]
        wire.send_query_prepared(_name(sql), encoded, formats, Format.BINARY)
    else:
        wire.send_query_params(sql.encode(), None, result_format=Format.BINARY)
    wire.pipeline_sync()


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
