"""The embedded store: committed rows in memory where they are hot, everything durable in one SQLite file."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple, TypeVar, cast

import apsw

from strongroom.clock import Ids
from strongroom.crashpoints import reach
from strongroom.engine.command import Row
from strongroom.engine.port import DiskFailed, InDoubt, NotDone
from strongroom.engine.state import State
from strongroom.errors import check
from strongroom.ledger.seals import Frontier
from strongroom.records.guards import Nonce, Reply
from strongroom.records.kept import Kept, Key
from strongroom.store.sqlite.batches import (
    Statements,
    forgetting_statements,
    journal_statements,
    nonce_statements,
    row_statements,
)
from strongroom.store.sqlite.connection import lock_folder, open_reader, open_writer, run
from strongroom.store.sqlite.nonces import NonceMemory
from strongroom.store.sqlite.reads import DiskReads, load, load_commits, load_frontier
from strongroom.store.sqlite.recovery import unswept_rows
from strongroom.store.sqlite.sweep import Sweep, Sweeper

MAX_CACHED_ROWS: Final = 1_000_000
_FORGET_EVERY_MS: Final = 5_000
_DATA_ERRORS: Final = (
    apsw.BindingsError, apsw.ConstraintError, apsw.MismatchError, apsw.RangeError, apsw.SQLError, apsw.TooBigError,
)  # fmt: skip
"""What SQLite says of rows that it cannot keep; any other error of its own is the disk's."""


Answer = TypeVar("Answer")


class Written(NamedTuple):
    """A batch as it went to disk: what becomes visible once it is known to be there."""

    state: State
    sweep: Sweep
    frontier: Frontier
    nonces: list[Nonce]
    at_ms: int


class SqliteStore(DiskReads):
    """`Store` and `Reads` over the database of a data folder.

    `begin` answers from memory where it can; `commit` writes in a thread of its own; readers use a second connection.
    """

    def __init__(self, folder: Path, ids: Ids, vfs: str | None = None, thread: Executor | None = None) -> None:
        """Open the folder, migrated and recovered. Raises `DataFolderBusy`, `DataFolderNewer`.

        `thread` is where statements run: a thread of the store's own, unless a simulator gives another.
        """
        with ExitStack() as undo:
            self._lock = undo.enter_context(lock_folder(folder))
            self._writer = open_writer(folder, vfs)
            undo.callback(self._writer.close)
            reader = open_reader(folder)
            undo.callback(reader.close)
            self._nonces = NonceMemory(self._writer)
            self._sweeper = Sweeper(unswept_rows(self._writer))
            self._commits = load_commits(self._writer)
            last_ms, frontier = load_frontier(self._writer)
            super().__init__(reader, frontier, last_ms)
            _ = undo.pop_all()
        self._ids = ids
        self._thread = thread or ThreadPoolExecutor(1, "strongroom-store")
        self._listeners: list[Callable[[Collection[Key]], None]] = []
        self._cache: dict[Key, Kept] = {}
        self._forgotten_ms = 0
        self._fresh_replies = 0
        self._doubt: Written | None = None

    def close(self) -> None:
        """Close the connections and give the folder free."""
        self._thread.shutdown()
        self._reader.close()
        self._writer.close()
        self._lock.close()

    async def begin(self, keys: Collection[Key]) -> State:
        """Return the committed rows at these addresses. Raises `NotDone`."""
        rows: dict[Key, Kept] = {}
        missing: list[Key] = []
        for key in keys:
            row = self._in_memory(key)
            if row is None:
                missing.append(key)
            else:
                rows[key] = row
        if missing:
            loaded = await self._in_thread(lambda: self._load(missing))
            rows.update(loaded)
            self._cache.update(loaded)
        return State(rows, self._frontier.count + 1, self._last_ms)

    async def commit(self, state: State) -> None:
        """Make the state durable, then visible. Raises `NotDone` or `InDoubt`."""
        if state.items or state.changed:
            check(state.first_item == self._frontier.count + 1, "items are numbered without gaps")
            self._fold(await self._in_thread(lambda: self._write(state)))

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

    def _in_memory(self, key: Key) -> Kept | None:
        """Return the committed row if memory has it; signatures are there whole, so that one not found is absent."""
        if key[0] is Nonce:
            return self._nonces.get(key)
        return self._sweeper.dirty.get(key) or self._cache.get(key)

    def _load(self, keys: Sequence[Key]) -> dict[Key, Kept]:
        try:
            return {key: load(self._writer, key) for key in keys}
        except Exception as error:
            raise self._not_done(error) from error

    def _write(self, state: State) -> Written:
        """Write a batch in one transaction, in the writing thread."""
        try:
            written, statements = self._prepare(state)
            run(self._writer, "BEGIN IMMEDIATE")
            reach("transaction begun")
            for sql, values in statements:
                run(self._writer, sql, values)
            reach("transaction written")
        except Exception as error:
            self._roll_back()
            raise self._not_done(error) from error
        try:
            run(self._writer, "COMMIT")
            reach("transaction committed")
        except apsw.Error as error:
            self._roll_back()
            self._doubt = written
            raise InDoubt(str(error)) from error
        return written

    def _prepare(self, state: State) -> tuple[Written, Statements]:
        trailing = sum(1 for row in state.changed.values() if row.TRAILING)
        sweep = self._sweeper.plan(trailing, self._frontier.count)
        nonces = [row for row in state.changed.values() if isinstance(row, Nonce)]
        at_ms = state.items[-1].at_ms if state.items else self._last_ms
        commit = self._commits + 1
        frontier, statements = journal_statements(state, self._frontier, commit, self._ids)
        statements += row_statements(state, sweep, self._sweeper.dirty, commit)
        statements += nonce_statements(self._nonces.numbered(nonces))
        self._fresh_replies += sum(isinstance(row, Reply) for row in state.changed.values())
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
            run(self._writer, "BEGIN IMMEDIATE; UPDATE progress SET forced = forced + 1; COMMIT")
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
        swept = {key: state.changed.get(key) or self._sweeper.dirty[key] for key in written.sweep.keys}
        self._sweeper.done(written.sweep, [row for row in state.changed.values() if row.TRAILING])
        self._nonces.fold(written.nonces, written.at_ms)
        self._cache.update(swept)
        self._cache.update((key, row) for key, row in state.changed.items() if not row.TRAILING and key[0] is not Nonce)
        self._bound_cache()
        for listener in self._listeners:
            listener(state.changed.keys())
        reach("batch folded")

    def _bound_cache(self) -> None:
        """Drop the rows that were kept first when there are too many; dirty rows are not in the cache."""
        if len(self._cache) > MAX_CACHED_ROWS:
            for key in list(islice(self._cache, MAX_CACHED_ROWS // 10)):
                del self._cache[key]

    # -- reads

    def row(self, kind: type[Row], *key: int | str | bytes) -> Row:
        """Return the committed row, or the absent one."""
        address: Key = (kind, *key)
        row = self._in_memory(address)
        if row is None:
            row = self._cache[address] = load(self._reader, address)
            self._bound_cache()
        return cast(Row, row)

    def subscribe(self, listener: Callable[[Collection[Key]], None]) -> None:
        """Call the listener with the addresses that each commit changed."""
        self._listeners.append(listener)
