"""Servers with a mistake in them: the simulation finds every one, and its rules are worth what they find."""

from __future__ import annotations

from typing import Final

import pytest

from support.simulation import play
from support.simulation_mistakes import MISTAKES

WITHIN: Final = 80
FIRST: Final = 77_000


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_found(mistake: str) -> None:
    """A server that breaks a rule is found out within a few seeds, and the seed that did it replays."""
    with MISTAKES[mistake]():
        for tried, seed in enumerate(range(FIRST, FIRST + WITHIN), 1):
            played = play(seed)
            if played.failure:
                print(f"{mistake}: found by seed {tried}: {played.failure[:160]}")
                assert play(seed).digest == played.digest
                return
    pytest.fail(f"{mistake} is not found by {WITHIN} seeds")
