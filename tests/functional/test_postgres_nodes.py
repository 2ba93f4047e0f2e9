"""Two servers over one PostgreSQL are one house: what one was told, the other knows."""

from __future__ import annotations

import asyncio
import json
import time
from decimal import Decimal
from pathlib import Path
from typing import Final

from strongroom.admin.protocol import AddUser, CreateKey, FreezeUser, PayFromFaucet, RevokeKey
from support.demos import invoke
from support.harness import V1, V3, Answer, Server, Signed
from support.harness_single import ask
from support.house_nodes import Node, store_of, two_nodes

SOON_S: Final = 1.0
NAMES: Final = ("alice", "bob")


async def settle_in(*nodes: Node) -> None:
    """Open two customers at the first node, who have money; the others know their keys."""
    for name in NAMES:
        await nodes[0].operate(AddUser(name, f"{name}@example.com"))
        made = await nodes[0].operate(CreateKey(name, ["all"]))
        _ = await nodes[0].operate(PayFromFaucet(name, "BTC", "10"))
        for node in nodes:
            node.users[name] = {"api_key": made["key"], "api_secret": made["secret"]}


def transfer(server: Server, amount: str, key: str = "") -> Signed:
    """Return alice's request to send bob an amount."""
    body = {"amount": amount, "asset": "BTC", "toUser": "bob", "toUserMail": "bob@example.com"}
    more = {"idempotency-key": key} if key else {}
    return server.sign("alice", f"{V3}user/wallet/transfer", json.dumps(body).encode(), more)


async def has(server: Server, name: str) -> Decimal:
    """Return what a server says that a customer has of Bitcoin."""
    rows = (await ask(server, "GET", "", server.sign(name, f"{V3}user/wallet"))).json()
    return next(row["available"] for row in rows if row["currency"] == "BTC")


async def until_status(server: Server, request: Signed, method: str, status: int) -> float:
    """Ask until the answer has a status; return how many seconds that took."""
    began_s = time.monotonic()
    while (await ask(server, method, "", request)).status != status:
        assert time.monotonic() < began_s + 10
        await asyncio.sleep(0.02)
    return time.monotonic() - began_s


async def test_what_one_node_was_answered_the_other_knows(tmp_path: Path) -> None:
    """Balances at once, in both directions; an Idempotency-Key's reply; and a signature that is used up."""
    async with two_nodes(tmp_path) as (first, second):
        await settle_in(first, second)
        for number in range(1, 11):
            here, there = (first, second) if number % 2 else (second, first)
            assert (await ask(here, "POST", "", transfer(here, "0.5"))).status == 200
            assert [await has(there, name) for name in NAMES] == [
                10 - number * Decimal("0.5"),
                10 + number * Decimal("0.5"),
            ]
        once = transfer(first, "1", "key-1")
        done = await ask(first, "POST", "", once)
        again = await ask(second, "POST", "", transfer(second, "1", "key-1"))
        assert (again.status, again.body) == (200, done.body)
        assert again.headers["idempotency-replayed"] == "true"
        replayed = await ask(second, "POST", "", transfer_again(once))
        assert replayed.status == 401
        assert await has(second, "alice") == 4
        orders = await ask(second, "GET", "?count=100", second.sign("alice", f"{V3}user/wallet_history"))
        refs = [row["orderId"] for row in orders.json()]
        assert len(set(refs)) == len(refs) == 12
        verified = await asyncio.to_thread(invoke, "ledger", "verify", "--config", first.config)
        assert verified.code == 0, verified.err


def transfer_again(request: Signed) -> Signed:
    """Return a request without its Idempotency-Key, and otherwise as it was signed."""
    headers = {name: value for name, value in request.headers.items() if name != "idempotency-key"}
    return request._replace(headers=headers)


async def test_keys_users_and_settings_change_on_every_node_within_a_second(tmp_path: Path) -> None:
    """A key revoked at one node is refused by the other, a frozen user too, and a new asset is offered by all."""
    async with two_nodes(tmp_path) as (first, second):
        await settle_in(first, second)
        assert [await has(node, "bob") for node in (first, second)] == [10, 10]
        await first.operate(FreezeUser("alice", True))
        refused = await ask(second, "POST", "", transfer(second, "1"))
        assert (refused.status, refused.json()["message"]) == (400, "BADREQUEST: Account is frozen")
        await first.operate(RevokeKey(second.users["bob"]["api_key"]))
        wallet = second.sign("bob", f"{V3}user/wallet")
        assert await until_status(second, wallet, "GET", 401) < SOON_S
        third = Node(tmp_path / "third", store_of(tmp_path), '[assets.USDT]\nnumber = 9\nname = "Tether"\n')
        try:
            await third.start()
            began_s = time.monotonic()
            while "USDT" not in (await assets_of(second)).body.decode():
                assert time.monotonic() < began_s + SOON_S
        finally:
            third.kill()


async def assets_of(server: Server) -> Answer:
    """Ask which assets there are."""
    return await ask(server, "GET", f"{V1}assets")


async def test_commands_for_files_say_what_to_do_for_a_database(tmp_path: Path) -> None:
    """A backup is the database's own affair, and a restored one is begun anew only while no node runs."""
    store = store_of(tmp_path)
    node = Node(tmp_path / "node", store)
    refused = await asyncio.to_thread(invoke, "backup", "--config", node.config, "--to", tmp_path / "copy")
    assert refused.code == 1
    assert "pgBackRest" in refused.err
    try:
        await node.start()
        other = Node(tmp_path / "other", store)
        busy = await asyncio.to_thread(invoke, "restore", "--here", "--config", other.config)
        assert (busy.code, "other nodes have the database open" in busy.err) == (1, True)
    finally:
        node.kill()
    begun = await asyncio.to_thread(invoke, "restore", "--here", "--config", node.config, "--json")
    assert begun.code == 0, begun.err
    assert json.loads(begun.out)["epoch"] == 1
