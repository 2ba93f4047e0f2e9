"""The writer: one batch in flight; commands that arrive meanwhile wait and make up the next one.

Nobody is answered, not even with a refusal, before what the answer depends on is durable.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from typing import Final, NamedTuple, Protocol, TypeAlias

from strongroom.clock import Clock
from strongroom.crashpoints import reach
from strongroom.engine.command import Command
from strongroom.engine.port import DiskFailed, InDoubt, NotDone, Store, StoreError
from strongroom.engine.settle import Outcome, settle
from strongroom.engine.state import State
from strongroom.errors import UNAVAILABLE, InvariantBroken, check

MAX_QUEUED: Final = 10_000
MAX_BATCH: Final = 512
RESOLVE_EVERY_S: Final = 0.5
STALLED_AFTER_S: Final = 5.0
"""A disk that has not answered for so long is in trouble, though it may yet answer well."""

IN_DOUBT: Final = "Ledger in doubt"
UNWRITABLE: Final = "Ledger cannot be written"
STALLED: Final = "Ledger stalled"
STOPPED: Final = "Ledger stopped"


Answer: TypeAlias = Callable[[Outcome | Exception], None]
"""Who waits for a command: called with its durable outcome, or with why there is none. Only the first call counts, and
it must not raise."""


class Waiting(NamedTuple):
    """A command in the queue, and who waits for its outcome."""

    command: Command
    answer: Answer


class WriterEvents(Protocol):
    """What the writer tells of itself, for metrics and logs."""

    def committed(self, commands: int, seconds: float) -> None:
        """Tell that a batch was made durable, and how long its commit took."""
        ...

    def failed(self, command: Command, error: Exception) -> None:
        """Tell that a command met a mistake of ours and was not done."""
        ...

    def doubtful(self, error: Exception, *, resolved: bool) -> None:
        """Tell that a commit is in doubt, or that the doubt is over."""
        ...

    def troubled(self, trouble: str) -> None:
        """Tell why nothing is accepted from now on; an empty text says that commands are accepted again."""
        ...


class Writer:
    """The queue of commands and the loop that settles and commits them in batches.

    `trouble` says why nothing is accepted at the moment; empty when all is well.
    """

    def __init__(self, store: Store, clock: Clock, events: WriterEvents) -> None:
        self._store = store
        self._clock = clock
        self._events = events
        self._queue: deque[Waiting] = deque()
        self._arrived = asyncio.Event()
        self._closing = False
        self.trouble = ""

    @property
    def depth(self) -> int:
        """How many commands are waiting."""
        return len(self._queue)

    async def submit(self, command: Command) -> Outcome:
        """Queue a command and return its outcome once it is durable.

        Raises `Refused` UNAVAILABLE at once, with nothing done, when the queue is full, the store is in trouble or the
        writer is closing; `InvariantBroken` when the command met a mistake of ours and was not done.
        """
        promise: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.offer(command, lambda outcome: _keep(promise, outcome))
        return await promise

    def offer(self, command: Command, answer: Answer) -> None:
        """Queue a command and have `answer` called with its durable outcome, as `submit` would return or raise it.

        Raises `Refused` UNAVAILABLE as `submit` does; then nothing is called.
        """
        if self._closing:
            raise UNAVAILABLE("System draining")
        if self.trouble or len(self._queue) >= MAX_QUEUED:
            raise UNAVAILABLE(self.trouble or "System busy")
        self._queue.append(Waiting(command, answer))
        self._arrived.set()

    async def run(self) -> None:
        """Settle and commit batches until `close` was called and the queue is empty.

        Raises `InvariantBroken` when it was called while the store could not commit: waiting on might never end.
        """
        while batch := await self._take():
            try:
                await self._write(batch)
            except BaseException as error:
                self._set_trouble(STOPPED)
                for waiting in batch:
                    waiting.answer(InvariantBroken(f"the writer stopped: {error!r}"))
                raise

    def close(self) -> None:
        """Accept no more commands; `run` ends once all that were accepted are answered."""
        self._closing = True
        self._arrived.set()

    async def _take(self) -> list[Waiting]:
        while not self._queue and not self._closing:
            self._arrived.clear()
            await self._arrived.wait()
        # What has reached the sockets meanwhile shares this commit instead of waiting for it.
        await asyncio.sleep(0)
        return [self._queue.popleft() for _ in range(min(len(self._queue), MAX_BATCH))]

    async def _write(self, batch: Sequence[Waiting]) -> None:
        """Write a batch; if something in it cannot be kept, write one by one: the culprit fails alone."""
        try:
            await self._commit(batch)
        except DiskFailed as error:
            _refuse_busy(batch)
            _ = await self._until_known(UNWRITABLE, error)
        except NotDone as error:
            if len(batch) == 1:
                self._events.failed(batch[0].command, error)
                batch[0].answer(InvariantBroken(f"{type(batch[0].command).__name__}: {error}"))
            else:
                for waiting in batch:
                    await self._write([waiting])

    async def _commit(self, batch: Sequence[Waiting]) -> None:
        reach("batch taken")
        with self._watched():
            state = await self._store.begin([waiting.command for waiting in batch])
        now_ms = max(self._clock.now_ms(), state.last_ms)
        outcomes = [self._settle(waiting, state, now_ms) for waiting in batch]
        started_s = self._clock.monotonic_s()
        reach("batch decided")
        try:
            with self._watched():
                await self._store.commit(state)
        except InDoubt as error:
            self._events.doubtful(error, resolved=False)
            kept = await self._until_known(IN_DOUBT, error)
            self._events.doubtful(error, resolved=True)
            if not kept:
                return _refuse_busy(batch)
        self._events.committed(len(batch), self._clock.monotonic_s() - started_s)
        for waiting, outcome in zip(batch, outcomes, strict=True):
            waiting.answer(outcome)
        reach("batch answered")
        return None

    def _settle(self, waiting: Waiting, state: State, now_ms: int) -> Outcome | InvariantBroken:
        """Settle one command; a mistake of ours fails this command alone and leaves the state as it was."""
        try:
            return settle(waiting.command, state, now_ms)
        except StoreError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, it fails this command alone and is told
            self._events.failed(waiting.command, error)
            return InvariantBroken(f"{type(waiting.command).__name__}: {error}")

    async def _until_known(self, trouble: str, error: StoreError) -> bool:
        """Accept nothing until the store can commit again; return whether the batch in doubt is in it."""
        self._set_trouble(f"{trouble}: {error}")
        while True:
            try:
                kept = await self._store.resolve()
            except NotDone:
                check(not self._closing, "the ledger is not closed before it is known what it holds")
                await asyncio.sleep(RESOLVE_EVERY_S)
                continue
            self._set_trouble("")
            return kept

    @contextmanager
    def _watched(self) -> Generator[None]:
        """Say so while the store takes too long; what it was asked to do goes on, and is answered when it is done."""
        alarm = asyncio.get_running_loop().call_later(STALLED_AFTER_S, self._set_trouble, STALLED)
        try:
            yield
        finally:
            alarm.cancel()
            self._set_trouble("")

    def _set_trouble(self, trouble: str) -> None:
        """Begin or end a time in which nothing is accepted; what only waits has not begun, and is told so at once."""
        if trouble != self.trouble:
            self.trouble = trouble
            self._events.troubled(trouble)
        if trouble:
            _refuse_busy(self._queue)
            self._queue.clear()


def _keep(promise: asyncio.Future[Outcome], outcome: Outcome | Exception) -> None:
    """Fulfil the promise of an outcome, unless whoever waited for it has gone."""
    if promise.done():
        return
    if isinstance(outcome, Outcome):
        promise.set_result(outcome)
    else:
        promise.set_exception(outcome)


def _refuse_busy(batch: Iterable[Waiting]) -> None:
    for waiting in batch:
        waiting.answer(UNAVAILABLE("System busy"))
