"""Moves and payments on a chain of coins, on every store: what they spend, what comes back, and that taken back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from strongroom.engine.command import NOBODY
from strongroom.errors import InvariantBroken
from strongroom.ledger.accounts import Purpose, house
from strongroom.records.chains import Holding
from strongroom.records.coins import Coin
from strongroom.records.withdrawals import Payment, PaymentPurpose, PaymentState, WithdrawalState
from strongroom.wallet.moves import Move, prepare_move, prepare_move_finish
from strongroom.wallet.payments import (
    Draft,
    MinePayment,
    free_coins,
    has_its_coins,
    prepare_reservation,
    prepare_signing,
    prepare_void,
    reserved_coins,
)
from strongroom.wallet.reopenings import prepare_reopening
from strongroom.wallet.settlements import Change, prepare_finish
from support.paying import COIN, Payouts, paying
from support.payment_rows import keep
from support.world import BITCOIN, BTC, NOW_MS, STORES, new_store

FEE = 300
BACK = Change("ours:0", 10 * COIN - FEE)


@pytest.fixture(params=STORES)
async def payouts(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Payouts]:
    """A house on each store in turn, where alice has ten bitcoin in two coins."""
    async with paying(new_store(request.param, tmp_path), tmp_path) as payouts:
        await payouts.endow(payouts.alice, BTC, BITCOIN, 10 * COIN)
        await keep(payouts, Coin(BITCOIN, "a:0", 0, 4 * COIN, 3), Coin(BITCOIN, "b:1", 0, 6 * COIN, 3))
        yield payouts


async def signed(payouts: Payouts, txid: str, *spends: str) -> Payment:
    """Reserve a move that makes one coin of coins, and sign it."""
    units = sum(payouts.reads.row(Coin, BITCOIN, it).units for it in spends) - FEE
    move = Move(Draft(spends, txid.encode(), FEE), units, "home")
    command = prepare_move(payouts.world.context, PaymentPurpose.CONSOLIDATION, BITCOIN, BTC, move, coins=True)
    await payouts.do(lambda: command)
    await payouts.do(lambda: prepare_signing(payouts.reads.row(Payment, command.payment), txid, b"blob"))
    return payouts.reads.row(Payment, command.payment)


async def mined(payouts: Payouts, payment: Payment, txid: str) -> Payment:
    """Let it be in a block at height 9."""
    await payouts.do(lambda: MinePayment(NOBODY, payment.ref, payment.withdrawals, txid, 9, str(FEE), "nine"))
    return payouts.reads.row(Payment, payment.ref)


async def consolidated(payouts: Payouts) -> Payment:
    """Let both coins become one, for good."""
    payment = await mined(payouts, await signed(payouts, "ours", "a:0", "b:1"), "ours")
    await payouts.do(lambda: prepare_move_finish(payouts.world.context, payment, 11, [BACK]))
    return payouts.reads.row(Payment, payment.ref)


def free(payouts: Payouts) -> list[str]:
    """Return what can be spent."""
    return [coin.outpoint for coin in free_coins(payouts.world.context, BITCOIN)]


def coins(payouts: Payouts) -> dict[str, tuple[int, int, int]]:
    """Return every coin that the books have: its units, the height of its block and the payment that has it."""
    return {coin.outpoint: (coin.units, coin.height, coin.payment) for coin in payouts.reads.each(Coin)}


async def test_many_coins_become_one(payouts: Payouts) -> None:
    """Those that it spent are its own for ever, what came back can be spent, and the fee is the house's."""
    payment = await consolidated(payouts)
    ref = payment.ref
    assert (payment.state, payment.source, payment.target, payment.created_ms) == (PaymentState.FINAL, 0, 0, NOW_MS)
    assert coins(payouts) == {
        "a:0": (4 * COIN, 3, ref), "b:1": (6 * COIN, 3, ref), "ours:0": (10 * COIN - FEE, 9, 0)
    }  # fmt: skip
    assert free(payouts) == ["ours:0"]
    assert payouts.balance(house(Purpose.CHAIN_FEE, BTC)) == -FEE
    assert payouts.reads.row(Holding, BITCOIN, BTC).chain_units == str(10 * COIN - FEE)
    payouts.agree()


async def test_what_comes_back_must_be_all_but_the_fee(payouts: Payouts) -> None:
    """Books that would lose a unit of it are not written."""
    payment = await mined(payouts, await signed(payouts, "ours", "a:0", "b:1"), "ours")
    for change in ([], [Change("ours:0", BACK.units - 1)]):
        with pytest.raises(InvariantBroken, match="paid, taken as fee or back"):
            await payouts.do(lambda change=change: prepare_move_finish(payouts.world.context, payment, 11, change))
    assert free(payouts) == []
    payouts.agree()


async def test_a_coin_that_came_back_goes_with_its_block(payouts: Payouts) -> None:
    """Taken back it cannot be spent, and nothing else is made up; mined again all is as it was."""
    payment = await consolidated(payouts)
    await payouts.do(lambda: prepare_reopening(payouts.world.context, payment))
    now = payouts.reads.row(Payment, payment.ref)
    assert (now.state, now.txid, now.block, now.height) == (PaymentState.SIGNED, "", "", 0)
    assert coins(payouts) == {
        "a:0": (4 * COIN, 3, payment.ref), "b:1": (6 * COIN, 3, payment.ref), "ours:0": (10 * COIN - FEE, 0, 0)
    }  # fmt: skip
    assert free(payouts) == []
    assert payouts.balance(house(Purpose.CHAIN_FEE, BTC)) == 0
    payouts.agree()
    again = await mined(payouts, now, "ours")
    await payouts.do(lambda: prepare_move_finish(payouts.world.context, again, 11, [BACK]))
    assert free(payouts) == ["ours:0"]
    payouts.agree()


async def test_all_change_of_a_withdrawals_payment_goes_with_its_block(payouts: Payouts) -> None:
    """A transaction that was found may have brought back two coins: both can be spent with it only."""
    withdrawal = await payouts.withdraw("2")
    draft = Draft(("a:0",), b"body", FEE)
    await payouts.do(lambda: prepare_reservation(payouts.world.context, [withdrawal], draft, coins=True))
    await payouts.do(lambda: prepare_signing(payouts.payment(withdrawal), "paid", b"blob"))
    payment = await mined(payouts, payouts.payment(withdrawal), "paid")
    back = 4 * COIN - (2 * COIN - 500) - FEE
    change = [Change("paid:1", back - 1_000), Change("paid:2", 1_000)]
    await payouts.do(lambda: prepare_finish(payouts.world.context, payment, 11, change))
    assert free(payouts) == ["b:1", "paid:1", "paid:2"]
    await payouts.do(lambda: prepare_reopening(payouts.world.context, payouts.payment(withdrawal)))
    assert free(payouts) == ["b:1"]
    assert payouts.row(withdrawal.ref).state == WithdrawalState.PAYING
    assert set(coins(payouts)) == {"a:0", "b:1", "paid:1", "paid:2"}
    payouts.agree()


async def test_the_chain_says_which_of_two_moves_has_spent_a_freed_coin(payouts: Payouts) -> None:
    """The one that had been given up is mined after all, and takes the coin from the other one, which is void then."""
    first = await signed(payouts, "ours", "a:0", "b:1")
    await payouts.do(lambda: prepare_void(payouts.world.context, first, 7, "rival", ["b:1"]))
    second = await signed(payouts, "other", "b:1")
    await payouts.do(lambda: prepare_reopening(payouts.world.context, payouts.reads.row(Payment, first.ref)))
    assert coins(payouts)["b:1"][2] == second.ref
    payment = await mined(payouts, first, "ours")
    await payouts.do(lambda: prepare_move_finish(payouts.world.context, payment, 11, [BACK]))
    assert coins(payouts)["b:1"][2] == first.ref
    await payouts.do(lambda: prepare_void(payouts.world.context, second, 9, "nine"))
    assert free(payouts) == ["ours:0"]
    payouts.agree()


async def test_a_rival_frees_what_the_payment_has_reserved_and_nothing_else(payouts: Payouts) -> None:
    """All of it, where the rival has spent other coins; a coin of somebody else is none that it could free."""
    first = await signed(payouts, "ours", "a:0")
    second = await signed(payouts, "other", "b:1")
    context = payouts.world.context
    with pytest.raises(InvariantBroken, match="a payment frees what it has reserved"):
        await payouts.do(lambda: prepare_void(context, first, 7, "rival", ["b:1"]))
    await payouts.do(lambda: prepare_void(context, first, 7, "rival", ["a:0"]))
    void = payouts.reads.row(Payment, first.ref)
    assert (void.state, void.block, free(payouts)) == (PaymentState.VOIDED, "rival", ["a:0"])
    assert payouts.reads.row(Payment, second.ref).state == PaymentState.SIGNED


async def test_what_another_payment_has_taken_is_not_freed_once_more(payouts: Payouts) -> None:
    """It was free after the first rival, and is somebody else's when the payment is given up again."""
    first, context = await signed(payouts, "ours", "a:0", "b:1"), payouts.world.context
    await payouts.do(lambda: prepare_void(context, first, 7, "rival", ["b:1"]))
    second = await signed(payouts, "other", "b:1")
    await payouts.do(lambda: prepare_reopening(context, payouts.reads.row(Payment, first.ref)))
    await payouts.do(lambda: prepare_void(context, first, 9, "again", ["a:0", "b:1"]))
    assert (coins(payouts)["b:1"][2], free(payouts)) == (second.ref, ["a:0"])


async def test_a_payment_has_its_coins_when_all_of_them_are_there(payouts: Payouts) -> None:
    """Of one that was found on the chain some may be credited later; what is another's is not reserved by it."""
    context = payouts.world.context
    payment = await signed(payouts, "ours", "a:0", "b:1")
    assert (has_its_coins(context, payment), reserved_coins(payouts.reads, payment)) == (True, 2)
    await keep(payouts, Coin(BITCOIN, "b:1", 0, 6 * COIN, 0, payment.ref))
    assert (has_its_coins(context, payment), reserved_coins(payouts.reads, payment)) == (False, 1)
    await keep(payouts, Coin(BITCOIN, "b:1", 0, 6 * COIN, 3, 5))
    assert (has_its_coins(context, payment), reserved_coins(payouts.reads, payment)) == (True, 1)


LOST = (PaymentState.RESERVED, PaymentState.SIGNED, PaymentState.VOIDED)


@pytest.mark.parametrize("state", PaymentState)
async def test_a_coin_is_taken_from_a_payment_only_that_no_block_has(payouts: Payouts, state: PaymentState) -> None:
    """Whatever such a one has come to; of one that is mined or final it would be spent twice."""
    first = await signed(payouts, "ours", "a:0", "b:1")
    await keep(payouts, Payment(5, BITCOIN, BTC, state=state), Coin(BITCOIN, "b:1", 0, 6 * COIN, 3, 5))
    payment = await mined(payouts, first, "ours")
    finish = prepare_move_finish(payouts.world.context, payment, 11, [BACK])
    if state in LOST:
        await payouts.do(lambda: finish)
        assert coins(payouts)["b:1"][2] == first.ref
    else:
        with pytest.raises(InvariantBroken, match="coins are spent once"):
            await payouts.do(lambda: finish)
        assert coins(payouts)["b:1"][2] == 5
    payouts.agree()


async def test_a_coin_that_nobody_has_reserved_is_no_payments_own(payouts: Payouts) -> None:
    """What a payment has spent is reserved by it, or by one that lost: anything else is a mistake."""
    payment = await mined(payouts, await signed(payouts, "ours", "a:0", "b:1"), "ours")
    await keep(payouts, Coin(BITCOIN, "b:1", 0, 6 * COIN, 3))
    with pytest.raises(InvariantBroken, match="a payment's coins are its own"):
        await payouts.do(lambda: prepare_move_finish(payouts.world.context, payment, 11, [BACK]))
