"""An error, a stall and a kill inside COMMIT, as a client sees them: an answer is true, none is one or the other.

A real server, its disk spoilt on the way to the log, and no other traffic, so that each outcome is known beforehand.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from decimal import Decimal
from pathlib import Path
from typing import Final

import pytest

from strongroom.engine.writer import IN_DOUBT, STALLED
from support import harness_controls
from support.harness import Answer, Server, Unanswered
from support.harness_rounds import verified
from support.harness_single import AMOUNT, QUIET_S, both, send, transfer, until_status
from support.harness_strikes import Fault, Plan, Strike

FAULTS: Final = tuple(Fault(operation, kind) for operation in ("sync", "write") for kind in ("error", "full"))
STALL: Final = Fault("sync", "hang")
KILLED_IN_DOUBT: Final = {Fault("sync", "error"): {True, False}, Fault("write", "error"): {False}, STALL: {True}}
"""Whether the transfer may be there after a kill: where a sync failed, the commit of no meaning that ends the doubt may
have overwritten it by then."""

INSIDE_COMMIT: Final = {
    "in a write of the log": False,
    "before a sync of the log": True,
    "after a sync of the log": True,
}
"""Where a server dies inside COMMIT, and whether its last transfer is there afterwards: the kernel keeps what was
written, synced or not, and SQLite takes no transaction whose end is missing."""


class House:
    """A quiet server under a plan, and what alice and bob should have."""

    def __init__(self, server: Server, plan: Plan, have: tuple[Decimal, Decimal]) -> None:
        self.server = server
        self.plan = plan
        self.alice, self.bob = have

    async def warm(self) -> None:
        """Begin the log: the first commit in a log syncs its header too, which would be another story."""
        assert (await send(self.server, transfer(self.server))).status == 200
        await self.check(moved=1)

    async def check(self, *, moved: int = 0) -> None:
        """Compare what both have, after so many further transfers."""
        self.alice, self.bob = self.alice - moved * AMOUNT, self.bob + moved * AMOUNT
        assert await both(self.server) == (self.alice, self.bob)

    async def doubt(self, fault: Fault, trouble: str) -> asyncio.Task[Answer]:
        """Spoil the disk and return a transfer that is not answered; others are put off meanwhile, reads go on."""
        self.plan.fail(fault)
        doubted = asyncio.create_task(send(self.server, transfer(self.server)))
        told = await until_status(self.server, 503)
        assert told["status"] == "unavailable"
        assert told["details"]["writer"].startswith(trouble), told
        refused = await send(self.server, transfer(self.server))
        assert (refused.status, int(refused.headers["retry-after"]) > 0) == (503, True)
        await self.check()
        assert not doubted.done()
        return doubted

    async def restart(self) -> None:
        """Start the server after its end."""
        self.server.kill()
        self.plan.forget()
        await self.server.start()


@asynccontextmanager
async def quiet_house(folder: Path, mistake: str = "") -> AsyncGenerator[House]:
    """Serve a new folder that nothing but the test writes to; at the end its books are whole."""
    plan = Plan(folder / "plan")
    program = harness_controls.program(mistake, plan.path) if mistake else plan.program
    server = Server(folder / "house", program, seconds_per_block=QUIET_S)
    try:
        await server.start()
        house = House(server, plan, await both(server))
        await house.warm()
        yield house
        server.kill()
        await verified(server.folder)
    finally:
        server.kill()


async def test_a_commit_that_fails_is_answered_not_done_once_that_is_known(tmp_path: Path) -> None:
    """While the disk fails nobody is answered and `/readyz` says why; then what was put off was not done."""
    async with quiet_house(tmp_path) as house:
        for fault in FAULTS:
            doubted = await house.doubt(fault, IN_DOUBT)
            house.plan.heal()
            assert (await doubted).status == 503
            await until_status(house.server, 200)
            await house.check()
            assert (await send(house.server, transfer(house.server))).status == 200
            await house.check(moved=1)
        await house.restart()
        await house.check()


async def test_a_stalled_commit_is_told_of_and_answered_when_it_ends(tmp_path: Path) -> None:
    """After five seconds `/readyz` says so and others are put off; who waits is answered in the end, and truly."""
    async with quiet_house(tmp_path) as house:
        began_s = asyncio.get_running_loop().time()
        doubted = await house.doubt(STALL, STALLED)
        assert asyncio.get_running_loop().time() - began_s > 5
        house.plan.heal()
        assert (await doubted).status == 200
        await until_status(house.server, 200)
        await house.check(moved=1)
        assert (await send(house.server, transfer(house.server))).status == 200
        await house.check(moved=1)
        await house.restart()
        await house.check()


async def test_a_server_that_dies_in_doubt_has_done_it_whole_or_not_at_all(tmp_path: Path) -> None:
    """Killed while a commit is in doubt: its transfer is there or not, and asking again never does it twice."""
    async with quiet_house(tmp_path) as house:
        for fault, expected in KILLED_IN_DOUBT.items():
            house.plan.fail(fault)
            request = transfer(house.server)
            doubted = asyncio.create_task(send(house.server, request))
            while not house.plan.met:  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.01)
            house.server.kill()
            with suppress(Unanswered):
                raise AssertionError(await doubted)
            await house.restart()
            kept = house.alice - (await both(house.server))[0] == AMOUNT
            assert kept in expected
            await house.check(moved=int(kept))
            assert (await send(house.server, request)).status == (401 if kept else 200)
            await house.check(moved=int(not kept))
            await house.warm()


async def test_a_server_that_dies_inside_commit_has_done_it_whole_or_not_at_all(tmp_path: Path) -> None:
    """Killed in a write that is torn, before a sync or after one: nothing of the transfer is there, or all of it."""
    async with quiet_house(tmp_path) as house:
        for place, kept in INSIDE_COMMIT.items():
            house.plan.aim(Strike(place, share=0.5))
            request = transfer(house.server)
            with suppress(Unanswered):
                raise AssertionError(await send(house.server, request))
            assert house.plan.struck
            await house.restart()
            await house.check(moved=int(kept))
            assert (await send(house.server, request)).status == (401 if kept else 200)
            await house.check(moved=int(not kept))
            await house.warm()


async def test_a_server_that_doubts_nothing_is_found_out(tmp_path: Path) -> None:
    """Whoever says "not done" as soon as a commit fails is wrong when the failed commit is found in the log."""
    async with quiet_house(tmp_path, "doubts-nothing") as house:
        house.plan.fail(FAULTS[0])
        assert (await send(house.server, transfer(house.server))).status == 503
        await house.restart()
        with pytest.raises(AssertionError):
            await house.check()
