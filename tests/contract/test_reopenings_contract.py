"""Payments whose end a deep reorganisation took: on their way again, and to their end by the chain's next word."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from strongroom.engine.command import NOBODY
from strongroom.errors import InvariantBroken, Refused
from strongroom.ledger.accounts import Purpose, available, house, omnibus, owed
from strongroom.ledger.entries import Posting
from strongroom.records.chains import Holding
from strongroom.records.coins import Coin
from strongroom.records.withdrawals import Payment, PaymentState, Reserved, Spent, Withdrawal, WithdrawalState
from strongroom.wallet.balances import balance_of
from strongroom.wallet.payments import (
    Draft,
    MinePayment,
    UnminePayment,
    free_coins,
    prepare_reservation,
    prepare_signing,
    prepare_void,
    reserved_coins,
)
from strongroom.wallet.reopenings import prepare_reopening
from strongroom.wallet.settlements import Change, prepare_finish, prepare_revert
from support.paying import COIN, THEIRS, Payouts, book, paying
from support.payment_rows import keep
from support.restored import House
from support.world import BITCOIN, BTC, ERC20, ETH, STORES, USDT, new_store


@pytest.fixture(params=STORES)
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


async def test_an_end_without_a_block_is_not_taken_back(payouts: Payouts) -> None:
    """One that was adopted or booked before blocks were noted goes by none, and none can be gone."""
    withdrawal = await payouts.withdraw("1.5")
    await payouts.pay(payouts.sender(), withdrawal)
    await keep(payouts, msgspec.structs.replace(payouts.payment(withdrawal), block=""))
    command = prepare_reopening(payouts.world.context, payouts.payment(withdrawal))
    assert (await payouts.world.context.submit(command)).stale
    assert payouts.row(withdrawal.ref).state == WithdrawalState.SETTLED


async def test_an_undoing_that_names_no_block_is_kept_without_one(payouts: Payouts) -> None:
    """No block can be gone then, and nothing takes it back."""
    withdrawal, context = await payouts.withdraw("1.5"), payouts.world.context
    await payouts.sender().step()
    ref = payouts.payment(withdrawal).ref
    await payouts.do(lambda: prepare_revert(context, payouts.payment(withdrawal), 3, 700, 9))
    undone = payouts.reads.row(Payment, ref)
    assert (undone.state, undone.height, undone.block) == (PaymentState.VOIDED, 3, "")
    payouts.agree()


async def test_one_that_was_in_two_blocks_is_in_none_when_it_is_on_its_way_again(payouts: Payouts) -> None:
    """Mined well, undone by the next branch, and taken back from that too: nothing of either block is left on it."""
    withdrawal, context = await payouts.withdraw("1.5"), payouts.world.context
    await payouts.sender().step()
    payment = payouts.payment(withdrawal)
    txid = payment.candidates[0]
    await payouts.do(lambda: MinePayment(NOBODY, payment.ref, (withdrawal.ref,), txid, 2, "500", "two"))
    mined = payouts.payment(withdrawal)
    await payouts.do(lambda: prepare_revert(context, mined, 3, 700, 9, "three"))
    assert payouts.row(withdrawal.ref).state == WithdrawalState.FAILED
    await payouts.do(lambda: prepare_reopening(context, payouts.reads.row(Payment, payment.ref)))
    row, now = payouts.row(withdrawal.ref), payouts.payment(withdrawal)
    assert (row.state, row.txid, row.height) == (WithdrawalState.PAYING, "", 0)
    assert (now.state, now.txid, now.block, now.height) == (PaymentState.SIGNED, "", "", 0)
    assert list(payouts.reads.each(Coin)) == []
    assert payouts.balance(house(Purpose.CHAIN_FEE, BTC)) == 0
    payouts.agree()


async def watched(payouts: Payouts) -> House:
    """Return the house with a watcher, which has seen the chain so far."""
    await payouts.node.mine("BITCOIN")
    house = House(payouts)
    await house.follow()
    return house


async def ended(payouts: Payouts, house: House, withdrawal: Withdrawal) -> None:
    """Let a withdrawal come to its end, and the watcher see it."""
    await payouts.pay(house.sender, withdrawal, follow=house.follow)
    await house.follow()


async def test_what_was_undone_and_is_mined_well_after_all_is_settled(payouts: Payouts) -> None:
    """The money that was released is held again, and pays for what the chain has paid."""
    house = await watched(payouts)
    withdrawal = await payouts.withdraw("1.5")
    payouts.node.undo_next("BITCOIN")
    await ended(payouts, house, withdrawal)
    undone = payouts.payment(withdrawal)
    assert (undone.state, payouts.row(withdrawal.ref).state) == (PaymentState.VOIDED, WithdrawalState.FAILED)
    assert undone.block
    await payouts.node.reorg("BITCOIN", 2, mend=undone.candidates)
    await house.follow()
    assert house.watcher.status.reopened == 1
    assert payouts.row(withdrawal.ref).state == WithdrawalState.PAYING
    assert balance_of(payouts.reads, payouts.alice, BTC) == (850_000_000, 10 * COIN)
    payouts.agree()
    await ended(payouts, house, withdrawal)
    assert payouts.row(withdrawal.ref).state == WithdrawalState.SETTLED
    assert await payouts.paid_on() == [(*THEIRS[BITCOIN], 149_999_500)]
    assert await payouts.agrees_with_node(BITCOIN, BTC)
    payouts.agree()


async def test_the_fee_of_what_was_undone_comes_back_with_its_block(payouts: Payouts) -> None:
    """Where the chain then has nothing of the payment at all, the books have no fee of it either."""
    house = await watched(payouts)
    before = standing(payouts, BITCOIN, BTC)
    withdrawal = await payouts.withdraw("1.5")
    payouts.node.undo_next("BITCOIN")
    await ended(payouts, house, withdrawal)
    assert standing(payouts, BITCOIN, BTC) != before
    await payouts.node.reorg("BITCOIN", 2, drop=payouts.payment(withdrawal).candidates)
    await house.follow()
    await ended(payouts, house, withdrawal)
    assert payouts.row(withdrawal.ref).state == WithdrawalState.FAILED
    assert standing(payouts, BITCOIN, BTC) == before
    assert balance_of(payouts.reads, payouts.alice, BTC) == (10 * COIN, 10 * COIN)
    payouts.agree()


async def test_what_a_person_gave_up_and_the_chain_mines_is_settled(payouts: Payouts) -> None:
    """The customer who has spent the money meanwhile owes it to the house, which has paid."""
    house = await watched(payouts)
    withdrawal = await payouts.withdraw("9")
    await house.sender.step()
    await payouts.do(lambda: prepare_void(payouts.world.context, payouts.payment(withdrawal)))
    assert payouts.row(withdrawal.ref).state == WithdrawalState.FAILED
    alice = payouts.alice
    spent = [Posting(available(alice, BTC), -8 * COIN), Posting(available(payouts.bob, BTC), 8 * COIN)]
    await payouts.do(lambda: book(*spent))
    await payouts.node.mine("BITCOIN")
    await house.follow()
    assert payouts.row(withdrawal.ref).state == WithdrawalState.PAYING
    assert (payouts.available(alice), payouts.held(alice)) == (0, 9 * COIN)
    assert payouts.balance(owed(alice, BTC)) == -7 * COIN
    await ended(payouts, house, withdrawal)
    assert payouts.row(withdrawal.ref).state == WithdrawalState.SETTLED
    assert payouts.reads.rows(Spent, {"owner": alice}, 2)[0].amount == 9 * COIN
    assert await payouts.agrees_with_node(BITCOIN, BTC)
    payouts.agree()


async def test_nothing_ends_by_a_block_that_the_watcher_has_left(payouts: Payouts) -> None:
    """A settlement that was decided before a reorganisation and comes after it is refused: nobody would undo it."""
    house = await watched(payouts)
    withdrawal = await payouts.withdraw("1.5")
    await house.sender.step()
    await payouts.node.mine("BITCOIN", 2)
    await house.follow()
    mined = await payouts.chain().block_at((await payouts.chain().tip()).height - 1)
    assert mined is not None
    ref, [txid] = payouts.payment(withdrawal).ref, payouts.payment(withdrawal).candidates
    command = MinePayment(NOBODY, ref, (withdrawal.ref,), txid, mined.height, "500", mined.hash)
    await payouts.do(lambda: command)
    finish = prepare_finish(payouts.world.context, payouts.payment(withdrawal), mined.height + 1)
    await payouts.node.reorg("BITCOIN", 2, drop=[txid])
    await house.follow()
    revert = prepare_revert(payouts.world.context, payouts.payment(withdrawal), mined.height, 9, 9, mined.hash)
    void = prepare_void(payouts.world.context, payouts.payment(withdrawal), mined.height, mined.hash)
    for end in (finish, revert):
        with pytest.raises(Refused, match="the chain has left it"):
            await payouts.do(lambda end=end: end)
    await payouts.do(lambda: UnminePayment(NOBODY, ref, (withdrawal.ref,)))
    assert (payouts.payment(withdrawal).block, payouts.payment(withdrawal).height) == ("", 0)
    with pytest.raises(Refused, match="the chain has left it"):
        await payouts.do(lambda: void)
    await ended(payouts, house, withdrawal)
    assert payouts.row(withdrawal.ref).state == WithdrawalState.FAILED
    payouts.agree()


RIVAL = 7
"""The height of the block that decides."""


async def two_coins(payouts: Payouts) -> Withdrawal:
    """Return a withdrawal whose signed payment spends two coins."""
    withdrawal = await payouts.withdraw("1.5")
    left = 10 * COIN - 2 * COIN
    coins = [Coin(BITCOIN, "a:0", 0, COIN, 3), Coin(BITCOIN, "b:1", 0, COIN, 3), Coin(BITCOIN, "c:2", 0, left, 3)]
    await keep(payouts, *coins)
    draft = Draft(("a:0", "b:1"), b"body", 500)
    await payouts.do(lambda: prepare_reservation(payouts.world.context, [withdrawal], draft, coins=True))
    await payouts.do(lambda: prepare_signing(payouts.payment(withdrawal), "ours", b"blob"))
    return withdrawal


def holders(payouts: Payouts) -> list[tuple[int, int]]:
    """Return which payments the two coins are reserved by, on both of their rows."""
    rows = [(payouts.reads.row(Coin, BITCOIN, it), payouts.reads.row(Reserved, BITCOIN, it)) for it in ("a:0", "b:1")]
    return [(coin.payment, reserved.payment) for coin, reserved in rows]


async def test_a_coin_that_no_candidate_can_spend_any_more_is_free_again(payouts: Payouts) -> None:
    """The rival is buried that has spent the other one: without that, no candidate can be mined."""
    withdrawal = await two_coins(payouts)
    ref = payouts.payment(withdrawal).ref
    await voided(payouts, withdrawal, "b:1")
    assert payouts.row(withdrawal.ref).state == WithdrawalState.FAILED
    assert holders(payouts) == [(ref, ref), (0, 0)]
    assert [coin.outpoint for coin in free_coins(payouts.world.context, BITCOIN)] == ["b:1", "c:2"]


async def voided(payouts: Payouts, withdrawal: Withdrawal, *freed: str) -> None:
    """Give a payment up because of a rival that is buried."""
    payment = payouts.payment(withdrawal)
    await payouts.do(lambda: prepare_void(payouts.world.context, payment, RIVAL, "rival", freed))


async def test_a_payment_that_a_person_gave_up_keeps_its_coins(payouts: Payouts) -> None:
    """A block may have it still: nothing but a rival's block frees a coin."""
    withdrawal = await two_coins(payouts)
    payment = payouts.payment(withdrawal)
    with pytest.raises(InvariantBroken, match="coins of withdrawals are freed by a rival's block only"):
        await payouts.do(lambda: prepare_void(payouts.world.context, payment, freed=["b:1"]))
    await payouts.do(lambda: prepare_void(payouts.world.context, payment))
    assert holders(payouts) == [(payment.ref, payment.ref)] * 2
    assert reserved_coins(payouts.reads, payouts.reads.row(Payment, payment.ref)) == 2


async def test_a_freed_coin_is_the_payments_own_again_when_the_rivals_block_is_gone(payouts: Payouts) -> None:
    """No other payment can come to spend it any more."""
    withdrawal = await two_coins(payouts)
    ref = payouts.payment(withdrawal).ref
    await voided(payouts, withdrawal, "b:1")
    payment = payouts.reads.row(Payment, ref)
    await payouts.do(lambda: prepare_reopening(payouts.world.context, payment))
    assert holders(payouts) == [(ref, ref)] * 2
    assert payouts.row(withdrawal.ref).state == WithdrawalState.PAYING
    payouts.agree()


async def test_the_chain_says_which_of_two_payments_has_spent_a_freed_coin(payouts: Payouts) -> None:
    """The one that had been given up is mined after all: it is settled, and the other one can only fail."""
    first = await two_coins(payouts)
    ref = payouts.payment(first).ref
    await voided(payouts, first, "b:1")
    second = await payouts.withdraw("0.5", owner=payouts.alice)
    draft = Draft(("b:1",), b"other", 500)
    await payouts.do(lambda: prepare_reservation(payouts.world.context, [second], draft, coins=True))
    await payouts.do(lambda: prepare_signing(payouts.payment(second), "other", b"blob"))
    payment = payouts.reads.row(Payment, ref)
    await payouts.do(lambda: prepare_reopening(payouts.world.context, payment))
    assert holders(payouts)[1] == (payouts.payment(second).ref,) * 2
    command = MinePayment(NOBODY, ref, (first.ref,), "ours", RIVAL, "500", "block")
    await payouts.do(lambda: command)
    back = [Change("ours:1", 2 * COIN - 149_999_500 - 500)]
    await payouts.do(lambda: prepare_finish(payouts.world.context, payouts.payment(first), RIVAL + 9, back))
    assert payouts.row(first.ref).state == WithdrawalState.SETTLED
    assert payouts.reads.row(Coin, BITCOIN, "b:1").payment == ref
    await voided(payouts, second)
    assert payouts.row(second.ref).state == WithdrawalState.FAILED
    payouts.agree()
