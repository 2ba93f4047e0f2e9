"""Pipelines: statements that are sent together, so that all of them cost one round trip.

Whatever leaves ends with a Sync, which the driver's own pipeline has only at its end, with a Flush behind it. The
server counts the time for which it waits within a transaction (`idle_in_transaction_session_timeout`) from a Sync on,
and no longer once anything else has come: a node that is paused while it sends must not hold the journal's lock for
ever.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
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
_AT_ONCE_BYTES: Final = 4_096
"""About so much leaves together: each packet is work for both sides. It must be well below the 8 KiB from which on the
library sends what there is by itself, without a Sync."""

_FRAME_BYTES: Final = 128
"""What the messages of a statement have round its text or its values, at most."""

Rows: TypeAlias = list[tuple[Any, ...]]


def run_together(connection: Connection, statements: Iterable[Statement]) -> list[Rows]:
    """Execute statements one after the other and return the rows of each, once all are answered.

    They are sent as they come, a few kilobytes at a time: the server works on them while the next are being made.
    Raises `psycopg.Error` for the first that failed; within a transaction the server refuses all behind it, and makes a
    ROLLBACK of a COMMIT. Raises what `statements` raises; the connection, and with it the transaction, is ended then.
    """
    with _pipeline(connection, statements) as sending:
        results = connection.wait(_exchange(connection.pgconn, sending))
    return _answers(connection, sending, results)


async def run_together_in_loop(connection: Connection, statements: Iterable[Statement]) -> list[Rows]:
    """Do what `run_together` does, waiting in the event loop."""
    with _pipeline(connection, statements) as sending:
        results = await connection.wait_in_loop(_exchange(connection.pgconn, sending))
    return _answers(connection, sending, results)


@contextmanager
def _pipeline(connection: Connection, statements: Iterable[Statement]) -> Generator[_Sending]:
    connection.pgconn.enter_pipeline_mode()
    try:
        yield _Sending(connection, iter(statements))
    except BaseException:
        # What was sent cannot be taken back, and its answers would be taken for those to something else.
        connection.close()
        raise
    connection.pgconn.exit_pipeline_mode()


def _answers(connection: Connection, sending: _Sending, results: Sequence[PGresult]) -> list[Rows]:
    """Return the rows of each statement; raises `psycopg.Error` for the first that failed."""
    connection.prepared.update(sql for sql, at in sending.fresh.items() if results[at].status == ExecStatus.COMMAND_OK)
    for result in results:
        if result.status == ExecStatus.FATAL_ERROR:
            raise psycopg.errors.error_from_result(result, encoding="utf-8")
    return [_rows(connection, results[place]) for place in sending.places]


class _Sending:
    """Statements on their way: where among all results the answer to each will be, and to each that is prepared.

    `count` is the number of results that are to come so far, those of the Syncs included.
    """

    def __init__(self, connection: Connection, statements: Iterator[Statement]) -> None:
        self.places: list[int] = []
        self.fresh: dict[str, int] = {}
        self.count = 0
        self._wire = connection.pgconn
        self._prepared = connection.prepared
        self._statements = statements

    def send_some(self) -> bool:
        """Send statements, a few kilobytes of them, and a Sync; say whether there were any."""
        unsent = 0
        for sql, values in self._statements:
            if values and sql not in self._prepared and sql not in self.fresh:
                self.fresh[sql] = self.count
                self._wire.send_prepare(_name(sql), _numbered(sql))
                self.count += 1
                unsent += len(sql) + _FRAME_BYTES
            self.places.append(self.count)
            unsent += _send(self._wire, sql, values)
            self.count += 1
            if unsent >= _AT_ONCE_BYTES:
                break
        if unsent:
            self._wire.pipeline_sync()
            self.count += 1
        return bool(unsent)


def _exchange(wire: PGconn, sending: _Sending) -> Generator[Any, Any, list[PGresult]]:
    """Send statements while their answers come in, and return the result of each, and of each Sync."""
    results: list[list[PGresult]] = []
    while sending.send_some():
        # What the socket does not take at once; answers are read meanwhile, or the server would wait for that.
        while wire.flush():
            results += yield from pipeline_communicate(wire, deque())
    while len(results) < sending.count:
        results.append((yield from fetch_many(wire)))
    return [result for (result,) in results]


def _send(wire: PGconn, sql: str, values: Sequence[Any]) -> int:
    """Write a statement, which leaves with the next Sync; return about how many bytes it has."""
    if not values:
        wire.send_query_params(sql.encode(), None, result_format=Format.BINARY)
        return len(sql) + _FRAME_BYTES
    formats = [Format.BINARY if isinstance(value, bytes) else Format.TEXT for value in values]
    encoded = [value if isinstance(value, bytes) else str(value).encode() for value in values]
    wire.send_query_prepared(_name(sql), encoded, formats, Format.BINARY)
    return sum(map(len, encoded)) + _FRAME_BYTES


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
