"""Servers that are killed while they pay on a Litecoin node: each withdrawal is paid once, and the books are right."""

from __future__ import annotations

from pathlib import Path

from support.coin_killed import kill_while_paying
from support.nodes import FIRST_COINS, Litecoind


async def test_each_withdrawal_is_paid_once_whenever_the_server_dies(tmp_path: Path) -> None:
    """Killed right after it accepted, while its payment waits, and when that is in a block: one payment each."""
    async with Litecoind(tmp_path / "node") as node:
        _ = await node.mine(FIRST_COINS)
        await kill_while_paying(tmp_path, node, "litecoin-regtest")
