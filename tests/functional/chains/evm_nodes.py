"""Several nodes of one house on a chain: one leads, another takes over, and a leader that was paused does no harm."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import pytest

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
    """Ask for a tenth of an ether, again where nothing was done: a node that is paused may hold the ledger for 5 s."""
    body = json.dumps({"currency": "ETH-ERC20", "address": OUTSIDE, "amount": "0.1", "tag": ""}).encode()
    async with asyncio.timeout(60):
        while True:
            answer = await ask(server, "POST", "", server.sign("alice", f"{V3}user/wallet/withdraw", body))
            if answer.status != 503:
                break
            await asyncio.sleep(0.2)
    assert answer.status == 200, answer


async def deposit(anvil: Anvil, address: str) -> None:
    """Let the stranger pay an ether to an address, and bury it."""
    await anvil.pay(address, ETHER)
    _ = await anvil.mine(2)


@pytest.mark.soak
async def test_another_node_takes_over_from_a_leader_that_is_paused_or_dies(tmp_path: Path, anvil: Anvil) -> None:
    """Within seconds; whatever a paused leader was about to do when it wakes, each withdrawal is paid once."""
    async with two_nodes(tmp_path, on_anvil(anvil)) as (first, second):
        await anvil.pay(HOT, 10 * ETHER)
        address = await customer(first, second)
        assert [await leads(node) for node in (first, second)] == [True, False]
        await deposit(anvil, address)
        _ = await until(lambda: is_credited(second, 1))
        await see_a_pause(first, second, anvil)
        await see_a_death(second, first, anvil, address)
        verified = await asyncio.to_thread(invoke, "ledger", "verify", "--config", first.config)
        assert verified.code == 0, verified.err


async def see_a_pause(leader: Node, other: Node, anvil: Anvil) -> None:
    """The leader is stopped with withdrawals before it, and wakes beside its successor."""

    async def all_settled() -> bool:
        _ = await anvil.mine(1)
        return not await other.operate(ListWithdrawals())

    async def has_given_up() -> bool:
        return not await leads(leader)

    await withdraw(other)
    await withdraw(other)
    leader.pause()
    assert await until(lambda: leads(other)) < HAND_OVER_S
    await withdraw(other)
    leader.wake()
    await withdraw(leader)
    _ = await until(all_settled)
    _ = await until(has_given_up)
    assert await leads(other)
    assert int(await anvil.rpc("eth_getBalance", OUTSIDE, "latest"), 16) == 4 * ETHER // 10
    assert [it["unexplained"] for it in await other.operate(Reconcile())] == ["0"]


async def see_a_death(leader: Node, other: Node, anvil: Anvil, address: str) -> None:
    """The leader dies; what is deposited then is credited all the same, and soon."""
    before = await has(other)
    leader.kill()
    await deposit(anvil, address)
    took_s = await until(lambda: leads(other))
    took_s += await until(lambda: is_credited(other, before + 1))
    assert took_s < HAND_OVER_S


async def is_credited(node: Node, ether: Decimal | int) -> bool:
    """Say whether the customer has so much."""
    return await has(node) == ether
