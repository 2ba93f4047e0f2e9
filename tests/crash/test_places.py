"""The places to die at: a closed set, of which the documentation names every one."""

from __future__ import annotations

import re
from pathlib import Path

from strongroom import crashpoints
from support.harness_strikes import PLACES

ROOT = Path(__file__).parents[2]


def test_the_program_reaches_no_place_that_is_not_named() -> None:
    """Whatever the sources call a crash point by name is in the set, and all of a batch's are called somewhere."""
    called = {
        name for file in (ROOT / "src").rglob("*.py") for name in re.findall(r'\breach\("([^"]+)"\)', file.read_text())
    }
    assert called <= set(crashpoints.POINTS)
    assert called >= set(crashpoints.BATCH_POINTS)


def test_the_documentation_names_every_place() -> None:
    """Who reads about durability finds each point, and each way to be killed inside COMMIT."""
    text = (ROOT / "docs/explanation/durability.md").read_text()
    missing = [step for step in {_step(place) for place in (*PLACES, *crashpoints.POINTS)} if step not in text]
    assert missing == []


def _step(place: str) -> str:
    """Return how the documentation names a place: a step's without its side, a file's without the file."""
    if place in crashpoints.POINTS and place not in crashpoints.BATCH_POINTS:
        return place.partition(" ")[2]
    return place.partition(" of the ")[0]
