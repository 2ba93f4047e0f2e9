"""Whole runs at random on Bitcoin: a server process on a real node, whose world does as it likes and which dies."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support.coin_chaos import play
from support.nodes import Bitcoind

CHAIN = "bitcoin-regtest"
SHORT_STEPS = 40
LONG_STEPS = 400
SOAK_SEEDS = int(os.environ.get("CHAOS_SEEDS", "5"))


async def test_a_world_at_random_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """After deposits, withdrawals, reorganisations and kills in any order, the chain says what the books say."""
    async with Bitcoind(tmp_path / "node") as node:
        chaos = await play(node, CHAIN, tmp_path, 1, SHORT_STEPS)
    assert {"paid", "withdrawn", "killed"} <= set(chaos.done), chaos.done


@pytest.mark.soak
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("seed", range(100, 100 + SOAK_SEEDS))
async def test_long_runs_at_random(tmp_path: Path, seed: int) -> None:
    """The same for much longer, with another seed each; `CHAOS_SEEDS` says how many."""
    async with Bitcoind(tmp_path / "node") as node:
        chaos = await play(node, CHAIN, tmp_path, seed, LONG_STEPS)
    assert {"paid", "withdrawn", "killed", "undone 2"} <= set(chaos.done), chaos.done
