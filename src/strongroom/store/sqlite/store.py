"""The embedded store: committed rows in memory where they are hot, everything durable in one SQLite file."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar, cast

import apsw

from strongroom.clock import Ids
from strongroom.crashpoints import reach
from strongroom.engine.command import Command, Row
from strongroom.engine.port import DiskFailed, InDoubt, Lane, NotDone, Reads
from strongroom.engine.state import NonceKey, State, ThreadKey
from strongroom.engine.telling import tell
from strongroom.errors import check
from strongroom.ledger.seals import Frontier
from strongroom.records.addresses import Address
from strongroom.records.coins import Sent
from strongroom.records.guards import Nonce, Reply
from strongroom.records.heads import Head
from strongroom.records.history import Thread
from strongroom.records.kept import Kept, Key
from strongroom.store.sqlite.batches import (
    Statements,
    forgetting_statements,
    journal_statements,
    nonce_statements,
    row_statements,
    sweep_statements,
)
from strongroom.store.sqlite.checkpoints import Checkpoints
from strongroom.store.sqlite.connection import (
    begin,
    lock_folder,
    open_beside,
    open_reader,
    open_writer,
    run,
)
from strongroom.store.sqlite.folios import Folios, Sweep
from strongroom.store.sqlite.moved import refuse_moved
from strongroom.store.sqlite.nonces import NonceMemory
from strongroom.store.sqlite.reads import DiskReads, load, load_commits, load_frontier
from strongroom.store.sqlite.recovery import unswept
from strongroom.store.sqlite.rowcache import RowCache

_FORGET_EVERY_MS: Final = 5_000
_DATA_ERRORS: Final = (
    apsw.BindingsError, apsw.ConstraintError, apsw.MismatchError, apsw.RangeError, apsw.SQLError, apsw.TooBigError,
)  # fmt: skip
"""What SQLite says of rows that it cannot keep; any other error of its own is the disk's."""


Answer = TypeVar("Answer")


class Written(NamedTuple):
    """A batch as it goes to disk: what becomes visible once it is known to be there."""

    state: State
    sweep: Sweep
    frontier: Frontier
    nonces: tuple[int, int, bytes] | None
    at_ms: int


class SqliteStore(DiskReads):
    """`Store`, `Reads` and `Committed` over the database of a data folder.

    Decisions read memory, and single rows from a second connection where memory has none. A commit's statements only
    change pages in memory, so they run at once where they are asked for; COMMIT, which waits for the disk, runs in a
    thread of its own. So a batch changes threads once.
    """

    def __init__(self, folder: Path, ids: Ids, vfs: str | None = None, thread: Executor | None = None) -> None:
        """Open the folder, migrated and recovered. Raises `DataFolderBusy`, `DataFolderNewer`, `DataFolderMoved`.

        `thread` is where the store waits for the disk: a thread of its own, unless a simulator gives another.
        """
        with ExitStack() as undo:
            self._lock = undo.enter_context(lock_folder(folder))
            refuse_moved(folder)
            self._writer = open_writer(folder, vfs)
            undo.callback(self._writer.close)
            reader = open_reader(folder)
            undo.callback(reader.close)
            self._beside = open_beside(folder, vfs)
            undo.callback(self._beside.close)
            self._nonces = NonceMemory(self._writer)
            self._folios = Folios(reader, unswept(self._writer))
            self._commits = load_commits(self._writer)
            last_ms, frontier = load_frontier(self._writer)
            super().__init__(reader, frontier, last_ms)
            _ = undo.pop_all()
        self._ids = ids
        self._checkpoints = Checkpoints(self._writer, self._beside)
        self._copying: asyncio.Future[None] | None = None
        self._second_thread = thread or ThreadPoolExecutor(1, "strongroom-checkpoint")
        self._thread = thread or ThreadPoolExecutor(1, "strongroom-store")
        self._listeners: list[Callable[[State], None]] = []
        self._cache = RowCache()
        self._rows = self._cache.by_kind
        self._forgotten_ms = 0
        self._fresh_replies = 0
        self._doubt: Written | None = None

    def close(self) -> None:
        """Close the connections and give the folder free."""
        self._thread.shutdown()
        self._second_thread.shutdown()
        self._beside.close()
        self._reader.close()
        self._writer.close()
        self._lock.close()

    @property
    def lanes(self) -> Sequence[Lane]:
        """Return itself: one batch at a time."""
        return (self,)

    async def begin(self, commands: Sequence[Command]) -> State:
        """Return a state over the committed rows; what is not in memory is read when it is asked for."""
        return State(self, self._frontier.count + 1, self._last_ms)

    async def commit(self, state: State) -> None:
        """Make the state durable, then visible. Raises `NotDone` or `InDoubt`."""
        if state.is_empty:
            return
        check(state.first_item == self._frontier.count + 1, "items are numbered without gaps")
        try:
            begin(self._writer)
        except apsw.Error:
            # Another program is writing. In the thread it can be waited for; meanwhile everything else goes on.
            await self._in_thread(self._wait_to_begin)
        written = self._write(state)
        await self._in_thread(lambda: self._commit(written))
        self._fold(written)
        if self._checkpoints.begin():
            loop = asyncio.get_running_loop()
            self._copying = loop.run_in_executor(self._second_thread, self._checkpoints.copy)

    async def resolve(self) -> bool:
        """Force a commit through; then what is on disk is all there is. Raises `NotDone` while that fails."""
        doubt = self._doubt
        kept = await self._in_thread(self._settle_doubt)
        if kept and doubt is not None:
            self._fold(doubt)
        self._doubt = None
        return kept

    async def _in_thread(self, function: Callable[[], Answer]) -> Answer:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function)

    def _write(self, state: State) -> Written:
        """Write a batch into the transaction, which is still open then. Raises `NotDone`."""
        try:
            reach("transaction begun")
            written, statements = self._prepare(state)
            for sql, values in statements:
                run(self._writer, sql, values)
            reach("transaction written")
        except Exception as error:
            self._roll_back()
            raise self._not_done(error) from error
        return written

    def _wait_to_begin(self) -> None:
        """Begin a transaction, in the waiting thread. Raises `DiskFailed`."""
        try:
            begin(self._writer, waiting=True)
        except apsw.Error as error:
            raise DiskFailed(str(error)) from error

    def _commit(self, written: Written) -> None:
        """End the transaction, in the waiting thread. Raises `InDoubt`."""
        try:
            run(self._writer, "COMMIT")
            reach("transaction committed")
            self._checkpoints.finish()
        except apsw.Error as error:
            self._roll_back()
            self._doubt = written
            raise InDoubt(str(error)) from error

    def _prepare(self, state: State) -> tuple[Written, Statements]:
        at_ms = state.items[-1].at_ms if state.items else self._last_ms
        commit = self._commits + 1
        sweep = self._folios.plan(len(state.items), self._frontier.count)
        nonces = self._nonces.row(state.nonces) if state.nonces else None
        frontier, statements = journal_statements(state, self._frontier, commit, self._ids)
        statements += row_statements(state)
        statements += sweep_statements(sweep, commit)
        statements += nonce_statements(nonces)
        self._fresh_replies += sum(isinstance(row, Reply) for row in state.rows.values())
        if at_ms >= self._forgotten_ms + _FORGET_EVERY_MS:
            statements += forgetting_statements(self._nonces.oldest, at_ms, self._fresh_replies)
            self._forgotten_ms, self._fresh_replies = at_ms, 0
        return Written(state, sweep, frontier, nonces, at_ms), statements

    def _roll_back(self) -> None:
        """End the transaction; if even that fails, `resolve` will not succeed before it has."""
        with suppress(apsw.Error):
            if self._writer.in_transaction:
                run(self._writer, "ROLLBACK")

    def _not_done(self, error: Exception) -> NotDone:
        """Tell what cannot be kept from a disk that cannot keep anything."""
        data = isinstance(error, _DATA_ERRORS) or not isinstance(error, apsw.Error)
        return NotDone(repr(error)) if data and not self._writer.in_transaction else DiskFailed(str(error))

    def _settle_doubt(self) -> bool:
        """Commit a change of no meaning: it overwrites whatever a failed commit may have left in the log.

        It must be a change: SQLite writes nothing for an UPDATE that leaves a row as it was.
        """
        self._roll_back()
        try:
            begin(self._writer, waiting=True)
            run(self._writer, "UPDATE progress SET forced = forced + 1; COMMIT")
            commits = load_commits(self._writer)
        except apsw.Error as error:
            self._roll_back()
            raise NotDone(str(error)) from error
        return commits > self._commits

    def _fold(self, written: Written) -> None:
        """Let readers and the next batch see what is durable now."""
        state = written.state
        self._commits += 1
        self._frontier, self._last_ms = written.frontier, written.at_ms
        self._folios.fold(written.sweep, state.heads.values(), state.threads.values())
        self._nonces.fold(written.nonces, written.at_ms)
        self._cache.update(state.rows.items())
        tell(self._listeners, state)
        reach("batch folded")

    @property
    def trouble(self) -> str:
        """Return nothing: what is at hand can be read."""
        return ""

    @property
    def nodes(self) -> int:
        """Return one: the folder is locked."""
        return 1

    def readers(self, count: int) -> Sequence[Reads]:
        """Return none: a look-up takes some microseconds."""
        return ()

    def warm(self) -> None:
        """Read nothing: what is asked for is at hand."""

    async def follow(self) -> None:
        """End at once: there is nobody to follow."""

    @property
    def log_pages(self) -> int:
        """How many pages the write-ahead log has since it started anew."""
        return self._checkpoints.pages

    # -- committed rows

    def head(self, account: int) -> Head:
        """Return the head of a packed account."""
        return self._folios.head(account)

    def thread(self, key: ThreadKey) -> Thread:
        """Return a thread."""
        return self._folios.thread(key)

    def nonce(self, key: NonceKey) -> Nonce:
        """Return what is remembered of a signature; all are in memory, so that one not found is absent."""
        return self._nonces.get(key)

    def kept(self, key: Key) -> Kept:
        """Return the row of any other kind. Raises `DiskFailed`.

        What is a stranger's is not kept in memory: every output of every block is looked up once, by its address, and
        where payments were given up every transaction.
        """
        return self._rows[key[0]].get(key[1] if len(key) == 2 else key[1:]) or self._load(key)

    def _load(self, key: Key) -> Kept:
        try:
            row = load(self._reader, key)
        except apsw.Error as error:
            raise DiskFailed(str(error)) from error
        if not _is_strangers(row):
            self._cache.update(((key, row),))
        return row

    def heads(self, owner: int, accounts: Sequence[int]) -> list[Head]:
        """Return the heads of an owner's packed accounts."""
        return [self.head(account) for account in accounts]

    def row(self, kind: type[Row], *key: int | str | bytes) -> Row:
        """Return the committed row, or the absent one."""
        if (known := self._rows.get(kind)) is not None:
            return cast(Row, known.get(key[0] if len(key) == 1 else key) or self._load((kind, *key)))
        return cast(Row, _FROM_MEMORY[kind](self, key))

    def subscribe(self, listener: Callable[[State], None]) -> None:
        """Call the listener with the state of each commit."""
        self._listeners.append(listener)


def _is_strangers(row: Kept) -> bool:
    """Say whether a row tells only that an address, or a transaction, is not the house's."""
    return (isinstance(row, Address) and not row.ours) or (isinstance(row, Sent) and not row.payment)


_FROM_MEMORY: Final[dict[type[Kept], Callable[[SqliteStore, Any], Kept]]] = {
    Head: lambda store, key: store.head(*key),
    Thread: lambda store, key: store.thread(key),
    Nonce: lambda store, key: store.nonce(key),
}
