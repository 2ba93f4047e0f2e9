"""Several nodes of one house on a chain: one leads, another takes over, and a leader that was paused does no harm."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from strongroom.admin.protocol import AddUser, CreateKey, ListWithdrawals, Reconcile
from support.demos import invoke
from support.evm import HOT
from support.harness import V3, Server, Unanswered
from support.harness_single import ask
from support.house_nodes import Node, on_anvil, two_nodes
from support.nodes import Anvil

SEAT: Final = "network ERC20"
HAND_OVER_S: Final = 5.0
ETHER: Final = 10**18
OUTSIDE: Final = "0x00000000000000000000000000000000DeaDBeef"


async def customer(*nodes: Node) -> str:
    """Open a customer at the first node and return its address from the second."""
    await nodes[0].operate(AddUser("alice", "alice@example.com"))
    made = await nodes[0].operate(CreateKey("alice", ["all"]))
    for node in nodes:
        node.users["alice"] = {"api_key": made["key"], "api_secret": made["secret"]}
    body = json.dumps({"currency": "ETH"}).encode()
    answer = await ask(nodes[-1], "POST", "", nodes[-1].sign("alice", f"{V3}user/wallet/address", body))
    assert answer.status == 200, answer
    return answer.json()[0]["address"]


async def leads(node: Node) -> bool:
    """Say whether a node leads the network."""
    try:
        return SEAT in (await node.details())["leads"]
    except Unanswered:
        return False


async def has(server: Server) -> Decimal:
    """Return what the customer can spend."""
    rows = (await ask(server, "GET", "", server.sign("alice", f"{V3}user/wallet"))).json()
    return next(row["available"] for row in rows if row["currency"] == "ETH")


async def until(holds: Callable[[], Any], within_s: float = 30) -> float:
    """Wait until something holds; return how many seconds that took."""
    began_s = time.monotonic()
    while not await holds():
        assert time.monotonic() - began_s < within_s, "it did not come about in time"
        await asyncio.sleep(0.05)
    return time.monotonic() - began_s


async def withdraw(server: Server) -> None:
    """Ask for a tenth of an ether."""
    body = json.dumps({"currency": "ETH-ERC20", "address": OUTSIDE, "amount": "0.1", "tag": ""}).encode()
    answer = await ask(server, "POST", "", server.sign("alice", f"{V3}user/wallet/withdraw", body))
    assert answer.status == 200, answer


async def deposit(anvil: Anvil, address: str) -> None:
    """Let the stranger pay an ether to an address, and bury it."""
    await anvil.pay(address, ETHER)
    _ = await anvil.mine(2)


async def test_a_deposit_is_credited_within_seconds_of_the_leaders_death(tmp_path: Path, anvil: Anvil) -> None:
    """An address that the second node gave out is watched by the first; after its death by the second."""
    async with two_nodes(tmp_path, on_anvil(anvil)) as (first, second):
        address = await customer(first, second)
        assert await leads(first)
        assert not await leads(second)

        async def has_so_much(ether: int) -> bool:
            return await has(second) == ether

        await deposit(anvil, address)
        _ = await until(lambda: has_so_much(1))
        first.kill()
        await deposit(anvil, address)
        began_s = time.monotonic()
        _ = await until(lambda: leads(second))
        _ = await until(lambda: has_so_much(2))
        assert time.monotonic() - began_s < HAND_OVER_S


async def test_a_leader_that_was_paused_wakes_beside_its_successor(tmp_path: Path, anvil: Anvil) -> None:
    """Whatever the paused leader was about to do, each withdrawal is paid once, and books and chain agree."""
    async with two_nodes(tmp_path, on_anvil(anvil)) as (first, second):
        await anvil.pay(HOT, 10 * ETHER)
        await deposit(anvil, await customer(first, second))

        async def is_credited() -> bool:
            return await has(second) == 1

        async def all_settled() -> bool:
            _ = await anvil.mine(1)
            return not await second.operate(ListWithdrawals())

        async def has_given_up() -> bool:
            return not await leads(first)

        _ = await until(is_credited)
        await withdraw(second)
        await withdraw(second)
        first.pause()
        assert await until(lambda: leads(second)) < HAND_OVER_S
        await withdraw(second)
        first.wake()
        await withdraw(first)
        _ = await until(all_settled)
        _ = await until(has_given_up)
        assert await leads(second)
        assert await paid(anvil) == 4 * ETHER // 10
        assert [it["unexplained"] for it in await second.operate(Reconcile())] == ["0"]
        verified = await asyncio.to_thread(invoke, "ledger", "verify", "--config", second.config)
        assert verified.code == 0, verified.err


async def paid(anvil: Anvil) -> int:
    """Return what the stranger was paid, in wei."""
    return int(await anvil.rpc("eth_getBalance", OUTSIDE, "latest"), 16)
