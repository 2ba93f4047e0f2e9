"""An example of a test on a real EVM node, to be copied; bitcoin_example.py has the names and the rules."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from support.nodes import Anvil, asking, wait_until

OURS = "0x000000000000000000000000000000000000bEEF"
"""An address whose key is not in the node."""

ETHER = 10**18


@pytest.fixture
async def anvil(tmp_path: Path) -> AsyncIterator[Anvil]:
    """A node that mines when it is told to."""
    async with Anvil(tmp_path) as node:
        await node.set_automine(False)
        yield node


async def test_a_payment_waits_and_is_then_mined(anvil: Anvil) -> None:
    """What a stranger pays has no receipt while it waits, and has one in the block that takes it."""
    async with asking(anvil.url) as node:
        paid = await anvil.pay(OURS, ETHER + 1)
        assert await node.call("eth_getTransactionReceipt", paid) is None

        blocks = await anvil.mine(2)
        assert (await node.call("eth_getTransactionReceipt", paid))["blockHash"] == blocks[0]
        assert int(await node.call("eth_getBalance", OURS, "latest"), 16) == ETHER + 1


async def test_a_reorganisation_takes_a_payment_back(anvil: Anvil) -> None:
    """A payment whose block is replaced by an empty one has not been paid any more."""
    async with asking(anvil.url) as node:
        _ = await anvil.pay(OURS, ETHER)
        blocks = await anvil.mine(2)

        await anvil.reorg(2)
        assert await anvil.height() == 2
        assert (await node.call("eth_getBlockByNumber", hex(1), False))["hash"] != blocks[0]
        assert int(await node.call("eth_getBalance", OURS, "latest"), 16) == 0


async def test_every_transaction_is_mined_at_once_when_a_test_wants_that(anvil: Anvil) -> None:
    """With automatic mining a payment is in a block as soon as it is sent."""
    async with asking(anvil.url) as node:
        await anvil.set_automine(True)
        paid = await anvil.pay(OURS, ETHER)

        async def is_mined() -> bool:
            return (await node.call("eth_getTransactionReceipt", paid) or {}).get("status") == "0x1"

        await wait_until(is_mined, "the payment is in a block")


async def test_a_node_comes_back_with_what_it_had(anvil: Anvil) -> None:
    """A node that was stopped is at the same address again with the same chain."""
    _ = await anvil.pay(OURS, ETHER)
    (block,) = await anvil.mine(1)

    await anvil.stop()
    await anvil.start()
    async with asking(anvil.url) as node:
        assert (await node.call("eth_getBlockByNumber", "latest", False))["hash"] == block


async def test_several_networks_run_side_by_side(anvil: Anvil, tmp_path: Path) -> None:
    """Two nodes of different chains know nothing of each other."""
    async with Anvil(tmp_path / "other", chain_id=137) as other, asking(other.url) as node:
        _ = await anvil.mine(3)
        assert int(await node.call("eth_chainId"), 16) == 137
        assert int(await node.call("eth_blockNumber"), 16) == 0
