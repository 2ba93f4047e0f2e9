"""Giving up: the operator's word on a payment whose coin has gone from the chain together with where it came from.

A reorganisation may leave a deposit out for good, because what it spent was spent elsewhere. A payment that spends its
coin can then not be mined, and has no rival in any block that would prove it: the chain never says a last word. So a
person does, once the node has long known neither the deposit nor the payment; and then of the payments that spend the
change of that one, which have gone with it.

So it is with the house's own moves. Whatever else one would have spent is free again then: it pays nobody but the
house, and should a block have it after all, what has spent its coins meanwhile is void by the chain's word.
"""

from __future__ import annotations

from strongroom.custody.chain import Chain, Fate
from strongroom.errors import PARAMETER_INVALID
from strongroom.records.coins import Coin, Sent
from strongroom.records.deposits import Deposit, DepositState, Outpoint
from strongroom.records.withdrawals import Payment, PaymentState
from strongroom.wallet.context import Context, perform_own
from strongroom.wallet.payments import prepare_void


async def give_up(context: Context, chain: Chain, payment: Payment) -> None:
    """Fail a payment that waits for a coin that is gone, and all its withdrawals: their customers have the money again.

    Should the chain have it after all, it is reopened (`wallet.reopenings`). Raises `Refused` PARAMETER_INVALID for one
    that may be mined still, and on a chain of accounts; `Unreachable`.
    """
    if not chain.spends_coins:
        raise PARAMETER_INVALID("the payment spends a nonce, and no coin that could be gone")
    lost = _lost_source(context, payment)
    if not lost:
        raise PARAMETER_INVALID("every coin that the payment spends is there, or may come back: it is not given up")
    for txid in (lost, *payment.candidates):
        if (await chain.transaction(txid)).fate not in (Fate.UNKNOWN, Fate.CONFLICTED):
            raise PARAMETER_INVALID(f"the node knows {txid}: the payment is not given up")
    freed = () if payment.withdrawals else await _left_coins(context, chain, payment)
    _ = await perform_own(context, lambda: prepare_void(context, payment, freed=freed))


async def _left_coins(context: Context, chain: Chain, payment: Payment) -> list[str]:
    """Return the coins that a payment has reserved and that are there, in the books and on the chain."""
    coins = [context.reads.row(Coin, payment.network, outpoint) for outpoint in payment.spends]
    reserved = [coin.outpoint for coin in coins if coin.height and coin.payment == payment.ref]
    return sorted(await chain.unspent(reserved))


def _lost_source(context: Context, payment: Payment) -> str:
    """Return the transaction that made a coin which the payment spends, if it is none any more: of a deposit that was
    dropped, or of a payment that has ended without it, or by another one; empty if there is none."""
    reads, network = context.reads, payment.network
    for spends in payment.spends:
        txid, _, index = spends.partition(":")
        if not index.isdecimal() or reads.row(Coin, network, spends).height:
            continue
        deposit = reads.row(Deposit, reads.row(Outpoint, network, txid, int(index)).ref)
        source = reads.row(Payment, reads.row(Sent, network, txid).payment)
        # Of a payment that was mined in the end under another txid the change is another coin.
        is_other = source.state == PaymentState.VOIDED or (source.state == PaymentState.FINAL and source.txid != txid)
        if deposit.state == DepositState.DROPPED or is_other:
            return txid
    return ""
