"""What a failure of the crash tests says: its seed, and the command that makes the same choices again."""

from __future__ import annotations

import pytest

from support.harness_rounds import ROUNDS, SEED


@pytest.fixture(autouse=True)
def _replay(request: pytest.FixtureRequest) -> None:
    """Print the command before the test, so that it stands in the report of a failure."""
    soak = " -m soak" if request.node.get_closest_marker("soak") else ""
    seed = f"STRONGROOM_CRASH_SEED={SEED} STRONGROOM_CRASH_ROUNDS={ROUNDS}"
    print(f"to replay: {seed} .venv/bin/python -m pytest{soak} '{request.node.nodeid}'")
