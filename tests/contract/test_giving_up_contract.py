"""Giving up on every store: what of a payment may never be mined, by the operator's word."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest

from strongroom.custody.chain import Chain
from strongroom.custody.giving_up import give_up
from strongroom.errors import Refused
from strongroom.records.coins import Coin, Sent
from strongroom.records.deposits import Deposit, DepositState, Outpoint
from strongroom.records.withdrawals import Payment, PaymentPurpose, PaymentState, Reserved
from strongroom.wallet.payments import free_coins
from support.cold_coins import Coins
from support.paying import COIN, THEIRS, Payouts, paying
from support.payment_rows import keep
from support.world import BITCOIN, BTC, STORES, new_store

LOST = "lost:0"
SPENT = 77


@pytest.fixture(params=STORES)
async def payouts(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Payouts]:
    """A house on each store in turn, one of whose coins went with its deposit."""
    async with paying(new_store(request.param, tmp_path), tmp_path) as payouts:
        await keep(
            payouts,
            Deposit(5, network=BITCOIN, asset=BTC, txid="lost", state=DepositState.DROPPED),
            Outpoint(BITCOIN, "lost", 0, ref=5),
        )
        yield payouts


async def coin(payouts: Payouts) -> str:
    """Let the chain have a coin, in a block; return its outpoint."""
    txid = await payouts.node.faucet("BITCOIN", THEIRS[BITCOIN].address, "", "", COIN)
    _ = await payouts.node.mine("BITCOIN")
    return f"{txid}:0"


async def move(payouts: Payouts, spends: tuple[str, ...], *candidates: str) -> Payment:
    """Keep a signed consolidation of coins, of which those that the chain has are there."""
    payment = Payment(
        SPENT,
        BITCOIN,
        BTC,
        spends=spends,
        state=PaymentState.SIGNED,
        candidates=candidates,
        body=b"body",
        blob=b"blob",
        purpose=PaymentPurpose.CONSOLIDATION,
    )
    for outpoint in spends:
        height = 0 if outpoint == LOST else 3
        await keep(payouts, Coin(BITCOIN, outpoint, 0, COIN, height, SPENT), Reserved(BITCOIN, outpoint, SPENT))
    await keep(payouts, payment)
    return payment


async def refused(payouts: Payouts, chain: object, payment: Payment, why: str) -> None:
    """Give up what may not be, which changes nothing."""
    with pytest.raises(Refused, match=why):
        await give_up(payouts.world.context, cast(Chain, chain), payment)
    assert payouts.reads.row(Payment, payment.ref) == payment
    assert free_coins(payouts.world.context, BITCOIN) == []


async def test_a_move_whose_coin_is_gone_leaves_those_that_the_chain_has(payouts: Payouts) -> None:
    """One that somebody else has spent meanwhile stays its own, and is told by the next comparison."""
    chain, there, stolen = Coins(payouts.chain()), await coin(payouts), await coin(payouts)
    chain.spent.add(stolen)
    payment = await move(payouts, (LOST, there, stolen), "unknown")
    await give_up(payouts.world.context, cast(Chain, chain), payment)
    assert payouts.reads.row(Payment, SPENT).state == PaymentState.VOIDED
    assert [it.outpoint for it in free_coins(payouts.world.context, BITCOIN)] == [there]
    held = [payouts.reads.row(Reserved, BITCOIN, it).payment for it in (LOST, there, stolen)]
    assert held == [SPENT, 0, SPENT]


@pytest.mark.parametrize("state", PaymentState)
async def test_the_change_of_a_payment_that_ended_by_another_transaction_is_gone(
    payouts: Payouts, state: PaymentState
) -> None:
    """While that payment is on its way its first transaction may be mined still, and the change with it."""
    txid = "new" if state in (PaymentState.MINED, PaymentState.FINAL) else ""
    made = Payment(6, BITCOIN, BTC, state=state, candidates=("old", "new"), txid=txid)
    await keep(payouts, made, Sent(BITCOIN, "old", 6), Coin(BITCOIN, "old:1", 0, COIN, 0, SPENT))
    payment = await move(payouts, ("old:1",), "unknown")
    await keep(payouts, Coin(BITCOIN, "old:1", 0, COIN, 0, SPENT))
    if state in (PaymentState.FINAL, PaymentState.VOIDED):
        await give_up(payouts.world.context, cast(Chain, Coins(payouts.chain())), payment)
        assert payouts.reads.row(Payment, SPENT).state == PaymentState.VOIDED
    else:
        await refused(payouts, Coins(payouts.chain()), payment, "or may come back")


async def test_a_move_that_the_node_knows_is_not_given_up(payouts: Payouts) -> None:
    """A block may have it any moment."""
    known = (await coin(payouts)).partition(":")[0]
    payment = await move(payouts, (LOST,), "unknown", known)
    await refused(payouts, Coins(payouts.chain()), payment, f"the node knows {known}")


async def test_a_move_whose_coins_are_all_there_is_not_given_up(payouts: Payouts) -> None:
    """It only waits for its block."""
    payment = await move(payouts, (await coin(payouts),), "unknown")
    await refused(payouts, Coins(payouts.chain()), payment, "every coin that the payment spends is there")


async def test_what_spends_a_nonce_is_not_given_up(payouts: Payouts) -> None:
    """No deposit that is gone could keep it from being mined."""
    payment = await move(payouts, (LOST,), "unknown")
    await refused(payouts, payouts.chain(), payment, "spends a nonce, and no coin that could be gone")
