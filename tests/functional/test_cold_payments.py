"""What a server tells signers elsewhere of its keys, whether it holds the seed itself or knows public keys only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from strongroom.application import Application
from strongroom.clock import Clock, Ids
from strongroom.config.settings import Node, Simulation
from strongroom.custody.chain import Chain
from strongroom.custody.derivation import master_fingerprint
from strongroom.custody.families import BITCOIN, LITECOIN
from strongroom.custody.networks.utxo_psbt import psbt_of, signed_psbt
from strongroom.custody.networks.utxo_signing import UtxoScheme
from strongroom.custody.networks.utxo_transactions import encode
from strongroom.custody.signer import seal_seed
from strongroom.custody.xpubs import encode_public_keys, public_keys_of
from support.server import MASTER_KEY, settings
from support.utxo import BITCOIN_CHAIN, LITECOIN_CHAIN, SEED, TAPROOT, branch_of, three_coins

KINDS = {
    "segwit": (BITCOIN, BITCOIN_CHAIN, {}),
    "taproot": (TAPROOT, BITCOIN_CHAIN, {"taproot": True}),
    "litecoin": (LITECOIN, LITECOIN_CHAIN, {}),
}


@pytest.mark.parametrize("holder", ["server", "vault"])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_payment_leaves_with_the_ways_to_its_keys(tmp_path: Path, holder: str, kind: str) -> None:
    """The server's own text names the master key of its seed and is what the vault's owner signs."""
    network, parameters, more = KINDS[kind]
    data = tmp_path / "data"
    data.mkdir()
    changes: dict[str, Any] = {}
    if holder == "server":
        (data / "seed.sealed").write_bytes(seal_seed(SEED, MASTER_KEY, Ids(Clock())))
    else:
        named = msgspec.structs.replace(network, id="BITCOIN")
        (data / "xpubs.json").write_bytes(encode_public_keys(public_keys_of(SEED, [named])))
        changes["signer_socket"] = str(tmp_path / "nobody")
    node = Node(url="http://127.0.0.1:9", chain=parameters.name, start_height=0, **more)
    config = settings(tmp_path, simulation=Simulation(), nodes={"BITCOIN": node}, **changes)
    stranger = branch_of(network).address(77).address
    body = encode(three_coins(network, parameters, stranger))
    application = Application(config, MASTER_KEY)
    async with application.running():
        chain: Chain = application.treasury.senders["BITCOIN"]._chain
        text = chain.unsigned(body)
        assert text == psbt_of(body, parameters.format, branch_of(network), master_fingerprint(SEED))
        signed = UtxoScheme(SEED, network, parameters).sign(body).hex()
        assert chain.import_signed(body, signed) == signed_psbt(body, signed, parameters.format)
