"""Arrival: books that come from another store into an empty database, all of them in one transaction or none."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from itertools import islice
from typing import Final, Protocol
from urllib.parse import quote
from uuid import UUID

import psycopg
from psycopg.pq import TransactionStatus

from strongroom.engine.port import DiskFailed, InDoubt, NotDone, StoreError
from strongroom.store.portions import BATCH, PORTIONS, JournalEnd, Portion, PortionRow
from strongroom.store.postgres.connection import (
    DatabaseUnfit,
    Limits,
    check_server,
    connect_carrier,
)
from strongroom.store.postgres.numbers import COUNT
from strongroom.store.postgres.schema import bring_up_to_date, take_turn
from strongroom.store.postgres.snapshot import OneTransaction

AT_ONCE: Final = 1_000
"""So many rows are read, sent and waited for together."""

_LIMITS: Final = Limits(answer_s=600.0, read_s=600.0, lock_ms=30_000)

_SQL_NAMES: Final[dict[type, str]] = {int: "int8", str: "text", bytes: "bytea", bool: "bool"}
_STRANGERS: Final = (
    "SELECT relname::text FROM pg_class WHERE relnamespace = current_schema()::regnamespace"
    " AND relkind IN ('r', 'p', 'v', 'm', 'f') ORDER BY relname LIMIT 1"
)
_BATCHES: Final = "COPY batch (number, items, last_item, at_ms, peaks, id, changed) FROM STDIN (FORMAT BINARY)"


class NotEmpty(StoreError):
    """There is a ledger in the database, or something else."""


class MakesIds(Protocol):
    """Who gives the commits in a database their ids."""

    def uuid(self) -> str:
        """Return a random UUID as text."""
        ...


class Arrival(OneTransaction):
    """A database in one transaction, in which it is filled, read and at last committed. `Reads` of what has arrived.

    No node can open the database meanwhile. Whatever ends it but `commit` leaves the database as it was.
    """

    def __init__(self, conninfo: str, ids: MakesIds) -> None:
        """Begin, with the newest schema. Raises `DatabaseUnfit`, `DatabaseNewer`, `NotEmpty`, `DiskFailed`."""
        super().__init__(conninfo, _LIMITS)
        self._ids = ids
        try:
            with _told(""):
                self._begin(conninfo)
        except BaseException:
            self.close()
            raise

    def _begin(self, conninfo: str) -> None:
        self._reader = connection = connect_carrier(conninfo, self._limits)
        with connection.within(self._limits.answer_s):
            check_server(connection)
            connection.run("BEGIN")
            take_turn(connection)
            self.is_empty = self._has_no_ledger()
            if self.is_empty:
                bring_up_to_date(connection)
                self.is_empty = not any(map(self._has_rows, PORTIONS))
            connection.run("SELECT 1 FROM journal FOR UPDATE")
            [(nodes,)] = connection.run(COUNT)
            if nodes:
                raise NotEmpty(f"{self.place} is open in {nodes} nodes: stop them first")

    def _has_no_ledger(self) -> bool:
        """Say whether the database has no ledger that was ever written to, of whichever release."""
        [(has_journal,)] = self._ask("SELECT to_regclass('journal') IS NOT NULL")
        if has_journal:
            return not self._commits()
        for (name,) in self._ask(_STRANGERS):
            raise NotEmpty(f"{self.place} has a table {name} that is no ledger's: use a database of its own")
        return True

    def _has_rows(self, portion: Portion) -> bool:
        [(has_rows,)] = self._ask(f'SELECT EXISTS (SELECT 1 FROM "{portion.name}")')
        return has_rows

    @property
    def place(self) -> str:
        """Where the database is, without the password."""
        if self._reader is None:
            raise DiskFailed("the database was closed")
        info = self._reader.info
        if info.host.startswith("/"):
            return f"postgresql://{info.user}@/{info.dbname}?host={quote(info.host, safe='')}&port={info.port}"
        return f"postgresql://{info.user}@{info.host}:{info.port}/{info.dbname}"

    def receive(self, portion: Portion, rows: Iterable[PortionRow]) -> None:
        """Take the rows of a portion. Raises `NotDone` for what the database cannot keep, `DiskFailed`."""
        types = [_SQL_NAMES[type_] for type_ in portion.types]
        sql = f'COPY "{portion.name}" ({", ".join(portion.columns)}) FROM STDIN (FORMAT BINARY)'
        if portion is BATCH:
            # A commit's id is of no meaning once nobody waits for its answer, and nobody has to hear of it.
            sql, types, uuid = _BATCHES, [*types, "uuid", "text"], self._ids.uuid
            rows = ((*row, UUID(uuid()), "") for row in rows)
        with _told(portion.name):
            self._copy(sql, types, iter(rows))

    def _copy(self, sql: str, types: list[str], rows: Iterator[PortionRow]) -> None:
        if (connection := self._reader) is None:
            raise DiskFailed("the database was closed")
        limit_s = self._limits.answer_s
        with closing(connection.cursor()) as cursor, connection.within(limit_s), cursor.copy(sql.encode()) as copy:
            copy.set_types(types)
            while chunk := list(islice(rows, AT_ONCE)):
                with connection.within(limit_s):
                    for row in chunk:
                        copy.write_row(row)

    def end_journal(self, end: JournalEnd) -> None:
        """Say how far the journal that has arrived went. Raises `DiskFailed`."""
        sql = "UPDATE journal SET commits = %s, forced = %s, last_item = %s, last_ms = %s, peaks = %s RETURNING id"
        with _told("journal"):
            _ = self._ask(sql, end)

    def journal_end(self) -> JournalEnd:
        """Return how far the journal in the database goes. Raises `DiskFailed`."""
        with _told("journal"):
            [found] = self._ask("SELECT commits, forced, last_item, last_ms, peaks FROM journal")
            return JournalEnd(*found)

    def arrived(self, portion: Portion) -> Iterator[PortionRow]:
        """Yield every row of a portion as it is in the database, sorted by its key. Raises `DiskFailed`."""
        with _told(portion.name):
            yield from self._walk(portion.select)

    def commit(self) -> None:
        """Keep all of it. Raises `NotDone` where the database refused, `InDoubt` where it did not answer."""
        connection = self._reader
        if connection is None or connection.is_lost:
            raise NotDone("the connection to the database was lost, and nothing is kept")
        try:
            with connection.within(self._limits.answer_s):
                connection.warned = ""
                connection.run("COMMIT")
        except psycopg.Error as error:
            # The server is still there and has answered: with a ROLLBACK.
            if not connection.closed and connection.info.transaction_status == TransactionStatus.IDLE:
                raise NotDone(f"the database refused to commit: {_line(error)}") from error
            raise InDoubt(_line(error)) from error
        if connection.warned:
            raise InDoubt(connection.warned)

    def close(self) -> None:
        """End the connection; what was not committed is gone."""
        with suppress(psycopg.Error):
            super().close()


@contextmanager
def _told(what: str) -> Generator[None]:
    """Tell what the database cannot keep from a database that cannot be used, in a line."""
    try:
        yield
    except psycopg.DataError as error:
        raise NotDone(f"PostgreSQL cannot keep a row of {what}: {_line(error)}") from error
    except psycopg.ProgrammingError as error:
        raise DatabaseUnfit(f"the database cannot be used: {_line(error)}") from error
    except (psycopg.Error, DiskFailed) as error:
        raise DiskFailed(f"the database cannot be used: {_line(error)}") from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
