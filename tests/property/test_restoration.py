"""Restored houses with any past: whatever was done after a backup, nobody is paid twice, books are the chain's."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from random import Random

import msgspec
import pytest

from strongroom.custody.sender import PaymentTerms
from strongroom.engine.command import NOBODY
from strongroom.ledger.accounts import available
from strongroom.ledger.entries import move
from strongroom.records.withdrawals import OPEN_WITHDRAWALS, Payment, PaymentState, Withdrawal, WithdrawalState
from strongroom.wallet import addresses
from strongroom.wallet.approvals import prepare_approval
from strongroom.wallet.assignments import prepare_withdrawal_assignment
from strongroom.wallet.verification import verify
from strongroom.wallet.withdrawals import WithdrawalRequested
from support.paying import COIN, OURS, THEIRS, Payouts, book
from support.restored import AHEAD, House, restored
from support.world import BITCOIN, BTC

SEEDS = range(60)
DEEDS = 14
SHORTEST, LONGEST = 8, 25


class Past:
    """What a house goes through, drawn from a seed."""

    def __init__(self, seed: int) -> None:
        self._chance = Random(seed)
        self._is_backed_up = False
        self.asked: Counter[int] = Counter()
        self._terms = PaymentTerms(batch=self._chance.choice((1, 5)), redraft_after_s=self._chance.choice((0, 1_800)))

    async def opening(self, payouts: Payouts) -> None:
        """Let larger withdrawals wait for a word, give bob coins and an address, and go on for a while."""
        await payouts.offer(BTC, approve_above=COIN)
        shared = move(available(payouts.alice, BTC), available(payouts.bob, BTC), 3 * COIN)
        await payouts.do(lambda: book(*shared))
        _ = await payouts.give(payouts.bob, BTC, BITCOIN, 1)
        await payouts.chain().watch([place.address for place in OURS[BITCOIN]])
        _ = await payouts.node.mine("BITCOIN", 3)
        await House(payouts).follow()
        await self.go_on(payouts)
        self._is_backed_up = True

    async def go_on(self, payouts: Payouts) -> None:
        """Do a number of things by chance; a house of its own each time, as after a crash."""
        deeds = (self._ask, self._ask, self._approve, self._pay, self._pay, self._pay, self._mine, self._mine)
        for _ in range(self._chance.randrange(DEEDS)):
            await self._chance.choice((*deeds, self._receive, self._fail, self._reorganise))(payouts)
        await House(payouts).follow()

    async def _ask(self, payouts: Payouts) -> None:
        # Few amounts, so that withdrawals look like each other.
        amount = self._chance.choice(("0.01", "0.02", "1.5"))
        outcome = await payouts.ask(amount, owner=self._chance.choice((payouts.alice, payouts.bob)))
        if outcome.refusal is None:
            self.asked[msgspec.json.decode(outcome.result, type=WithdrawalRequested).to_address] += 1

    async def _approve(self, payouts: Payouts) -> None:
        for row in payouts.reads.rows(Withdrawal, {"state": WithdrawalState.AWAITING}, 1):
            await payouts.do(lambda row=row: prepare_approval(payouts.world.context, NOBODY, row.ref))

    async def _pay(self, payouts: Payouts) -> None:
        _ = await payouts.sender(terms=self._terms).step()

    async def _mine(self, payouts: Payouts) -> None:
        _ = await payouts.node.mine("BITCOIN", self._chance.randint(1, 3))
        await House(payouts).follow()

    async def _receive(self, payouts: Payouts) -> None:
        position = self._chance.choice((1, 1, 6) if self._is_backed_up else (1,))
        _ = await payouts.node.faucet("BITCOIN", OURS[BITCOIN][position].address, "", "", self._chance.randint(1, COIN))

    async def _fail(self, payouts: Payouts) -> None:
        if self._chance.random() < 0.5:
            payouts.node.fail_next("BITCOIN")
        else:
            payouts.node.undo_next("BITCOIN")

    async def _reorganise(self, payouts: Payouts) -> None:
        _ = await payouts.node.reorg("BITCOIN", 1)
        await House(payouts).follow()


async def come_to_rest(payouts: Payouts) -> House:
    """Let the house find its way back, name somebody for what is nobody's, and bury everything."""
    home = House(payouts)
    assert await home.sender.step()
    await home.stock()
    payouts.node._chains["BITCOIN"].doom_next = payouts.node._chains["BITCOIN"].undo_next = False
    for turn in range(LONGEST):
        await home.work()
        for row in payouts.reads.rows(Withdrawal, {"owner": 0, "state": WithdrawalState.SETTLED}, 100):
            await payouts.do(
                lambda row=row: prepare_withdrawal_assignment(payouts.world.context, NOBODY, row.ref, payouts.bob)
            )
        rows = [row for row in payouts.withdrawals() if row.state in OPEN_WITHDRAWALS[1:]]
        if not rows and not home.reason and turn >= SHORTEST:
            break
    return home


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have fewer addresses of before the restore derived."""
    monkeypatch.setattr(addresses, "AHEAD", AHEAD)


@pytest.mark.parametrize("seed", SEEDS)
async def test_whatever_was_done_after_the_backup_nobody_is_paid_twice(tmp_path: Path, seed: int) -> None:
    """Nothing was paid that was not asked for, each settled withdrawal once, and the books have what the chain has."""
    past = Past(seed)
    async with restored("memory", tmp_path, past.opening, past.go_on) as payouts:
        home = await come_to_rest(payouts)
        stuck = {ref: why for ref, why in home.sender.status.stuck.items() if "too little" not in why}
        assert (stuck, home.watcher.status.error) == ({}, "")
        settled = [row for row in payouts.withdrawals() if row.state == WithdrawalState.SETTLED]
        assert Counter(amount for _, _, amount in await payouts.paid_on()) <= past.asked
        assert Counter(await payouts.paid_on()) == Counter((it.address, it.tag, it.to_address) for it in settled)
        assert {it.address for it in settled} <= {THEIRS[BITCOIN].address}
        states = {payment.state for payment in payouts.reads.rows(Payment, {}, 1_000)}
        assert states <= {PaymentState.FINAL, PaymentState.VOIDED, PaymentState.SIGNED, PaymentState.RESERVED}
        assert await payouts.agrees_with_node(BITCOIN, BTC)
        assert verify(payouts.reads).findings == []
        assert payouts.world.events.failures == []
        payouts.agree()
