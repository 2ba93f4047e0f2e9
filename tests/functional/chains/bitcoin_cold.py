"""Payments that Bitcoin Core's own wallet signs for us: it takes our PSBT, and the chain takes what we make of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path

import pytest
import pytest_asyncio

from strongroom.custody.chain import Candidate, Fate, Rejected
from strongroom.custody.families import BITCOIN
from strongroom.custody.networks.utxo_transactions import decode
from strongroom.wallet.payments import Draft
from support.cold import ForeignWallet
from support.nodes import Bitcoind
from support.utxo import BITCOIN_CHAIN, TAPROOT, CoinWallet, coin_wallet

COIN = 10**8


@pytest_asyncio.fixture(params=[BITCOIN, TAPROOT], ids=["segwit", "taproot"])
async def wallet(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[CoinWallet]:
    async with coin_wallet(Bitcoind, tmp_path / "node", request.param, BITCOIN_CHAIN) as opened:
        yield opened


@pytest_asyncio.fixture
async def foreign(wallet: CoinWallet) -> ForeignWallet:
    """A wallet of the node that has our account's private descriptor."""
    found = ForeignWallet(wallet.outside)
    await found.create()
    await found.learn_account(wallet.branch.network)
    return found


async def check_reading(wallet: CoinWallet, draft: Draft) -> None:
    """See that the node reads coins, keys, change and fee as they are in the books."""
    told = await wallet.outside.rpc("decodepsbt", wallet.chain.unsigned(draft.body))
    body = decode(draft.body)
    assert told["fee"] == Decimal(draft.fee_units) / COIN
    assert [f"{it['txid']}:{it['vout']}" for it in told["tx"]["vin"]] == list(draft.spends)
    shown = [it["witness_utxo"]["scriptPubKey"]["address"] for it in told["inputs"]]
    assert shown == [it.address for it in body.inputs]
    name = "taproot_bip32_derivs" if wallet.branch.network is TAPROOT else "bip32_derivs"
    origins = [it[name][0] for it in (*told["inputs"], told["outputs"][-1])]
    account = f"m/{wallet.branch.network.purpose}h/1h/0h/0"
    assert [it["path"] for it in origins] == [f"{account}/{it.position}" for it in body.inputs] + [f"{account}/0"]
    assert {it["master_fingerprint"] for it in origins} == {"73c5da0a"}
    assert told["outputs"][0] == {}


async def check_forms(wallet: CoinWallet, foreign: ForeignWallet, draft: Draft, candidate: Candidate) -> None:
    """See that one payment is one candidate: bare signatures, a final PSBT, the transaction, and with fields added."""
    text = wallet.chain.unsigned(draft.body)
    bare = await foreign.signed(text, True, "DEFAULT", True, False)
    final = await wallet.outside.rpc("finalizepsbt", bare, False)
    transaction = await wallet.outside.rpc("finalizepsbt", bare)
    for each in (bare, final["psbt"], transaction["hex"]):
        assert wallet.chain.import_signed(draft.body, each).blob.hex() == transaction["hex"]
    # A node puts whole earlier transactions in, which some signers ask for.
    more = await wallet.outside.rpc("utxoupdatepsbt", text)
    told = await wallet.outside.rpc("decodepsbt", more)
    assert all(("non_witness_utxo" in it) == (wallet.branch.network is BITCOIN) for it in told["inputs"])
    assert wallet.chain.import_signed(draft.body, await foreign.signed(more)).txid == candidate.txid


async def test_a_foreign_wallet_signs_and_the_chain_takes_it(wallet: CoinWallet, foreign: ForeignWallet) -> None:
    """With our keys and nothing else, another wallet finds what to sign, and its payment is mined as ours."""
    draft = await wallet.chain.draft([await wallet.stranger(2 * COIN)], await wallet.funded("1", "1.5"))
    await check_reading(wallet, draft)
    candidate = wallet.chain.import_signed(draft.body, await foreign.signed(wallet.chain.unsigned(draft.body)))
    assert candidate.txid == wallet.signed(draft).txid
    await check_forms(wallet, foreign, draft, candidate)
    [told] = await wallet.outside.rpc("testmempoolaccept", [candidate.blob.hex()])
    assert (told["allowed"], told["txid"]) == (True, candidate.txid)
    assert await wallet.chain.broadcast(candidate.blob) == candidate.txid
    _ = await wallet.outside.mine(1)
    assert await wallet.fate(candidate.txid, draft) is Fate.MINED


async def test_what_was_not_signed_as_a_whole_is_refused(wallet: CoinWallet, foreign: ForeignWallet) -> None:
    """A wallet without our keys signs nothing, and one that was told to leave something open nothing that we send."""
    draft = await wallet.chain.draft([await wallet.stranger(COIN // 2)], await wallet.funded("1"))
    text = wallet.chain.unsigned(draft.body)
    left = (await wallet.outside.stranger("walletprocesspsbt", text))["psbt"]
    with pytest.raises(Rejected, match="input 0 is not signed"):
        _ = wallet.chain.import_signed(draft.body, left)
    for kind in ("NONE", "SINGLE", "ALL|ANYONECANPAY"):
        for finalize in (False, True):
            signed = await foreign.signed(text, True, kind, True, finalize)
            with pytest.raises(Rejected, match="leaves a part of the transaction open"):
                _ = wallet.chain.import_signed(draft.body, signed)
