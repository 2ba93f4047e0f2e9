"""A database that fails over under load, as `make ha` plays it: nothing acknowledged is lost or doubled.

`STRONGROOM_CRASH_SEED` repeats the choices of a run that failed. `scripts/setup-ha.sh` installs what it needs.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from random import Random
from typing import Final

import pytest

from support.ha_faults import CONTROL, deal
from support.ha_run import play
from support.harness_rounds import SEED

ROOT: Final = Path(__file__).parents[2]
ROUNDS: Final = 2


@pytest.fixture(scope="module", autouse=True)
def _installed() -> None:
    """Install etcd, HAProxy and Patroni, or say what to do."""
    installed = subprocess.run([str(ROOT / "scripts" / "setup-ha.sh")], capture_output=True, text=True, check=False)
    assert installed.returncode == 0, installed.stderr


@pytest.mark.soak
@pytest.mark.timeout(1_800)
async def test_a_failover_loses_and_doubles_nothing_that_was_acknowledged() -> None:
    """A leader is killed and then something else; every acknowledged change is there once, and service comes back."""
    faults = [*deal(1, Random(SEED), "leader killed"), *deal(ROUNDS - 1, Random(SEED))]
    played = await play(faults, SEED)
    assert [it.problem for it in played] == [""] * ROUNDS
    assert sum(it.lost + it.doubled for it in played) == 0
    assert all(it.acknowledged for it in played)


@pytest.mark.soak
@pytest.mark.timeout(900)
async def test_without_synchronous_replication_the_same_check_finds_losses() -> None:
    """A leader that dies before its standbys have heard takes acknowledged changes with it, and the check says so."""
    [played] = await play([CONTROL], SEED, synchronous=False)
    assert played.lost
    assert "answered and lost" in played.problem
