"""Payments that were signed elsewhere and wait, on every store: replaced, or given up, and booked by what was mined."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from strongroom.engine.command import NOBODY, Command
from strongroom.errors import InvariantBroken, Refused
from strongroom.ledger.accounts import Purpose, house
from strongroom.records.chains import Holding
from strongroom.records.coins import Sent
from strongroom.records.withdrawals import Payment, PaymentPurpose, PaymentState
from strongroom.wallet.adoptions import AdoptCandidate, Found, Paid, prepare_adoption
from strongroom.wallet.moves import Move, ReserveMove, prepare_move, prepare_move_finish
from strongroom.wallet.payments import Draft, MinePayment, RedraftPayment, nonce_text, prepare_signing
from strongroom.wallet.reopenings import prepare_reopening
from strongroom.wallet.replacements import prepare_filling, prepare_replacement
from strongroom.wallet.settlements import Change
from support.paying import COIN, Payouts, paying
from support.world import ERC20, ETH, new_store

GWEI = 10**9
NONCE = (nonce_text(4),)
FIRST = Draft(NONCE, b"first", 100_000 * GWEI)
DEARER = Draft(NONCE, b"dearer", 120_000 * GWEI)
OURS = Draft((nonce_text(9),), b"ours", 100)
FILLER = Draft(NONCE, b"filler", 50_000 * GWEI)
RESERVED, SIGNED, MINED, FINAL = PaymentState.RESERVED, PaymentState.SIGNED, PaymentState.MINED, PaymentState.FINAL


@pytest.fixture(params=["memory", "sqlite"])
async def payouts(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Payouts]:
    """A house on each store in turn, with two ether."""
    async with paying(new_store(request.param, tmp_path), tmp_path) as payouts:
        await payouts.endow(payouts.alice, ETH, ERC20, 2 * COIN)
        yield payouts


def to_cold(payouts: Payouts) -> ReserveMove:
    """Return what brings one ether to the cold address, unsigned."""
    move = Move(FIRST, 10**18, "0xcold")
    return prepare_move(payouts.world.context, PaymentPurpose.COLD, ERC20, ETH, move)


async def carry(payouts: Payouts, command: Command) -> None:
    """Carry a command out that must succeed."""
    outcome = await payouts.world.context.submit(command)
    assert (outcome.refusal, outcome.stale) == (None, False)


async def brought_back(payouts: Payouts) -> Payment:
    """Return a payment that came back signed."""
    command = msgspec.structs.replace(to_cold(payouts), txid="one", blob=b"one")
    await carry(payouts, command)
    return payouts.reads.row(Payment, command.payment)


async def given_up(payouts: Payouts) -> Payment:
    """Return a payment that was given up, with what fills its nonce signed."""
    payment = await brought_back(payouts)
    await carry(payouts, prepare_filling(payment, FILLER))
    await carry(payouts, prepare_signing(payment, "filler", b"filler"))
    return payouts.reads.row(Payment, payment.ref)


async def final(payouts: Payouts, payment: Payment, txid: str) -> Payment:
    """Let one of its candidates be mined, and be final."""
    await carry(payouts, MinePayment(NOBODY, payment.ref, (), txid, 9, str(40_000 * GWEI), "nine"))
    mined = payouts.reads.row(Payment, payment.ref)
    await payouts.do(lambda: prepare_move_finish(payouts.world.context, mined, 11))
    return payouts.reads.row(Payment, payment.ref)


def cold(payouts: Payouts) -> int:
    """Return what the house has on its cold address."""
    return -payouts.balance(house(Purpose.COLD, ETH))


def owned(payouts: Payouts) -> int:
    """Return what the house owns on the chain, in wei."""
    return int(payouts.reads.row(Holding, ERC20, ETH).chain_units)


async def test_a_dearer_candidate_comes_back_signed(payouts: Payouts) -> None:
    """It stands beside the first one, and whichever is mined is booked once."""
    payment = await brought_back(payouts)
    await carry(payouts, prepare_replacement(payment, DEARER, "two", b"two"))
    now = payouts.reads.row(Payment, payment.ref)
    assert (now.state, now.candidates, now.body, now.blob) == (SIGNED, ("one", "two"), b"dearer", b"two")
    assert payouts.reads.row(Sent, ERC20, "two").payment == payment.ref
    late = prepare_replacement(payment, DEARER, "three", b"three")
    assert (await payouts.world.context.submit(late)).stale
    done = await final(payouts, now, "one")
    assert (done.state, done.is_filled, cold(payouts)) == (FINAL, False, COIN)
    assert owned(payouts) == 10**18 - 40_000 * GWEI
    payouts.agree()


async def test_a_nonce_that_was_filled_costs_its_fee_and_moves_nothing(payouts: Payouts) -> None:
    """What was given up is at its end, and the cold address has nothing of it."""
    payment = await given_up(payouts)
    assert (payment.candidates, payment.fillers, payment.filling) == (("one", "filler"), ("filler",), True)
    done = await final(payouts, payment, "filler")
    assert (done.state, done.is_filled, cold(payouts)) == (FINAL, True, 0)
    assert owned(payouts) == 2 * 10**18 - 40_000 * GWEI
    assert payouts.balance(house(Purpose.CHAIN_FEE, ETH)) == -4_000
    payouts.agree()


async def test_the_chain_decides_between_the_two_also_when_it_changes_its_mind(payouts: Payouts) -> None:
    """Filled, taken back by a reorganisation, and then paid to the cold address after all: booked as the latter."""
    payment = await given_up(payouts)
    before = payouts.balance(house(Purpose.CHAIN_FEE, ETH)), owned(payouts)
    filled = await final(payouts, payment, "filler")
    await payouts.do(lambda: prepare_reopening(payouts.world.context, filled))
    assert (payouts.balance(house(Purpose.CHAIN_FEE, ETH)), owned(payouts)) == before
    paid = await final(payouts, filled, "one")
    assert (paid.is_filled, cold(payouts), owned(payouts)) == (False, COIN, 10**18 - 40_000 * GWEI)
    await payouts.do(lambda: prepare_reopening(payouts.world.context, paid))
    assert (cold(payouts), owned(payouts)) == (0, before[1])
    payouts.agree()


async def test_each_filler_is_known_as_one_whichever_is_mined(payouts: Payouts) -> None:
    """One that is signed anew after a crash is the same, and a dearer one stands beside it."""
    payment = await given_up(payouts)
    await carry(payouts, prepare_signing(payment, "filler", b"filler"))
    assert payouts.reads.row(Payment, payment.ref).fillers == ("filler",)
    dearer = msgspec.structs.replace(FILLER, body=b"dearer filler", fee_units=FILLER.fee_units + 1)
    await carry(payouts, RedraftPayment(NOBODY, payment.ref, FILLER.body, dearer))
    await carry(payouts, prepare_signing(payment, "second", b"second"))
    now = payouts.reads.row(Payment, payment.ref)
    assert (now.fillers, now.candidates) == (("filler", "second"), ("one", "filler", "second"))
    done = await final(payouts, now, "filler")
    assert (done.is_filled, cold(payouts)) == (True, 0)


async def test_one_that_never_came_back_is_given_up_with_its_nonce(payouts: Payouts) -> None:
    """Nothing but the filler is reserved; what was signed elsewhere is one more candidate if the chain has it."""
    command = msgspec.structs.replace(to_cold(payouts), draft=FILLER, filling=True)
    await carry(payouts, command)
    payment = payouts.reads.row(Payment, command.payment)
    assert (payment.state, payment.filling, payment.body) == (RESERVED, True, b"filler")
    await carry(payouts, prepare_signing(payment, "filler", b"filler"))
    await carry(payouts, AdoptCandidate(NOBODY, payment.ref, ERC20, "elsewhere"))
    done = await final(payouts, payouts.reads.row(Payment, payment.ref), "elsewhere")
    assert (done.is_filled, cold(payouts)) == (False, COIN)
    payouts.agree()


async def test_a_filler_that_a_backup_does_not_know_is_one(payouts: Payouts) -> None:
    """Found after a restore, it is told from the payment itself by what it pays: nobody."""
    payment = await brought_back(payouts)
    found = Found(ERC20, "filler", NONCE, (), (Change("filler:0", 1),))
    command = prepare_adoption(payouts.world.context, found, coins=False)
    assert isinstance(command, AdoptCandidate)
    await carry(payouts, command)
    done = await final(payouts, payouts.reads.row(Payment, payment.ref), "filler")
    assert (done.is_filled, cold(payouts)) == (True, 0)
    paid = Found(ERC20, "other", NONCE, (Paid("0xcold", "", "", 10**18),))
    undone = Found(ERC20, "undone", NONCE, (), undone=True)
    again = await brought_back_anew(payouts, payment)
    for each in (paid, undone):
        command = prepare_adoption(payouts.world.context, each, coins=False)
        assert isinstance(command, AdoptCandidate)
        assert not command.filler
    assert again.state == SIGNED
    payouts.agree()


async def brought_back_anew(payouts: Payouts, payment: Payment) -> Payment:
    """Let a reorganisation take a payment's end back."""
    now = payouts.reads.row(Payment, payment.ref)
    await payouts.do(lambda: prepare_reopening(payouts.world.context, now))
    return payouts.reads.row(Payment, payment.ref)


async def test_what_is_not_waiting_is_neither_replaced_nor_given_up(payouts: Payouts) -> None:
    """Twice, too late, for less, for another nonce, or what the house signs itself: nothing changes."""
    payment = await brought_back(payouts)
    for draft, reason in (
        (msgspec.structs.replace(DEARER, fee_units=FIRST.fee_units), "a candidate that replaces another pays more"),
        (msgspec.structs.replace(DEARER, spends=("x",)), "all candidates of a payment spend the same"),
    ):
        with pytest.raises(InvariantBroken, match=reason):
            await carry(payouts, prepare_replacement(payment, draft, "two", b"two"))
    with pytest.raises(InvariantBroken, match="spend the same"):
        await carry(payouts, prepare_filling(payment, msgspec.structs.replace(FILLER, spends=("x",))))
    own = msgspec.structs.replace(to_cold(payouts), purpose=PaymentPurpose.GAS, filling=True)
    with pytest.raises(InvariantBroken, match="only what is signed elsewhere"):
        await carry(payouts, own)
    await carry(payouts, prepare_filling(payment, FILLER))
    for late in (prepare_filling(payment, FILLER), prepare_replacement(payment, DEARER, "two", b"two")):
        with pytest.raises(Refused, match="payment is not signed"):
            await payouts.do(lambda late=late: late)
    await carry(payouts, prepare_signing(payment, "filler", b"filler"))
    filled = payouts.reads.row(Payment, payment.ref)
    dearer = msgspec.structs.replace(DEARER, fee_units=FILLER.fee_units + 1)
    for late in (prepare_filling(filled, dearer), prepare_replacement(filled, dearer, "two", b"two")):
        assert (await payouts.world.context.submit(late)).stale
    for late in (prepare_filling(payment, FILLER), prepare_replacement(payment, DEARER, "two", b"two")):
        assert (await payouts.world.context.submit(late)).stale
    assert payouts.reads.row(Payment, payment.ref).candidates == ("one", "filler")
    ours = msgspec.structs.replace(to_cold(payouts), purpose=PaymentPurpose.GAS, draft=OURS, txid="own", blob=b"own")
    await carry(payouts, ours)
    row = payouts.reads.row(Payment, ours.payment)
    for late in (prepare_filling(row, OURS), prepare_replacement(row, OURS, "two", b"two")):
        with pytest.raises(InvariantBroken, match="only what is signed elsewhere is replaced there"):
            await carry(payouts, late)
    payouts.agree()
