"""The writer: one batch is committed at a time; commands that arrive meanwhile wait and make up the next one.

A store with several lanes has the next batch begun by then, which waits for its turn at the store; nothing in it is
decided before the batch before it is told. Nobody is answered, not even with a refusal, before what the answer depends
on is durable.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from typing import Final, NamedTuple, Protocol, TypeAlias

import msgspec

from strongroom.clock import Clock
from strongroom.crashpoints import reach
from strongroom.engine.command import Command
from strongroom.engine.port import DiskFailed, InDoubt, Lane, NotDone, Store, StoreError
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
    alone: bool = False
    """Whether it makes up a batch of its own, since something in its first one could not be kept."""


class Decided(NamedTuple):
    """A batch that only has to be made durable."""

    batch: Sequence[Waiting]
    state: State
    outcomes: Sequence[Outcome | InvariantBroken]


class Watch(msgspec.Struct):
    """Whether what is watched has taken too long."""

    has_stalled: bool = False


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
        self._turn = asyncio.Lock()
        self._is_free = asyncio.Event()
        self._is_free.set()
        self._troubles = dict.fromkeys(store.lanes, "")
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
        lanes = [asyncio.ensure_future(self._serve(lane)) for lane in self._store.lanes]
        try:
            await asyncio.gather(*lanes)
        finally:
            for lane in lanes:
                lane.cancel()
            await asyncio.wait(lanes)

    def close(self) -> None:
        """Accept no more commands; `run` ends once all that were accepted are answered."""
        self._closing = True
        self._arrived.set()

    async def _serve(self, lane: Lane) -> None:
        """Take what is waiting through a lane, again and again.

        Whoever has the turn takes a batch, begins and decides it; the turn is over when it goes to be committed.
        """
        batch: list[Waiting] = []
        try:
            while True:
                async with self._turn:
                    batch = await self._take()
                    if not batch:
                        return
                    decided = await self._decide(lane, batch)
                if decided is not None:
                    await self._commit(lane, decided)
        except BaseException as error:
            self._set_trouble(lane, STOPPED)
            for waiting in batch:
                waiting.answer(InvariantBroken(f"the writer stopped: {error!r}"))
            raise

    async def _take(self) -> list[Waiting]:
        while not self._queue and not self._closing:
            self._arrived.clear()
            await self._arrived.wait()
        # What has reached the sockets meanwhile shares this commit instead of waiting for it.
        await asyncio.sleep(0)
        batch: list[Waiting] = []
        while self._queue and len(batch) < MAX_BATCH:
            if batch and (batch[0].alone or self._queue[0].alone):
                break
            batch.append(self._queue.popleft())
        return batch

    async def _decide(self, lane: Lane, batch: Sequence[Waiting]) -> Decided | None:
        """Begin a batch, and decide it once the one before is told; None where that came to nothing."""
        reach("batch taken")
        try:
            with self._watched(lane, batch) as watch:
                state = await lane.begin([waiting.command for waiting in batch])
                await self._is_free.wait()
            if watch.has_stalled or self.trouble:
                # It is refused, or what became of the batch before is not known yet. Nothing was decided.
                await lane.commit(state)
                _refuse_busy(batch)
                return None
            now_ms = max(self._clock.now_ms(), state.last_ms)
            outcomes = [self._settle(waiting, state, now_ms) for waiting in batch]
        except NotDone as error:
            await self._give_up(lane, batch, error)
            return None
        reach("batch decided")
        self._is_free.clear()
        return Decided(batch, state, outcomes)

    async def _commit(self, lane: Lane, decided: Decided) -> None:
        """Make a batch durable and answer it."""
        started_s = self._clock.monotonic_s()
        error = await self._failure_to_commit(lane, decided.state)
        # Whoever waits for this goes on when this lane waits: by then the batch is told, or the trouble is.
        self._is_free.set()
        if isinstance(error, NotDone):
            await self._give_up(lane, decided.batch, error)
        elif error is None or await self._is_kept(lane, error):
            self._answer(decided, started_s)
        else:
            _refuse_busy(decided.batch)

    async def _failure_to_commit(self, lane: Lane, state: State) -> InDoubt | NotDone | None:
        try:
            with self._watched(lane):
                await lane.commit(state)
        except (InDoubt, NotDone) as error:
            return error
        return None

    async def _give_up(self, lane: Lane, batch: Sequence[Waiting], error: NotDone) -> None:
        """Refuse a batch of which nothing was kept; if something in it cannot be kept, each goes on alone instead, and
        the culprit fails alone.
        """
        if isinstance(error, DiskFailed):
            _refuse_busy(batch)
            _ = await self._until_known(lane, f"{UNWRITABLE}: {error}")
        elif len(batch) == 1:
            self._events.failed(batch[0].command, error)
            batch[0].answer(InvariantBroken(f"{type(batch[0].command).__name__}: {error}"))
        else:
            self._queue.extendleft(waiting._replace(alone=True) for waiting in reversed(batch))
            self._arrived.set()

    def _answer(self, decided: Decided, started_s: float) -> None:
        self._events.committed(len(decided.batch), self._clock.monotonic_s() - started_s)
        for waiting, outcome in zip(decided.batch, decided.outcomes, strict=True):
            waiting.answer(outcome)
        reach("batch answered")

    def _settle(self, waiting: Waiting, state: State, now_ms: int) -> Outcome | InvariantBroken:
        """Settle one command; a mistake of ours fails this command alone and leaves the state as it was."""
        try:
            return settle(waiting.command, state, now_ms)
        except StoreError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, it fails this command alone and is told
            self._events.failed(waiting.command, error)
            return InvariantBroken(f"{type(waiting.command).__name__}: {error}")

    async def _is_kept(self, lane: Lane, error: InDoubt) -> bool:
        """Find out whether the batch in doubt is there."""
        self._events.doubtful(error, resolved=False)
        kept = await self._until_known(lane, f"{IN_DOUBT}: {error}")
        self._events.doubtful(error, resolved=True)
        return kept

    async def _until_known(self, lane: Lane, trouble: str) -> bool:
        """Accept nothing until a lane can commit again; return whether the batch in doubt is in the store."""
        self._set_trouble(lane, trouble)
        while True:
            try:
                kept = await lane.resolve()
            except NotDone:
                check(not self._closing, "the ledger is not closed before it is known what it holds")
                await asyncio.sleep(RESOLVE_EVERY_S)
                continue
            self._set_trouble(lane, "")
            return kept

    @contextmanager
    def _watched(self, lane: Lane, undecided: Sequence[Waiting] = ()) -> Generator[Watch]:
        """Say so while a lane takes too long; what it was asked to do goes on, and is answered when it is done.

        Who waits for what is `undecided` is refused like all that is in the queue: it is not done any more.
        """
        watch = Watch()

        def stall() -> None:
            watch.has_stalled = True
            self._set_trouble(lane, STALLED)
            _refuse_busy(undecided)

        alarm = asyncio.get_running_loop().call_later(STALLED_AFTER_S, stall)
        try:
            yield watch
        finally:
            alarm.cancel()
            self._set_trouble(lane, "")

    def _set_trouble(self, lane: Lane, trouble: str) -> None:
        """Begin or end a lane's trouble. With any nothing is accepted; what only waits is told so at once."""
        self._troubles[lane] = trouble
        worst = next(filter(None, self._troubles.values()), "")
        if worst != self.trouble:
            self.trouble = worst
            self._events.troubled(worst)
        if worst:
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
