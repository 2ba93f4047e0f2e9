"""Servers that are killed while they pay on a real node: each withdrawal is paid once, and books and chain agree."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path

import httpx
import pytest

from support.coin_house import V3, coin_house, coin_settings
from support.demos import environment
from support.nodes import FIRST_COINS, Bitcoind, free_port, wait_until
from support.server import MASTER_KEY, Member

STRANGER = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"
HOUSE = """\
data = "data"
[nodes.BITCOIN]
url = "{url}"
chain = "bitcoin-regtest"
start_height = 0
[assets.BTC]
number = 1
name = "Bitcoin"
[networks.BITCOIN]
number = 1
short_name = "Bitcoin"
family = "bitcoin"
confirmations = 2
fee_asset = "BTC"
[offers.BTC.BITCOIN]
decimals = 8
default = true
"""


@pytest.fixture
async def bitcoind(tmp_path: Path) -> AsyncIterator[Bitcoind]:
    """A node whose stranger has coins to spend."""
    async with Bitcoind(tmp_path / "node") as node:
        _ = await node.mine(FIRST_COINS)
        yield node


@asynccontextmanager
async def killed_at_the_end(folder: Path, url: str) -> AsyncIterator[httpx.AsyncClient]:
    """Serve the folder in a process of its own, and kill that when the block is left."""
    (folder / "house.toml").write_text(HOUSE.format(url=url))
    port = free_port()
    more = {"STRONGROOM_MASTER_KEY": MASTER_KEY.hex(), "STRONGROOM_PORT": str(port)}
    command = [sys.executable, "-m", "strongroom.cli.main", "serve", "--config", str(folder / "house.toml")]
    with (folder / "log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(*command, env={**environment(), **more}, stdout=log, stderr=log)
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:

            async def is_ready() -> bool:
                try:
                    return (await client.get("/readyz")).status_code == 200
                except httpx.TransportError:
                    return False

            await wait_until(is_ready, "the server is ready")
            yield client
    finally:
        process.kill()
        _ = await process.wait()


async def withdraw(client: httpx.AsyncClient, member: Member, amount: str) -> None:
    """Ask for a withdrawal to the stranger, which is accepted."""
    path, body = f"{V3}wallet/withdraw", {"currency": "BTC", "address": STRANGER, "amount": amount, "tag": ""}
    content = json.dumps(body).encode()
    answer = await client.post(path, headers=member.headers(path, content), content=content)
    assert answer.status_code == 200, answer.text


async def test_each_withdrawal_is_paid_once_whenever_the_server_dies(tmp_path: Path, bitcoind: Bitcoind) -> None:
    """Killed right after it accepted, while its payment waits, and when that is in a block: one payment each."""
    config = coin_settings(tmp_path, bitcoind, "bitcoin-regtest")
    async with coin_house(config, bitcoind) as house:
        alice = await house.customer("alice")
        address = await house.address(alice)
        for _ in range(3):
            await bitcoind.pay(address, "0.5")
        await house.until_status(alice, *["PROCESSING"] * 3)
        await house.mine_until_status(alice, *["COMPLETED"] * 3)

    async def waits() -> bool:
        return bool(await bitcoind.rpc("getrawmempool"))

    async def at_once() -> None:
        """Die right after the answer."""

    async def while_it_waits() -> None:
        await wait_until(waits, "a payment waits")

    async def in_a_block() -> None:
        await wait_until(waits, "a payment waits")
        _ = await bitcoind.mine(1)

    moments: list[Callable[[], Awaitable[None]]] = [at_once, while_it_waits, in_a_block]
    for moment in moments:
        async with killed_at_the_end(tmp_path, bitcoind.url) as client:
            await withdraw(client, alice, "0.1")
            await moment()
    async with coin_house(config, bitcoind) as house:
        await house.mine_until_status(alice, *["COMPLETED"] * 6)
        told = await bitcoind.rpc("scantxoutset", "start", [f"addr({STRANGER})"])
        assert Decimal(told["total_amount"]) == Decimal("0.3")
        assert await house.balance(alice) == (Decimal("1.2"), Decimal("1.2"))
        assert (await house.reconciled()).differences == ()
        house.check_books()
