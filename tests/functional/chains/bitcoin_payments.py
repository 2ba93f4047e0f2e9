"""Bitcoin against a real node that has no key of ours: deposits, payments, replacements, reorganisations."""

from __future__ import annotations

from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from strongroom.custody.chain import Fate, Payee, Rejected, Unreachable
from strongroom.custody.families import BITCOIN
from strongroom.custody.networks.utxo import FeePolicy, UtxoChain
from strongroom.custody.networks.utxo_parameters import CHAINS
from strongroom.custody.networks.utxo_transactions import dust_limit, script_of
from strongroom.custody.rpc import Node
from support.nodes import Bitcoind, asking
from support.utxo import BITCOIN_CHAIN, TAPROOT, CoinWallet, coin_wallet

COIN = 10**8


@pytest_asyncio.fixture(params=[BITCOIN, TAPROOT], ids=["segwit", "taproot"])
async def wallet(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[CoinWallet]:
    async with coin_wallet(Bitcoind, tmp_path / "node", request.param, BITCOIN_CHAIN) as opened:
        yield opened


@pytest_asyncio.fixture
async def plain(tmp_path: Path) -> AsyncIterator[CoinWallet]:
    async with coin_wallet(Bitcoind, tmp_path / "node", BITCOIN, BITCOIN_CHAIN) as opened:
        yield opened


async def test_a_deposit_is_seen_waiting_and_then_in_its_block(wallet: CoinWallet) -> None:
    """A deposit shows in the mempool at once, and with the same name in its block."""
    before = await wallet.chain.wait_change(-1, 0)
    txid = await wallet.receive(3, "0.12345678")
    assert await wallet.chain.wait_change(before, 10) != before
    waiting = [it for it in await wallet.chain.mempool() if it.address == wallet.address(3)]
    [mined] = await wallet.outside.mine(1)
    found = [it for it in await wallet.chain.outputs_in(mined) if it.address == wallet.address(3)]
    assert waiting == found
    assert [(it.txid, it.amount, it.coinbase) for it in found] == [(txid, 12_345_678, False)]
    assert await wallet.chain.mempool() == []
    tip = await wallet.chain.tip()
    assert (tip.hash, await wallet.chain.block_at(tip.height)) == (mined, tip)
    assert await wallet.chain.block_at(tip.height + 1) is None


async def test_a_payment_is_signed_taken_and_mined(wallet: CoinWallet) -> None:
    """Coins of several of our addresses pay several strangers, and the change comes home."""
    funds = await wallet.funded("1", "2", "0.5")
    payees = [await wallet.stranger(2 * COIN), await wallet.stranger(COIN // 2)]
    draft = await wallet.chain.draft(payees, funds)
    txid = await wallet.pay(draft)
    assert await wallet.pay(draft) == txid
    assert (await wallet.chain.transaction(txid, draft.spends)).fee == draft.fee_units
    [mined] = await wallet.outside.mine(1)
    status = await wallet.chain.transaction(txid, draft.spends)
    assert (status.fate, status.block and status.block.hash, status.fee) == (Fate.MINED, mined, draft.fee_units)
    paid = {it.address: it.amount for it in await wallet.chain.outputs_in(mined) if it.txid == txid}
    change = paid.pop(wallet.address(0))
    assert paid == {payee.address: payee.amount for payee in payees}
    assert change == 3 * COIN - 5 * COIN // 2 - draft.fee_units
    assert len(draft.spends) == 2  # the two largest pay for it
    assert await wallet.pay(draft) == txid


async def test_the_offered_fee_is_at_least_what_the_size_asks_for(wallet: CoinWallet) -> None:
    """The size that the fee goes by is never below the real one, and at most a few bytes above for each input."""
    draft = await wallet.chain.draft([await wallet.stranger(4 * COIN)], await wallet.funded("1", "2", "2"))
    told = await wallet.outside.rpc("decoderawtransaction", wallet.signed(draft).blob.hex())
    fallback_per_vb = 10
    assert told["vsize"] * fallback_per_vb <= draft.fee_units <= (told["vsize"] + 4) * fallback_per_vb


async def test_every_kind_of_address_can_be_paid(plain: CoinWallet) -> None:
    """The node reads every output as paying the address that was asked for, also at the smallest amount it relays."""
    kinds = [await plain.outside.stranger("getnewaddress", "", kind) for kind in ("legacy", "p2sh-segwit", "bech32")]
    kinds += [
        "bcrt1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqc8gma6",
        "bcrt1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3qzf4jry",
    ]
    smallest = [dust_limit(script_of(BITCOIN_CHAIN.format, address), BITCOIN_CHAIN) for address in kinds]
    assert smallest == [546, 540, 294, 330, 330]
    payees = [Payee(address, "", "", least) for address, least in zip(kinds, smallest, strict=True)]
    draft = await plain.chain.draft(payees, await plain.funded("1"))
    txid = await plain.pay(draft)
    [mined] = await plain.outside.mine(1)
    found = [(it.address, it.amount) for it in await plain.chain.outputs_in(mined) if it.txid == txid]
    assert found[:-1] == list(zip(kinds, smallest, strict=True))


async def test_a_higher_fee_replaces_a_payment(wallet: CoinWallet) -> None:
    """The node drops the old candidate for the new one, and once that is mined the old one has lost for good."""
    first = await wallet.chain.draft([await wallet.stranger(COIN)], await wallet.funded("3"))
    old = await wallet.pay(first)
    second = await wallet.chain.redraft(first)
    assert second is not None
    assert (second.spends, second.fee_units > first.fee_units) == (first.spends, True)
    new = await wallet.pay(second)
    assert await wallet.outside.rpc("getrawmempool") == [new]
    assert await wallet.fate(old, first) is Fate.UNKNOWN
    [mined] = await wallet.outside.mine(1)
    lost = await wallet.chain.transaction(old, first.spends)
    assert (lost.fate, lost.block and lost.block.hash) == (Fate.CONFLICTED, mined)
    assert await wallet.fate(new, second) is Fate.MINED
    with pytest.raises(Rejected):
        _ = await wallet.pay(first)
    await wallet.outside.invalidate(mined)
    assert await wallet.fate(old, first) is Fate.UNKNOWN


async def test_a_fee_is_raised_no_higher_than_the_cap(plain: CoinWallet) -> None:
    """A node without an estimate has us offer the fallback, then the cap, and then nothing more."""
    async with asking(plain.outside.url) as node:
        chain = UtxoChain(BITCOIN, BITCOIN_CHAIN, node, plain.address, fees=FeePolicy(1_000, 9_000, 10_000))
        first = await chain.draft([await plain.stranger(COIN)], await plain.funded("2"))
        second = await chain.redraft(first)
        assert second is not None
        assert second.fee_units == -(-first.fee_units * 10 // 9)
        assert await chain.redraft(second) is None
    _ = await plain.pay(first)
    assert await plain.pay(second) in await plain.outside.rpc("getrawmempool")


async def test_a_reorganisation_takes_a_payment_back(plain: CoinWallet) -> None:
    """A payment whose block is given up waits again, and is mined again later."""
    draft = await plain.chain.draft([await plain.stranger(COIN)], await plain.funded("2"))
    txid = await plain.pay(draft)
    [mined] = await plain.outside.mine(1)
    assert await plain.fate(txid, draft) is Fate.MINED
    await plain.outside.invalidate(mined)
    assert await plain.fate(txid, draft) is Fate.MEMPOOL
    assert [it.txid for it in await plain.chain.outputs_in(mined)].count(txid) == 2
    _ = await plain.outside.mine(2)
    assert await plain.fate(txid, draft) is Fate.MINED


async def test_a_payment_that_a_reorganisation_loses_is_no_longer_mined(plain: CoinWallet) -> None:
    """A transaction that only an orphan holds is not mined: the rival in the new block has won."""
    first = await plain.chain.draft([await plain.stranger(COIN)], await plain.funded("2"))
    second = await plain.chain.redraft(first)
    assert second is not None
    txid, blob = await plain.pay(first), plain.signed(second).blob.hex()
    [orphan] = await plain.outside.mine(1)
    await plain.outside.invalidate(orphan)
    away = await plain.outside.stranger("getnewaddress")
    [fresh] = [(await plain.outside.rpc("generateblock", away, [blob]))["hash"]]
    status = await plain.chain.transaction(txid, first.spends)
    assert (status.fate, status.block and status.block.hash) == (Fate.CONFLICTED, fresh)


async def test_a_node_of_another_chain_is_refused(plain: CoinWallet) -> None:
    """A wallet for real money does not follow a practice node."""
    await plain.chain.check_identity()
    for name in ("bitcoin-test", "litecoin-regtest"):
        chain = CHAINS[name]
        network = msgspec.structs.replace(BITCOIN, bitcoin=chain.format)
        async with asking(plain.outside.url) as node:
            with pytest.raises(Unreachable, match="another chain"):
                await UtxoChain(network, chain, node, plain.address).check_identity()


async def test_a_node_without_an_index_of_transactions_is_refused(tmp_path: Path) -> None:
    """Such a node cannot say where a payment is: it is told at the start, and no payment is ever taken for unknown."""
    async with coin_wallet(Bitcoind, tmp_path / "node", BITCOIN, BITCOIN_CHAIN, "-txindex=0") as wallet:
        with pytest.raises(Unreachable, match="index of transactions"):
            await wallet.chain.check_identity()
        with pytest.raises(Unreachable, match="index"):
            _ = await wallet.chain.transaction("22" * 32)


async def test_two_thousand_outputs_of_one_transaction_are_found(plain: CoinWallet) -> None:
    """Nothing of a very large transaction is missed, neither waiting nor mined."""
    wanted = {plain.address(position): Decimal("0.0001") for position in range(2_000)}
    txid = await plain.outside.stranger("sendmany", "", wanted)
    waiting = {it.address for it in await plain.chain.mempool() if it.txid == txid}
    [mined] = await plain.outside.mine(1)
    found = {it.address: it.amount for it in await plain.chain.outputs_in(mined) if it.txid == txid}
    assert set(wanted) <= waiting == set(found)
    assert {found[address] for address in wanted} == {10_000}


class LateNode(Node):
    """A node whose list of waiting transactions is old: one of them has left since."""

    async def call(self, method: str, *parameters: Any) -> Any:
        told = await super().call(method, *parameters)
        return ["44" * 32, *told] if method == "getrawmempool" else told


async def test_a_transaction_that_leaves_the_mempool_hides_no_other(plain: CoinWallet) -> None:
    """What is gone when it is asked for is left out, and all that still waits is seen."""
    txid = await plain.receive(1, "1")
    late = LateNode(plain.outside.url)
    chain = UtxoChain(BITCOIN, BITCOIN_CHAIN, late, plain.address)
    assert {it.txid for it in await chain.mempool()} == {txid}
    await late.close()


async def test_what_a_miner_gave_itself_is_marked(plain: CoinWallet) -> None:
    """The outputs of a coinbase can be told from payments."""
    [mined] = await plain.outside.mine(1, plain.address(4))
    assert [(it.address, it.coinbase) for it in await plain.chain.outputs_in(mined)] == [(plain.address(4), True)]


async def test_an_unknown_block_or_transaction_is_no_error(plain: CoinWallet) -> None:
    """What the node never saw has no outputs, and is unknown."""
    assert await plain.chain.outputs_in("11" * 32) == []
    assert (await plain.chain.transaction("22" * 32, [f"{'33' * 32}:0"])).fate is Fate.UNKNOWN
