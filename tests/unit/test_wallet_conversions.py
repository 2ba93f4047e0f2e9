"""Conversions: both legs and the spread in one entry, at the published rate, and every refusal in its order."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from strongroom.engine.command import NOBODY
from strongroom.engine.settle import Outcome
from strongroom.errors import InvariantBroken, Refused
from strongroom.ledger.accounts import Account, Purpose, house, owed
from strongroom.money import MAX_UNITS, convert
from strongroom.rates.book import RateBook
from strongroom.rates.table import TableSource
from strongroom.records.heads import Head
from strongroom.records.history import LineType, Thread
from strongroom.records.users import User
from strongroom.wallet.bookings import FundHouse
from strongroom.wallet.context import perform, perform_own
from strongroom.wallet.conversions import RATE_STANDS_MS, Convert, Converted, exchange_rate, prepare_conversion
from strongroom.wallet.settings import prepare_settings
from strongroom.wallet.users import MarkUser
from support.world import BTC, NOW_MS, SNAPSHOT, STORES, USDT, World, new_store, opened

COIN = 100_000_000


@pytest.fixture(params=STORES)
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    """A house with prices, an inventory of 100,000 USDT and 10 BTC, and a customer, alice, with 2 BTC."""
    async with opened(new_store(request.param, tmp_path)) as world:
        prices = TableSource({"BTC/USDT": "50000", "ETH/USDT": "0.00000001"}, NOW_MS, max_age_ms=60_000)
        world.context.rates = RateBook((prices,), spread_e4=50)
        for asset, amount in ((USDT, 100_000 * COIN), (BTC, 10 * COIN)):
            funding = FundHouse(NOBODY, asset, amount, house(Purpose.BANK, asset), Purpose.INVENTORY)
            await perform_own(world.context, lambda funding=funding: funding)
        await world.fund(await world.user("alice"), BTC, 2 * COIN)
        yield world


def alice(world: World) -> int:
    """Return alice's user id."""
    return world.store.rows(User, {}, 1)[0].uid


async def converted(world: World, from_asset: str, to_asset: str, amount: str) -> Outcome:
    """Convert alice's money by a fresh request."""
    guard = world.guard(alice(world))
    return await perform(
        world.context, guard, lambda: prepare_conversion(world.context, guard, from_asset, to_asset, amount)
    )


async def refusal(world: World, from_asset: str, to_asset: str, amount: str) -> tuple[int, str]:
    """Return code and message of the refusal that a conversion meets, which leaves the balances as they were."""
    before = sorted(world.store.balances())
    outcome = await converted(world, from_asset, to_asset, amount)
    assert outcome.refusal is not None
    assert sorted(world.store.balances()) == before
    return outcome.refusal.error.code, outcome.refusal.message


def balance(world: World, account: Account) -> int:
    """Return an account's balance."""
    return world.store.row(Head, account.pack()).after


async def test_both_legs_and_the_spread_are_one_entry(world: World) -> None:
    """The customer gets the published rate, the house keeps the spread, and the inventories take the other sides."""
    outcome = await converted(world, "btc", "usdt", "0.5")
    result = msgspec.json.decode(outcome.result, type=Converted)
    assert (result.amount, result.settlement, result.rate) == (COIN // 2, 24_875 * COIN, "49750")
    assert world.available(alice(world), BTC) == 3 * COIN // 2
    assert world.available(alice(world), USDT) == 24_875 * COIN
    assert balance(world, house(Purpose.INVENTORY, BTC)) == 10 * COIN + COIN // 2
    assert balance(world, house(Purpose.INVENTORY, USDT)) == 75_000 * COIN
    assert balance(world, house(Purpose.SPREAD, USDT)) == 125 * COIN
    assert len(world.store.items(outcome.item, 1)[0].postings) == 5


async def test_a_conversion_leaves_two_history_lines_that_name_each_other(world: World) -> None:
    """Each leg has a reference of its own, its sign, and the other leg's asset and amount."""
    outcome = await converted(world, "BTC", "USDT", "0.5")
    result = msgspec.json.decode(outcome.result, type=Converted)
    given, got = world.store.items(outcome.item, 1)[0].lines
    assert (given.ref, got.ref) == (result.from_ref, result.to_ref)
    assert (given.type, given.asset, given.amount, given.net) == (LineType.CONVERT, BTC, COIN // 2, -COIN // 2)
    assert (given.other_asset, given.other_amount, given.rate) == (USDT, result.settlement, "49750")
    assert (got.type, got.asset, got.amount, got.net) == (LineType.CONVERT, USDT, result.settlement, result.settlement)
    assert (got.other_asset, got.other_amount, got.rate) == (BTC, COIN // 2, "49750")
    assert world.store.row(Thread, alice(world), USDT, LineType.CONVERT).newest == got.number


async def test_the_settlement_is_the_amount_at_the_rate_that_is_published(world: World) -> None:
    """What exchangeRate answers is what a conversion at that moment settles at, rounded down."""
    world.context.rates.set_table(TableSource({"BTC/USDT": "3.33333333"}, NOW_MS).prices())
    published = exchange_rate(world.context, "BTC", "USDT", "0.00000007")
    result = msgspec.json.decode((await converted(world, "BTC", "USDT", "0.00000007")).result, type=Converted)
    assert result.rate == published.text()
    assert result.settlement == convert(7, 8, 8, published) == 23


async def test_the_rate_stands_in_the_journal_with_its_source_and_age(world: World) -> None:
    """An auditor finds beside the entry which price it was made of and when that was observed."""
    outcome = await converted(world, "BTC", "USDT", "0.5")
    command = msgspec.json.decode(world.store.items(outcome.item, 1)[0].command)
    assert command["rate"]["source"] == "table BTC/USDT"
    assert command["rate"]["as_of_ms"] == NOW_MS
    assert int(command["rate"]["units"]) * 2 == 99_500 * 10 ** command["rate"]["decimals"]


async def test_what_a_customer_owes_is_repaid_first(world: World) -> None:
    """A debt after a reorganisation takes its part of the settlement before the customer can spend it."""
    await perform_own(
        world.context,
        lambda: FundHouse(NOBODY, USDT, 4_875 * COIN, owed(alice(world), USDT), Purpose.EQUITY),
    )
    await converted(world, "BTC", "USDT", "0.5")
    assert world.available(alice(world), USDT) == 20_000 * COIN
    assert balance(world, owed(alice(world), USDT)) == 0


async def test_refusals_come_in_the_contracts_order(world: World) -> None:
    """With everything wrong at once, what is mended uncovers the next refusal, and the balance comes last."""
    await perform_own(world.context, lambda: MarkUser(NOBODY, alice(world), frozen=True, active=True))
    assert await refusal(world, "NONE", "NONE", "x") == (11, "BADREQUEST: Invalid currency NONE")
    assert await refusal(world, "USD", "NONE", "x") == (11, "BADREQUEST: Invalid currency NONE")
    assert await refusal(world, "USD", "usd", "x") == (-2, "BADREQUEST: an asset is not converted into itself")
    assert await refusal(world, "BTC", "USD", "0.123456789") == (-2, "BADREQUEST: amount has too many decimals")
    assert await refusal(world, "BTC", "USD", "9") == (17, "BADREQUEST: No rate for BTC to USD")
    code, message = await refusal(world, "ETH", "USDT", "0.1")
    assert (code, "rounds to 0" in message) == (-2, True)
    assert await refusal(world, "BTC", "USDT", "9") == (17, "BADREQUEST: Account is frozen")
    await perform_own(world.context, lambda: MarkUser(NOBODY, alice(world), frozen=False, active=True))
    assert await refusal(world, "BTC", "USDT", "9") == (17, "BADREQUEST: Inventory is short")
    assert await refusal(world, "USDT", "BTC", "100") == (51523, "BADREQUEST: Insufficient wallet balance")


async def test_the_inventory_can_be_emptied_but_not_overdrawn(world: World) -> None:
    """A conversion may take all the house has, spread included, and not one unit more."""
    assert await refusal(world, "BTC", "USDT", "2.00000001") == (17, "BADREQUEST: Inventory is short")
    assert (await converted(world, "BTC", "USDT", "2")).refusal is None
    assert balance(world, house(Purpose.INVENTORY, USDT)) == 0


@pytest.mark.parametrize("code", ["BTC", "USDT"])
async def test_an_asset_that_is_not_offered_for_conversion_is_an_invalid_currency(world: World, code: str) -> None:
    """Switching conversion off for either asset refuses it, also for one that was prepared before."""
    guard = world.guard(alice(world))
    prepared = prepare_conversion(world.context, guard, "BTC", "USDT", "0.1")
    assets = tuple(
        msgspec.structs.replace(asset, actions=("SEND",)) if asset.code == code else asset for asset in SNAPSHOT.assets
    )
    changed = msgspec.structs.replace(SNAPSHOT, assets=assets)
    await perform_own(world.context, lambda: prepare_settings(world.context, NOBODY, changed))
    outcome = await world.context.submit(prepared)
    assert outcome.refusal is not None
    assert outcome.refusal.message == f"BADREQUEST: Invalid currency {code}"
    assert await refusal(world, "USDT", "BTC", "0.1") == (11, f"BADREQUEST: Invalid currency {code}")


async def test_a_price_that_is_too_old_is_never_used(world: World) -> None:
    """Once the price is past its age, conversion and published rate are refused alike."""
    world.clock.at_ms += 60_001
    assert await refusal(world, "BTC", "USDT", "0.1") == (17, "BADREQUEST: Rate for BTC to USDT is too old")
    with pytest.raises(Refused, match="too old"):
        exchange_rate(world.context, "BTC", "USDT")


async def test_a_conversion_that_waited_too_long_is_prepared_again(world: World) -> None:
    """The rate a customer gets is at most five seconds old when the entry is made: later, the new rate counts."""
    prepared: list[int] = []
    guard = world.guard(alice(world))

    def prepare() -> Convert:
        command = prepare_conversion(world.context, guard, "BTC", "USDT", "1")
        if not prepared:
            world.clock.at_ms += RATE_STANDS_MS + 1
            world.context.rates.set_table(TableSource({"BTC/USDT": "40000"}, NOW_MS).prices())
        prepared.append(command.settlement)
        return command

    outcome = await perform(world.context, guard, prepare)
    assert prepared == [49_750 * COIN, 39_800 * COIN]
    assert msgspec.json.decode(outcome.result, type=Converted).settlement == 39_800 * COIN


async def test_the_rate_stands_until_its_last_moment(world: World) -> None:
    """A conversion that is decided five seconds after it was prepared counts, one a millisecond later does not."""
    for late_ms, is_stale in ((5_000, False), (5_001, True)):
        prepared = prepare_conversion(world.context, world.guard(alice(world)), "BTC", "USDT", "0.1")
        world.clock.at_ms += late_ms
        assert (await world.context.submit(prepared)).stale is is_stale


async def test_a_closed_account_converts_nothing(world: World) -> None:
    """It is told the same as a frozen one."""
    await perform_own(world.context, lambda: MarkUser(NOBODY, alice(world), frozen=False, active=False))
    assert await refusal(world, "BTC", "USDT", "0.1") == (17, "BADREQUEST: Account is frozen")


@pytest.mark.parametrize("more", [{"settlement": 1}, {"spread": -1}, {"settlement": 1, "spread": -1}])
async def test_a_settlement_that_does_not_follow_from_its_rate_is_not_booked(
    world: World, more: dict[str, int]
) -> None:
    """However it came about, and be it by one unit: the books stay as they were, and the customer is told no more."""
    before = sorted(world.store.balances())
    prepared = prepare_conversion(world.context, world.guard(alice(world)), "BTC", "USDT", "0.1")
    forged = {name: getattr(prepared, name) + units for name, units in more.items()}
    with pytest.raises(InvariantBroken, match="a settlement follows from the rate it carries"):
        await world.context.submit(msgspec.structs.replace(prepared, **forged))
    assert sorted(world.store.balances()) == before


async def test_settlement_and_spread_together_stay_in_the_ledgers_range(world: World) -> None:
    """The last amount whose other leg the ledger can hold is refused for the inventory only, the next for its range."""
    rate = 1 << 22
    world.context.rates.set_table(TableSource({"BTC/USDT": str(rate)}, NOW_MS).prices())
    beyond = MAX_UNITS // rate
    for units, told in (
        (beyond - 1, (17, "Inventory is short")),
        (beyond, (-2, "amount is beyond the ledger's range")),
    ):
        amount = f"{units // COIN}.{units % COIN:08}"
        assert await refusal(world, "BTC", "USDT", amount) == (told[0], f"BADREQUEST: {told[1]}")


async def test_an_amount_whose_settlement_no_ledger_holds_is_refused(world: World) -> None:
    """A settlement beyond the ledger's range is a bad parameter, not a mistake of ours."""
    world.context.rates.set_table(TableSource({"BTC/USDT": "9999999999999"}, NOW_MS).prices())
    assert await refusal(world, "BTC", "USDT", "9999999") == (-2, "BADREQUEST: amount is beyond the ledger's range")


async def test_the_published_rate_checks_what_it_is_asked(world: World) -> None:
    """Unknown assets, equal assets and a malformed amount are refused as a conversion refuses them."""
    for base, quote, amount, code in (
        ("NONE", "USDT", None, 11),
        ("BTC", "BTC", None, -2),
        ("BTC", "USDT", "-1", -2),
        ("USD", "USDT", "1", 17),
    ):
        with pytest.raises(Refused) as caught:
            exchange_rate(world.context, base, quote, amount)
        assert caught.value.error.code == code
