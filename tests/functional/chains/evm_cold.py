"""Payments on an EVM network that somebody else signs: a node with our key takes our JSON, the chain its answer."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from strongroom.custody.chain import Fate, Funds, Rejected
from strongroom.custody.formats import EVM
from strongroom.custody.networks.evm import EvmChain
from strongroom.custody.networks.evm_transactions import decode_payment, encode_payment, network_of
from support.evm import ETHER, EvmWorld, evm_world


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[EvmWorld]:
    """A node that holds the key of our hot wallet, and whose chain we watch without it."""
    async with evm_world(tmp_path) as it:
        hot = EVM.normalise((await it.anvil.accounts())[1])
        network = network_of("ETHEREUM", {it.token: 6})
        it.chain = EvmChain(network, it.anvil.chain_id, lambda _: hot, [it.token], it.chain._node, poll_s=0.02)
        await it.call(it.token, "mint(address,uint256)", hot, 1_000_000)
        _ = await it.anvil.mine(1)
        yield it


@pytest.mark.parametrize("asset", ["ether", "token"])
async def test_a_foreign_signer_signs_and_the_chain_takes_it(world: EvmWorld, asset: str) -> None:
    """The node signs the transaction that it is given as JSON, and it is mined as the payment that was drafted."""
    payee = world.ether_to(ETHER + 1) if asset == "ether" else world.token_to(400_000)
    draft = await world.chain.draft([payee], Funds())
    named = json.loads(world.chain.unsigned(draft.body))["transaction"]
    raw = await world.anvil.rpc("eth_signTransaction", named)
    candidate = world.chain.import_signed(draft.body, raw)
    assert await world.chain.broadcast(candidate.blob) == candidate.txid
    [block] = await world.anvil.mine(1)
    assert (await world.chain.transaction(candidate.txid, draft.spends)).fate is Fate.MINED
    [output] = [it for it in await world.chain.outputs_in(block) if it.txid == candidate.txid]
    assert (output.address, output.amount) == (payee.address, payee.amount)


async def test_another_amount_that_the_node_signed_is_refused(world: EvmWorld) -> None:
    """A transaction that was changed on its way to the signer does not come back as the payment."""
    draft = await world.chain.draft([world.ether_to(ETHER)], Funds())
    other = msgspec.structs.replace(decode_payment(draft.body), value=str(2 * ETHER))
    named = json.loads(world.chain.unsigned(encode_payment(other)))["transaction"]
    raw = await world.anvil.rpc("eth_signTransaction", named)
    with pytest.raises(Rejected, match="the signed transaction is not the payment's"):
        _ = world.chain.import_signed(draft.body, raw)
