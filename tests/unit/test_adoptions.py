"""Adoptions: what becomes of a transaction of ours that the books do not know, each part once, on coins as well."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from strongroom.engine.command import NOBODY, Command
from strongroom.ledger.accounts import Purpose, available, held, house
from strongroom.ledger.entries import move
from strongroom.records.coins import Coin, Sent
from strongroom.records.epochs import Epoch, Reconciled
from strongroom.records.withdrawals import Payment, PaymentPurpose, Reserved
from strongroom.store.memory import MemoryStore
from strongroom.wallet.adoptions import (
    AdoptCandidate,
    AdoptPayment,
    Found,
    NotAdopted,
    Paid,
    prepare_adoption,
)
from strongroom.wallet.epochs import BeginEpoch, EndWaiting
from strongroom.wallet.payments import MinePayment, VoidPayment
from strongroom.wallet.settlements import Change, prepare_finish
from support.paying import COIN, THEIRS, Payouts, book, paying
from support.payment_rows import (
    APPROVED,
    ASKED,
    AWAITING,
    FAILED,
    FEE,
    FINAL,
    MINED,
    PAYING,
    PAYMENT,
    REF,
    RESERVED,
    SETTLED,
    SIGNED,
    VOIDED,
    keep,
    payment_of,
    told,
    withdrawal_of,
)
from support.world import BITCOIN, BTC, ERC20

HOME = THEIRS[BITCOIN].address
COINS = ("a:0", "b:1")
WANTED = Paid(HOME, "", "", ASKED - FEE)
FOUND = Found(BITCOIN, "tx", COINS, (WANTED,), (Change("tx:1", 5 * COIN),))


@pytest.fixture
async def payouts(tmp_path: Path) -> AsyncIterator[Payouts]:
    """A house where alice has ten bitcoin, two of them held."""
    async with paying(MemoryStore(), tmp_path) as payouts:
        await payouts.endow(payouts.alice, BTC, BITCOIN, 10 * COIN)
        await payouts.do(lambda: book(*move(available(payouts.alice, BTC), held(payouts.alice, BTC), ASKED)))
        yield payouts


def adopted(payouts: Payouts, found: Found = FOUND) -> Any:
    """Return the command that adopts a transaction that spends coins."""
    return prepare_adoption(payouts.world.context, found, coins=True)


async def carry(payouts: Payouts, command: Command) -> None:
    """Carry a command out that must succeed."""
    outcome = await told(payouts, command)
    assert (outcome.refusal, outcome.stale) == (None, False)


@pytest.mark.parametrize("state", [APPROVED, AWAITING])
async def test_it_pays_the_open_withdrawal_that_it_looks_like(payouts: Payouts, state: Any) -> None:
    """The withdrawal is being paid, its coins are taken, credited or not, and the change is still to come."""
    await keep(payouts, withdrawal_of(payouts, state), Coin(BITCOIN, "a:0", 3, 9 * COIN, 5))
    command = adopted(payouts)
    await carry(payouts, command)
    row, payment = payouts.row(REF), payouts.payment(payouts.row(REF))
    assert (row.state, payment.state, payment.candidates, payment.withdrawals) == (PAYING, SIGNED, ("tx",), (REF,))
    coins = [payouts.reads.row(Coin, BITCOIN, outpoint) for outpoint in (*COINS, "tx:1")]
    assert [(coin.units, coin.height, coin.payment == payment.ref) for coin in coins] == [
        (9 * COIN, 5, True), (0, 0, True), (5 * COIN, 0, False),
    ]  # fmt: skip
    assert [payouts.reads.row(Reserved, BITCOIN, it).payment for it in COINS] == [payment.ref] * 2
    assert adopted(payouts) is None
    assert (await told(payouts, command)).stale


async def test_what_it_pays_beyond_is_nobodys(payouts: Payouts) -> None:
    """The same amount twice is one withdrawal of the books and one of nobody, which no release gives to anybody."""
    await keep(payouts, withdrawal_of(payouts, APPROVED))
    await carry(payouts, adopted(payouts, msgspec.structs.replace(FOUND, paid=(WANTED, WANTED))))
    [known, unknown] = payouts.withdrawals()
    assert (known.owner, unknown.owner, unknown.held) == (payouts.alice, 0, ASKED - FEE)
    assert payouts.reads.row(Reconciled, BITCOIN).unknown == 1
    payment = payouts.payment(known)
    await carry(payouts, VoidPayment(NOBODY, payment.ref, (known, unknown)))
    assert [it.state for it in payouts.withdrawals()] == [FAILED, FAILED]
    assert payouts.available(payouts.alice) == 10 * COIN
    payouts.agree()


async def test_its_end_books_what_left_and_keeps_who_spends_its_change(payouts: Payouts) -> None:
    """The house bears what is nobody's, and change that a later transaction spends comes in spent."""
    rows = [Coin(BITCOIN, "a:0", 3, 3 * COIN, 5), Coin(BITCOIN, "b:1", 4, 7 * COIN, 5)]
    await keep(payouts, withdrawal_of(payouts, APPROVED), *rows)
    found = msgspec.structs.replace(FOUND, paid=(Paid(HOME, "", "", 5 * COIN - 1_000),))
    await carry(payouts, adopted(payouts, found))
    await carry(payouts, adopted(payouts, Found(BITCOIN, "later", ("tx:1",), (Paid(HOME, "", "", 70),))))
    first, later = (payouts.payment(it) for it in payouts.withdrawals()[1:])
    await carry(payouts, MinePayment(NOBODY, first.ref, first.withdrawals, "tx", 6, "1000"))
    first = payouts.reads.row(Payment, first.ref)
    await carry(payouts, prepare_finish(payouts.world.context, first, 9, FOUND.change))
    assert payouts.balance(house(Purpose.EQUITY, BTC)) == -(5 * COIN - 1_000)
    assert payouts.balance(house(Purpose.CHAIN_FEE, BTC)) == -1_000
    change = payouts.reads.row(Coin, BITCOIN, "tx:1")
    assert (change.units, change.height, change.payment) == (5 * COIN, 6, later.ref)
    assert payouts.withdrawals()[1].state == SETTLED
    payouts.agree()


@pytest.mark.parametrize("state", [RESERVED, SIGNED, MINED])
async def test_it_is_a_candidate_of_the_payment_that_has_reserved_the_same(payouts: Payouts, state: Any) -> None:
    """It stands beside those that the books know, once."""
    payment = msgspec.structs.replace(payment_of(state), spends=COINS)
    reserved = [Reserved(BITCOIN, it, PAYMENT) for it in COINS]
    await keep(payouts, withdrawal_of(payouts, PAYING), payment, *reserved)
    command = adopted(payouts)
    assert isinstance(command, AdoptCandidate)
    await carry(payouts, command)
    now = payouts.reads.row(Payment, PAYMENT)
    assert (now.state, now.candidates) == (max(state, SIGNED), (*payment.candidates, "tx"))
    assert payouts.reads.row(Sent, BITCOIN, "tx").payment == PAYMENT
    assert (await told(payouts, command)).stale
    assert adopted(payouts) is None


@pytest.mark.parametrize("change", ["reserved", "sent", "paying", "known", "taken"])
async def test_whoever_was_quicker_is_not_overruled(payouts: Payouts, change: str) -> None:
    """What was prepared is stale, and changes nothing, once anything that it goes by is another."""
    await keep(payouts, withdrawal_of(payouts, APPROVED))
    command = adopted(payouts, msgspec.structs.replace(FOUND, paid=(WANTED, WANTED)))
    assert isinstance(command, AdoptPayment)
    rows = {
        "reserved": Reserved(BITCOIN, "b:1", 5),
        "sent": Sent(BITCOIN, "tx", 5),
        "paying": withdrawal_of(payouts, PAYING),
        "known": command.unknown[0],
        "taken": Payment(command.payment, state=SIGNED),
    }
    await keep(payouts, rows[change])
    assert (await told(payouts, command)).stale


def found(paid: Paid, network: int = BITCOIN) -> Found:
    """Return a transaction that pays once."""
    return Found(network, "tx", COINS, (paid,))


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (found(Paid(HOME, "", "gold", 5)), "does not offer"),
        (msgspec.structs.replace(FOUND, paid=(WANTED, Paid(HOME, "", "USDT", 5))), "does not offer"),
        (found(Paid(HOME, "", "", 10**10 + 1), ERC20), "cannot tell"),
        (found(Paid(HOME, "", "", 2**62)), "cannot tell"),
        (found(Paid(HOME, "", "", 0)), "cannot tell"),
        (msgspec.structs.replace(FOUND, paid=(WANTED,) * 1_001), "too many"),
    ],
)
async def test_what_the_books_cannot_tell_is_not_adopted(payouts: Payouts, wrong: Found, why: str) -> None:
    """Tokens that are not offered, several assets, amounts finer than the ledger or beyond its range."""
    with pytest.raises(NotAdopted, match=why):
        _ = adopted(payouts, wrong)


async def test_a_thousand_are_not_too_many(payouts: Payouts) -> None:
    """So many outputs are each somebody's."""
    command = adopted(payouts, msgspec.structs.replace(FOUND, paid=(WANTED,) * 1_000))
    assert len(command.unknown) == 1_000


@pytest.mark.parametrize("state", [SIGNED, FINAL, VOIDED])
async def test_what_contradicts_the_payment_with_its_coins_is_not_adopted(payouts: Payouts, state: Any) -> None:
    """Other payees, only a part of the coins, or a payment that is at its end."""
    payment = msgspec.structs.replace(payment_of(state), spends=COINS)
    await keep(payouts, withdrawal_of(payouts, PAYING), payment, *(Reserved(BITCOIN, it, PAYMENT) for it in COINS))
    wrong = [
        (msgspec.structs.replace(FOUND, paid=(msgspec.structs.replace(WANTED, units=1),)), "it pays others"),
        (msgspec.structs.replace(FOUND, spends=COINS[:1]), "what other payments have reserved"),
        (msgspec.structs.replace(FOUND, spends=(*COINS, "c:2")), "it spends what other payments have reserved"),
        *([(FOUND, "it pays others")] if state != SIGNED else []),
    ]
    for each, why in wrong:
        with pytest.raises(NotAdopted, match=why):
            _ = adopted(payouts, each)


async def test_a_withdrawal_inside_the_house_is_none_that_a_chain_pays(payouts: Payouts) -> None:
    """One that awaits approval and stays inside is not taken for the one that was paid."""
    await keep(payouts, msgspec.structs.replace(withdrawal_of(payouts, AWAITING), deposit=5))
    await carry(payouts, adopted(payouts))
    assert [it.state for it in payouts.withdrawals()] == [AWAITING, PAYING]


async def test_a_transaction_that_pays_nobody_costs_its_fee(payouts: Payouts) -> None:
    """All of its coins come back but what the chain took."""
    await keep(payouts, withdrawal_of(payouts, APPROVED), Coin(BITCOIN, "a:0", 3, 10 * COIN, 5))
    await carry(payouts, adopted(payouts, Found(BITCOIN, "tx", ("a:0",), (), (Change("tx:0", 10 * COIN - 300),))))
    [payment] = payouts.reads.rows(Payment, {}, 10)
    assert payment.purpose == PaymentPurpose.CONSOLIDATION
    await carry(payouts, MinePayment(NOBODY, payment.ref, (), "tx", 6, "300"))
    payment = payouts.reads.row(Payment, payment.ref)
    await carry(payouts, prepare_finish(payouts.world.context, payment, 9, [Change("tx:0", 10 * COIN - 300)]))
    assert payouts.balance(house(Purpose.CHAIN_FEE, BTC)) == -300
    payouts.agree()


async def test_an_epoch_begins_once_and_ends_once(payouts: Payouts) -> None:
    """Two restores at once begin one epoch, and a network that has something of nobody's needs the operator."""
    begin = BeginEpoch(NOBODY, 0, (BITCOIN, ERC20))
    await carry(payouts, begin)
    assert (await told(payouts, begin)).stale
    assert payouts.reads.row(Epoch, 0).number == 1
    assert (await told(payouts, EndWaiting(NOBODY, BITCOIN, 0, by_hand=True))).stale
    await keep(payouts, Reconciled(BITCOIN, 0, unknown=1))
    assert (await told(payouts, EndWaiting(NOBODY, BITCOIN, 1, by_hand=False))).stale
    await carry(payouts, EndWaiting(NOBODY, BITCOIN, 1, by_hand=True))
    assert payouts.reads.row(Reconciled, BITCOIN) == Reconciled(BITCOIN, 1, True, 1)
    refusal = (await told(payouts, EndWaiting(NOBODY, BITCOIN, 1, by_hand=True))).refusal
    assert refusal is not None
    assert refusal.message == "BADREQUEST: network does not wait"


async def test_no_payment_is_reserved_while_its_network_waits(payouts: Payouts) -> None:
    """The rule stands where the decision is made, whatever a sender thinks."""
    await keep(payouts, withdrawal_of(payouts, APPROVED))
    await carry(payouts, BeginEpoch(NOBODY, 0, (BITCOIN,)))
    refusal = (await told(payouts, payouts.reservation(payouts.row(REF)))).refusal
    assert refusal is not None
    assert refusal.message == "BADREQUEST: network waits to be reconciled after a restore"
    assert payouts.row(REF).state == APPROVED
