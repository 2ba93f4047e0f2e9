"""Bookings of the house: stakes, rewards and vouchers, on every store."""

from __future__ import annotations

import msgspec
import pytest

from strongroom.engine.command import NOBODY
from strongroom.errors import InvariantBroken, Refused
from strongroom.ledger.accounts import Purpose, available, house, omnibus, owed, staked
from strongroom.ledger.entries import Posting
from strongroom.records.heads import Head
from strongroom.records.history import LineType, Thread
from strongroom.wallet.balances import balance_of
from strongroom.wallet.bookings import BOOKABLE, FundHouse, prepare_booking
from strongroom.wallet.context import perform_own
from strongroom.wallet.verification import verify
from support.paying import book
from support.world import BITCOIN, BTC, World

COIN = 100_000_000


async def _book(world: World, owner: int, type_: LineType, amount: int) -> None:
    await perform_own(world.context, lambda: prepare_booking(world.context, NOBODY, owner, BTC, type_, amount))


SIDES = {
    LineType.DEPOSIT: (1, 0, Purpose.BANK),
    LineType.EXPRESS_BUY: (1, 0, Purpose.BANK),
    LineType.REFERRAL_EARNING: (1, 0, Purpose.EQUITY),
    LineType.STRATEGY_INCOME: (1, 0, Purpose.EQUITY),
    LineType.TOKEN_VOUCHER_IN: (1, 0, Purpose.EQUITY),
    LineType.SPOT_FEE_REBATE: (1, 0, Purpose.EQUITY),
    LineType.FUTURES_FEE_REBATE: (1, 0, Purpose.EQUITY),
    LineType.GENERAL_FEE_REBATE: (1, 0, Purpose.EQUITY),
    LineType.TRIAL_FUND: (1, 0, Purpose.EQUITY),
    LineType.STRATEGY_PAY: (-1, 0, Purpose.EQUITY),
    LineType.TOKEN_VOUCHER_OUT: (-1, 0, Purpose.EQUITY),
    LineType.STAKE_FREEZE: (-1, 1, None),
    LineType.STAKE_UNFREEZE: (1, -1, None),
}
"""By type what is added to the customer's available and staked money; the house's account has the other side."""


async def test_each_type_moves_money_between_its_own_accounts(world: World) -> None:
    """What the customer gets or gives, and whose it was, follows from the type; its line tells it with its sign."""
    alice = await world.user("alice")
    await world.fund(alice, BTC, COIN)
    await _book(world, alice, LineType.STAKE_FREEZE, COIN // 2)
    assert set(SIDES) == BOOKABLE
    for type_, (spendable, frozen, purpose) in SIDES.items():
        before = _sides(world, alice)
        outcome = await world.context.submit(prepare_booking(world.context, NOBODY, alice, BTC, type_, 700))
        moved = [after - was for after, was in zip(_sides(world, alice), before, strict=True)]
        given = spendable + frozen
        assert moved == [
            700 * spendable,
            700 * frozen,
            -700 * given * (purpose is Purpose.BANK),
            -700 * given * (purpose is Purpose.EQUITY),
        ], type_.name
        line = world.store.line(world.store.row(Thread, alice, BTC, type_).newest)
        assert (line.amount, line.net, line.fees, line.other) == (700, 700 * spendable, 0, 0)
        assert msgspec.json.decode(outcome.result) == {"ref": line.ref}


def _sides(world: World, owner: int) -> list[int]:
    """Return the balances of every account that a booking may concern."""
    accounts = available(owner, BTC), staked(owner, BTC), house(Purpose.BANK, BTC), house(Purpose.EQUITY, BTC)
    return [world.store.row(Head, account.pack()).after for account in accounts]


async def test_nothing_is_booked_for_a_user_that_is_not_there(world: World) -> None:
    """The refusal says why, and the books are as before."""
    await world.fund(await world.user("alice"), BTC, COIN)
    before = sorted(world.store.balances())
    with pytest.raises(Refused) as caught:
        await _book(world, 999, LineType.TRIAL_FUND, 1)
    assert (caught.value.error.code, caught.value.message) == (-2, "BADREQUEST: user is unknown")
    assert sorted(world.store.balances()) == before


async def test_a_stake_is_part_of_the_total_but_cannot_be_spent(world: World) -> None:
    """Freezing moves money out of what is available, and unfreezing brings it back."""
    alice = await world.user("alice")
    await world.fund(alice, BTC, COIN)
    await _book(world, alice, LineType.STAKE_FREEZE, COIN // 4)
    assert balance_of(world.store, alice, BTC) == (75_000_000, COIN)
    await _book(world, alice, LineType.STAKE_UNFREEZE, COIN // 4)
    assert balance_of(world.store, alice, BTC) == (COIN, COIN)


async def test_what_is_unfrozen_repays_a_debt_first(world: World) -> None:
    """Money that was staked while a reorganisation took the rest is no way round what is owed."""
    alice = await world.user("alice")
    await world.fund(alice, BTC, COIN)
    await _book(world, alice, LineType.STAKE_FREEZE, COIN)
    debt = book(Posting(owed(alice, BTC), -COIN // 4), Posting(house(Purpose.EQUITY, BTC), COIN // 4))
    await perform_own(world.context, lambda: debt)
    await _book(world, alice, LineType.STAKE_UNFREEZE, COIN)
    assert balance_of(world.store, alice, BTC) == (75_000_000, 75_000_000)
    assert world.store.row(Head, owed(alice, BTC).pack()).after == 0


async def test_more_than_is_staked_cannot_be_unfrozen(world: World) -> None:
    """The refusal says why, and the books are as before."""
    alice = await world.user("alice")
    await world.fund(alice, BTC, COIN)
    before = sorted(world.store.balances())
    with pytest.raises(Refused, match="amount is more than is staked"):
        await _book(world, alice, LineType.STAKE_UNFREEZE, 1)
    assert sorted(world.store.balances()) == before


async def test_every_reason_books_an_entry_that_the_auditor_finds_whole(world: World) -> None:
    """Rewards, vouchers, rebates and purchases all sum to zero and leave a line of their type."""
    alice = await world.user("alice")
    await world.fund(alice, BTC, COIN)
    for type_ in sorted(BOOKABLE):
        await _book(world, alice, type_, 1000)
    assert verify(world.store).is_whole
    assert sum(after for _, after, _ in world.store.balances()) == 0


async def test_coins_of_the_house_are_not_booked_without_their_chain(world: World) -> None:
    """Their exact total is kept with the chain's: an entry that leaves that out is a mistake of ours, and not made."""
    before = sorted(world.store.balances())
    funding = FundHouse(NOBODY, BTC, 1, omnibus(BITCOIN, BTC), Purpose.EQUITY)
    with pytest.raises(InvariantBroken, match="coins of the house come in through the chain"):
        await perform_own(world.context, lambda: funding)
    assert sorted(world.store.balances()) == before


async def test_a_type_that_is_not_booked_by_hand_is_refused(world: World) -> None:
    """A withdrawal is asked for, not booked."""
    alice = await world.user("alice")
    with pytest.raises(Refused, match="type WITHDRAW is not booked by hand"):
        await _book(world, alice, LineType.WITHDRAW, 1)
