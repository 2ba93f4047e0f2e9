"""Servers with a mistake in them: the simulation finds every one, and its rules are worth what they find."""

from __future__ import annotations

from typing import Final

import pytest

from support.simulation_mistakes import MISTAKES
from support.simulation_runs import find_all

SEEDS: Final = (*range(77_200, 77_210), *range(77_000, 77_080))
"""The first ones find what is seldom there to be found."""

RARE: Final = frozenset(
    {
        "adopts-nothing",
        "keeps-what-was-given-up-for-good",
        "adopts-for-nobody-what-is-somebodys",
        "holds-nothing-again-of-what-was-given-up",
    }
)
"""Mistakes that show only after a rare run of events: they are looked for in long runs."""

COMMON: Final = [mistake for mistake in MISTAKES if mistake not in RARE]


@pytest.fixture(scope="module")
def found() -> dict[str, tuple[int, str]]:
    """Return how many seeds it took to find each mistake, and how it showed."""
    return find_all(COMMON, SEEDS)


def judge(mistake: str, found: tuple[int, str]) -> None:
    """See that a mistake was found, and is found again."""
    tried, failure = found
    print(f"{mistake}: seed {tried}: {failure[:200]}")
    assert tried, f"{mistake} is not found by {len(SEEDS)} seeds"
    assert failure != "another failure each time"


@pytest.mark.timeout(600)
@pytest.mark.parametrize("mistake", COMMON)
def test_a_mistake_is_found(mistake: str, found: dict[str, tuple[int, str]]) -> None:
    """A server that breaks a rule is found out within a few seeds, each of which replays."""
    judge(mistake, found[mistake])


@pytest.mark.soak
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("mistake", sorted(RARE))
def test_a_rare_mistake_is_found(mistake: str) -> None:
    """One that shows only where several rare things meet is found too, in more seeds."""
    judge(mistake, find_all([mistake], SEEDS)[mistake])
