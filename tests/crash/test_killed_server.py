"""A server that is killed under load, again and again: what was answered is there once, what was refused is not.

`STRONGROOM_CRASH_SEED` repeats the choices of a run that failed; `STRONGROOM_CRASH_ROUNDS` makes more of it.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

from support import harness_controls
from support.harness_rounds import ROUNDS, SEED, Blow, Rounds, any_blow, blow_at, rounds_on
from support.harness_strikes import PLACES

HOUSES: Final = 2
"""So many servers go through their rounds at the same time: each waits a good deal."""

LONGEST_ROUND_S: Final = 60
MOMENTS: Final = tuple(Blow(after_s=after_s) for after_s in (0.5, 0.3, 0.7, 0.4, 0.6))
"""Within so many rounds a mistake is found; one is nearly always enough."""

MISTAKES: Final[dict[str, Sequence[Blow]]] = {
    "answers-before-the-commit": MOMENTS,
    "forgets-signatures": MOMENTS,
    "forgets-replies": MOMENTS,
    "recovers-nothing": MOMENTS,
    "forgets-addresses": MOMENTS,
    "pays-twice": MOMENTS[:1],
}


async def play(folder: Path, house: int, blows: Sequence[Blow]) -> Rounds:
    """Let a server of its own take these blows, and compare what both dialects list with what happened."""
    began_ms = time.time_ns() // 1_000_000
    async with rounds_on(folder / f"house{house}", f"{SEED}-{house}") as rounds:
        await rounds.play_all(blows)
        listed = await rounds.customers.references(began_ms)
        assert sorted(listed) == sorted(rounds.orders), "both dialects list every order of every round"
    return rounds


async def play_in_houses(folder: Path, blows: Sequence[Blow]) -> Counter[str]:
    """Deal the blows to the houses, and return how often each place and fault was met."""
    began_s = time.monotonic()
    async with asyncio.timeout(60 + LONGEST_ROUND_S * len(blows)), asyncio.TaskGroup() as group:
        playing = [group.create_task(play(folder, house, blows[house::HOUSES])) for house in range(HOUSES)]
    played = [task.result() for task in playing]
    asked, unknown = sum(rounds.asked for rounds in played), sum(rounds.unknown for rounds in played)
    struck, kinds = (sum((getattr(rounds, name) for rounds in played), Counter[str]()) for name in ("struck", "kinds"))
    print(f"{len(blows)} rounds in {time.monotonic() - began_s:.0f} s: {asked} deeds, {unknown} unanswered")
    print(f"happened: {dict(kinds)}; struck: {dict(struck)}")
    assert unknown
    return struck


@pytest.mark.timeout(20_000)
@pytest.mark.parametrize("rounds_count", [ROUNDS, pytest.param(10 * ROUNDS, marks=pytest.mark.soak)])
async def test_no_answer_is_lost_and_nothing_is_done_twice(tmp_path: Path, rounds_count: int) -> None:
    """Twenty times: customers at work, kill -9, a new start; every answer stands, everything else is whole."""
    chance = random.Random(SEED)
    _ = await play_in_houses(tmp_path, [any_blow(chance) for _ in range(rounds_count)])


@pytest.mark.timeout(600)
async def test_a_server_can_die_at_every_named_place(tmp_path: Path) -> None:
    """Once at each crash point, and inside COMMIT and inside a checkpoint, with a torn write too: all is well after."""
    chance = random.Random(SEED)
    places = chance.sample(PLACES, len(PLACES))
    struck = await play_in_houses(tmp_path, [blow_at(place, chance) for place in places])
    assert struck == Counter(PLACES), "every place was really reached"


@pytest.mark.parametrize("mistake", MISTAKES)
async def test_a_server_that_breaks_its_word_is_found_out(tmp_path: Path, mistake: str) -> None:
    """The same rounds fail when answers come too early, a guard or balance is in memory only, or one is paid twice."""
    async with rounds_on(tmp_path / "house", SEED) as rounds:
        rounds.server.kill()
        rounds.usual = rounds.planned = harness_controls.program(mistake, rounds.plan.path)
        rounds.server.program = rounds.usual
        await rounds.server.start()
        with pytest.raises(AssertionError) as found:
            await rounds.play_all(MISTAKES[mistake])
    print(f"{mistake}: {str(found.value)[:200]}")
