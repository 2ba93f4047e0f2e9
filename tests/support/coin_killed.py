"""A server that is killed while it pays on a real node: what is the same on every chain of coins."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from decimal import Decimal
from pathlib import Path

from support.coin_house import coin_house, coin_settings
from support.coin_process import CoinProcess
from support.nodes import CoinNode, wait_until
from support.server import Member


async def withdraw(server: CoinProcess, member: Member, address: str, amount: str) -> None:
    """Ask for a withdrawal, which is accepted."""
    answer = await server.post(
        member, "wallet/withdraw", {"currency": "BTC", "address": address, "amount": amount, "tag": ""}
    )
    assert answer.status_code == 200, answer.text


async def kill_while_paying(folder: Path, node: CoinNode, chain: str) -> None:
    """Kill a server right after it accepted, while its payment waits, and when that is in a block: one payment each."""
    config = coin_settings(folder, node, chain)
    stranger = await node.stranger("getnewaddress", "", "bech32")
    async with coin_house(config, node) as house:
        alice = await house.customer("alice")
        address = await house.address(alice)
        for _ in range(3):
            await node.pay(address, "0.5")
        await house.until_status(alice, *["PROCESSING"] * 3)
        await house.mine_until_status(alice, *["COMPLETED"] * 3)

    async def waits() -> bool:
        return bool(await node.rpc("getrawmempool"))

    async def at_once() -> None:
        """Die right after the answer."""

    async def while_it_waits() -> None:
        await wait_until(waits, "a payment waits")

    async def in_a_block() -> None:
        await wait_until(waits, "a payment waits")
        _ = await node.mine(1)

    moments: list[Callable[[], Awaitable[None]]] = [at_once, while_it_waits, in_a_block]
    for moment in moments:
        async with CoinProcess(folder, node, chain) as server:
            await withdraw(server, alice, stranger, "0.1")
            await moment()
    async with coin_house(config, node) as house:
        await house.mine_until_status(alice, *["COMPLETED"] * 6)
        told = await node.rpc("scantxoutset", "start", [f"addr({stranger})"])
        assert Decimal(told["total_amount"]) == Decimal("0.3")
        assert await house.balance(alice) == (Decimal("1.2"), Decimal("1.2"))
        assert (await house.reconciled()).differences == ()
        house.check_books()
