"""The supervisor: loops that crash come back, a vital one does not, and all stop in reverse order."""

from __future__ import annotations

import asyncio

from strongroom.clock import Clock
from strongroom.engine.port import DiskFailed
from strongroom.engine.supervisor import BOOKS_AWAY, Supervisor


async def test_a_loop_that_crashes_is_started_again() -> None:
    """A background loop goes on after a mistake, and the crash is counted."""
    supervisor, calm, runs = Supervisor(Clock(), first_pause_s=0.001), asyncio.Event(), 0

    async def loop() -> None:
        nonlocal runs
        runs += 1
        if runs < 3:
            raise ValueError("a mistake")
        calm.set()
        await asyncio.Event().wait()

    supervisor.start("loop", loop)
    await asyncio.wait_for(calm.wait(), 5)
    assert (supervisor.restarts, supervisor.down) == ({"loop": 2}, {})
    await supervisor.stop()


async def test_a_loop_that_waits_for_its_restart_is_told() -> None:
    """While a loop is down the operator can see which one, and what it crashed of."""
    supervisor, crashed = Supervisor(Clock(), first_pause_s=60), asyncio.Event()

    async def loop() -> None:
        crashed.set()
        raise ValueError("a secret text")

    supervisor.start("loop", loop)
    await crashed.wait()
    await asyncio.sleep(0)
    assert supervisor.down == {"loop": "ValueError"}
    await supervisor.stop()


async def test_a_loop_that_cannot_read_the_books_goes_on_soon() -> None:
    """However often that happens: it is no crash, no pause grows, and the operator can see why it waits."""
    supervisor, away, back, runs = Supervisor(Clock(), first_pause_s=60), asyncio.Event(), asyncio.Event(), 0

    async def loop() -> None:
        nonlocal runs
        runs += 1
        if runs < 3:
            away.set()
            raise DiskFailed("the database does not answer")
        back.set()
        await asyncio.Event().wait()

    supervisor.start("loop", loop)
    await away.wait()
    await asyncio.sleep(0)
    assert supervisor.down == {"loop": BOOKS_AWAY}
    await asyncio.wait_for(back.wait(), 30)
    assert (supervisor.restarts, supervisor.down) == ({}, {})
    await supervisor.stop()


async def test_a_vital_loop_that_crashes_ends_everything() -> None:
    """What nothing works without is not started again: the server is told to stop."""
    supervisor = Supervisor(Clock())

    async def loop() -> None:
        raise ValueError("broken")

    supervisor.start("writer", loop, vital=True)
    failure = await asyncio.wait_for(supervisor.failed(), 5)
    assert "writer" in str(failure)
    await supervisor.stop()


async def test_loops_stop_in_reverse_order_each_before_the_next() -> None:
    """What was started last, and may need what was started before, stops first."""
    supervisor, order = Supervisor(Clock()), list[str]()
    started = asyncio.Barrier(4)

    def loop(name: str):
        async def run() -> None:
            await started.wait()
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0)
                order.append(name)

        return run

    for name in ("one", "two", "three"):
        supervisor.start(name, loop(name))
    await started.wait()
    await supervisor.stop(but=frozenset({"one"}))
    assert order == ["three", "two"]
    await supervisor.stop()
    assert order == ["three", "two", "one"]


async def test_a_vital_loop_that_is_asked_to_end_is_waited_for() -> None:
    """A loop that ends by itself finishes its work first, and is no failure."""
    supervisor, asked, done = Supervisor(Clock()), asyncio.Event(), list[str]()

    async def loop() -> None:
        await asked.wait()
        await asyncio.sleep(0)
        done.append("all")

    supervisor.start("writer", loop, vital=True)
    asked.set()
    await supervisor.join("writer", 5)
    assert done == ["all"]
    await supervisor.join("never started", 5)


async def test_a_vital_loop_that_does_not_end_is_not_waited_for_for_ever() -> None:
    """A stop is bounded even when what should finish its work cannot."""
    supervisor, cancelled = Supervisor(Clock()), asyncio.Event()

    async def loop() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    supervisor.start("writer", loop, vital=True)
    await asyncio.sleep(0)
    await supervisor.join("writer", 0.01)
    assert cancelled.is_set()
