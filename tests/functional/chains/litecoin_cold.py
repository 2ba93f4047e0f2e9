"""Payments that Litecoin Core's own wallet signs for us, of the same bytes as on Bitcoin."""

from __future__ import annotations

from pathlib import Path

from strongroom.custody.chain import Fate
from strongroom.custody.families import LITECOIN
from support.cold import ForeignWallet
from support.nodes import Litecoind
from support.utxo import LITECOIN_CHAIN, coin_wallet

COIN = 10**8


async def test_a_foreign_wallet_signs_and_the_chain_takes_it(tmp_path: Path) -> None:
    """Litecoin's wallet reads our PSBT, signs with our keys, and its payment is mined, finalised by us or by it."""
    async with coin_wallet(Litecoind, tmp_path / "node", LITECOIN, LITECOIN_CHAIN) as wallet:
        foreign = ForeignWallet(wallet.outside)
        await foreign.create()
        await foreign.learn_keys(LITECOIN)
        draft = await wallet.chain.draft([await wallet.stranger(2 * COIN)], await wallet.funded("1", "1.5"))
        signed = await foreign.signed(wallet.chain.unsigned(draft.body))
        candidate = wallet.chain.import_signed(draft.body, signed)
        final = await wallet.outside.rpc("finalizepsbt", signed)
        assert final["complete"]
        assert wallet.chain.import_signed(draft.body, final["hex"]) == candidate
        [told] = await wallet.outside.rpc("testmempoolaccept", [candidate.blob.hex()])
        assert (told["allowed"], told["txid"]) == (True, candidate.txid)
        assert await wallet.chain.broadcast(candidate.blob) == candidate.txid
        _ = await wallet.outside.mine(1)
        assert await wallet.fate(candidate.txid, draft) is Fate.MINED
