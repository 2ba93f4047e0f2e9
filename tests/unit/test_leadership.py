"""Who runs a loop: the process with its seat, for as long as it has it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from strongroom.clock import MAX_NODES, Ids, SetClock
from strongroom.engine.leadership import Seats, SoleLeadership

NOW_MS = 1_790_000_000_000


class Work:
    """A loop that tells where it is."""

    def __init__(self) -> None:
        self.running: list[str] = []
        self.changed = asyncio.Event()

    async def run(self, name: str) -> None:
        """Run until cancelled."""
        self.running.append(name)
        self.changed.set()
        try:
            _ = await asyncio.Event().wait()
        finally:
            self.running.remove(name)

    async def until(self, *names: str) -> None:
        """Wait until these run and no others."""
        async with asyncio.timeout(60):
            while self.running != list(names):
                self.changed.clear()
                _ = await self.changed.wait()


@pytest.fixture
async def seats() -> AsyncIterator[tuple[Seats, Work]]:
    """Seats with one loop that waits for its seat."""
    seats, work = Seats(), Work()
    leading = asyncio.create_task(seats.lead("seat", lambda: work.run("leads"), lambda: work.run("stands by")))
    await work.until("stands by")
    yield seats, work
    _ = leading.cancel()
    _ = await asyncio.wait([leading])
    assert work.running == []


async def test_a_loop_runs_only_while_its_seat_is_held(seats: tuple[Seats, Work]) -> None:
    """It stands by before and after, and never does both."""
    held, work = seats
    assert held.wanted == ["seat"]
    held.hold(frozenset({"seat", "another"}))
    await work.until("leads")
    held.hold(frozenset({"seat"}))
    held.hold(frozenset())
    await work.until("stands by")


async def test_a_seat_that_is_lost_and_won_again_is_noticed(seats: tuple[Seats, Work]) -> None:
    """However quickly that goes, the loop runs in the end."""
    held, work = seats
    for holds in (True, False, True):
        held.hold(frozenset({"seat"}) if holds else frozenset())
    await work.until("leads")


async def test_what_a_loop_raises_is_told_and_its_end_is_the_end() -> None:
    """The supervisor then starts it again."""
    seats = Seats()

    async def fail() -> None:
        raise ValueError("broken")

    async def end() -> None:
        pass

    with pytest.raises(ValueError, match="broken"):
        await seats.lead("seat", fail, fail)
    await seats.lead("seat", end, end)


async def test_a_process_with_its_ledger_to_itself_always_leads() -> None:
    """It never stands by."""
    leadership, work = SoleLeadership(), Work()
    leading = asyncio.create_task(leadership.lead("seat", lambda: work.run("leads"), lambda: work.run("stands by")))
    await work.until("leads")
    assert leadership.led == {"seat"}
    _ = leading.cancel()
    _ = await asyncio.wait([leading])


def test_no_two_nodes_make_the_same_references() -> None:
    """Not even in the same millisecond, and though they make more than one has room for."""
    made: list[int] = []
    for node in range(MAX_NODES):
        ids = Ids(SetClock(NOW_MS))
        ids.number_node(node, 0)
        own = [ids.ref() for _ in range(100)]
        assert own == sorted(set(own))
        made += own
    assert len(set(made)) == len(made)


def test_a_node_of_another_number_makes_only_references_of_that_number() -> None:
    """From the first one on, and all of them later than those before and than the books' last stamp."""
    ids = Ids(SetClock(NOW_MS))
    ids.number_node(5, 0)
    before = [ids.ref() for _ in range(3)]
    ids.number_node(2, NOW_MS + 60_000)
    after = [ids.ref() for _ in range(3)]
    assert {ref % MAX_NODES for ref in before} == {5}
    assert {ref % MAX_NODES for ref in after} == {2}
    assert before[-1] + 60_000 * 1_000 <= after[0]
