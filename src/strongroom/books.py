"""The books of a house as its settings have them: in its data folder, or in a PostgreSQL database.

Nothing else knows which store it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from typing import IO, NamedTuple, Protocol, TypeVar

from strongroom.clock import Ids
from strongroom.config.settings import Config, ConfigError
from strongroom.engine.blocks import Blocks, OwnBlocks
from strongroom.engine.leadership import Leadership, SoleLeadership
from strongroom.engine.port import Books, DiskFailed, Reads
from strongroom.ledger.seals import Frontier
from strongroom.store.portions import JournalEnd, Portion, PortionRow
from strongroom.store.sqlite.connection import lock_folder
from strongroom.store.sqlite.moved import refuse_moved
from strongroom.store.sqlite.snapshot import SqliteSnapshot
from strongroom.store.sqlite.store import SqliteStore

Opened = TypeVar("Opened")


class Snapshot(Reads, Protocol):
    """The books at one moment."""

    def seals(self, after: int = 0) -> Iterator[Frontier]:
        """Yield the seals that were kept, oldest first; only those over more than `after` items."""
        ...

    def seal_over(self, items: int) -> Frontier:
        """Return the first seal over so many items or more; the empty one if there is none."""
        ...

    def close(self) -> None:
        """End the look at them."""
        ...


class NewBooks(Reads, Protocol):
    """A database in which another store's books arrive, in one transaction; its `Reads` are of what has arrived."""

    is_empty: bool
    """Whether it had no ledger when it was opened."""

    @property
    def place(self) -> str:
        """Where it is, without a password."""
        ...

    def receive(self, portion: Portion, rows: Iterable[PortionRow]) -> None:
        """Take the rows of a portion. Raises `StoreError`."""
        ...

    def end_journal(self, end: JournalEnd) -> None:
        """Say how far the journal that has arrived went. Raises `StoreError`."""
        ...

    def journal_end(self) -> JournalEnd:
        """Return how far its journal goes. Raises `StoreError`."""
        ...

    def arrived(self, portion: Portion) -> Iterator[PortionRow]:
        """Yield every row of a portion, sorted by its key. Raises `StoreError`."""
        ...

    def commit(self) -> None:
        """Keep all of it. Raises `NotDone`, `InDoubt`."""
        ...

    def close(self) -> None:
        """End it; what was not committed is gone."""
        ...


class OpenBooks(NamedTuple):
    """The books, opened, who leads over them, who is blocked, and what else this process holds of its data folder."""

    store: Books
    leadership: Leadership
    blocks: Blocks
    lock: IO[str] | None = None

    def close(self) -> None:
        """Close everything."""
        self.blocks.close()
        self.leadership.close()
        self.store.close()
        if self.lock is not None:
            self.lock.close()


def open_books(config: Config, ids: Ids, thread: Executor | None = None) -> OpenBooks:
    """Open the books of a house, and its data folder for this process alone.

    `thread` is where the embedded store waits for the disk. Raises `ConfigError` where the database's driver is not
    installed, `StoreError`.
    """
    if not config.store:
        return OpenBooks(SqliteStore(config.folder, ids, thread=thread), SoleLeadership(), OwnBlocks())
    lock = lock_folder(config.folder)
    try:
        return _with_driver(lambda: _open_shared(config.store, ids, lock))
    except BaseException:
        lock.close()
        raise


def open_snapshot(config: Config, *, living: bool = False) -> Snapshot:
    """Return the books as they are at this moment, read beside whoever writes; to be closed.

    `living` is for whoever only looks up what a server does: it refuses books that were moved elsewhere, and takes
    those that a newer release has brought further without leaving this one behind.

    Raises `ConfigError` where the database's driver is not installed, `StoreError`.
    """
    if not config.store:
        if living:
            refuse_moved(config.folder)
        return SqliteSnapshot(config.folder)
    return _with_driver(lambda: _open_shared_snapshot(config.store, compatible=living))


def open_new_books(conninfo: str, ids: Ids) -> NewBooks:
    """Return a database for books to arrive in; to be closed.

    Raises `ConfigError` where the database's driver is not installed, `StoreError` where it has something else in it.
    """
    return _with_driver(lambda: _open_arrival(conninfo, ids), "a move to PostgreSQL")


def _with_driver(opening: Callable[[], Opened], who: str = "setting 'store'") -> Opened:
    """Open something of PostgreSQL's. Raises `ConfigError`, `StoreError`."""
    try:
        import psycopg
    except ImportError as error:
        problem = f"{who} needs PostgreSQL's driver, install strongroom[postgresql]: {error}"
        raise ConfigError([problem]) from None
    try:
        return opening()
    except psycopg.ProgrammingError as error:
        raise ConfigError([f"{who}: {error}"]) from None
    except psycopg.Error as error:
        raise DiskFailed(f"the database cannot be used: {error}") from None


def _open_shared(conninfo: str, ids: Ids, lock: IO[str]) -> OpenBooks:
    from strongroom.store.postgres.blocks import PostgresBlocks
    from strongroom.store.postgres.leadership import PostgresLeadership
    from strongroom.store.postgres.store import PostgresStore

    return OpenBooks(PostgresStore(conninfo, ids), PostgresLeadership(conninfo), PostgresBlocks(conninfo), lock)


def _open_shared_snapshot(conninfo: str, *, compatible: bool) -> Snapshot:
    from strongroom.store.postgres.snapshot import PostgresSnapshot

    return PostgresSnapshot(conninfo, compatible=compatible)


def _open_arrival(conninfo: str, ids: Ids) -> NewBooks:
    from strongroom.store.postgres.arrival import Arrival

    return Arrival(conninfo, ids)
