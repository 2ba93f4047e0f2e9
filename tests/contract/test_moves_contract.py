"""Moves of the house's own money on every store: what lies where, what is booked, and what is refused."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from strongroom.engine.command import NOBODY
from strongroom.errors import InvariantBroken, Refused
from strongroom.ledger.accounts import Purpose, house, omnibus
from strongroom.ledger.entries import Posting
from strongroom.records.chains import Holding
from strongroom.records.coins import Pot, Sent
from strongroom.records.withdrawals import Payment, PaymentPurpose, PaymentState
from strongroom.wallet.epochs import prepare_epoch
from strongroom.wallet.moves import (
    Move,
    ReserveMove,
    ReturnFromCold,
    prepare_move,
    prepare_move_finish,
    prepare_move_revert,
)
from strongroom.wallet.payments import (
    Draft,
    MinePayment,
    next_nonce,
    nonce_text,
    prepare_reservation,
    prepare_signing,
    prepare_void,
)
from strongroom.wallet.pots import due_pots, filled_pots
from strongroom.wallet.reopenings import prepare_reopening
from support.paying import COIN, THEIRS, Payouts, book, paying
from support.payment_rows import keep
from support.world import BTC, ERC20, ETH, NOW_MS, STORES, USDT, new_store

AT = 7
"""The position of the deposit address that is swept."""

GWEI = 10**9


@pytest.fixture(params=STORES)
async def payouts(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Payouts]:
    """A house on each store in turn, with ether and tokens, some of them on a deposit address."""
    async with paying(new_store(request.param, tmp_path), tmp_path) as payouts:
        await payouts.endow(payouts.alice, USDT, ERC20, 100 * COIN)
        await payouts.endow(payouts.alice, ETH, ERC20, 2 * COIN)
        await keep(
            payouts,
            Pot(ERC20, AT, USDT, "40000000", filled=True, due=True),
            Pot(ERC20, AT, ETH, str(500_000 * GWEI), filled=True),
        )
        yield payouts


def moving(
    payouts: Payouts,
    purpose: PaymentPurpose,
    asset: int,
    units: int,
    *,
    source: int = 0,
    target: int = 0,
    nonce: int = 0,
) -> ReserveMove:
    """Return the command that reserves a move for a fee of 100,000 gwei."""
    draft = Draft((nonce_text(nonce, source),), b"body", 100_000 * GWEI)
    move = Move(draft, units, "0xcold", source, target)
    return prepare_move(payouts.world.context, purpose, ERC20, asset, move)


async def mined(payouts: Payouts, command: ReserveMove, fee: int = 80_000 * GWEI) -> Payment:
    """Reserve a move, sign it, and let it be in a block at height 9."""
    for step in (
        command,
        prepare_signing(Payment(command.payment, ERC20), "tx", b"blob"),
        MinePayment(NOBODY, command.payment, (), "tx", 9, str(fee), "nine"),
    ):
        outcome = await payouts.world.context.submit(step)
        assert outcome.refusal is None
        assert not outcome.stale
    return payouts.reads.row(Payment, command.payment)


def pots(payouts: Payouts) -> dict[tuple[int, int], int]:
    """Return what lies on deposit addresses."""
    return {(pot.position, pot.asset): int(pot.chain_units) for pot in filled_pots(payouts.reads, ERC20, 10)}


def due(payouts: Payouts) -> list[tuple[int, int]]:
    """Return what waits to be swept."""
    return [(pot.position, pot.asset) for pot in due_pots(payouts.reads, ERC20)]


def owned(payouts: Payouts, asset: int) -> int:
    """Return what the house owns on the chain, in the chain's unit."""
    return int(payouts.reads.row(Holding, ERC20, asset).chain_units)


async def test_a_sweep_empties_its_pot_and_costs_the_houses_fee(payouts: Payouts) -> None:
    """What lies with the hot wallet then, and the fee, are off the pots; what is left there is not due again."""
    assert due(payouts) == [(AT, USDT)]
    payment = await mined(payouts, moving(payouts, PaymentPurpose.SWEEP, USDT, 30_000_000, source=AT))
    assert due(payouts) == []
    before = owned(payouts, USDT), owned(payouts, ETH)
    await payouts.do(lambda: prepare_move_finish(payouts.world.context, payment, 11))
    assert pots(payouts) == {(AT, USDT): 10_000_000, (AT, ETH): 420_000 * GWEI}
    assert due(payouts) == []
    assert (owned(payouts, USDT), owned(payouts, ETH)) == (before[0], before[1] - 80_000 * GWEI)
    assert payouts.balance(house(Purpose.CHAIN_FEE, ETH)) == -8_000
    assert payouts.reads.row(Payment, payment.ref).state == PaymentState.FINAL
    payouts.agree()


async def test_gas_lies_on_the_address_that_got_it(payouts: Payouts) -> None:
    """It is the house's own still, and known to be there."""
    payment = await mined(payouts, moving(payouts, PaymentPurpose.GAS, ETH, 300_000 * GWEI, target=8))
    await payouts.do(lambda: prepare_move_finish(payouts.world.context, payment, 11))
    assert pots(payouts)[8, ETH] == 300_000 * GWEI
    assert owned(payouts, ETH) == 2 * 10**18 - 80_000 * GWEI
    payouts.agree()


async def test_what_went_to_the_cold_address_is_owned_there(payouts: Payouts) -> None:
    """It leaves the chain's account for the cold one, and comes back from it by the operator's word."""
    payment = await mined(payouts, moving(payouts, PaymentPurpose.COLD, ETH, 10**18))
    await payouts.do(lambda: prepare_move_finish(payouts.world.context, payment, 11))
    assert payouts.balance(house(Purpose.COLD, ETH)) == -COIN
    assert payouts.balance(omnibus(ERC20, ETH)) == -(COIN - 8_000)
    payouts.agree()
    with pytest.raises(Refused, match="less than that has arrived"):
        await payouts.do(lambda: ReturnFromCold(NOBODY, ETH, COIN // 2, 100))
    await payouts.do(
        lambda: book(Posting(house(Purpose.INVENTORY, ETH), COIN // 2), Posting(house(Purpose.EQUITY, ETH), -COIN // 2))
    )
    for units, fee, reason in ((COIN, 1, "has less"), (0, 0, "positive"), (1, -1, "positive")):
        with pytest.raises(Refused, match=reason):
            await payouts.do(lambda units=units, fee=fee: ReturnFromCold(NOBODY, ETH, units, fee))
    await payouts.do(lambda: ReturnFromCold(NOBODY, ETH, COIN // 2, 100))
    assert payouts.balance(house(Purpose.COLD, ETH)) == -(COIN - COIN // 2 - 100)
    assert payouts.balance(house(Purpose.INVENTORY, ETH)) == 0


async def test_one_that_comes_signed_holds_no_nonce_without_its_transaction(payouts: Payouts) -> None:
    """Nonce, transaction and candidate are kept in one commit; where the nonce was used nothing is."""
    command = moving(payouts, PaymentPurpose.COLD, ETH, 10**18)
    signed = msgspec.structs.replace(command, txid="tx", blob=b"signed")
    await payouts.do(lambda: signed)
    payment = payouts.reads.row(Payment, signed.payment)
    assert (payment.state, payment.candidates, payment.blob) == (PaymentState.SIGNED, ("tx",), b"signed")
    assert (payment.created_ms, payment.signed_ms) == (NOW_MS, NOW_MS)
    assert payouts.reads.row(Sent, ERC20, "tx").payment == signed.payment
    late = msgspec.structs.replace(moving(payouts, PaymentPurpose.COLD, ETH, 10**18), txid="late", blob=b"signed")
    assert (await payouts.world.context.submit(late)).stale
    assert not payouts.reads.row(Payment, late.payment).state
    assert not payouts.reads.row(Sent, ERC20, "late").payment
    payouts.agree()


async def test_a_move_that_the_chain_undid_costs_its_fee_only(payouts: Payouts) -> None:
    """Everything lies where it was, but for the gas."""
    payment = await mined(payouts, moving(payouts, PaymentPurpose.SWEEP, USDT, 40_000_000, source=AT))
    before = owned(payouts, ETH)
    await payouts.do(lambda: prepare_move_revert(payouts.world.context, payment, 9, 50_000 * GWEI, 11, "other"))
    assert pots(payouts) == {(AT, USDT): 40_000_000, (AT, ETH): 450_000 * GWEI}
    assert due(payouts) == [(AT, USDT)]
    void = payouts.reads.row(Payment, payment.ref)
    assert (void.state, void.block) == (PaymentState.VOIDED, "other")
    payouts.agree()
    # That block is gone: it is on its way again, for its nonce holds up all later ones.
    await payouts.do(lambda: prepare_reopening(payouts.world.context, void))
    assert payouts.reads.row(Payment, payment.ref).state == PaymentState.SIGNED
    assert (pots(payouts)[AT, ETH], owned(payouts, ETH), due(payouts)) == (500_000 * GWEI, before, [])
    payouts.agree()


async def test_a_move_that_is_never_mined_changes_nothing(payouts: Payouts) -> None:
    """It is void, and what it was to sweep can be swept by another one."""
    command = moving(payouts, PaymentPurpose.SWEEP, USDT, 40_000_000, source=AT)
    await payouts.do(lambda: command)
    await payouts.do(lambda: prepare_signing(Payment(command.payment, ERC20), "tx", b"blob"))
    before = pots(payouts)
    await payouts.do(lambda: prepare_void(payouts.world.context, payouts.reads.row(Payment, command.payment)))
    assert pots(payouts) == before
    assert due(payouts) == [(AT, USDT)]
    await payouts.do(lambda: moving(payouts, PaymentPurpose.SWEEP, USDT, 40_000_000, source=AT, nonce=1))
    payouts.agree()


@pytest.mark.parametrize("purpose", [PaymentPurpose.SWEEP, PaymentPurpose.GAS, PaymentPurpose.COLD])
async def test_a_final_move_can_be_taken_back(payouts: Payouts, purpose: PaymentPurpose) -> None:
    """When its block is gone everything is as before, to the last unit, and it can become final again."""
    asset, source = (USDT, AT) if purpose is PaymentPurpose.SWEEP else (ETH, 0)
    target = 8 if purpose is PaymentPurpose.GAS else 0
    command = moving(payouts, purpose, asset, 30_000_000, source=source, target=target)
    payment = await mined(payouts, command, fee=80_001_234_567_891)
    accounts = [house(it, ETH) for it in (Purpose.CHAIN_FEE, Purpose.DUST, Purpose.COLD)] + [omnibus(ERC20, ETH)]
    before = [pots(payouts), owned(payouts, ETH), owned(payouts, USDT), [payouts.balance(it) for it in accounts]]
    await payouts.do(lambda: prepare_move_finish(payouts.world.context, payment, 11))
    final = payouts.reads.row(Payment, payment.ref)
    await payouts.do(lambda: prepare_reopening(payouts.world.context, final))
    assert before == [
        pots(payouts), owned(payouts, ETH), owned(payouts, USDT), [payouts.balance(it) for it in accounts]
    ]  # fmt: skip
    assert payouts.reads.row(Payment, payment.ref).state == PaymentState.SIGNED
    payouts.agree()


async def test_what_is_taken_or_not_there_is_not_reserved(payouts: Payouts) -> None:
    """A nonce serves one payment, a pot is swept up to what is in it, and a move moves something."""
    await payouts.do(lambda: moving(payouts, PaymentPurpose.SWEEP, USDT, 1, source=AT))
    again = moving(payouts, PaymentPurpose.SWEEP, USDT, 1, source=AT)
    assert (await payouts.world.context.submit(again)).stale
    with pytest.raises(Refused, match="less than is to be swept"):
        await payouts.do(lambda: moving(payouts, PaymentPurpose.SWEEP, USDT, 40_000_001, source=AT, nonce=1))
    for purpose, units, source, reason in (
        (PaymentPurpose.WITHDRAWALS, 1, 0, "a move moves something of ours"),
        (PaymentPurpose.GAS, 0, 0, "a move moves something of ours"),
        (PaymentPurpose.COLD, 1, AT, "only a sweep is paid by a deposit address"),
    ):
        with pytest.raises(InvariantBroken, match=reason):
            await payouts.do(
                lambda purpose=purpose, units=units, source=source: moving(
                    payouts, purpose, ETH, units, source=source, nonce=5
                )
            )
    nothing = moving(payouts, PaymentPurpose.GAS, ETH, 1)
    with pytest.raises(InvariantBroken, match="a payment spends something"):
        await payouts.do(lambda: msgspec.structs.replace(nothing, draft=Draft((), b"body", 1)))
    payouts.agree()


async def test_no_move_is_reserved_while_its_network_waits(payouts: Payouts) -> None:
    """After a restore what is in the pots may have been swept already."""
    await payouts.do(lambda: prepare_epoch(payouts.world.context))
    with pytest.raises(Refused, match="waits to be reconciled"):
        await payouts.do(lambda: moving(payouts, PaymentPurpose.SWEEP, USDT, 1, source=AT))
    assert due(payouts) == [(AT, USDT)]
    payouts.agree()


async def test_an_end_is_that_of_the_move_as_it_is(payouts: Payouts) -> None:
    """What was decided by another block, for other addresses or for a payment of customers is not booked."""
    context = payouts.world.context
    payment = await mined(payouts, moving(payouts, PaymentPurpose.SWEEP, USDT, 40_000_000, source=AT))
    finish = prepare_move_finish(context, payment, 11)
    with pytest.raises(InvariantBroken, match="a move is between its own addresses"):
        await payouts.do(lambda: msgspec.structs.replace(finish, source=8))
    await payouts.do(lambda: MinePayment(NOBODY, payment.ref, (), "tx", 7, "1", "seven"))
    with pytest.raises(Refused, match="in another block meanwhile"):
        await payouts.do(lambda: finish)
    assert pots(payouts)[AT, USDT] == 40_000_000
    withdrawal = await payouts.withdraw("0.5", THEIRS[ERC20].address, asset="ETH")
    draft = Draft((nonce_text(0),), b"body", 1)
    await payouts.do(lambda: prepare_reservation(context, [withdrawal], draft))
    await payouts.do(lambda: prepare_signing(payouts.payment(withdrawal), "paid", b"blob"))
    ref = payouts.payment(withdrawal).ref
    await payouts.do(lambda: MinePayment(NOBODY, ref, (withdrawal.ref,), "paid", 9, "1", "nine"))
    with pytest.raises(InvariantBroken, match="a move has no withdrawals"):
        await payouts.do(lambda: prepare_move_finish(context, payouts.payment(withdrawal), 11))
    payouts.agree()


async def test_what_was_to_go_to_the_cold_address_and_was_undone_is_here_still(payouts: Payouts) -> None:
    """Nothing of it is on the account of cold money: the chain has its fee."""
    payment = await mined(payouts, moving(payouts, PaymentPurpose.COLD, ETH, 10**18))
    await payouts.do(lambda: prepare_move_revert(payouts.world.context, payment, 9, 50_000 * GWEI, 11))
    void = payouts.reads.row(Payment, payment.ref)
    assert (void.state, void.height, void.block) == (PaymentState.VOIDED, 9, "")
    assert payouts.balance(house(Purpose.COLD, ETH)) == 0
    assert owned(payouts, ETH) == 2 * 10**18 - 50_000 * GWEI
    payouts.agree()


async def test_gas_that_was_undone_is_on_no_address(payouts: Payouts) -> None:
    """The books know of no pot where nothing ever lay."""
    payment = await mined(payouts, moving(payouts, PaymentPurpose.GAS, ETH, 300_000 * GWEI, target=8))
    await payouts.do(lambda: prepare_move_revert(payouts.world.context, payment, 9, 50_000 * GWEI, 11))
    assert {pot.position for pot in payouts.reads.each(Pot)} == {AT}
    assert due(payouts) == [(AT, USDT)]
    payouts.agree()


async def test_a_sweep_that_is_on_its_way_again_is_not_swept_twice(payouts: Payouts) -> None:
    """Given up for a rival whose block is gone, it has its pot again, as full as it was."""
    command = moving(payouts, PaymentPurpose.SWEEP, USDT, 40_000_000, source=AT)
    await payouts.do(lambda: command)
    await payouts.do(lambda: prepare_signing(Payment(command.payment, ERC20), "tx", b"blob"))
    before, context = pots(payouts), payouts.world.context
    await payouts.do(lambda: prepare_void(context, payouts.reads.row(Payment, command.payment), 7, "rival"))
    assert due(payouts) == [(AT, USDT)]
    await payouts.do(lambda: prepare_reopening(context, payouts.reads.row(Payment, command.payment)))
    assert (pots(payouts), due(payouts)) == (before, [])
    assert payouts.reads.row(Payment, command.payment).state == PaymentState.SIGNED


async def test_a_sweep_uses_no_nonce_of_the_hot_wallet(payouts: Payouts) -> None:
    """Each address counts its own: the hot wallet's next one is behind what it has itself reserved."""
    await payouts.do(lambda: moving(payouts, PaymentPurpose.SWEEP, USDT, 1, source=AT, nonce=7))
    assert next_nonce(payouts.world.context, ERC20) == 0
    await payouts.do(lambda: moving(payouts, PaymentPurpose.GAS, ETH, 1, target=AT, nonce=3))
    assert next_nonce(payouts.world.context, ERC20) == 4


async def test_the_newest_addresses_are_swept_first(payouts: Payouts) -> None:
    """Those that wait long have less than is worth it: they are looked at last."""
    await keep(payouts, *(Pot(ERC20, at, USDT, "5", filled=True, due=True) for at in (3, 9)))
    assert due(payouts) == [(9, USDT), (AT, USDT), (3, USDT)]


async def test_what_arrives_while_a_sweep_is_under_way_waits_for_the_next_one(payouts: Payouts) -> None:
    """However little it is: what is worth a sweep may be another matter by then."""
    payment = await mined(payouts, moving(payouts, PaymentPurpose.SWEEP, ETH, 10_000 * GWEI, source=AT))
    await keep(payouts, Pot(ERC20, AT, ETH, str(100_000 * GWEI), filled=True, due=True))
    await payouts.do(lambda: prepare_move_finish(payouts.world.context, payment, 11))
    assert pots(payouts)[AT, ETH] == 10_000 * GWEI
    assert (AT, ETH) in due(payouts)


async def test_all_that_is_on_the_cold_address_can_come_back_and_a_single_unit_too(payouts: Payouts) -> None:
    """Up to what is there, with the fee of the way, and never more."""
    payment = await mined(payouts, moving(payouts, PaymentPurpose.COLD, ETH, 10**18))
    await payouts.do(lambda: prepare_move_finish(payouts.world.context, payment, 11))
    await payouts.do(
        lambda: book(Posting(house(Purpose.INVENTORY, ETH), COIN), Posting(house(Purpose.EQUITY, ETH), -COIN))
    )
    await payouts.do(lambda: ReturnFromCold(NOBODY, ETH, 1, 0))
    with pytest.raises(Refused, match="has less"):
        await payouts.do(lambda: ReturnFromCold(NOBODY, ETH, COIN - 1, 1))
    await payouts.do(lambda: ReturnFromCold(NOBODY, ETH, COIN - 101, 100))
    assert payouts.balance(house(Purpose.COLD, ETH)) == 0
    payouts.agree()


async def test_a_move_is_final_once_it_is_buried(payouts: Payouts) -> None:
    """Before its confirmations nothing is booked."""
    payment = await mined(payouts, moving(payouts, PaymentPurpose.SWEEP, USDT, 40_000_000, source=AT))
    before = pots(payouts)
    with pytest.raises(Refused, match="not confirmed"):
        await payouts.do(lambda: prepare_move_finish(payouts.world.context, payment, 10))
    assert pots(payouts) == before
    assert payouts.balance(house(Purpose.CHAIN_FEE, BTC)) == 0
