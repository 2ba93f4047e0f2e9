"""Lanes: each is a connection that commits batches; a node has two of them.

A batch begins by locking the one row of the journal and ends with the commit that frees it. While one lane commits, the
other has its next batch waiting for the lock already, so that the server goes on with it without asking anybody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from time import monotonic
from typing import Any, Final, NamedTuple, TypeVar

import psycopg
from psycopg.pq import TransactionStatus

from strongroom.clock import Ids
from strongroom.crashpoints import reach
from strongroom.engine.command import Command
from strongroom.engine.port import DiskFailed, InDoubt, NotDone, StoreError
from strongroom.engine.state import State, needs_of
from strongroom.errors import check
from strongroom.records.guards import Reply
from strongroom.records.kept import Key
from strongroom.store.journal import frontier_of
from strongroom.store.postgres.announcements import Changed, Heard, News
from strongroom.store.postgres.batches import (
    Ahead,
    folios_after,
    forgetting_statements,
    journal_statements,
    row_statements,
)
from strongroom.store.postgres.cable import Cable
from strongroom.store.postgres.connection import RECONNECT_S, Connection, Limits, connect_writer
from strongroom.store.postgres.copies import Commit, Copies, Copy
from strongroom.store.postgres.fetched import Fetched, take_all
from strongroom.store.postgres.following import BEHIND, Follower
from strongroom.store.postgres.listeners import Listeners
from strongroom.store.postgres.numbers import NodeNumber
from strongroom.store.postgres.pipeline import run_together_in_loop
from strongroom.store.postgres.route import Route
from strongroom.store.postgres.schema import STANDING, Standing, known_schema, standing_of
from strongroom.store.postgres.tables import Statement

_FORGET_EVERY_MS: Final = 1_000
_DATA_ERRORS: Final = (psycopg.DataError, psycopg.IntegrityError, psycopg.ProgrammingError)
_DATA_STATES: Final = ("54",)
"""Classes of SQLSTATE for what is too large to be kept, which the driver counts among the server's troubles."""

_BEGIN: Final = "BEGIN ISOLATION LEVEL READ COMMITTED"
_LOCK: Final = "SELECT commits, last_item, last_ms, peaks FROM journal FOR UPDATE"
_WHO: Final = "SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()"
_END_IDLE: Final = (
    "SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity"
    " WHERE pid = %s AND backend_start = %s AND state LIKE 'idle%%'"
)

Answer = TypeVar("Answer")


class Doubt(NamedTuple):
    """A batch whose COMMIT was not answered: it is there if its id is found."""

    batch_id: str
    state: State


class Lane:
    """One lane of a node: two round trips a batch, in the event loop. What is rare and may block it runs in a thread.

    The lock is held from `begin` to the end of `commit`, where nothing is waited for but the database and the lane that
    commits; if this process is paused meanwhile, the server ends its transaction, and `commit` finds out.
    """

    def __init__(
        self,
        route: Route,
        limits: Limits,
        ids: Ids,
        number: NodeNumber,
        follower: Follower,
        listeners: Listeners,
        copies: Copies,
    ) -> None:
        """Open the connection. Raises `DatabaseUnfit`, `DiskFailed`, `psycopg.Error`."""
        self._route = route
        self._limits = limits
        self._ids = ids
        self._number = number
        self._follower = follower
        self._listeners = listeners
        self._copies = copies
        self._known = known_schema()
        self._thread = ThreadPoolExecutor(1, "strongroom-store")
        self._cable = Cable()
        self._writer: Connection | None = None
        self._backend: tuple[int, datetime] | None = None
        self._fetched = Fetched()
        self._ahead = Ahead()
        self._forgotten_ms = 0
        self._fresh = 0
        self._doubt: Doubt | None = None
        try:
            _ = self._connected()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the connection."""
        self._thread.shutdown()
        self._close_writer()

    def cut_unless(self, server: str) -> None:
        """Let nobody wait any longer unless the connection leads to this server; for any thread."""
        self._cable.cut_unless(server)

    async def begin(self, commands: Sequence[Command]) -> State:
        """Lock the journal and return a state over the rows that the commands declare. Raises `NotDone`."""
        keys = [key for command in commands for key in needs_of(command)]
        asked_s = monotonic()
        state, news = await self._to_the_end(self._begin(keys))
        self._follower.note(news.heard, self._ahead.commits, asked_s)
        self._listeners.tell_news(news)
        return state

    async def commit(self, state: State) -> None:
        """Make the state durable, then visible, and free the journal. Raises `NotDone` or `InDoubt`."""
        if state.is_empty:
            await self._in_thread(self._roll_back)
            return
        check(state.first_item == self._ahead.frontier.count + 1, "items are numbered without gaps")
        batch_id = await self._to_the_end(self._commit(state))
        if self._follower.heard.number == self._ahead.commits:
            self._follower.heard = Heard(self._ahead.commits + 1, batch_id)
        self._listeners.tell(state)

    async def resolve(self) -> bool:
        """Force a commit through over a new connection, then say whether the batch is there.

        Raises `NotDone` while there is no database that can commit.
        """
        kept = await self._in_thread(self._settle_doubt)
        if kept and self._doubt is not None:
            self._listeners.tell(self._doubt.state)
        self._doubt = None
        return kept

    async def _to_the_end(self, work: Coroutine[Any, Any, Answer]) -> Answer:
        """Do something that goes on, and ends, whatever becomes of whoever waits for it."""
        return await asyncio.shield(asyncio.ensure_future(work))

    async def _in_thread(self, function: Callable[[], Answer]) -> Answer:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function)

    async def _begin(self, keys: Sequence[Key]) -> tuple[State, News]:
        try:
            try:
                return await self._locked_state(await self._ready(), keys)
            except psycopg.OperationalError:
                # Nothing was done yet: a server that was restarted since the last batch need not be noticed.
                if self._writer is not None and not self._writer.is_lost:
                    raise
            return await self._locked_state(await self._ready(), keys)
        except Exception as error:
            await self._in_thread(self._roll_back)
            if isinstance(error, psycopg.ProgrammingError):
                # The tables may be others by now: that is no mistake of any command.
                await self._in_thread(self._check_schema)
            raise _not_done(error) from error

    async def _ready(self) -> Connection:
        """Return the connection, with no transaction open."""
        writer = self._writer
        if writer is None or writer.is_lost or self._status(writer) != TransactionStatus.IDLE:
            writer = await self._in_thread(self._readied)
        return writer

    async def _locked_state(self, writer: Connection, keys: Sequence[Key]) -> tuple[State, News]:
        """Begin a transaction with the journal locked, and fetch the rows, and what was committed, as of then."""
        fetched, heard = Fetched(self._copies), self._follower.heard
        wanted = fetched.statements(keys)
        # The news in a statement of its own, so that it sees what was committed before the lock was had.
        asked = [(_BEGIN, ()), (_LOCK, ()), (STANDING, ()), heard.news, *(statement for statement, _ in wanted)]
        with writer.within(self._limits.answer_s):
            _, [locked], [standing], told, *answers = await run_together_in_loop(writer, asked)
            self._refuse(Standing(*standing))
            commits = list(map(Commit._make, told))
            ahead = Ahead(locked[0], frontier_of(locked[1], locked[3]), locked[2])
            after = heard.after(ahead.commits, commits)
            if after is None:
                raise DiskFailed(BEHIND)
            if after.number < ahead.commits:
                # So much was committed meanwhile that not all of it was told: nothing in memory can be relied on.
                self._copies.forget_all()
                fetched = Fetched()
                lacking = fetched.statements(keys)
            else:
                self._copies.hear(commits, after.number)
                take_all(wanted, answers)
                lacking = fetched.lacking()
            changed = Changed(heard.unheard(commits))
            further = [*changed.wanted, *lacking]
            if further:
                take_all(further, await run_together_in_loop(writer, [statement for statement, _ in further]))
        self._fetched, self._ahead = fetched, ahead
        return State(fetched, ahead.frontier.count + 1, ahead.last_ms), News(after, changed.rows, commits)

    async def _commit(self, state: State) -> str:
        """Write the batch, commit it and return its id. What fails before the COMMIT is sent leaves nothing behind."""
        batch_id, number = self._ids.uuid(), self._ahead.commits + 1
        is_sent = is_kept = False

        def statements() -> Iterator[Statement]:
            nonlocal is_sent
            folios = folios_after(state, self._fetched)
            self._copies.send(batch_id, folios)
            yield from self._statements(state, batch_id, folios)
            reach("transaction written")
            is_sent = True
            yield "COMMIT", ()

        try:
            reach("transaction begun")
            writer = self._locked()
            writer.warned = ""
            with writer.within(self._limits.answer_s):
                _ = await run_together_in_loop(writer, statements())
            # A wait for the replicas that was cut short ends well, and with a warning.
            if writer.warned:
                raise InDoubt(writer.warned)
            is_kept = True
        except Exception as error:
            if is_sent and not self._is_over:
                self._doubt = Doubt(batch_id, state)
                raise InDoubt(str(error)) from error
            await self._in_thread(self._roll_back)
            raise _not_done(error) from error
        finally:
            self._copies.settle(batch_id, number, is_kept=is_kept)
        reach("transaction committed")
        return batch_id

    def _statements(self, state: State, batch_id: str, folios: Mapping[int, Copy]) -> Iterator[Statement]:
        yield from row_statements(state, self._fetched, folios)
        yield from journal_statements(state, self._ahead, batch_id, folios, self._ids)
        self._fresh += len(state.nonces) + sum(isinstance(row, Reply) for row in state.rows.values())
        at_ms = state.items[-1].at_ms if state.items else self._ahead.last_ms
        if at_ms >= self._forgotten_ms + _FORGET_EVERY_MS:
            yield from forgetting_statements(at_ms, self._fresh)
            self._forgotten_ms, self._fresh = at_ms, 0

    @property
    def _is_over(self) -> bool:
        """Whether the server is still there, and has refused a statement: then it made a ROLLBACK of the COMMIT."""
        over = (TransactionStatus.IDLE, TransactionStatus.INERROR)
        return self._writer is not None and not self._writer.warned and self._status(self._writer) in over

    def _locked(self) -> Connection:
        """Return the connection whose transaction holds the journal's lock, as far as is known here."""
        writer = self._writer
        if writer is None or self._status(writer) != TransactionStatus.INTRANS:
            raise DiskFailed("the connection was lost in the middle of a batch")
        return writer

    def _refuse(self, standing: Standing) -> None:
        if refusal := standing.refusal(self._known):
            raise DiskFailed(refusal)

    def _status(self, writer: Connection) -> TransactionStatus:
        return writer.info.transaction_status

    # -- in the thread

    def _readied(self) -> Connection:
        self._roll_back()
        return self._connected()

    def _check_schema(self) -> None:
        """Raise `DiskFailed` where a newer release has brought the schema further than this one can go along."""
        with suppress(psycopg.Error):
            writer = self._connected()
            with writer.within(self._limits.answer_s):
                self._refuse(standing_of(writer))

    def _settle_doubt(self) -> bool:
        """Look for the batch once its transaction has ended, which the journal's lock tells.

        The commit of no meaning behind that shows that the database can commit, and that what was found there is kept
        as safely as it is: on the replicas too.
        """
        try:
            self._close_writer()
            writer = self._connected()
            with writer.within(self._limits.answer_s):
                writer.warned = ""
                writer.run(_BEGIN)
                writer.run(_LOCK)
                self._refuse(standing_of(writer))
                kept = self._doubt is not None and self._is_there(writer, self._doubt.batch_id)
                writer.run("UPDATE journal SET forced = forced + 1")
                writer.run("COMMIT")
            if writer.warned:
                raise NotDone(writer.warned)
        except psycopg.Error as error:
            self._close_writer()
            raise NotDone(str(error)) from error
        return kept

    def _is_there(self, writer: Connection, batch_id: str) -> bool:
        return bool(writer.run("SELECT 1 FROM batch WHERE id = %s", (batch_id,)).fetchall())

    def _connected(self) -> Connection:
        """Return the writing connection; a new one, where it was lost. Raises `psycopg.Error`.

        What is left of the old one at the server may hold the lock: it is ended, but for a commit that is on its way.
        Raises `DiskFailed` where the references that were made until now may be another node's too.
        """
        if self._writer is None or self._writer.is_lost:
            self._close_writer()
            limits = self._limits if self._backend is None else self._limits._replace(connect_s=RECONNECT_S)
            self._writer = writer = connect_writer(self._route.straight, limits)
            try:
                self._take_over(writer)
                self._cable.lay(writer)
            except BaseException:
                self._close_writer()
                raise
        return self._writer

    def _take_over(self, writer: Connection) -> None:
        with writer.within(self._limits.answer_s):
            if self._backend is not None:
                writer.run(_END_IDLE, self._backend)
            writer.ask_server()
            [(pid, since)] = writer.run(_WHO)
            self._backend = (pid, since)
            self._number.hold(writer)

    def _roll_back(self) -> None:
        """End the transaction, if there is one; a connection on which that fails is closed, which does the same."""
        writer = self._writer
        if writer is None or writer.closed or self._status(writer) == TransactionStatus.IDLE:
            return
        try:
            with writer.within(self._limits.answer_s):
                writer.run("ROLLBACK")
        except psycopg.Error:
            self._close_writer()

    def _close_writer(self) -> None:
        self._cable.take_up()
        if self._writer is not None:
            with suppress(psycopg.Error):
                self._writer.close()
            self._writer = None


def _not_done(error: Exception) -> NotDone:
    """Tell what cannot be kept from a database that cannot keep anything at the moment."""
    if isinstance(error, NotDone):
        return error
    if isinstance(error, StoreError):
        return DiskFailed(str(error))
    state = (error.sqlstate or "") if isinstance(error, psycopg.Error) else ""
    is_data = isinstance(error, _DATA_ERRORS) or state[:2] in _DATA_STATES or not isinstance(error, psycopg.Error)
    return NotDone(repr(error)) if is_data else DiskFailed(str(error))
