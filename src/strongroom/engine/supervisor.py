"""The supervisor: background loops by name, started in order, restarted when they crash, stopped in reverse order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

import structlog

from strongroom.clock import Clock
from strongroom.engine.port import DiskFailed

Loop: TypeAlias = Callable[[], Awaitable[None]]

FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 30.0
STOP_S: Final = 10.0
"""A loop that was cancelled is waited for so long."""

BOOKS_PAUSE_S: Final = 1.0
"""A loop that could not read the books tries again after this."""

BOOKS_AWAY: Final = "the books cannot be read"
CALM_S: Final = 60.0
"""A loop that ran this long without a crash starts again with the first pause."""

log = structlog.get_logger("supervisor")


class LoopCrashed(Exception):
    """A loop that nothing works without has stopped; the server must stop too."""


class Supervisor:
    """Runs the background loops of one server.

    A vital loop is not restarted: its crash ends `failed`. `restarts` counts the others' crashes by name; a loop that
    could not read the books has not crashed.
    """

    def __init__(self, clock: Clock, first_pause_s: float = FIRST_PAUSE_S) -> None:
        self._clock = clock
        self._first_pause_s = first_pause_s
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._failure: asyncio.Future[LoopCrashed] = asyncio.get_running_loop().create_future()
        self._down: dict[str, str] = {}
        self.restarts: dict[str, int] = {}

    @property
    def down(self) -> dict[str, str]:
        """The loops that crashed and wait for their restart, with what they crashed of."""
        return dict(self._down)

    def start(self, name: str, loop: Loop, *, vital: bool = False) -> None:
        """Start a loop; a vital one may end by itself, any other is started again."""
        run = self._run_vital(name, loop) if vital else self._run_again(name, loop)
        self._tasks[name] = asyncio.create_task(run, name=name)

    async def failed(self) -> LoopCrashed:
        """Return why the server cannot go on, once a vital loop has crashed."""
        return await asyncio.shield(self._failure)

    async def join(self, name: str, timeout_s: float) -> None:
        """Wait until a loop has ended by itself, and cancel it if that takes too long."""
        task = self._tasks.get(name)
        if task is not None:
            _ = await asyncio.wait([task], timeout=timeout_s)
            await self._cancel(name)

    async def stop(self, *, but: frozenset[str] = frozenset()) -> None:
        """Cancel every loop that is not in `but`, the last one started first, each before the next."""
        for name in [name for name in reversed(self._tasks) if name not in but]:
            await self._cancel(name)

    async def _cancel(self, name: str) -> None:
        task = self._tasks.pop(name)
        _ = task.cancel()
        _, late = await asyncio.wait([task], timeout=STOP_S)
        if late:
            log.error("loop does not stop", loop=name)

    async def _run_vital(self, name: str, loop: Loop) -> None:
        try:
            await loop()
        except Exception as error:
            log.critical("vital loop crashed", loop=name, exc_info=error)
            if not self._failure.done():
                self._failure.set_result(LoopCrashed(f"{name}: {error!r}"))

    async def _run_again(self, name: str, loop: Loop) -> None:
        pause_s = self._first_pause_s
        while True:
            started_s = self._clock.monotonic_s()
            try:
                await loop()
                self._down[name] = "it ended"
                log.error("loop ended", loop=name)
            except DiskFailed as error:
                # No mistake of the loop's: it goes on soon after the books can be read again.
                await self._wait_for_books(name, error)
                continue
            except Exception as error:
                self._down[name] = type(error).__name__
                log.error("loop crashed", loop=name, pause_s=pause_s, exc_info=error)
            self.restarts[name] = self.restarts.get(name, 0) + 1
            if self._clock.monotonic_s() - started_s >= CALM_S:
                pause_s = self._first_pause_s
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
            _ = self._down.pop(name, None)

    async def _wait_for_books(self, name: str, error: DiskFailed) -> None:
        log.warning("loop waits for the books", loop=name, reason=str(error))
        self._down[name] = BOOKS_AWAY
        await asyncio.sleep(BOOKS_PAUSE_S)
        _ = self._down.pop(name, None)
