"""An example of a test on a real Bitcoin node: copy it to begin a new one.

A test on a node is named after its chain (`bitcoin_*.py`, `litecoin_*.py`, `evm_*.py`, or `chains_*.py` for several),
and starts the nodes that it needs in a folder of its own. In regtest nothing happens by itself: no block is mined and
nobody pays unless the test says so. What the program under test would ask goes through `strongroom.custody.rpc.Node`;
what a stranger or the network does goes through the methods of `support.nodes`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path

import pytest

from strongroom.custody.rpc import Node
from support.nodes import FIRST_COINS, Bitcoind, asking

OURS = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"
"""An address whose key is not in the node: a node of custody's never has keys."""


@pytest.fixture
async def bitcoind(tmp_path: Path) -> AsyncIterator[Bitcoind]:
    """A node whose stranger has the coins of one block to spend."""
    async with Bitcoind(tmp_path) as node:
        _ = await node.mine(FIRST_COINS)
        yield node


async def received(node: Node, txid: str) -> tuple[Decimal, int]:
    """Return what a transaction pays us, and how many blocks confirm it, as the node tells it."""
    told = await node.call("getrawtransaction", txid, 1)
    paid = sum((out["value"] for out in told["vout"] if out["scriptPubKey"]["address"] == OURS), Decimal(0))
    return paid, told.get("confirmations", 0)


async def test_a_payment_waits_and_is_then_mined(bitcoind: Bitcoind) -> None:
    """What a stranger pays is seen at once, and confirmed by every block that is mined on it."""
    async with asking(bitcoind.url) as node:
        txid = await bitcoind.pay(OURS, "1.50000001")
        assert await received(node, txid) == (Decimal("1.50000001"), 0)

        _ = await bitcoind.mine(3)
        assert await received(node, txid) == (Decimal("1.50000001"), 3)


async def test_a_reorganisation_takes_a_confirmation_back(bitcoind: Bitcoind) -> None:
    """A payment whose block is replaced waits again, until another block holds it."""
    async with asking(bitcoind.url) as node:
        txid = await bitcoind.pay(OURS, "0.2")
        (block,) = await bitcoind.mine(1)

        await bitcoind.invalidate(block)
        assert await received(node, txid) == (Decimal("0.2"), 0)

        _ = await bitcoind.mine(2)
        assert await received(node, txid) == (Decimal("0.2"), 2)


async def test_the_longer_of_two_chains_wins(bitcoind: Bitcoind, tmp_path: Path) -> None:
    """Two nodes that were apart agree on the longer chain, and what the shorter one held waits again."""
    async with Bitcoind(tmp_path / "other") as other, asking(bitcoind.url) as node:
        await bitcoind.connect(other)
        await bitcoind.agree(other)
        await bitcoind.disconnect(other)
        txid = await bitcoind.pay(OURS, "0.3")
        _ = await bitcoind.mine(2)
        _ = await other.mine(3)

        await other.connect(bitcoind)
        await bitcoind.agree(other)
        assert await received(node, txid) == (Decimal("0.3"), 0)


async def test_a_node_comes_back_with_what_it_had(bitcoind: Bitcoind) -> None:
    """A node that was stopped, and one that was killed, is at the same address again with the same chain."""
    height, balance = await bitcoind.height(), await bitcoind.balance()

    await bitcoind.stop()
    await bitcoind.start()
    assert (await bitcoind.height(), await bitcoind.balance()) == (height, balance)

    await bitcoind.kill()
    await bitcoind.start()
    async with asking(bitcoind.url) as node:
        # What was not yet on the disk may be lost, the genesis block never is.
        assert 0 <= await node.call("getblockcount") <= height
