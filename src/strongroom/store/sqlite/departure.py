"""Departure: the books of a data folder that nobody writes, or of a backup, read whole and left as they are."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import apsw

from strongroom.engine.port import DiskFailed
from strongroom.records.guards import Nonce
from strongroom.store.folio import encode_folio
from strongroom.store.journal import peaks_of
from strongroom.store.portions import BATCH, FOLIO, NONCE, JournalEnd, Portion, PortionRow
from strongroom.store.sqlite.connection import BUSY_TIMEOUT_MS, migrations, run
from strongroom.store.sqlite.folios import Arrears, load_folio
from strongroom.store.sqlite.nonces import NonceMemory
from strongroom.store.sqlite.reads import load_frontier
from strongroom.store.sqlite.recovery import unswept
from strongroom.store.sqlite.standing import standing_balances

_SEALS: Final = (
    "SELECT number, last_item - lag(last_item, 1, 0) OVER (ORDER BY number), last_item, at_ms, peaks FROM batch"
    " ORDER BY number"
)


class Departure:
    """All rows of an embedded ledger, in one read transaction. What fails raises `DiskFailed`.

    Folios are brought up to date on their way, as a server does it after its start: what was swept behind the commits
    is worked out from the journal's end. In memory are the signatures that are remembered and that end, and no more.
    """

    def __init__(self, database: Path) -> None:
        """Open a database file that nobody writes. Raises `DiskFailed`, also for another release's schema."""
        with _told(database):
            self._database = database
            self._reader = _open(database)
            try:
                run(self._reader, "BEGIN")
                (version,) = run(self._reader, "PRAGMA user_version").fetchone()
                if version != len(migrations()):
                    raise DiskFailed(_other_schema(database, version))
            except BaseException:
                self._reader.close()
                raise

    def close(self) -> None:
        """End the transaction."""
        self._reader.close()

    def rows(self, portion: Portion) -> Iterator[PortionRow]:
        """Yield every row of a portion, sorted by its key."""
        with _told(self._database):
            if portion is BATCH:
                yield from run(self._reader, _SEALS)
            elif portion is FOLIO:
                yield from self._folios()
            elif portion is NONCE:
                for nonce in sorted(NonceMemory(self._reader).all(), key=Nonce.key):
                    yield nonce.api_key, nonce.signature, nonce.expires_ms, nonce.spent
            else:
                yield from self._table(portion)

    def journal_end(self) -> JournalEnd:
        """Return how far the journal went."""
        with _told(self._database):
            commits, forced = run(self._reader, "SELECT commits, forced FROM progress").fetchone()
            last_ms, frontier = load_frontier(self._reader)
            return JournalEnd(commits, forced, frontier.count, last_ms, peaks_of(frontier))

    def balances(self) -> Iterator[tuple[int, int, int]]:
        """Yield (packed account, balance, count) of every account, as the table and later postings tell them."""
        with _told(self._database):
            yield from standing_balances(self._reader)

    def _table(self, portion: Portion) -> Iterator[PortionRow]:
        flags = [place for place, type_ in enumerate(portion.types) if type_ is bool]
        for row in run(self._reader, portion.select):
            if flags:
                values = list(row)
                for place in flags:
                    values[place] = bool(values[place])
                yield tuple(values)
            else:
                yield row

    def _folios(self) -> Iterator[PortionRow]:
        behind = unswept(self._reader)
        # Owners whose folios were never written come where they belong, so that all are sorted.
        fresh = iter(sorted(owner for owner in behind if not self._is_written(owner)))
        waiting = next(fresh, None)
        for row in run(self._reader, FOLIO.select):
            while waiting is not None and waiting < row[0]:
                yield self._brought_up(waiting, behind[waiting])
                waiting = next(fresh, None)
            arrears = behind.get(row[0])
            yield row if arrears is None else self._brought_up(row[0], arrears)
        while waiting is not None:
            yield self._brought_up(waiting, behind[waiting])
            waiting = next(fresh, None)

    def _is_written(self, owner: int) -> bool:
        return run(self._reader, "SELECT 1 FROM folio WHERE owner = ?", (owner,)).fetchone() is not None

    def _brought_up(self, owner: int, arrears: Arrears) -> PortionRow:
        folio = load_folio(self._reader, owner)
        arrears.bring_up(folio)
        return owner, *encode_folio(folio)


def _open(database: Path) -> apsw.Connection:
    """Return a connection that changes nothing, and leaves no file beside the database that was not there."""
    log = database.with_name(f"{database.name}-wal")
    # A log that a killed server has left belongs to the ledger, and is read with it.
    how = "mode=ro" if log.exists() else "immutable=1"
    flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
    connection = apsw.Connection(f"file:{quote(str(database.absolute()))}?{how}", flags=flags)
    connection.set_busy_timeout(BUSY_TIMEOUT_MS)
    return connection


def _other_schema(database: Path, version: Any) -> str:
    known = len(migrations())
    if version > known:
        return f"{database} has schema {version}, this release knows {known}"
    return (
        f"{database} has schema {version}, and this release moves schema {known}: serve it once with this release, or "
        "restore the backup with it, which brings it up to date"
    )


@contextmanager
def _told(database: Path) -> Generator[None]:
    try:
        yield
    except apsw.Error as error:
        raise DiskFailed(f"{database} cannot be read: {error}") from error
