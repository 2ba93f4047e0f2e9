"""A watcher that dies at any moment: whoever goes on after it ends with the same books."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from strongroom.custody.watcher import Watcher
from strongroom.money import FeeFormula
from strongroom.store.memory import MemoryStore
from support.dying import Deadly, Killed
from support.watching import Watched, watching
from support.world import BITCOIN, BTC

Round = Callable[[Watched], Awaitable[None]]


async def story(house: Watched, follow: Round) -> dict[str, Any]:
    """Play the same events on a chain, following them by `follow`, and return the books at the end."""
    await house.change_offer(BTC, deposit_fee=FeeFormula(extra=7), deposit_minimum=100)
    alice, bob = await house.world.user("alice"), await house.world.user("bob")
    to_alice, to_bob = await house.address(alice, "BTC"), await house.address(bob, "BTC")
    await follow(house)
    for amount in (50, 1_000):
        await house.pay(BITCOIN, to_alice, amount)
    lost = await house.pay(BITCOIN, to_bob, 500)
    await follow(house)
    await house.node.mine("BITCOIN", 2)
    await follow(house)
    await house.world.transfer(house.world.guard(bob), "BTC", "0.000004", "alice")
    await house.pay(BITCOIN, to_bob, 300)
    await house.node.reorg("BITCOIN", 2, [lost])
    await follow(house)
    await house.node.mine("BITCOIN", 1)
    await follow(house)
    return {
        "states": sorted((deposit.amount, deposit.state, deposit.fee) for deposit in house.deposits()),
        "alice": house.world.available(alice, BTC),
        "bob": (house.world.available(bob, BTC), house.debt(bob, BTC)),
        "owned": (house.owned(BITCOIN, BTC), house.held(BITCOIN, BTC)),
        "sums": set(house.sums().values()),
    }


async def told(chains: Path, follow: Round) -> dict[str, Any]:
    """Return how the story ends in a fresh house beside a fresh chain."""
    async with watching(MemoryStore(), chains, run=False) as house:
        return await story(house, follow)


async def plainly(house: Watched) -> None:
    """Follow the chain without any accident."""
    await house.watcher(BITCOIN).go_round()


async def caught_up(watcher: Watcher) -> None:
    """Go round until a round goes through, as after a restart."""
    async with asyncio.timeout(60):
        while not await watcher.try_round():
            assert not watcher.status.error


class Dying:
    """A round that dies at its command number `at`, and another watcher that takes over."""

    def __init__(self, at: int, *, done: bool) -> None:
        self.at, self.done, self.deaths = at, done, 0

    async def __call__(self, house: Watched) -> None:
        house.context.submit = Deadly(house.world.writer.submit, self.at, done=self.done)
        try:
            await house.watcher(BITCOIN).go_round()
        except Killed:
            self.deaths += 1
        house.context.submit = house.world.writer.submit
        await caught_up(house.watcher(BITCOIN))


class CutShort:
    """A round that is cancelled after some turns of the loop, and another watcher that takes over."""

    def __init__(self, turns: int) -> None:
        self.turns, self.deaths = turns, 0

    async def __call__(self, house: Watched) -> None:
        task = asyncio.create_task(house.watcher(BITCOIN).go_round())
        for _ in range(self.turns):
            await asyncio.sleep(0)
        task.cancel()
        [ended] = await asyncio.gather(task, return_exceptions=True)
        self.deaths += isinstance(ended, asyncio.CancelledError)
        await caught_up(house.watcher(BITCOIN))


@pytest.mark.parametrize("done", [False, True], ids=["before the commit", "after the commit"])
async def test_death_at_any_command_leads_to_the_same_books(tmp_path: Path, *, done: bool) -> None:
    """Each command of each round is the last one in turn."""
    expected = await told(tmp_path / "plain", plainly)
    for at in count(1):
        dying = Dying(at, done=done)
        assert await told(tmp_path / f"{at}", dying) == expected
        if not dying.deaths:
            break
    assert at > 5


async def test_cancelling_at_any_moment_leads_to_the_same_books(tmp_path: Path) -> None:
    """The task ends after so many turns of the loop, whatever it was waiting for."""
    expected = await told(tmp_path / "plain", plainly)
    for turns in count(1):
        cut_short = CutShort(turns)
        assert await told(tmp_path / f"{turns}", cut_short) == expected
        if not cut_short.deaths:
            break
    assert turns > 5
