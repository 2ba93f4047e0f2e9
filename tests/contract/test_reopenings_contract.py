"""Payments whose end a deep reorganisation took: on their way again, and to their end by the chain's next word."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from strongroom.engine.command import NOBODY
from strongroom.errors import InvariantBroken
from strongroom.ledger.accounts import Purpose, available, house, omnibus, owed
from strongroom.ledger.entries import Posting, move
from strongroom.records.chains import Holding
from strongroom.records.withdrawals import PaymentState, Spent, Withdrawal, WithdrawalState
from strongroom.wallet.balances import balance_of
from strongroom.wallet.payments import MinePayment
from strongroom.wallet.reopenings import prepare_reopening
from strongroom.wallet.settlements import prepare_finish
from support.paying import COIN, THEIRS, TODAY, Payouts, book, paying
from support.world import BITCOIN, BTC, ERC20, ETH, USDT, new_store


@pytest.fixture(params=["memory", "sqlite"])
async def payouts(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Payouts]:
    """A house on each store in turn, where alice has ten bitcoin."""
    async with paying(new_store(request.param, tmp_path), tmp_path) as payouts:
        await payouts.endow(payouts.alice, BTC, BITCOIN, 10 * COIN)
        yield payouts


def standing(payouts: Payouts, network: int, *assets: int) -> list[object]:
    """Return what the house's accounts and holdings come to."""
    purposes = (Purpose.FEES, Purpose.CHAIN_FEE, Purpose.DUST, Purpose.EQUITY)
    accounts = [house(purpose, asset) for asset in assets for purpose in purposes]
    accounts += [omnibus(network, asset) for asset in assets]
    holdings = [payouts.reads.row(Holding, network, asset) for asset in assets]
    return [[payouts.balance(account) for account in accounts], holdings]


async def reopened(payouts: Payouts, withdrawal: Withdrawal) -> None:
    """Let the books learn that a payment's block is gone."""
    payment = payouts.payment(withdrawal)
    assert payment.block
    outcome = await payouts.do(lambda: prepare_reopening(payouts.world.context, payment))
    assert outcome.refusal is None
    assert not outcome.stale


async def test_a_settled_withdrawal_whose_block_is_gone_is_as_before_it_was_settled(payouts: Payouts) -> None:
    """Its money is held again, the fees are taken back, and once it is mined again all is as it was."""
    before = standing(payouts, BITCOIN, BTC)
    withdrawal, sender = await payouts.withdraw("1.5"), payouts.sender()
    await payouts.pay(sender, withdrawal)
    settled = standing(payouts, BITCOIN, BTC)
    await payouts.node.reorg("BITCOIN", 2)
    await reopened(payouts, withdrawal)
    again = payouts.row(withdrawal.ref)
    assert (again.state, again.txid, again.height) == (WithdrawalState.PAYING, "", 0)
    assert payouts.payment(withdrawal).state == PaymentState.SIGNED
    assert balance_of(payouts.reads, payouts.alice, BTC) == (850_000_000, 10 * COIN)
    assert standing(payouts, BITCOIN, BTC) == before
    payouts.agree()
    await payouts.pay(sender, withdrawal)
    assert payouts.row(withdrawal.ref).state == WithdrawalState.SETTLED
    assert standing(payouts, BITCOIN, BTC) == settled
    assert await payouts.paid_on() == [(*THEIRS[BITCOIN], 149_999_500)]
    payouts.agree()


async def test_one_that_can_never_be_mined_again_fails_and_frees_the_money(payouts: Payouts) -> None:
    """Somebody else has spent what it spent: the customer, who was not paid after all, has the money again."""
    withdrawal, sender = await payouts.withdraw("1.5"), payouts.sender()
    await payouts.pay(sender, withdrawal)
    await payouts.node.reorg("BITCOIN", 2, drop=payouts.payment(withdrawal).candidates)
    await reopened(payouts, withdrawal)
    await payouts.pay(sender, withdrawal)
    assert payouts.row(withdrawal.ref).state == WithdrawalState.FAILED
    assert balance_of(payouts.reads, payouts.alice, BTC) == (10 * COIN, 10 * COIN)
    assert await payouts.paid_on() == []
    payouts.agree()


async def test_a_tokens_fee_in_the_chains_coin_comes_back_as_well(payouts: Payouts) -> None:
    """Amounts finer than the ledger come back to the last unit."""
    await payouts.endow(payouts.alice, USDT, ERC20, 100 * COIN)
    await payouts.endow(payouts.bob, ETH, ERC20, COIN)
    before = standing(payouts, ERC20, USDT, ETH)
    withdrawal = await payouts.withdraw("10", THEIRS[ERC20].address, asset="USDT")
    await payouts.pay(payouts.sender(ERC20), withdrawal, network=ERC20)
    await reopened(payouts, withdrawal)
    assert standing(payouts, ERC20, USDT, ETH) == before
    payouts.agree()


async def test_fees_that_were_moved_on_are_the_houses_own_loss(payouts: Payouts) -> None:
    """The fees' account never falls below zero for it: the rest comes out of equity."""
    withdrawal = await payouts.withdraw("1.5")
    await payouts.pay(payouts.sender(), withdrawal)
    fees, equity = house(Purpose.FEES, BTC), house(Purpose.EQUITY, BTC)
    await payouts.do(lambda: book(Posting(fees, -400), Posting(equity, 400)))
    await reopened(payouts, withdrawal)
    assert (payouts.balance(fees), payouts.balance(equity)) == (0, 0)
    payouts.agree()


async def test_a_payment_is_taken_back_once(payouts: Payouts) -> None:
    """Whoever comes second, or names another block, changes nothing."""
    withdrawal = await payouts.withdraw("1.5")
    await payouts.pay(payouts.sender(), withdrawal)
    command = prepare_reopening(payouts.world.context, payouts.payment(withdrawal))
    await reopened(payouts, withdrawal)
    assert (await payouts.world.context.submit(command)).stale
    payouts.agree()


async def undone(payouts: Payouts) -> Withdrawal:
    """Return a withdrawal that has failed because its block took the fee and undid the rest."""
    withdrawal = await payouts.withdraw("1.5")
    payouts.node.undo_next("BITCOIN")
    await payouts.pay(payouts.sender(), withdrawal)
    assert payouts.row(withdrawal.ref).state == WithdrawalState.FAILED
    return withdrawal


async def test_a_withdrawal_that_was_undone_by_a_block_that_is_gone_holds_its_money_again(payouts: Payouts) -> None:
    """On the new branch it may be paid after all: until the chain has said so the money is not the customer's."""
    before = standing(payouts, BITCOIN, BTC)
    withdrawal = await undone(payouts)
    failed = standing(payouts, BITCOIN, BTC)
    spent = payouts.reads.row(Spent, payouts.alice, BTC, TODAY).amount
    await reopened(payouts, withdrawal)
    again = payouts.row(withdrawal.ref)
    assert (again.state, again.txid, again.height) == (WithdrawalState.PAYING, "", 0)
    assert payouts.payment(withdrawal).state == PaymentState.SIGNED
    assert balance_of(payouts.reads, payouts.alice, BTC) == (850_000_000, 10 * COIN)
    assert standing(payouts, BITCOIN, BTC) == before
    assert payouts.reads.row(Spent, payouts.alice, BTC, TODAY).amount == spent + withdrawal.asked
    payouts.agree()
    await payouts.pay(payouts.sender(), withdrawal)
    assert payouts.row(withdrawal.ref).state == WithdrawalState.FAILED
    assert standing(payouts, BITCOIN, BTC) == failed
    assert balance_of(payouts.reads, payouts.alice, BTC) == (10 * COIN, 10 * COIN)
    payouts.agree()


async def test_what_was_spent_of_it_meanwhile_is_owed(payouts: Payouts) -> None:
    """It is paid once in the end, and the customer, who has had the money twice, owes one of the two."""
    withdrawal = await undone(payouts)
    everything = available(payouts.alice, BTC), available(payouts.bob, BTC)
    await payouts.do(lambda: book(*move(*everything, 9 * COIN)))
    await reopened(payouts, withdrawal)
    assert payouts.balance(owed(payouts.alice, BTC)) == -50_000_000
    payouts.agree()
    context = payouts.world.context
    payment = payouts.payment(withdrawal)
    [txid] = payment.candidates
    await payouts.do(lambda: MinePayment(NOBODY, payment.ref, payment.withdrawals, txid, 3, "1000", "three"))
    await payouts.do(lambda: prepare_finish(context, payouts.payment(withdrawal), 9))
    assert payouts.row(withdrawal.ref).state == WithdrawalState.SETTLED
    assert (payouts.available(payouts.alice), payouts.balance(owed(payouts.alice, BTC))) == (0, -50_000_000)
    payouts.agree()


async def test_one_that_nobody_can_undo_any_more_stays_given_up(payouts: Payouts) -> None:
    """A payment that is void for another reason is in no block, and no reorganisation brings it back."""
    withdrawal = await undone(payouts)
    payment = payouts.payment(withdrawal)
    command = prepare_reopening(payouts.world.context, payment)
    for changed in (
        msgspec.structs.replace(command, block=""),
        msgspec.structs.replace(command, block="another"),
    ):
        assert (await payouts.world.context.submit(changed)).stale
    with pytest.raises(InvariantBroken, match="reopened with all it pays"):
        _ = await payouts.world.context.submit(msgspec.structs.replace(command, failed=()))
    assert payouts.row(withdrawal.ref).state == WithdrawalState.FAILED
    payouts.agree()
