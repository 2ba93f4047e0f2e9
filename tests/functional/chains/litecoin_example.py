"""An example of a test on a real Litecoin node, to be copied; bitcoin_example.py has the names and the rules."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

from support.nodes import FIRST_COINS, Litecoind, asking

OURS = "rltc1qw508d6qejxtdg4y5r3zarvary0c5xw7k693xs3"
"""An address whose key is not in the node."""

ABOVE_EXTENSION_BLOCKS = 440


async def test_a_payment_waits_and_is_then_mined(tmp_path: Path) -> None:
    """What a stranger pays is seen at once, and confirmed by every block that is mined on it."""
    async with Litecoind(tmp_path) as litecoind, asking(litecoind.url) as node:
        _ = await litecoind.mine(FIRST_COINS)
        txid = await litecoind.pay(OURS, "2.00000001")
        assert txid in await node.call("getrawmempool")

        _ = await litecoind.mine(2)
        told = await node.call("getrawtransaction", txid, True)
        assert told["confirmations"] == 2
        paid = [out["value"] for out in told["vout"] if out["scriptPubKey"]["addresses"] == [OURS]]
        assert paid == [Decimal("2.00000001")]


async def test_blocks_are_mined_as_high_as_a_test_needs(tmp_path: Path) -> None:
    """A chain goes on above the height at which extension blocks would begin."""
    async with Litecoind(tmp_path) as litecoind, asking(litecoind.url) as node:
        for _ in range(ABOVE_EXTENSION_BLOCKS // 110):
            _ = await litecoind.mine(110)
        assert await node.call("getblockcount") == ABOVE_EXTENSION_BLOCKS


async def test_two_nodes_agree_and_part(tmp_path: Path) -> None:
    """Nodes that are connected have the same chain, and go different ways once they are not."""
    async with Litecoind(tmp_path / "one") as one, Litecoind(tmp_path / "two") as two:
        _ = await one.mine(2)
        await one.connect(two)
        await one.agree(two)

        await one.disconnect(two)
        _ = await one.mine(1)
        assert await two.height() == 2
