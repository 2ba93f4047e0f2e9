"""A node's two lanes: one batch commits while the next has begun, and all that is told stays in its order."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from strongroom import crashpoints
from strongroom.clock import Ids, SetClock
from strongroom.store.postgres.store import PostgresStore
from strongroom.wallet.verification import verify
from support.paying import COIN
from support.postgres import database_of
from support.world import BTC, NOW_MS, World, opened

TRANSFERS: Final = 60


@pytest.fixture
def reached() -> Iterator[list[str]]:
    """The crash points that are reached."""
    reached: list[str] = []
    crashpoints.arm(reached.append)
    yield reached
    crashpoints.arm(None)


async def pay_one_after_the_other(world: World, sender: int) -> None:
    """Have transfers arrive while batches are on their way, so that there are many of them."""

    async def pay() -> None:
        assert (await world.transfer(world.guard(sender), "BTC", "0.001", "bob")).refusal is None

    async with asyncio.TaskGroup() as paying:
        for _ in range(TRANSFERS):
            _ = paying.create_task(pay())
            await asyncio.sleep(0.001)


async def test_the_next_batch_begins_while_one_commits(tmp_path: Path, reached: list[str]) -> None:
    """It is taken behind the decision of the one before, and decided when that one is told: never two at a time."""
    async with opened(PostgresStore(database_of(tmp_path), Ids(SetClock(NOW_MS)))) as world:
        alice, bob = await world.user("alice"), await world.user("bob")
        await world.fund(alice, BTC, COIN)
        numbers: list[int] = []
        world.store.subscribe(lambda state: numbers.extend(item.number for item in state.items))
        reached.clear()
        await pay_one_after_the_other(world, alice)
        assert world.available(bob, BTC) == TRANSFERS * COIN // 1_000
        assert verify(world.store).findings == []
    assert numbers == list(range(numbers[0], numbers[0] + TRANSFERS))
    told = [point for point in reached if point in ("batch decided", "batch folded")]
    assert told == ["batch decided", "batch folded"] * (len(told) // 2)
    taken = [i for i, point in enumerate(reached) if point == "batch taken"]

    overlapping = [i for i in taken if reached[:i].count("batch decided") > reached[:i].count("batch folded")]
    assert overlapping, "a batch has begun while another was being committed"
