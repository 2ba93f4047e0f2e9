"""Moves of the house's own money that a restored backup does not know, on every store: adopted, once, and booked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from strongroom.engine.command import NOBODY, Command
from strongroom.errors import InvariantBroken
from strongroom.ledger.accounts import Purpose, house
from strongroom.records.chains import Holding
from strongroom.records.coins import Pot, Sent
from strongroom.records.epochs import Reconciled
from strongroom.records.withdrawals import Payment, PaymentPurpose, PaymentState, Reserved, WithdrawalState
from strongroom.wallet.adoptions import AdoptCandidate, AdoptPayment, Found, Moved, NotAdopted, Paid, prepare_adoption
from strongroom.wallet.moves import prepare_move_finish, prepare_move_revert
from strongroom.wallet.payments import (
    Draft,
    MinePayment,
    has_its_pot,
    next_nonce,
    nonce_text,
    prepare_reservation,
    prepare_void,
)
from strongroom.wallet.pots import due_pots, filled_pots
from strongroom.wallet.reopenings import prepare_reopening
from strongroom.wallet.settlements import Change
from support.paying import COIN, RIPPLE, THEIRS, XRP, Payouts, paying
from support.payment_rows import keep
from support.world import BITCOIN, BTC, ERC20, ETH, NOW_MS, STORES, USDT, new_store

AT = 7
"""The position of the deposit address that was swept."""

GWEI = 10**9
FEE = 80_000 * GWEI
HOME, COLD = "0xhome", "0xcold"
SWEEP, GAS, COLD_MOVE = PaymentPurpose.SWEEP, PaymentPurpose.GAS, PaymentPurpose.COLD


@pytest.fixture(params=STORES)
async def payouts(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Payouts]:
    """A house on each store in turn, with ether and tokens, some of them on a deposit address."""
    async with paying(new_store(request.param, tmp_path), tmp_path) as payouts:
        await payouts.endow(payouts.alice, USDT, ERC20, 100 * COIN)
        await payouts.endow(payouts.alice, ETH, ERC20, 2 * COIN)
        await keep(
            payouts,
            Pot(ERC20, AT, USDT, "40000000", filled=True, due=True),
            Pot(ERC20, AT, ETH, str(1_000_000 * GWEI), filled=True, due=True),
        )
        yield payouts


def token(payouts: Payouts) -> str:
    """Return the chain's name of the token that is offered."""
    offer = payouts.world.context.catalogue.offer_at(USDT, ERC20)
    assert offer is not None
    return offer.token


def swept(asset: str, units: int, nonce: int = 0, txid: str = "tx") -> Found:
    """Return a sweep as the chain shows it."""
    moved = Moved(SWEEP, asset, units, HOME, AT, 0)
    return Found(ERC20, txid, (nonce_text(nonce, AT),), (), moved=moved)


def adoption(payouts: Payouts, found: Found) -> Any:
    """Return what takes a transaction into the books of a house with a cold address."""
    return prepare_adoption(payouts.world.context, found, coins=False, cold=COLD)


async def carry(payouts: Payouts, command: Command) -> None:
    """Carry a command out that must succeed."""
    outcome = await payouts.world.context.submit(command)
    assert (outcome.refusal, outcome.stale) == (None, False)


async def mined(payouts: Payouts, found: Found, fee: int = FEE) -> Payment:
    """Adopt a transaction, and let it be in a block at height 9."""
    command = adoption(payouts, found)
    await carry(payouts, command)
    await carry(payouts, MinePayment(NOBODY, command.payment, (), found.txid, 9, str(fee), "nine"))
    return payouts.reads.row(Payment, command.payment)


def pots(payouts: Payouts) -> dict[tuple[int, int], int]:
    """Return what lies on deposit addresses."""
    return {(pot.position, pot.asset): int(pot.chain_units) for pot in filled_pots(payouts.reads, ERC20, 10)}


def due(payouts: Payouts) -> list[int]:
    """Return the assets that wait to be swept."""
    return [pot.asset for pot in due_pots(payouts.reads, ERC20)]


def owned(payouts: Payouts, asset: int) -> int:
    """Return what the house owns on the chain, in the chain's unit."""
    return int(payouts.reads.row(Holding, ERC20, asset).chain_units)


async def test_a_sweep_is_adopted_and_empties_its_pot(payouts: Payouts) -> None:
    """It is the house's own move: nobody is named for it, its fee is booked in wei, and its pot waits no longer."""
    before = owned(payouts, ETH)
    payment = await mined(payouts, swept(token(payouts), 40_000_000))
    assert (payment.purpose, payment.source, payment.target, payment.address) == (SWEEP, AT, 0, HOME)
    assert payouts.reads.row(Reconciled, ERC20).unknown == 0
    await payouts.do(lambda: prepare_move_finish(payouts.world.context, payment, 11))
    assert pots(payouts) == {(AT, ETH): 1_000_000 * GWEI - FEE}
    assert due(payouts) == [ETH]
    assert owned(payouts, ETH) == before - FEE
    assert payouts.balance(house(Purpose.CHAIN_FEE, ETH)) == -8_000
    payouts.agree()


@pytest.mark.parametrize(("left", "waits"), [(10 * FEE - 1, []), (10 * FEE, [ETH])])
async def test_what_an_adopted_sweep_leaves_waits_if_it_is_worth_another(
    payouts: Payouts, left: int, waits: list[int]
) -> None:
    """The usual rest is left alone; a deposit that came after the sweep is swept by the next one."""
    await keep(payouts, Pot(ERC20, AT, USDT))
    payment = await mined(payouts, swept("", 1_000_000 * GWEI - FEE - left))
    await payouts.do(lambda: prepare_move_finish(payouts.world.context, payment, 11))
    assert pots(payouts) == {(AT, ETH): left}
    assert due(payouts) == waits
    payouts.agree()


async def test_a_single_unit_of_a_token_is_worth_a_sweep_and_the_ether_beside_it_is_left(payouts: Payouts) -> None:
    """What a sweep of tokens leaves is told apart from what its fee leaves of the ether."""
    await keep(payouts, Pot(ERC20, AT, ETH, str(500_000 * GWEI), filled=True, due=True))
    payment = await mined(payouts, swept(token(payouts), 39_999_999))
    await payouts.do(lambda: prepare_move_finish(payouts.world.context, payment, 11))
    assert pots(payouts) == {(AT, USDT): 1, (AT, ETH): 420_000 * GWEI}
    assert sorted(due(payouts)) == [USDT, ETH]


async def test_its_deposits_may_be_credited_later(payouts: Payouts) -> None:
    """A sweep is told to wait while its pot has less than it has moved."""
    payment = await mined(payouts, swept(token(payouts), 40_000_001))
    assert not has_its_pot(payouts.world.context, payment)
    await keep(payouts, Pot(ERC20, AT, USDT, "40000001", filled=True, due=True))
    assert has_its_pot(payouts.world.context, payment)
    assert has_its_pot(payouts.world.context, Payment(5, ERC20, USDT, units="7", purpose=COLD_MOVE))


async def test_gas_is_adopted_and_lies_on_the_address_that_got_it(payouts: Payouts) -> None:
    """It stays the house's, and the hot wallet's next nonce is behind it."""
    moved = Moved(GAS, "", 300_000 * GWEI, "0xtheirs", 0, 8)
    payment = await mined(payouts, Found(ERC20, "tx", (nonce_text(4),), (), moved=moved))
    await payouts.do(lambda: prepare_move_finish(payouts.world.context, payment, 11))
    assert pots(payouts)[8, ETH] == 300_000 * GWEI
    assert owned(payouts, ETH) == 2 * 10**18 - FEE
    assert next_nonce(payouts.world.context, ERC20) == 5
    payouts.agree()


async def test_what_went_to_the_cold_address_is_the_houses(payouts: Payouts) -> None:
    """It is on the cold account, and no customer's withdrawal; taken back by a reorganisation it is as before."""
    found = Found(ERC20, "tx", (nonce_text(0),), (Paid(COLD, "", "", 10**18),))
    payment = await mined(payouts, found)
    before = [payouts.balances(), owned(payouts, ETH)]
    await payouts.do(lambda: prepare_move_finish(payouts.world.context, payment, 11))
    assert (payment.purpose, payment.source, payment.target) == (COLD_MOVE, 0, 0)
    assert payouts.balance(house(Purpose.COLD, ETH)) == -COIN
    assert payouts.withdrawals() == []
    final = payouts.reads.row(Payment, payment.ref)
    await payouts.do(lambda: prepare_reopening(payouts.world.context, final))
    held = [it for it in payouts.balances() if it[1]]
    assert [sorted((a, b) for a, b, _ in held), owned(payouts, ETH)] == [
        sorted((a, b) for a, b, _ in before[0] if b), before[1]
    ]  # fmt: skip
    payouts.agree()


async def test_without_a_cold_address_it_is_somebodys(payouts: Payouts) -> None:
    """The operator has to say whose it was, as of any other payment."""
    found = Found(ERC20, "tx", (nonce_text(0),), (Paid(THEIRS[ERC20].address, "", "", 10**18),))
    command = adoption(payouts, found)
    assert (command.purpose, len(command.unknown)) == (PaymentPurpose.WITHDRAWALS, 1)
    await carry(payouts, command)
    assert payouts.reads.row(Reconciled, ERC20).unknown == 1
    [row] = payouts.withdrawals()
    assert (row.address, row.tag, row.asked, row.to_address, row.fee) == (THEIRS[ERC20].address, "", COIN, COIN, 0)
    assert (row.requested_ms, bool(row.uuid)) == (NOW_MS, True)
    payment = payouts.payment(row)
    assert (payment.created_ms, payment.signed_ms) == (NOW_MS, NOW_MS)
    assert (payment.source, payment.target, payment.address, payment.units) == (0, 0, "", "0")


@pytest.mark.parametrize(
    ("network", "asset", "tag", "units", "amount"),
    [
        (ERC20, USDT, "", 1_234_567, 123_456_700),
        (BITCOIN, BTC, "", 1, 1),
        (BITCOIN, BTC, "", 123_456_789, 123_456_789),
        (RIPPLE, XRP, "12345", 7_000_001, 700_000_100),
    ],
)
async def test_a_payment_of_any_amount_is_told_to_the_last_unit(
    payouts: Payouts, network: int, asset: int, tag: str, units: int, amount: int
) -> None:
    """With its tag, where it has one: by them the operator finds out whose it was."""
    offer = payouts.world.context.catalogue.offer_at(asset, network)
    assert offer is not None
    place = THEIRS[network]
    paid = Paid(place.address, tag, offer.token, units)
    await carry(payouts, adoption(payouts, Found(network, "tx", (nonce_text(0),), (paid,))))
    [row] = payouts.withdrawals()
    assert (row.asset, row.address, row.tag, row.to_address) == (asset, place.address, tag, amount)


async def test_what_went_to_the_cold_address_and_to_somebody_else_is_somebodys(payouts: Payouts) -> None:
    """The house sends nothing there together with a customer's payment: both are for the operator to tell."""
    both = (Paid(COLD, "", "", 10**18), Paid(THEIRS[ERC20].address, "", "", 10**18))
    command = adoption(payouts, Found(ERC20, "tx", (nonce_text(0),), both))
    assert (command.purpose, len(command.unknown)) == (PaymentPurpose.WITHDRAWALS, 2)


async def test_only_what_is_signed_elsewhere_has_a_filler(payouts: Payouts) -> None:
    """Each that is found is kept beside those that are known; of any other payment there is none."""
    context, spends = payouts.world.context, (nonce_text(3),)
    places: dict[str, Any] = {"spends": spends, "state": PaymentState.SIGNED, "address": COLD, "units": "70"}
    await keep(
        payouts,
        Payment(5, ERC20, ETH, purpose=COLD_MOVE, fillers=("first",), candidates=("first",), **places),
        Payment(6, ERC20, ETH, purpose=GAS, **places),
        Payment(7, BITCOIN, BTC, purpose=COLD_MOVE, **places),
        Reserved(ERC20, spends[0], 5),
        Reserved(BITCOIN, spends[0], 7),
    )
    back = (Change("second:0", 1),)
    await carry(payouts, adoption(payouts, Found(ERC20, "second", spends, (), back)))
    assert payouts.reads.row(Payment, 5).fillers == ("first", "second")
    paid = adoption(payouts, Found(ERC20, "paid", spends, (Paid(COLD, "", "", 70),), back))
    assert not paid.filler
    with pytest.raises(InvariantBroken, match="only what is signed elsewhere is given up"):
        await carry(payouts, AdoptCandidate(NOBODY, 6, ERC20, "third", filler=True))
    with pytest.raises(NotAdopted, match="pays others"):
        _ = prepare_adoption(context, Found(BITCOIN, "fourth", spends, (), back), coins=True)


async def test_a_sweep_that_its_block_undid_costs_its_fee(payouts: Payouts) -> None:
    """What it was to sweep, whatever it was, is as due as it was."""
    command = adoption(payouts, swept("", 0))
    await carry(payouts, command)
    payment = payouts.reads.row(Payment, command.payment)
    await payouts.do(lambda: prepare_move_revert(payouts.world.context, payment, 9, FEE, 11))
    assert pots(payouts) == {(AT, USDT): 40_000_000, (AT, ETH): 1_000_000 * GWEI - FEE}
    assert due(payouts) == [ETH, USDT] or due(payouts) == [USDT, ETH]
    void = payouts.reads.row(Payment, payment.ref)
    assert (void.state, void.block) == (PaymentState.VOIDED, "")
    payouts.agree()


async def test_a_move_is_adopted_once(payouts: Payouts) -> None:
    """Whoever was quicker is not overruled: the same nonce, the same transaction, and one that is known."""
    command = adoption(payouts, swept(token(payouts), 1))
    again = adoption(payouts, swept(token(payouts), 1, txid="other"))
    await carry(payouts, command)
    for late in (command, again):
        assert (await payouts.world.context.submit(late)).stale
    assert adoption(payouts, swept(token(payouts), 1)) is None
    assert payouts.reads.row(Sent, ERC20, "tx").payment == command.payment
    assert payouts.reads.row(Reserved, ERC20, nonce_text(0, AT)).payment == command.payment


@pytest.mark.parametrize("purpose", [SWEEP, GAS, COLD_MOVE])
async def test_it_is_a_candidate_of_the_move_that_has_reserved_its_nonce(
    payouts: Payouts, purpose: PaymentPurpose
) -> None:
    """If it moves the same, or was to move it and was undone; and not if it moves anything else, or nothing; what has
    gone to the cold address with that nonce in its place is a payment of its own."""
    source, target = (AT, 0) if purpose == SWEEP else (0, 8 if purpose == GAS else 0)
    address, spends = COLD if purpose == COLD_MOVE else HOME, (nonce_text(3, source),)
    places = {"purpose": purpose, "source": source, "target": target, "address": address, "units": "70"}
    known = Payment(5, ERC20, ETH, spends=spends, state=PaymentState.RESERVED, body=b"body", **places)
    await keep(payouts, known, Reserved(ERC20, spends[0], 5))

    def found(units: int) -> Found:
        if purpose == COLD_MOVE:
            return Found(ERC20, "tx", spends, (Paid(COLD, "", "", units),) if units else ())
        return Found(ERC20, "tx", spends, (), moved=Moved(purpose, "", units, address, source, target))

    is_gone = purpose == COLD_MOVE
    if is_gone:
        beating = adoption(payouts, found(71))
        assert isinstance(beating, AdoptPayment)
        assert (beating.beaten, beating.purpose, beating.units) == (5, COLD_MOVE, "71")
    for other in (*([] if is_gone else [found(71)]), found(0), msgspec.structs.replace(found(71), undone=True)):
        with pytest.raises(NotAdopted, match="pays others"):
            _ = adoption(payouts, other)
    for units in (0, 70):
        assert isinstance(adoption(payouts, msgspec.structs.replace(found(units), undone=True)), AdoptCandidate)
    await carry(payouts, adoption(payouts, found(70)))
    now = payouts.reads.row(Payment, 5)
    assert (now.state, now.candidates, now.signed_ms) == (PaymentState.SIGNED, ("tx",), NOW_MS)
    late = adoption(payouts, msgspec.structs.replace(found(70), txid="late"))
    await payouts.do(lambda: prepare_void(payouts.world.context, now))
    assert (await payouts.world.context.submit(late)).stale
    latest = msgspec.structs.replace(found(70), txid="late")
    if is_gone:
        await carry(payouts, adoption(payouts, latest))
        [adopted] = [it for it in payouts.reads.each(Payment) if it.ref != 5]
        assert (adopted.state, adopted.spends, adopted.candidates) == (PaymentState.SIGNED, spends, ("late",))
        assert payouts.reads.row(Reserved, ERC20, spends[0]).payment == 5
    else:
        with pytest.raises(NotAdopted):
            _ = adoption(payouts, latest)


async def test_one_that_pays_nobody_settles_no_withdrawal(payouts: Payouts) -> None:
    """Whoever cancelled a payment with the hot wallet's key elsewhere has spent its nonce, and paid no customer."""
    withdrawal = await payouts.withdraw("0.5", THEIRS[ERC20].address, asset="ETH")
    spends = (nonce_text(0),)
    draft = Draft(spends, b"body", 500)
    await payouts.do(lambda: prepare_reservation(payouts.world.context, [withdrawal], draft, coins=False))
    for change in ((), (Change("cancelled:0", 1),)):
        with pytest.raises(NotAdopted, match="pays others"):
            _ = adoption(payouts, Found(ERC20, "cancelled", spends, (), change))
    assert payouts.row(withdrawal.ref).state == WithdrawalState.PAYING


async def test_what_the_books_cannot_tell_is_no_move(payouts: Payouts) -> None:
    """A token that is not offered, an amount beyond the ledger's range, and a move with withdrawals."""
    with pytest.raises(NotAdopted, match="does not offer"):
        _ = adoption(payouts, swept("gold", 5))
    with pytest.raises(NotAdopted, match="cannot tell"):
        _ = adoption(payouts, swept(token(payouts), 2**62))
    command: AdoptPayment = adoption(payouts, swept(token(payouts), 5))
    with pytest.raises(InvariantBroken, match="pays nobody"):
        await carry(payouts, msgspec.structs.replace(command, purpose=PaymentPurpose.WITHDRAWALS))
