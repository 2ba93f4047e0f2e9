"""Whole runs at random: a server process on an EVM node, whose world does as it likes and whose process dies."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random

import pytest

from strongroom.custody import watcher
from support.evm_chaos import EvmChaos
from support.evm_house import evm_house, reopened
from support.evm_process import EvmProcess
from support.nodes import Anvil

SHORT_STEPS = 30
LONG_STEPS = int(os.environ.get("CHAOS_STEPS", "300"))
SOAK_SEEDS = int(os.environ.get("CHAOS_SEEDS", "5"))
FIRST_SEED = int(os.environ.get("CHAOS_FIRST", "100"))


async def play(folder: Path, seed: int, steps: int, monkeypatch: pytest.MonkeyPatch) -> EvmChaos:
    """Play one run and judge it; its seed is printed, for a failure to show."""
    print(f"seed {seed}, {steps} steps")
    async with Anvil(folder / "node") as anvil:
        async with evm_house(folder, anvil) as house:
            await house.stock(ether=50, tokens=100_000_000)
            token = house.token
            members = [await house.customer(name) for name in ("alice", "bob", "carol")]
            addresses = [(it, [await house.address(it, code) for code in ("ETH", "USDT")]) for it in members]
        async with EvmProcess(folder, anvil, token) as server:
            chaos = EvmChaos(anvil, token, server, Random(seed))
            for member, given in addresses:
                chaos.add(member, given)
            await chaos.run(steps)
        # At rest nothing comes back any more: what the node does not know is gone.
        monkeypatch.setattr(watcher, "UNKNOWN_GRACE_MS", 0)
        async with reopened(folder, anvil, token) as house:
            await chaos.come_to_rest(house)
            await chaos.judge(house)
    print(dict(chaos.done))
    return chaos


async def test_a_world_at_random_loses_and_doubles_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After deposits, withdrawals, reorganisations and kills in any order, the chain says what the books say."""
    chaos = await play(tmp_path, 1, SHORT_STEPS, monkeypatch)
    assert {"paid", "withdrawn", "killed"} <= set(chaos.done), chaos.done


@pytest.mark.soak
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + SOAK_SEEDS))
async def test_long_runs_at_random(tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for much longer, with another seed each; `CHAOS_SEEDS` says how many, `CHAOS_STEPS` how long."""
    chaos = await play(tmp_path, seed, LONG_STEPS, monkeypatch)
    assert {"paid", "withdrawn", "killed"} <= set(chaos.done), chaos.done
