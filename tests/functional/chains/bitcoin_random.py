"""Whole runs at random: a server process on a real node, whose world does as it likes and whose process dies."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random

import pytest

from strongroom.custody import watcher
from support.coin_chaos import CoinChaos
from support.coin_house import coin_house, coin_settings
from support.coin_process import CoinProcess
from support.nodes import FIRST_COINS, Bitcoind

CHAIN = "bitcoin-regtest"
SHORT_STEPS = 40
LONG_STEPS = 400
SOAK_SEEDS = int(os.environ.get("CHAOS_SEEDS", "5"))


async def play(folder: Path, seed: int, steps: int, monkeypatch: pytest.MonkeyPatch) -> CoinChaos:
    """Play one run and judge it."""
    async with Bitcoind(folder / "node") as node:
        _ = await node.mine(FIRST_COINS + 20)
        config = coin_settings(folder, node, CHAIN)
        async with coin_house(config, node) as house:
            members = [await house.customer(name) for name in ("alice", "bob", "carol")]
            addresses = [(member, [await house.address(member)]) for member in members]
        async with CoinProcess(folder, node, CHAIN) as server:
            chaos = CoinChaos(node, server, Random(seed))
            for member, given in addresses:
                chaos.add(member, given)
            await chaos.run(steps)
        # At rest nothing comes back any more: what the node does not know is gone.
        monkeypatch.setattr(watcher, "UNKNOWN_GRACE_MS", 0)
        async with coin_house(config, node) as house:
            await chaos.come_to_rest(house)
            await chaos.judge(house)
    return chaos


async def test_a_world_at_random_loses_and_doubles_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After deposits, withdrawals, reorganisations and kills in any order, the chain says what the books say."""
    chaos = await play(tmp_path, 1, SHORT_STEPS, monkeypatch)
    assert {"paid", "withdrawn", "killed"} <= set(chaos.done), chaos.done


@pytest.mark.soak
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("seed", range(100, 100 + SOAK_SEEDS))
async def test_long_runs_at_random(tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for much longer, with another seed each; `CHAOS_SEEDS` says how many."""
    chaos = await play(tmp_path, seed, LONG_STEPS, monkeypatch)
    assert {"paid", "withdrawn", "killed", "undone 2"} <= set(chaos.done), chaos.done
