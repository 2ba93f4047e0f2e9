"""A snapshot: the books of a database at one moment, read in one transaction beside nodes that go on writing."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Any, TypeVar

import psycopg

from strongroom.engine.port import DiskFailed
from strongroom.engine.state import State
from strongroom.store.postgres.connection import Connection, Limits, connect_reader
from strongroom.store.postgres.reads import PostgresReads, walk_on
from strongroom.store.postgres.route import Route
from strongroom.store.postgres.schema import STANDING, Standing, known_schema

Answer = TypeVar("Answer")


class OneTransaction(PostgresReads):
    """`Reads` in the one transaction of a connection: what nobody else changes meanwhile stands still."""

    def __init__(self, conninfo: str, limits: Limits) -> None:
        """`_reader` is the connection, and whoever inherits opens it."""
        super().__init__(Route(conninfo), limits)
        self._walks = itertools.count()

    @property
    def is_shared(self) -> bool:
        """Return no: nothing changes."""
        return False

    @property
    def is_current(self) -> bool:
        """Return yes: nothing changes."""
        return True

    def subscribe(self, listener: Callable[[State], None]) -> None:
        """Do nothing: a snapshot never changes."""

    def close(self) -> None:
        """End the transaction."""
        self.close_reader()

    def _asked(self, question: Callable[[Connection], Answer]) -> Answer:
        if self._reader is None:
            raise DiskFailed("the snapshot was closed")
        try:
            with self._reader.within(self._limits.read_s):
                return question(self._reader)
        except psycopg.OperationalError as error:
            raise DiskFailed(str(error)) from error

    def _walk(self, sql: str, values: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:
        if self._reader is None:
            raise DiskFailed("the snapshot was closed")
        try:
            with closing(self._reader.cursor(f"walk_{next(self._walks)}", binary=True)) as cursor:
                yield from walk_on(self._reader, cursor, self._limits.read_s, sql, values)
        except psycopg.OperationalError as error:
            raise DiskFailed(str(error)) from error


class PostgresSnapshot(OneTransaction):
    """`Reads` in one read-only transaction, for one thread: it locks nothing, and nothing newer is seen."""

    def __init__(self, conninfo: str, limits: Limits | None = None, *, compatible: bool = False) -> None:
        """Look at the database as it is now. Raises `DiskFailed`, also where it is not of this release's schema.

        `compatible` takes a newer one too that this release may use: for whoever looks up single rows. An audit must
        know everything that it reads.
        """
        super().__init__(conninfo, limits or Limits())
        try:
            self._reader = connect_reader(conninfo, self._limits)
            _ = self._ask("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            standing, known = Standing(*self._ask(STANDING)[0]), known_schema()
        except psycopg.Error as error:
            self.close_reader()
            raise DiskFailed(str(error)) from error
        if known != standing.version and not (compatible and known < standing.version and not standing.refusal(known)):
            self.close_reader()
            raise DiskFailed(f"the database has schema {standing.version}, this release knows {known}")
