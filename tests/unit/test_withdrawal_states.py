"""The states of withdrawals and payments: where each step leads from each of them, and what it leaves alone."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest

from strongroom.clock import DAY_MS
from strongroom.engine.command import NOBODY, Command
from strongroom.ledger.accounts import Purpose, available, held, house, omnibus
from strongroom.ledger.entries import move
from strongroom.records.addresses import Address
from strongroom.records.chains import Holding
from strongroom.records.coins import Sent
from strongroom.records.withdrawals import (
    OPEN_WITHDRAWALS,
    Payment,
    PaymentPurpose,
    PaymentState,
    Reserved,
    Spent,
    Withdrawal,
    WithdrawalState,
)
from strongroom.store.memory import MemoryStore
from strongroom.wallet.approvals import Approve, CancelWithdrawal, ExpireWithdrawal, Reject
from strongroom.wallet.payments import (
    OPEN_PAYMENTS,
    Draft,
    MinePayment,
    RedraftPayment,
    ReservePayment,
    SignPayment,
    UnminePayment,
    VoidPayment,
    nonce_of,
    nonce_text,
    outgoing,
)
from strongroom.wallet.settlements import FinishPayment
from support.paying import COIN, TODAY, Payouts, book, paying
from support.payment_rows import (
    APPROVED,
    ASKED,
    ASSETS,
    AWAITING,
    BODY,
    CANCELLED,
    EXPIRED,
    FAILED,
    FEE,
    FINAL,
    MINED,
    NONCE,
    PAYING,
    PAYMENT,
    REF,
    REJECTED,
    RESERVED,
    SETTLED,
    SIGNED,
    VOIDED,
    everything,
    keep,
    payment_of,
    revert,
    told,
    withdrawal_of,
)
from support.world import BITCOIN, BTC, ERC20, NOW_MS, USDT


@pytest.fixture
async def payouts(tmp_path: Path) -> AsyncIterator[Payouts]:
    """A house where alice has ten bitcoin, two of them held."""
    async with paying(MemoryStore(), tmp_path) as payouts:
        await payouts.endow(payouts.alice, BTC, BITCOIN, 10 * COIN)
        await payouts.do(lambda: book(*move(available(payouts.alice, BTC), held(payouts.alice, BTC), ASKED)))
        yield payouts


def approve(withdrawal: Withdrawal) -> Command:
    """Return the operator's yes."""
    return Approve(NOBODY, withdrawal, Address(BITCOIN, withdrawal.address, ""), ASSETS)


def reserve(withdrawal: Withdrawal, payment: int = PAYMENT, nonce: int = NONCE) -> Command:
    """Return the beginning of a payment."""
    draft = Draft((nonce_text(nonce),), BODY, 1000)
    return ReservePayment(NOBODY, payment, (REF,), (withdrawal.owner,), BITCOIN, BTC, draft, coins=False, assets=ASSETS)


def finish(payouts: Payouts, tip: int) -> Command:
    """Return the settlement of the payment, seen when the chain's newest block was `tip`."""
    return FinishPayment(NOBODY, PAYMENT, (REF,), (payouts.alice,), BTC, BITCOIN, BTC, tip, (), (), 3)


WITHDRAWAL_STEPS: dict[str, tuple[Callable[[Withdrawal], Command], dict[WithdrawalState, WithdrawalState]]] = {
    "approve": (approve, {AWAITING: APPROVED}),
    "reject": (lambda withdrawal: Reject(NOBODY, withdrawal), {AWAITING: REJECTED}),
    "cancel": (lambda withdrawal: CancelWithdrawal(NOBODY, withdrawal), {AWAITING: CANCELLED}),
    "expire": (lambda withdrawal: ExpireWithdrawal(NOBODY, withdrawal), {AWAITING: EXPIRED}),
    "reserve": (reserve, {APPROVED: PAYING}),
}
"""What is done to a withdrawal, and where that leads from the states it is allowed in."""

PAYMENT_STEPS: dict[str, tuple[Callable[[Payouts], Command], dict[PaymentState, PaymentState], str]] = {
    "sign": (
        lambda _: SignPayment(NOBODY, PAYMENT, BITCOIN, "three", b"three"),
        {RESERVED: SIGNED, SIGNED: SIGNED},
        "payment is not reserved or signed",
    ),
    "mine": (
        lambda _: MinePayment(NOBODY, PAYMENT, (REF,), "two", 9, "1100"),
        {SIGNED: MINED, MINED: MINED},
        "payment is not signed or mined",
    ),
    "unmine": (lambda _: UnminePayment(NOBODY, PAYMENT, (REF,)), {MINED: SIGNED}, "payment is not mined"),
    "finish": (
        lambda payouts: finish(payouts, 4),
        {MINED: FINAL},
        "payment is not mined",
    ),
    "redraft": (
        lambda _: RedraftPayment(NOBODY, PAYMENT, BODY, Draft((nonce_text(NONCE),), b"dearer", 1001)),
        {SIGNED: RESERVED},
        "payment is not signed",
    ),
    "revert": (
        lambda payouts: revert(payouts, 4),
        {SIGNED: VOIDED, MINED: VOIDED},
        "payment is not signed or mined",
    ),
    "void": (
        lambda payouts: VoidPayment(NOBODY, PAYMENT, (withdrawal_of(payouts, PAYING),)),
        {SIGNED: VOIDED},
        "payment is not signed",
    ),
}
"""What is done to a payment, where that leads from the states it is allowed in, and what is told in the others."""


@pytest.mark.parametrize("state", WithdrawalState)
@pytest.mark.parametrize("step", WITHDRAWAL_STEPS)
async def test_a_withdrawal_goes_only_where_its_state_allows(
    payouts: Payouts, step: str, state: WithdrawalState
) -> None:
    """Each step leads from the state it is for to one other, and from all others nowhere."""
    make, leads = WITHDRAWAL_STEPS[step]
    before = withdrawal_of(payouts, state)
    await keep(payouts, before, Spent(payouts.alice, BTC, TODAY, ASKED + 7))
    payouts.world.clock.at_ms += 3 * DAY_MS
    outcome = await told(payouts, make(withdrawal_of(payouts, state)))
    if state in leads:
        assert outcome.refusal is None
        changes = {"payment": PAYMENT} if leads[state] == PAYING else {}
        assert payouts.row(REF) == msgspec.structs.replace(before, state=leads[state], **changes)
        released = leads[state] not in OPEN_WITHDRAWALS
        assert payouts.held(payouts.alice) == (0 if released else ASKED)
        assert payouts.available(payouts.alice) == (10 * COIN if released else 8 * COIN)
        assert payouts.reads.row(Spent, payouts.alice, BTC, TODAY).amount == (7 if released else ASKED + 7)
    else:
        assert outcome.refusal is not None
        wanted = "approved" if step == "reserve" else "awaiting approval"
        assert outcome.refusal.message == f"BADREQUEST: withdrawal is not {wanted}"


@pytest.mark.parametrize("state", PaymentState)
@pytest.mark.parametrize("step", PAYMENT_STEPS)
async def test_a_payment_goes_only_where_its_state_allows(payouts: Payouts, step: str, state: PaymentState) -> None:
    """Nothing leads from what may have been broadcast back to what is yet to be sent, and what ended stays as it is."""
    make, leads, message = PAYMENT_STEPS[step]
    await keep(payouts, withdrawal_of(payouts, PAYING), payment_of(state))
    outcome = await told(payouts, make(payouts))
    if state in leads:
        assert outcome.refusal is None
        assert payouts.reads.row(Payment, PAYMENT).state == leads[state]
    else:
        assert outcome.refusal is not None
        assert outcome.refusal.message == f"BADREQUEST: {message}"


async def test_a_reservation_is_kept_with_all_it_needs(payouts: Payouts) -> None:
    """The payment knows its network, asset, withdrawal, nonce and expected fee, and the nonce its payment."""
    await keep(payouts, withdrawal_of(payouts, APPROVED))
    await told(payouts, reserve(withdrawal_of(payouts, APPROVED)))
    assert payouts.reads.row(Payment, PAYMENT) == Payment(
        PAYMENT,
        BITCOIN,
        BTC,
        (REF,),
        (nonce_text(NONCE),),
        RESERVED,
        body=BODY,
        chain_fee_units="1000",
        created_ms=payouts.world.clock.now_ms(),
    )
    assert payouts.reads.row(Reserved, BITCOIN, nonce_text(NONCE)) == Reserved(BITCOIN, nonce_text(NONCE), PAYMENT)


async def test_a_nonce_or_reference_that_is_taken_is_prepared_again(payouts: Payouts) -> None:
    """No payment gets what another has, and the withdrawal stays approved."""
    await keep(payouts, withdrawal_of(payouts, APPROVED), Reserved(BITCOIN, nonce_text(NONCE), 99))
    assert (await told(payouts, reserve(withdrawal_of(payouts, APPROVED)))).stale
    await keep(payouts, msgspec.structs.replace(payment_of(FINAL), withdrawals=(1,)))
    assert (await told(payouts, reserve(withdrawal_of(payouts, APPROVED), nonce=NONCE + 1))).stale
    assert not (await told(payouts, reserve(withdrawal_of(payouts, APPROVED), PAYMENT + 1, NONCE + 1))).stale


async def test_every_signed_candidate_is_remembered_and_the_newest_is_the_one_to_send(payouts: Payouts) -> None:
    """A candidate that was signed before moves to the end instead of standing there twice."""
    await keep(payouts, withdrawal_of(payouts, PAYING), payment_of(RESERVED))
    for txid, candidates in (("a", ("a",)), ("b", ("a", "b")), ("a", ("b", "a"))):
        await told(payouts, SignPayment(NOBODY, PAYMENT, BITCOIN, txid, txid.encode()))
        payment = payouts.reads.row(Payment, PAYMENT)
        assert (payment.candidates, payment.blob) == (candidates, txid.encode())
        assert payment.signed_ms == payouts.world.clock.now_ms()
        assert payouts.reads.row(Sent, BITCOIN, txid).payment == PAYMENT


async def test_a_block_is_noted_on_payment_and_withdrawal_and_taken_off_both(payouts: Payouts) -> None:
    """Both name where the transaction is while it is there, and neither does after a reorganisation."""
    withdrawal, payment = withdrawal_of(payouts, PAYING), payment_of(SIGNED)
    await keep(payouts, withdrawal, payment)
    await told(payouts, MinePayment(NOBODY, PAYMENT, (REF,), "one", 9, "1100"))
    assert payouts.row(REF) == msgspec.structs.replace(withdrawal, txid="one", height=9)
    mined = msgspec.structs.replace(payment, state=MINED, txid="one", height=9, chain_fee_units="1100")
    assert payouts.reads.row(Payment, PAYMENT) == mined
    await told(payouts, UnminePayment(NOBODY, PAYMENT, (REF,)))
    assert payouts.row(REF) == withdrawal
    assert payouts.reads.row(Payment, PAYMENT) == msgspec.structs.replace(mined, state=SIGNED, txid="", height=0)


async def test_a_transaction_that_is_no_candidate_carries_nothing_out(payouts: Payouts) -> None:
    """What was never signed for the payment cannot be what the chain mined for it: our mistake, and nothing is done."""
    await keep(payouts, withdrawal_of(payouts, PAYING), payment_of(SIGNED))
    before = everything(payouts)
    with pytest.raises(Exception, match="only a candidate of the payment carries it out"):
        await payouts.world.context.submit(MinePayment(NOBODY, PAYMENT, (REF,), "other", 9, "1100"))
    assert everything(payouts) == before


@pytest.mark.parametrize(("tip", "done"), [(3, False), (4, True), (5, True)])
async def test_a_payment_is_final_after_the_networks_confirmations(payouts: Payouts, tip: int, done: bool) -> None:
    """A transaction in block 3 of a network of two confirmations is final from block 4 on."""
    await keep(payouts, withdrawal_of(payouts, PAYING), payment_of(MINED))
    command = finish(payouts, tip)
    outcome = await told(payouts, command)
    if done:
        assert outcome.refusal is None
        assert payouts.row(REF).state == SETTLED
    else:
        assert outcome.refusal is not None
        assert outcome.refusal.message == "BADREQUEST: payment is not confirmed"


@pytest.mark.parametrize("chain_fee", [0, 1100])
async def test_a_final_payment_books_what_left_the_house(payouts: Payouts, chain_fee: int) -> None:
    """The hold is gone, the fee is earned, and the chain has its own fee out of the house's pocket."""
    payment = msgspec.structs.replace(payment_of(MINED), chain_fee_units=str(chain_fee))
    await keep(payouts, withdrawal_of(payouts, PAYING), payment)
    await told(payouts, finish(payouts, 4))
    assert payouts.held(payouts.alice) == 0
    assert payouts.balance(house(Purpose.FEES, BTC)) == FEE
    assert payouts.balance(house(Purpose.CHAIN_FEE, BTC)) == -chain_fee
    left = 10 * COIN - (ASKED - FEE) - chain_fee
    assert payouts.balance(omnibus(BITCOIN, BTC)) == -left
    assert payouts.reads.row(Holding, BITCOIN, BTC).chain_units == str(left)
    assert payouts.balance(house(Purpose.DUST, BTC)) == 0
    assert payouts.row(REF) == msgspec.structs.replace(withdrawal_of(payouts, PAYING), state=SETTLED)
    assert payouts.reads.row(Payment, PAYMENT) == msgspec.structs.replace(payment, state=FINAL)


async def test_a_voided_payment_gives_the_money_back_and_keeps_its_nonce(payouts: Payouts) -> None:
    """The withdrawal has failed, the day's limit is free again, and no other payment gets the nonce."""
    reserved, spent = Reserved(BITCOIN, nonce_text(NONCE), PAYMENT), Spent(payouts.alice, BTC, TODAY, ASKED)
    await keep(payouts, withdrawal_of(payouts, PAYING), payment_of(SIGNED), reserved, spent)
    await told(payouts, VoidPayment(NOBODY, PAYMENT, (withdrawal_of(payouts, PAYING),)))
    assert payouts.row(REF).state == FAILED
    assert (payouts.held(payouts.alice), payouts.available(payouts.alice)) == (0, 10 * COIN)
    assert payouts.reads.row(Payment, PAYMENT) == msgspec.structs.replace(payment_of(SIGNED), state=VOIDED)
    assert payouts.reads.row(Reserved, BITCOIN, nonce_text(NONCE)) == reserved
    assert payouts.reads.row(Spent, payouts.alice, BTC, TODAY).amount == 0


async def test_a_release_never_makes_the_days_total_negative(payouts: Payouts) -> None:
    """Even where the day has less than the withdrawal on it, nothing can be withdrawn on credit."""
    await keep(payouts, withdrawal_of(payouts, AWAITING), Spent(payouts.alice, BTC, TODAY, ASKED - 1))
    await told(payouts, Reject(NOBODY, withdrawal_of(payouts, AWAITING)))
    assert payouts.reads.row(Spent, payouts.alice, BTC, TODAY).amount == 0


async def test_a_withdrawal_expires_at_its_time_and_not_before(payouts: Payouts) -> None:
    """Three days after it was asked for, to the millisecond."""
    await keep(payouts, withdrawal_of(payouts, AWAITING))
    payouts.world.clock.at_ms = NOW_MS + 3 * DAY_MS - 1
    early = await told(payouts, ExpireWithdrawal(NOBODY, withdrawal_of(payouts, AWAITING)))
    assert early.refusal is not None
    assert early.refusal.message == "BADREQUEST: withdrawal has not expired"
    payouts.world.clock.at_ms += 1
    await told(payouts, ExpireWithdrawal(NOBODY, withdrawal_of(payouts, AWAITING)))
    assert payouts.row(REF).state == EXPIRED


def test_a_nonces_text_sorts_as_the_number_does_and_reads_as_it() -> None:
    """The next nonce is found as the last of its texts, whatever their numbers of digits."""
    nonces = [0, 1, 9, 10, 99, 100, 10**18]
    texts = [nonce_text(nonce) for nonce in nonces]
    assert texts == sorted(texts)
    assert [nonce_of(text) for text in texts] == nonces
    assert nonce_text(7) == "hot/00000000000000000007"


async def test_the_chain_pays_the_receivers_part_in_its_own_unit(payouts: Payouts) -> None:
    """The fee stays in the house; a token is named as the chain names it."""
    catalogue = payouts.world.context.catalogue
    assert outgoing(catalogue, withdrawal_of(payouts, APPROVED)) == ("", ASKED - FEE)
    usdt = Withdrawal(1, asset=USDT, network=ERC20, to_address=5 * COIN, fee=COIN)
    assert outgoing(catalogue, usdt) == ("USDT", 5_000_000)


def test_the_numbers_of_the_states_stay_as_they_are() -> None:
    """They stand in rows on disk, so that another number would tell another story of all that is kept."""
    names = ["AWAITING", "APPROVED", "PAYING", "SETTLED", "REJECTED", "CANCELLED", "EXPIRED", "FAILED"]
    assert {state.name: state.value for state in WithdrawalState} == dict(zip(names, range(1, 9), strict=True))
    names = ["RESERVED", "SIGNED", "MINED", "FINAL", "VOIDED"]
    assert {state.name: state.value for state in PaymentState} == dict(zip(names, range(1, 6), strict=True))
    assert OPEN_WITHDRAWALS == (AWAITING, APPROVED, PAYING)
    assert OPEN_PAYMENTS == (RESERVED, SIGNED, MINED)


async def test_a_payment_that_is_away_to_be_signed_may_be_mined_or_end_from_there(payouts: Payouts) -> None:
    """Its transaction has its name before: out of its block again it waits for its signature still."""
    away = msgspec.structs.replace(
        payment_of(RESERVED), purpose=PaymentPurpose.COLD, withdrawals=(), candidates=("two",), blob=b""
    )
    await keep(payouts, away)
    await payouts.do(lambda: MinePayment(NOBODY, PAYMENT, (), "two", 9, "1100", "nine"))
    assert payouts.reads.row(Payment, PAYMENT).state == MINED
    await payouts.do(lambda: UnminePayment(NOBODY, PAYMENT, ()))
    again = payouts.reads.row(Payment, PAYMENT)
    assert (again.state, again.txid, again.block) == (RESERVED, "", "")
    await payouts.do(lambda: VoidPayment(NOBODY, PAYMENT, ()))
    assert payouts.reads.row(Payment, PAYMENT).state == VOIDED
