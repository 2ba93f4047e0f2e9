"""Cold money on every store: what the books say lies on the cold address, held against what its chain says."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest

from strongroom.custody.chain import Chain
from strongroom.custody.cold_reconciliation import LESS, MORE, reconcile_cold
from strongroom.custody.watcher import Watcher
from strongroom.engine.command import NOBODY
from strongroom.ledger.accounts import Purpose, house
from strongroom.ledger.entries import Posting
from strongroom.records.coins import Coin
from strongroom.wallet.addresses import house_address
from strongroom.wallet.cold import cold_coins
from strongroom.wallet.moves import ReturnFromCold
from support.cold_coins import Coins
from support.paying import COIN, THEIRS, Payouts, book, paying
from support.world import BITCOIN, BTC, new_store

COLD = THEIRS[BITCOIN].address


@pytest.fixture(params=["memory", "sqlite"])
async def payouts(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Payouts]:
    """A house on each store in turn, whose books have sent two bitcoin to the cold address."""
    async with paying(new_store(request.param, tmp_path), tmp_path) as payouts:
        sent = [Posting(house(Purpose.COLD, BTC), -2 * COIN), Posting(house(Purpose.INVENTORY, BTC), 2 * COIN)]
        await payouts.do(lambda: book(*sent))
        yield payouts


async def told(payouts: Payouts, chain: Any) -> list[tuple[int, str]]:
    """Return what is unexplained of bitcoin."""
    [found] = await reconcile_cold(payouts.world.context, {BITCOIN: (cast(Chain, chain), COLD)})
    assert (found.network, found.asset, found.chain_units - found.books_units) == (
        "cold",
        "BTC",
        sum(it.units for it in found.differences),
    )
    return [(it.units, it.cause) for it in found.differences]


async def test_what_lies_on_the_cold_address_of_a_chain_of_accounts_is_what_was_sent_there(payouts: Payouts) -> None:
    """More or less than that is told, and what is booked as come back is no difference."""
    chain = payouts.chain()
    assert await told(payouts, chain) == [(-2 * COIN, LESS)]
    _ = await payouts.node.faucet("BITCOIN", COLD, "", "", 2 * COIN)
    _ = await payouts.node.mine("BITCOIN")
    assert await told(payouts, chain) == []
    _ = await payouts.node.faucet("BITCOIN", COLD, "", "", 7)
    _ = await payouts.node.mine("BITCOIN")
    assert await told(payouts, chain) == [(7, MORE)]


async def test_whoever_spends_from_the_cold_wallet_is_seen(payouts: Payouts) -> None:
    """Until it is booked as come back, what is missing has no explanation."""
    home = house_address(payouts.reads, BITCOIN).address
    _ = await payouts.node.faucet("BITCOIN", COLD, "", "", 2 * COIN)
    _ = await payouts.node.faucet("BITCOIN", home, "", "", COIN, foreign=True)
    _ = await payouts.node.mine("BITCOIN")
    assert await told(payouts, payouts.chain()) == [(-COIN, LESS)]
    await payouts.do(lambda: ReturnFromCold(NOBODY, BTC, COIN, 0))
    assert await told(payouts, payouts.chain()) == []


async def test_cold_coins_are_noted_as_the_blocks_show_them(payouts: Payouts) -> None:
    """A node cannot be asked for an address: so what each block brings there is kept, and what was spent is missed."""
    chain = Coins(payouts.chain())
    watcher = Watcher(payouts.world.context, cast(Chain, chain), BITCOIN, start=None, cold_address=COLD)
    await watcher.go_round()
    first = await payouts.node.faucet("BITCOIN", COLD, "", "", COIN)
    second = await payouts.node.faucet("BITCOIN", COLD, "", "", COIN)
    _ = await payouts.node.mine("BITCOIN")
    await watcher.go_round()
    noted = cold_coins(payouts.reads, BITCOIN, 10)
    height = (await payouts.chain().tip()).height
    # -1 in the place of a payment is what tells them from coins of ours, in books of every age.
    kept = [Coin(BITCOIN, f"{txid}:0", 0, COIN, height, -1) for txid in sorted((first, second))]
    assert sorted(noted, key=lambda coin: coin.outpoint) == kept
    assert await told(payouts, chain) == []
    chain.spent.add(f"{first}:0")
    assert await told(payouts, chain) == [(-COIN, LESS)]


async def test_a_block_that_is_gone_takes_its_cold_coins_along(payouts: Payouts) -> None:
    """They count again in the block that has them then, once."""
    chain = Coins(payouts.chain())
    watcher = Watcher(payouts.world.context, cast(Chain, chain), BITCOIN, start=None, cold_address=COLD)
    await watcher.go_round()
    lost = await payouts.node.faucet("BITCOIN", COLD, "", "", COIN)
    _ = await payouts.node.faucet("BITCOIN", COLD, "", "", 2 * COIN)
    _ = await payouts.node.mine("BITCOIN")
    await watcher.go_round()
    assert await told(payouts, chain) == [(COIN, MORE)]
    _ = await payouts.node.reorg("BITCOIN", 1, [lost])
    await watcher.go_round()
    assert await told(payouts, chain) == []
    assert len(cold_coins(payouts.reads, BITCOIN, 10)) == 2
