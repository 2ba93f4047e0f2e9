"""A restored house that dies at any moment on the way back to its chain: whoever goes on ends with the same books."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

import pytest

from strongroom.records.deposits import Deposit
from strongroom.records.withdrawals import Payment
from strongroom.wallet import addresses
from strongroom.wallet.verification import verify
from support.dying import Deadly, Killed
from support.paying import OURS, THEIRS, Payouts
from support.restored import AHEAD, House, paid, restored
from support.world import BITCOIN


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have fewer addresses of before the restore derived."""
    monkeypatch.setattr(addresses, "AHEAD", AHEAD)


async def ask(payouts: Payouts) -> None:
    """Ask for a withdrawal that the backup knows."""
    _ = await payouts.withdraw("1.5")


async def go_on(payouts: Payouts) -> None:
    """Pay it, pay another one, and be paid at an address that waits in the backup."""
    await paid(payouts, *payouts.withdrawals(), await payouts.withdraw("0.25"))
    await payouts.node.faucet("BITCOIN", OURS[BITCOIN][4].address, "", "", 300)
    _ = await payouts.node.mine("BITCOIN", 3)


async def come_back(payouts: Payouts, at: int, *, done: bool) -> int:
    """Go through a restart at the command number `at`, and then back to the end; return how often it has died."""
    deaths = 0
    payouts.world.context.submit = Deadly(payouts.world.writer.submit, at, done=done)
    try:
        await life(payouts)
    except Killed:
        deaths = 1
    payouts.world.context.submit = payouts.world.writer.submit
    await life(payouts)
    return deaths


async def life(payouts: Payouts) -> None:
    """Start, find the way back, and follow what was found."""
    home = House(payouts)
    await home.stock()
    for _ in range(2):
        await home.follow()
        assert await home.sender.step()


def books(payouts: Payouts) -> dict[str, Any]:
    """Return what the books have come to, without references."""
    assert verify(payouts.reads).findings == []
    payouts.agree()
    return {
        "withdrawals": [(bool(it.owner), it.state, it.to_address, it.address) for it in payouts.withdrawals()],
        "payments": [(it.state, len(it.candidates), it.spends) for it in payouts.reads.rows(Payment, {}, 10)],
        "deposits": [(it.owner, it.state, it.amount) for it in payouts.reads.rows(Deposit, {}, 10)],
        "balances": sorted(balance for _, balance, _ in payouts.balances() if balance),
    }


async def told(folder: Path, at: int, *, done: bool) -> tuple[dict[str, Any], int]:
    """Return how the story ends, and whether it was interrupted."""
    async with restored("memory", folder, ask, go_on) as payouts:
        deaths = await come_back(payouts, at, done=done)
        assert len(await payouts.paid_on()) == 2
        assert (await payouts.paid_on())[0][0] == THEIRS[BITCOIN].address
        return books(payouts), deaths


@pytest.mark.parametrize("done", [False, True], ids=["before the commit", "after the commit"])
async def test_death_at_any_command_leads_to_the_same_books(tmp_path: Path, *, done: bool) -> None:
    """Each command on the way back is the last one in turn."""
    expected, _ = await told(tmp_path / "plain", 0, done=done)
    for at in count(1):
        ended, deaths = await told(tmp_path / f"{at}", at, done=done)
        assert ended == expected
        if not deaths:
            break
    assert at > 10
