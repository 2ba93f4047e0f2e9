"""Bookings of the house: stakes, rewards and vouchers, on every store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from strongroom.engine.command import NOBODY
from strongroom.errors import Refused
from strongroom.ledger.accounts import Purpose, house, owed
from strongroom.ledger.entries import Posting
from strongroom.records.heads import Head
from strongroom.records.history import LineType
from strongroom.wallet.balances import balance_of
from strongroom.wallet.bookings import BOOKABLE, prepare_booking
from strongroom.wallet.context import perform_own
from strongroom.wallet.verification import verify
from support.paying import book
from support.world import BTC, EVERY_STORE, World, new_store, opened

COIN = 100_000_000


@pytest.fixture(params=EVERY_STORE)
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    """A house on each store in turn."""
    async with opened(new_store(request.param, tmp_path)) as world:
        yield world


async def _book(world: World, owner: int, type_: LineType, amount: int) -> None:
    await perform_own(world.context, lambda: prepare_booking(world.context, NOBODY, owner, BTC, type_, amount))


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


async def test_a_type_that_is_not_booked_by_hand_is_refused(world: World) -> None:
    """A withdrawal is asked for, not booked."""
    alice = await world.user("alice")
    with pytest.raises(Refused, match="not booked by hand"):
        await _book(world, alice, LineType.WITHDRAW, 1)
