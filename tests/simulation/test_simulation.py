"""The whole server in one process, a thousand times: one seed drives clock, threads, disk, chains and crashes.

`make simulate SEED=...` replays a seed that a failure printed; without CI every run plays other seeds.
"""

from __future__ import annotations

import logging
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Final

import pytest
import structlog

from strongroom.crashpoints import POINTS, around_commits
from support.simulation import play
from support.simulation_runs import EVENTS, play_many

SEEDS: Final = 1_000
FIRST: Final = 1 if os.environ.get("CI") else random.SystemRandom().randrange(10**9)
TWICE: Final = 6
A_SEED_WITH_WARNINGS: Final = 41_093_432
FOUND: Final = {"a sweep after a release": 208_977_812, "a payment that came back": 726_158_204}
"""Seeds that found a mistake, by what it was about."""

ELSEWHERE: Final = around_commits("prove", "rival")
"""What one house, whose cold wallet sends nothing by itself, does not come by."""

TESTS: Final = Path(__file__).parents[1]


@pytest.mark.timeout(7_200)
@pytest.mark.parametrize("count", [SEEDS, pytest.param(20 * SEEDS, marks=pytest.mark.soak)])
def test_every_rule_holds_through_any_trouble(count: int) -> None:
    """Whatever fails, stalls or crashes: what was answered is there once, all else is whole or absent."""
    counts, failures = Counter[str](), []
    for played in play_many(range(FIRST, FIRST + count)):
        counts.update(played.counts)
        if played.failure:
            failures.append(played)
    stories = "\n\n".join(played.story() for played in failures[:3])
    assert not failures, f"{len(failures)} of {count} seeds from {FIRST} fail\n{stories}"
    unreached = [point for point in POINTS if not counts[point] and point not in ELSEWHERE]
    assert not unreached, "every crash point is passed"
    rare = {name: counts[name] for name, least in EVENTS.items() if counts[name] * SEEDS < least * count}
    assert not rare, "every event happens often enough to be tested"
    print(*(f"{counts[name]} {name.removeprefix('log ')}" for name in EVENTS), sep=", ")
    print(f"{counts['deeds']} requests, {counts['happened']} done, {counts['lives']} lives")


def digests(hash_seed: int, first: int) -> list[str]:
    """Return the digests of seeds as a fresh process with its own hashing works them out."""
    environment = os.environ | {"PYTHONHASHSEED": str(hash_seed), "PYTHONPATH": f"{TESTS.parent / 'src'}:{TESTS}"}
    command = [
        sys.executable,
        "-m",
        "support.simulation_runs",
        "--digests",
        "--first",
        str(first),
        "--seeds",
        str(TWICE),
    ]
    ran = subprocess.run(command, capture_output=True, text=True, env=environment, check=True, timeout=120)
    return ran.stdout.splitlines()


@pytest.mark.parametrize("seed", FOUND.values(), ids=FOUND)
def test_what_a_seed_has_found_stays_mended(seed: int) -> None:
    """A restored house takes what comes back from the lost time for what it was, also once payments go on."""
    assert not play(seed).failure


def test_a_seed_always_goes_the_same_way() -> None:
    """The same seeds give the same events to the last byte, again and in other processes that hash differently."""
    here = [f"{seed} {play(seed).digest}" for seed in range(FIRST, FIRST + TWICE)]
    again = [f"{seed} {play(seed).digest}" for seed in range(FIRST, FIRST + TWICE)]
    assert here == again == digests(1, FIRST) == digests(2, FIRST)


def test_a_seed_goes_the_same_way_after_a_command_that_logs_nothing() -> None:
    """What a seed shows does not depend on how much the process was told to log before."""
    told = play(A_SEED_WITH_WARNINGS)
    assert any("log warning" in event for event in told.trace)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        assert play(A_SEED_WITH_WARNINGS).digest == told.digest
    finally:
        structlog.reset_defaults()
