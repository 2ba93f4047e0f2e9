"""Whole runs at random on Litecoin: a server process on a real node, whose world does as it likes and which dies."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support.coin_chaos import play
from support.nodes import Litecoind

CHAIN = "litecoin-regtest"
STEPS = int(os.environ.get("CHAOS_STEPS", "400"))
SOAK_SEEDS = int(os.environ.get("CHAOS_SEEDS", "5"))


@pytest.mark.soak
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("seed", range(200, 200 + SOAK_SEEDS))
async def test_a_world_at_random_loses_and_doubles_nothing(tmp_path: Path, seed: int) -> None:
    """After deposits, withdrawals, reorganisations and kills in any order, the chain says what the books say."""
    async with Litecoind(tmp_path / "node") as node:
        chaos = await play(node, CHAIN, tmp_path, seed, STEPS)
    assert {"paid", "withdrawn", "killed"} <= set(chaos.done), chaos.done
