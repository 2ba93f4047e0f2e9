"""Servers with a mistake in them: the simulation finds every one, and its rules are worth what they find."""

from __future__ import annotations

from typing import Final

import pytest

from support.simulation_mistakes import MISTAKES
from support.simulation_runs import find_all

SEEDS: Final = (*range(77_200, 77_210), *range(77_000, 77_080))
"""The first ones find what is seldom there to be found."""


@pytest.fixture(scope="module")
def found() -> dict[str, tuple[int, str]]:
    """Return how many seeds it took to find each mistake, and how it showed."""
    return find_all(list(MISTAKES), SEEDS)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_found(mistake: str, found: dict[str, tuple[int, str]]) -> None:
    """A server that breaks a rule is found out within a few seeds, each of which replays."""
    tried, failure = found[mistake]
    print(f"{mistake}: seed {tried}: {failure[:200]}")
    assert tried, f"{mistake} is not found by {len(SEEDS)} seeds"
    assert failure != "another failure each time"
