"""Litecoin against a real node: the same adapter as Bitcoin's, with an older node and other prefixes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio

from strongroom.custody.chain import Fate, Payee
from strongroom.custody.families import LITECOIN
from strongroom.custody.networks.utxo_transactions import dust_limit, script_of
from support.nodes import Litecoind
from support.utxo import LITECOIN_CHAIN, LITECOIN_TAPROOT, CoinWallet, coin_wallet

COIN = 10**8


@pytest_asyncio.fixture(params=[LITECOIN, LITECOIN_TAPROOT], ids=["segwit", "taproot"])
async def wallet(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[CoinWallet]:
    async with coin_wallet(Litecoind, tmp_path / "node", request.param, LITECOIN_CHAIN) as opened:
        yield opened


async def test_a_deposit_pays_for_a_payment(wallet: CoinWallet) -> None:
    """Coins are seen waiting and mined, and pay strangers for the fee that was drafted."""
    await wallet.chain.check_identity()
    txid = await wallet.receive(1, "1.5")
    assert (txid, 3 * COIN // 2) in {(it.txid, it.amount) for it in await wallet.chain.mempool()}
    draft = await wallet.chain.draft([await wallet.stranger(2 * COIN)], await wallet.funded("1", "1.25"))
    paid = await wallet.pay(draft)
    assert await wallet.pay(draft) == paid
    assert (await wallet.chain.transaction(paid, draft.spends)).fee == draft.fee_units
    [mined] = await wallet.outside.mine(1)
    status = await wallet.chain.transaction(paid, draft.spends)
    assert (status.fate, status.block and status.block.hash, status.fee) == (Fate.MINED, mined, draft.fee_units)
    await wallet.outside.invalidate(mined)
    assert await wallet.fate(paid, draft) is Fate.MEMPOOL


async def test_a_payment_keeps_its_fee_where_nodes_replace_nothing(wallet: CoinWallet) -> None:
    """As nodes of this chain are usually run, a higher fee would only be refused: none is offered."""
    draft = await wallet.chain.draft([await wallet.stranger(COIN)], await wallet.funded("2"))
    assert await wallet.chain.redraft(draft) is None


async def test_a_node_that_replaces_takes_a_higher_fee(tmp_path: Path) -> None:
    """Where the operator has the nodes replace, the new candidate is mined and the old one has lost."""
    replacing = msgspec.structs.replace(LITECOIN_CHAIN, replaces=True)
    folder = tmp_path / "node"
    async with coin_wallet(Litecoind, folder, LITECOIN, replacing, "-mempoolreplacement=1") as wallet:
        first = await wallet.chain.draft([await wallet.stranger(COIN)], await wallet.funded("2"))
        old, second = await wallet.pay(first), await wallet.chain.redraft(first)
        assert second is not None
        new = await wallet.pay(second)
        _ = await wallet.outside.mine(1)
        assert await wallet.fate(new, second) is Fate.MINED
        assert await wallet.fate(old, first) is Fate.CONFLICTED


async def test_every_kind_of_address_can_be_paid_the_smallest_amount(wallet: CoinWallet) -> None:
    """The node relays the smallest outputs that we draft, to each kind of address."""
    kinds = [await wallet.outside.stranger("getnewaddress", "", kind) for kind in ("legacy", "p2sh-segwit", "bech32")]
    spelled = [LITECOIN_CHAIN.format.normalise(address) for address in kinds]
    smallest = [dust_limit(script_of(LITECOIN_CHAIN.format, address), LITECOIN_CHAIN) for address in kinds]
    payees = [Payee(address, "", "", least) for address, least in zip(spelled, smallest, strict=True)]
    txid = await wallet.pay(await wallet.chain.draft(payees, await wallet.funded("1")))
    [mined] = await wallet.outside.mine(1)
    found = [(it.address, it.amount) for it in await wallet.chain.outputs_in(mined) if it.txid == txid]
    assert found[:-1] == list(zip(spelled, smallest, strict=True))
