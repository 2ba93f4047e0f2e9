"""Giving up: the operator's word on a payment whose coin has gone from the chain together with its deposit.

A reorganisation may leave a deposit out for good, because what it spent was spent elsewhere. A payment that spends its
coin can then not be mined, and has no rival in any block that would prove it: the chain never says a last word. So a
person does, once the node has long known neither the deposit nor the payment.
"""

from __future__ import annotations

from strongroom.custody.chain import Chain, Fate
from strongroom.errors import PARAMETER_INVALID
from strongroom.records.coins import Coin
from strongroom.records.deposits import Deposit, DepositState, Outpoint
from strongroom.records.withdrawals import Payment
from strongroom.wallet.context import Context, perform_own
from strongroom.wallet.payments import prepare_void


async def give_up(context: Context, chain: Chain, payment: Payment) -> None:
    """Fail a payment that waits for a coin that is gone, and all its withdrawals: their customers have the money again.

    Raises `Refused` PARAMETER_INVALID for one that may be mined still, `Unreachable`.
    """
    lost = _lost_deposit(context, payment)
    if lost is None:
        raise PARAMETER_INVALID("every coin that the payment spends is there, or may come back: it is not given up")
    for txid in (lost.txid, *payment.candidates):
        if (await chain.transaction(txid)).fate not in (Fate.UNKNOWN, Fate.CONFLICTED):
            raise PARAMETER_INVALID(f"the node knows {txid}: the payment is not given up")
    _ = await perform_own(context, lambda: prepare_void(context, payment))


def _lost_deposit(context: Context, payment: Payment) -> Deposit | None:
    """Return a dropped deposit whose coin the payment spends."""
    for spends in payment.spends:
        txid, _, index = spends.partition(":")
        if index.isdecimal() and not context.reads.row(Coin, payment.network, spends).height:
            ref = context.reads.row(Outpoint, payment.network, txid, int(index)).ref
            deposit = context.reads.row(Deposit, ref)
            if deposit.state == DepositState.DROPPED:
                return deposit
    return None
