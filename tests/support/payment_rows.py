"""Rows of a withdrawal and its payment in every state, and what may be done to them, one step at a time."""

from __future__ import annotations

from typing import Any

from strongroom.engine.command import NOBODY, Command
from strongroom.engine.settle import Outcome
from strongroom.records.chains import Holding
from strongroom.records.coins import Coin, Sent
from strongroom.records.withdrawals import Payment, PaymentState, Reserved, Spent, Withdrawal, WithdrawalState
from strongroom.wallet.payments import nonce_text
from strongroom.wallet.settlements import RevertPayment
from support.effects import Do
from support.paying import COIN, THEIRS, Payouts
from support.world import BITCOIN, BTC, ETH, NOW_MS, USDT

REF, PAYMENT, NONCE = 77, 88, 5
BODY = b"body"
ASKED, FEE = 2 * COIN, 500
ASSETS = (BTC, USDT, ETH)

AWAITING, APPROVED, PAYING, SETTLED, REJECTED, CANCELLED, EXPIRED, FAILED = WithdrawalState
RESERVED, SIGNED, MINED, FINAL, VOIDED = PaymentState


def withdrawal_of(payouts: Payouts, state: WithdrawalState) -> Withdrawal:
    """Return alice's withdrawal of two bitcoin, the fee included, in a state."""
    return Withdrawal(
        REF,
        owner=payouts.alice,
        asset=BTC,
        network=BITCOIN,
        address=THEIRS[BITCOIN].address,
        asked=ASKED,
        to_address=ASKED - FEE,
        fee=FEE,
        state=state,
        requested_ms=NOW_MS,
        payment=PAYMENT if state == PAYING else 0,
        uuid="u",
    )


def payment_of(state: PaymentState) -> Payment:
    """Return the payment of the withdrawal in a state."""
    mined = state in (MINED, FINAL)
    return Payment(
        PAYMENT,
        network=BITCOIN,
        asset=BTC,
        withdrawals=(REF,),
        spends=(nonce_text(NONCE),),
        state=state,
        candidates=("one", "two") if state != RESERVED else (),
        body=BODY,
        blob=b"two" if state != RESERVED else b"",
        chain_fee_units="1000",
        height=3 if mined else 0,
        created_ms=NOW_MS,
    )


async def keep(payouts: Payouts, *rows: Any) -> None:
    """Keep rows as they are."""
    await payouts.do(lambda: Do(NOBODY, kept=rows))


def everything(payouts: Payouts) -> list[Any]:
    """Return all that the steps could change."""
    reads = payouts.reads
    kinds = (Withdrawal, Payment, Reserved, Spent, Holding, Coin, Sent)
    return [payouts.balances(), *(list(reads.each(kind)) for kind in kinds)]


async def told(payouts: Payouts, command: Command) -> Outcome:
    """Carry out a command; one that is refused or stale changes nothing."""
    before = everything(payouts)
    outcome = await payouts.world.context.submit(command)
    if outcome.refusal or outcome.stale:
        assert everything(payouts) == before
    return outcome


def revert(payouts: Payouts, tip: int) -> Command:
    """Return the end of a payment that the chain has undone in block 3, seen when the newest block was `tip`."""
    return RevertPayment(NOBODY, PAYMENT, (withdrawal_of(payouts, PAYING),), BITCOIN, BTC, "1100", 3, tip)
