"""One life of a simulated server: from the opening of its folder to a crash, a power failure or an orderly stop."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from typing import Any, Final, NamedTuple
from unittest import mock

import apsw

from strongroom import crashpoints
from strongroom.application import Application
from strongroom.store.sqlite import store as sqlite_store
from strongroom.store.sqlite.connection import DATABASE_FILE, run
from strongroom.wallet.epochs import waits
from support.simulation_chain import Line, watch_through
from support.simulation_disk import SimulatedDisk
from support.simulation_house import MASTER_KEY, NUMBERS, config_of
from support.simulation_loop import NoThread, SimulatedClock, SimulatedIds, Timeline, VirtualLoop

DATABASE_FILES: Final = (DATABASE_FILE, f"{DATABASE_FILE}-wal")
STARTS_AGAIN_BY_DESIGN: Final = {"expiry"}
"""Loops whose way to wait out trouble is to crash: the supervisor starts them again."""


class Failure(AssertionError):
    """What must not happen has happened."""


def demand(holds: bool, what: str) -> None:
    """Raise `Failure` unless a rule holds."""
    if not holds:
        raise Failure(what)


class Crash(BaseException):
    """The process is gone: nothing that it still does counts."""


class Weather(NamedTuple):
    """What a life has to stand: odds and amounts, all drawn from the seed."""

    usual_s: float = 0.002
    stalls: float = 0.0
    refuses: float = 0.0
    error_after: float = 0.0
    disk: dict[str, float] | None = None
    power: float = 0.0
    checkpoint: int = 4000
    line: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)


class Ending(NamedTuple):
    """How a life ends: at the `nth` reaching of a point, else after so many seconds; orderly or not."""

    after_s: float
    point: str = ""
    nth: int = 0
    orderly: bool = False


class Life:
    """A server on a folder with its own loop; `serve` is what goes on around it, called when it is ready."""

    def __init__(
        self,
        folder: Path,
        timeline: Timeline,
        seed: str,
        weather: Weather,
        ending: Ending,
        note: Callable[[str], None],
        *,
        moves: bool,
        coins: bool,
    ) -> None:
        """With `moves` the house moves its own money between its addresses, with `coins` one network is of coins."""
        self.moves = moves
        self.coins = coins
        self.folder = folder
        self.timeline = timeline
        self.weather = weather
        self.ending = ending
        self.dead = False
        self.stopping = False
        self.failure: BaseException | None = None
        self.image: dict[str, bytes] = {}
        self.seed = seed
        self.reached: Counter[str] = Counter()
        self._awaited: dict[str, asyncio.Event] = {}
        self.clock = SimulatedClock(timeline)
        self.application: Application
        self.line = Line()
        self._note = note
        self._chance = Random(f"{seed}/store")
        self._disk = SimulatedDisk(folder, Random(f"{seed}/disk"), lambda files: self.end("power fails", files))
        self._loop = VirtualLoop(timeline, self._latency)

    # -- what it goes through

    def note(self, text: str) -> None:
        """Write an event down, unless nobody is there any more to see it."""
        if not self.dead:
            self._note(text)

    def count(self, what: str) -> None:
        """Count something that has happened."""
        self.reached[what] += 1

    async def until_reached(self, point: str, timeout_s: float) -> None:
        """Wait until a crash point is reached, at most so many seconds."""
        awaited = self._awaited[point] = asyncio.Event()
        try:
            async with asyncio.timeout(timeout_s):
                await awaited.wait()
        except TimeoutError:
            pass

    def check_alive(self) -> None:
        """Raise `Crash` after the end."""
        if self.dead:
            raise Crash

    def fail(self, error: BaseException) -> None:
        """End the simulation: a rule was broken."""
        if not self.dead:
            self.failure = error
            self.end(f"failed: {error}")

    def end(self, why: str, files: dict[str, bytes] | None = None) -> None:
        """Stop everything where it is; what is on disk now is what the next life finds."""
        if self.dead:
            return
        self.note(why)
        paths = [self.folder / name for name in DATABASE_FILES]
        self.image = files or {path.name: path.read_bytes() for path in paths if path.exists()}
        self.dead = self._loop.abandoned = True
        self._loop.stop()

    def reach(self, point: str) -> None:
        """Be at a crash point: go on, meet an error of the disk, or end here."""
        self.check_alive()
        self.note(point)
        self.reached[point] += 1
        if (awaited := self._awaited.pop(point, None)) is not None:
            awaited.set()
        if (point, self.reached[point]) == (self.ending.point, self.ending.nth):
            self.end(f"killed at '{point}'")
            raise Crash
        odds = {
            "transaction begun": self.weather.refuses,
            "transaction written": self.weather.refuses,
            "transaction committed": self.weather.error_after,
        }.get(point, 0.0)
        if not self.stopping and self._chance.random() < odds:
            self.note(f"the disk says no at '{point}'")
            raise self._chance.choice((apsw.IOError, apsw.FullError))(f"at {point}")

    def _latency(self, executor: Any) -> tuple[float, float]:
        """Return how long a piece of work waits and takes."""
        if self._chance.random() < self.weather.stalls and not self.stopping:
            return self._chance.random() * 4, self._chance.random() * 6
        return self._chance.random() * self.weather.usual_s, self._chance.random() ** 3 * 10 * self.weather.usual_s

    # -- from the beginning to the end

    def live(self, serve: Callable[[Life], Awaitable[None]]) -> None:
        """Run until the end; afterwards `image` has what is left of the books. Raises `failure`, if there is one."""
        right = sqlite_store.open_writer
        crashpoints.arm(self.reach)
        try:
            with mock.patch.object(sqlite_store, "open_writer", lambda folder, vfs=None: self._open(right, folder)):
                main = self._loop.create_task(self._main(serve))
                main.add_done_callback(self._stop)
                self._loop.set_exception_handler(lambda _, context: None)
                self._loop.run_forever()
                main.remove_done_callback(self._stop)
                self._bury()
        finally:
            crashpoints.arm(None)
            self._disk.unregister()
            self._loop.close()
        if not self.dead:
            if (error := main.exception()) is not None:
                raise error
            files = [self.folder / name for name in DATABASE_FILES]
            self.image = {path.name: path.read_bytes() for path in files if path.exists()}
        if self.failure is not None:
            raise self.failure

    def _stop(self, _main: asyncio.Task[None]) -> None:
        self._loop.stop()

    def _open(self, right: Callable[..., apsw.Connection], folder: Path) -> apsw.Connection:
        connection = right(folder, self._disk.name if self.weather.disk or self.weather.power else None)
        run(connection, f"PRAGMA wal_autocheckpoint={self.weather.checkpoint}")
        return connection

    async def _main(self, serve: Callable[[Life], Awaitable[None]]) -> None:
        ids = SimulatedIds(self.clock, Random(f"{self.seed}/ids"))
        self.application = Application(config_of(self.folder), MASTER_KEY, self.clock, ids, NoThread())
        self.application.events.failed = self._mistake  # pyright: ignore[reportAttributeAccessIssue]
        line = (self.line, Random(f"{self.seed}/line"), self.check_alive, self._check_sent)
        watch_through(self.application.treasury, *line, moves=self.moves, coins=self.coins)
        self._break()
        if not self.ending.orderly:
            self._loop.call_later(self.ending.after_s, self.end, "killed")
        async with self.application.running():
            self.note(f"ready, {self.application.store.last()[0]} items")
            await serve(self)
            self.calm()
            self.note("stops")
        self._check_loops()

    def _check_sent(self, network: str) -> None:
        """Fail where a house sends something before its restored books were brought to the chain."""
        if not self.dead and waits(self.application.store, NUMBERS[network]):
            self.fail(Failure(f"{network} was sent something before it was reconciled"))

    def _break(self) -> None:
        """Let the bad weather begin."""
        self._disk.odds, self._disk.power_odds = dict(self.weather.disk or {}), self.weather.power
        self.line.slow, self.line.silent, self.line.rejecting, self.line.forgetful = self.weather.line

    def calm(self) -> None:
        """Let everything work from now on."""
        self.stopping = True
        self._disk.calm()
        self.line.slow = self.line.silent = self.line.rejecting = self.line.forgetful = 0.0

    def _mistake(self, command: Any, error: Exception) -> None:
        self.fail(Failure(f"{type(command).__name__} met a mistake of the server's own: {error!r}"))

    def _check_loops(self) -> None:
        supervisor = self.application.supervisor
        crashed = set(supervisor.restarts if supervisor else ()) - STARTS_AGAIN_BY_DESIGN
        if crashed:
            raise Failure(f"loops crashed: {sorted(crashed)}")

    def _bury(self) -> None:
        """Let what still runs come to its end without any effect."""
        while tasks := asyncio.all_tasks(self._loop):
            for task in tasks:
                task.cancel()
            self._loop.run_until_complete(asyncio.wait(tasks))
        if hasattr(self, "application"):
            if (node := self.application.treasury.node) is not None:
                node.close()
            self.application.store.close()
