"""Assignments on every store: whose it was that a restored backup did not know, told once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from strongroom.engine.command import NOBODY
from strongroom.errors import Refused
from strongroom.ledger.accounts import Purpose, available, house, owed
from strongroom.ledger.entries import Posting
from strongroom.records.addresses import Address, AddressBook
from strongroom.records.deposits import Deposit, DepositState
from strongroom.records.epochs import Reconciled
from strongroom.records.history import Line, LineType, Thread
from strongroom.wallet.assignments import prepare_deposit_assignment, prepare_withdrawal_assignment
from support.paying import COIN, OURS, Payouts, book, paying
from support.payment_rows import PAYING, REF, SETTLED, keep, withdrawal_of
from support.world import BITCOIN, BTC, NOW_MS, STORES, new_store

AT = 5
PLACE = OURS[BITCOIN][AT]
HERE = Address(BITCOIN, PLACE.address, PLACE.tag, AT)
BOUGHT = 70_000


@pytest.fixture(params=STORES)
async def payouts(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Payouts]:
    """A house on each store in turn, which has paid for nobody known and withholds what came to somebody."""
    async with paying(new_store(request.param, tmp_path), tmp_path) as payouts:
        await payouts.endow(payouts.alice, BTC, BITCOIN, 10 * COIN)
        row = withdrawal_of(payouts, SETTLED)
        await keep(payouts, msgspec.structs.replace(row, owner=0, fee=0), Reconciled(BITCOIN, 0, unknown=1))
        # Its loss and what it withholds, each with its other side in the stock.
        await payouts.do(
            lambda: book(
                Posting(house(Purpose.EQUITY, BTC), -row.to_address),
                Posting(house(Purpose.SUSPENSE, BTC), BOUGHT),
                Posting(house(Purpose.INVENTORY, BTC), row.to_address - BOUGHT),
            )
        )
        yield payouts


def lines(payouts: Payouts, owner: int, kind: LineType) -> list[Line]:
    """Return a customer's history of bitcoin of one kind, the newest first."""
    found: list[Line] = []
    number = payouts.reads.row(Thread, owner, BTC, kind).newest
    while number:
        found.append(payouts.reads.line(number))
        number = found[-1].kind_before
    return found


async def name(payouts: Payouts, owner: int, ref: int = REF) -> None:
    """Say whose the withdrawal was."""
    await payouts.do(lambda: prepare_withdrawal_assignment(payouts.world.context, NOBODY, ref, owner))


async def test_a_withdrawal_that_is_named_is_in_its_customers_history(payouts: Payouts) -> None:
    """It is charged, the house's loss is gone, and the customer reads where it went and what it was."""
    await name(payouts, payouts.alice)
    row = payouts.row(REF)
    assert (row.owner, row.state) == (payouts.alice, SETTLED)
    assert payouts.available(payouts.alice) == 10 * COIN - row.to_address
    assert payouts.balance(house(Purpose.EQUITY, BTC)) == 0
    [line] = lines(payouts, payouts.alice, LineType.WITHDRAW)
    assert (line.ref, line.net, line.network) == (REF, -row.to_address, BITCOIN)
    assert payouts.reads.row(Reconciled, BITCOIN).unknown == 0
    payouts.agree()


async def test_a_withdrawal_is_named_when_it_is_final_and_nobodys(payouts: Payouts) -> None:
    """One that is under way, that is somebody's already or that there is not at all is refused with the reason."""
    await keep(payouts, msgspec.structs.replace(withdrawal_of(payouts, PAYING), ref=78, owner=0))
    for ref, owner, reason in (
        (78, payouts.alice, "withdrawal is not final yet"),
        (79, payouts.alice, "withdrawal is not one that nobody is named for"),
        (REF, 7, "user is unknown"),
    ):
        with pytest.raises(Refused, match=reason):
            await name(payouts, owner, ref)
    late = prepare_withdrawal_assignment(payouts.world.context, NOBODY, REF, payouts.bob)
    await name(payouts, payouts.alice)
    with pytest.raises(Refused, match="nobody is named for"):
        await payouts.do(lambda: late)
    assert payouts.balance(owed(payouts.bob, BTC)) == 0
    assert lines(payouts, payouts.bob, LineType.WITHDRAW) == []


async def withhold(payouts: Payouts, ref: int, address: Address = HERE) -> Deposit:
    """Let something have come to an address that the backup did not know to be given out."""
    half = BOUGHT // 2
    place = {"network": BITCOIN, "address": PLACE.address, "tag": PLACE.tag, "txid": f"tx{ref}"}
    deposit = Deposit(ref, 0, BTC, **place, chain_units=str(half), amount=half, state=DepositState.WITHHELD)
    await keep(payouts, deposit, address)
    return deposit


async def give(payouts: Payouts, ref: int, owner: int) -> None:
    """Say whose the deposit is."""
    await payouts.do(lambda: prepare_deposit_assignment(payouts.world.context, NOBODY, ref, owner))


async def test_a_deposit_that_is_named_is_credited_with_its_address(payouts: Payouts) -> None:
    """It is in the history, and the address is the customer's beside those that are there already, paid once."""
    _ = await withhold(payouts, 90)
    await keep(payouts, AddressBook(payouts.bob, BTC, BITCOIN, (2, 3), (3,)))
    await give(payouts, 90, payouts.bob)
    deposit = payouts.reads.row(Deposit, 90)
    assert (deposit.owner, deposit.state, deposit.net) == (payouts.bob, DepositState.CREDITED, BOUGHT // 2)
    assert payouts.balance(available(payouts.bob, BTC)) == BOUGHT // 2
    assert payouts.balance(house(Purpose.SUSPENSE, BTC)) == BOUGHT // 2
    [line] = lines(payouts, payouts.bob, LineType.DEPOSIT)
    assert (line.ref, line.net) == (90, BOUGHT // 2)
    row = payouts.reads.row(Address, BITCOIN, PLACE.address, PLACE.tag)
    assert row == Address(BITCOIN, PLACE.address, PLACE.tag, AT, payouts.bob, BTC, NOW_MS, paid=True)
    assert payouts.reads.row(AddressBook, payouts.bob, BTC, BITCOIN) == AddressBook(
        payouts.bob, BTC, BITCOIN, (2, 3, AT), (3,)
    )


async def test_what_comes_there_later_is_the_same_customers(payouts: Payouts) -> None:
    """The address is listed once, and nobody else can be named for what has come to it."""
    _ = await withhold(payouts, 90)
    await give(payouts, 90, payouts.bob)
    given = payouts.reads.row(Address, BITCOIN, PLACE.address, PLACE.tag)
    _ = await withhold(payouts, 91, given)
    with pytest.raises(Refused, match="address belongs to somebody else"):
        await give(payouts, 91, payouts.alice)
    with pytest.raises(Refused, match="deposit is not withheld"):
        await give(payouts, 90, payouts.bob)
    with pytest.raises(Refused, match="user is unknown"):
        await give(payouts, 91, 7)
    await give(payouts, 91, payouts.bob)
    assert payouts.reads.row(Address, BITCOIN, PLACE.address, PLACE.tag) == given
    assert payouts.reads.row(AddressBook, payouts.bob, BTC, BITCOIN).listed == (AT,)
    assert payouts.balance(available(payouts.bob, BTC)) == BOUGHT
    assert len(lines(payouts, payouts.bob, LineType.DEPOSIT)) == 2
