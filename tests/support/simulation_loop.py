"""A world without time: an event loop whose clock jumps to the next timer, and chances that all come from one seed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, Future
from random import Random
from typing import Any, Final

from strongroom.clock import Clock, Ids

EPOCH_MS: Final = 1_790_000_000_000
"""Unix milliseconds at the simulation's second 0."""

MAX_CALLBACKS: Final = 400_000
"""A run that takes more turns of the loop than this goes round in circles."""


class Stuck(AssertionError):
    """Nothing is ready and no timer runs, or the program turns in circles: it waits for what never comes."""


class Timeline:
    """Simulated seconds, which go on through every restart, and how far the wall clock is off them."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.skew_ms = 0

    @property
    def wall_ms(self) -> int:
        """What a wall clock shows now."""
        return EPOCH_MS + round(self.now_s * 1000) + self.skew_ms


class _Selector:
    """Where a real loop would wait for sockets, this one moves its clock on."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._turns = 0

    def select(self, timeout: float | None) -> list[Any]:
        """Let the time pass that the loop would sleep."""
        self._turns += 1
        if timeout is None:
            raise Stuck("nothing is ready and no timer runs")
        if self._turns > MAX_CALLBACKS:
            raise Stuck("the program turns in circles")
        self._timeline.now_s += timeout
        return []

    def close(self) -> None:
        """Nothing is open."""


class VirtualLoop(asyncio.BaseEventLoop):
    """An event loop without sockets, signals or threads: what a thread would do is done at a moment that is drawn.

    `latency` says for an executor how many seconds pass before its work is done, and how many until that is known.
    """

    def __init__(self, timeline: Timeline, latency: Callable[[Any], tuple[float, float]]) -> None:
        super().__init__()
        self._timeline = timeline
        self._latency = latency
        self._selector = _Selector(timeline)
        self._free_at_s: dict[Any, float] = {}
        self._clock_resolution = 1e-9
        self.abandoned = False

    def time(self) -> float:
        """Return simulated seconds."""
        return self._timeline.now_s

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Do the work in this thread a little later, one piece after the other as one thread would."""
        future = self.create_future()
        before_s, after_s = self._latency(executor)
        begins_s = max(self.time() + before_s, self._free_at_s.get(executor, 0.0))
        self._free_at_s[executor] = begins_s + after_s
        self.call_at(begins_s, self._work, future, after_s, func, args)
        return future

    def _work(self, future: asyncio.Future[Any], after_s: float, func: Callable[..., Any], args: Any) -> None:
        if self.abandoned:
            return
        try:
            result, error = func(*args), None
        except BaseException as raised:  # noqa: BLE001 - whoever waits for the work gets it
            result, error = None, raised
        self.call_later(after_s, _tell, future, result, error)

    def _process_events(self, event_list: Any) -> None:
        """There are no sockets."""

    def _write_to_self(self) -> None:
        """There are no threads to be woken by."""

    def close(self) -> None:
        """Close the loop."""
        super().close()
        self._selector.close()


def _tell(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


class NoThread(Executor):
    """Stands for the store's thread; the loop does its work."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Refuse: a simulation has one thread."""
        raise AssertionError("a simulation has one thread")


class SimulatedClock(Clock):
    """The wall clock of a simulated machine."""

    def __init__(self, timeline: Timeline) -> None:
        super().__init__()
        self._timeline = timeline

    def _read_ms(self) -> int:
        return self._timeline.wall_ms

    def monotonic_s(self) -> float:
        """Return simulated seconds."""
        return self._timeline.now_s


class SimulatedIds(Ids):
    """Ids, salts and secrets drawn from a seed."""

    def __init__(self, clock: Clock, chance: Random) -> None:
        super().__init__(clock)
        self._chance = chance

    def uid(self) -> int:
        """Return a drawn ten-digit user id."""
        return self._chance.randrange(10**9, 10**10)

    def uuid(self) -> str:
        """Return a drawn UUID as text."""
        bits = f"{self._chance.getrandbits(128):032x}"
        return f"{bits[:8]}-{bits[8:12]}-4{bits[13:16]}-a{bits[17:20]}-{bits[20:]}"

    def random_bytes(self, count: int) -> bytes:
        """Return drawn bytes."""
        return self._chance.randbytes(count)

    def below(self, limit: int) -> int:
        """Return a drawn integer in [0, limit)."""
        return self._chance.randrange(limit)
