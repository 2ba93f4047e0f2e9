"""What a scrape of the metrics reads of the books: the same on every store, and little where that takes time."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec
from prometheus_client.core import Metric

from strongroom.clock import Ids, SetClock
from strongroom.engine.command import NOBODY
from strongroom.ledger.accounts import Purpose, available, house, omnibus
from strongroom.ledger.entries import Posting
from strongroom.observe import books
from strongroom.records.chains import Tip
from strongroom.records.deposits import Deposit, DepositState
from strongroom.records.settings import AssetSettings
from strongroom.records.withdrawals import Withdrawal, WithdrawalState
from strongroom.wallet.context import perform_own
from strongroom.wallet.settings import prepare_settings
from support.counted import Counted
from support.effects import Do
from support.postgres import database_of
from support.world import BITCOIN, BTC, ERC20, NOW_MS, SNAPSHOT, USDT, World, opened

COIN = 100_000_000
ASSETS = 30


def samples(metrics: Iterable[Metric]) -> dict[tuple[str, ...], float]:
    """Return the numbers of metrics by name and labels."""
    return {
        (sample.name.removeprefix("strongroom_"), *sample.labels.values()): sample.value
        for metric in metrics
        for sample in metric.samples
        if sample.value
    }


async def fill(world: World) -> None:
    """Let alice have a Bitcoin from the chain, of which the house took a fee, and a dollar from the bank."""
    alice = await world.user("alice")
    await world.fund(alice, USDT, COIN)
    arrival = Do(
        NOBODY,
        (
            Posting(omnibus(BITCOIN, BTC), -COIN),
            Posting(available(alice, BTC), COIN - 500),
            Posting(house(Purpose.FEES, BTC), 500),
        ),
        (
            Tip(BITCOIN, 7, "b", NOW_MS),
            Deposit(5, alice, BTC, BITCOIN, "a", state=DepositState.SEEN),
            Withdrawal(6, alice, BTC, BITCOIN, "b", state=WithdrawalState.PAYING),
        ),
    )
    await perform_own(world.context, lambda: arrival)


async def test_a_scrape_tells_what_the_books_say(world: World) -> None:
    """What the house owns and owes, where its chains are, and what is under way; what is not there is left out or 0."""
    await fill(world)
    assert samples(books.balances(world.store)) == {
        ("house_balance", "BTC", "omnibus", "BITCOIN"): -1.0,
        ("house_balance", "BTC", "fees", ""): 0.000005,
        ("house_balance", "USDT", "bank", ""): -1.0,
        ("customers_balance", "BTC"): 0.999995,
        ("customers_balance", "USDT"): 1.0,
    }
    assert samples(books.chains(world.store)) == {
        ("chain_height", "BITCOIN"): 7.0,
        ("chain_seen_seconds", "BITCOIN"): NOW_MS / 1_000,
    }
    assert samples(books.open_business(world.store)) == {
        ("deposits_open", "BITCOIN", "seen"): 1.0,
        ("withdrawals_open", "paying"): 1.0,
    }


async def test_a_scrape_of_a_database_does_not_grow_with_the_assets(tmp_path: Path) -> None:
    """A house with thirty assets more is asked about in as many questions: the event loop waits for each of them."""
    async with opened(Counted(database_of(tmp_path), Ids(SetClock(NOW_MS)))) as world:
        store = world.store
        assert isinstance(store, Counted)
        await fill(world)
        few = asked(store)
        more = tuple(AssetSettings(100 + n, f"A{n}", f"Asset {n}", fiat=False) for n in range(ASSETS))
        settings = msgspec.structs.replace(SNAPSHOT, assets=(*SNAPSHOT.assets, *more))
        await perform_own(world.context, lambda: prepare_settings(world.context, NOBODY, settings))
        assert asked(store) == few
        assert few <= 6 * (1 + len((BITCOIN, ERC20)))


def asked(store: Counted) -> int:
    """Return how many questions a scrape asks."""
    before = store.questions
    for read in (books.balances, books.chains, books.open_business):
        assert samples(read(store))
    return store.questions - before
