"""Two servers over one PostgreSQL are one house: what one was told, the other knows."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from decimal import Decimal
from pathlib import Path
from typing import Final

import msgspec
import pytest

from strongroom.admin.protocol import AddUser, CreateKey, FreezeUser, PayFromFaucet, RevokeKey
from strongroom.application import Application
from strongroom.books import open_books
from strongroom.clock import Clock, Ids
from strongroom.config.settings import Config, ConfigError, Simulation
from strongroom.config.settings import Node as NodeSettings
from strongroom.custody.signer import seal_seed
from strongroom.treasury import SEED_FILE
from support.demos import invoke
from support.harness import V1, V3, Server, Signed
from support.harness_single import ask
from support.house_nodes import Node, store_of, two_nodes
from support.server import MASTER_KEY, served, settings

SOON_S: Final = 1.0
NAMES: Final = ("alice", "bob")
USDT: Final = '[assets.USDT]\nnumber = 9\nname = "Tether"\n'


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


async def test_two_servers_over_one_database_are_one_house(tmp_path: Path) -> None:
    """What one was answered the other knows at once; what changes at one changes at the other within a second."""
    async with two_nodes(tmp_path) as (first, second):
        await settle_in(first, second)
        await see_the_same_balances(first, second)
        await see_what_was_used_up(first, second)
        await see_references_apart(second)
        await see_a_new_asset(second, Node(tmp_path / "third", store_of(tmp_path), USDT))
        await see_who_is_shut_out(first, second)
        busy = await asyncio.to_thread(
            invoke, "restore", "--here", "--config", Node(tmp_path / "no", first.store).config
        )
        assert (busy.code, "other nodes have the database open" in busy.err) == (1, True)
        verified = await asyncio.to_thread(invoke, "ledger", "verify", "--config", first.config)
        assert verified.code == 0, verified.err


async def see_the_same_balances(first: Node, second: Node) -> None:
    """Transfers at either, each of which the other shows at once."""
    for number in range(1, 11):
        here, there = (first, second) if number % 2 else (second, first)
        assert (await ask(here, "POST", "", transfer(here, "0.5"))).status == 200
        moved = number * Decimal("0.5")
        assert [await has(there, name) for name in NAMES] == [10 - moved, 10 + moved]


async def see_what_was_used_up(first: Node, second: Node) -> None:
    """An Idempotency-Key's reply is the same at both, and a signature is used up at both."""
    once = transfer(first, "1", "key-1")
    done = await ask(first, "POST", "", once)
    again = await ask(second, "POST", "", transfer(second, "1", "key-1"))
    assert (again.status, again.body) == (200, done.body)
    assert again.headers["idempotency-replayed"] == "true"
    without_key = {name: value for name, value in once.headers.items() if name != "idempotency-key"}
    replayed = await ask(second, "POST", "", once._replace(headers=without_key))
    assert replayed.status == 401
    assert await has(second, "alice") == 4


async def see_references_apart(node: Node) -> None:
    """No order has the reference of another one, whichever node made it."""
    async with node.connected() as wire:
        orders = await wire.send("GET", node.sign("alice", f"{V3}user/wallet_history"), "?count=100")
    refs = [row["orderId"] for row in orders.json()]
    assert len(set(refs)) == len(refs) == 12


async def see_a_new_asset(node: Node, newer: Node) -> None:
    """What a node that is started declares is offered by those that run."""
    try:
        await newer.start()
        began_s = time.monotonic()
        while "USDT" not in (await ask(node, "GET", f"{V1}assets")).body.decode():
            assert time.monotonic() < began_s + SOON_S
    finally:
        newer.kill()


async def see_who_is_shut_out(first: Node, second: Node) -> None:
    """A frozen user sends nothing at the other node, and a revoked key is refused there."""
    assert await has(second, "bob") == 16
    await first.operate(FreezeUser("alice", True))
    refused = await ask(second, "POST", "", transfer(second, "1"))
    assert (refused.status, refused.json()["message"]) == (400, "BADREQUEST: Account is frozen")
    await first.operate(RevokeKey(second.users["bob"]["api_key"]))
    assert await until_status(second, second.sign("bob", f"{V3}user/wallet"), "GET", 401) < SOON_S


async def test_who_is_blocked_at_one_node_is_blocked_at_all_within_a_second(tmp_path: Path) -> None:
    """The calls that lead to a block are counted by each node; the block and its ladder are everybody's, and outlive
    the node."""
    async with two_nodes(tmp_path, limits="wallet_per_2s = 10\nladder_s = [300, 900]") as (first, second):
        await settle_in(first, second)
        told = [(await ask(first, "POST", "", transfer(first, "0.1"))).status for _ in range(11)]
        assert told == [200] * 10 + [429]
        assert await until_blocked(second) < SOON_S
        refused = await ask(second, "POST", "", transfer(second, "1"))
        assert refused.json()["message"] == "Rate limit exceeded"
        assert 290 < int(refused.headers["retry-after"]) <= 300
        first.kill()
        await first.start()
        assert await until_blocked(first) < SOON_S
        assert (await ask(second, "GET", "", second.sign("alice", f"{V3}user/wallet"))).status == 200


async def until_blocked(node: Node) -> float:
    """Ask until a transfer is refused, too seldom for the node to refuse it by its own count; return after how long."""
    began_s = time.monotonic()
    for _ in range(8):
        if (await ask(node, "POST", "", transfer(node, "0.001"))).status == 429:
            return time.monotonic() - began_s
        await asyncio.sleep(0.25)
    raise AssertionError("eight calls in two seconds went through")


async def test_commands_for_files_say_what_to_do_for_a_database(tmp_path: Path) -> None:
    """A backup is the database's own affair; once that was restored, the books are proved and begin a new epoch."""
    config = Node(tmp_path / "node", store_of(tmp_path)).config
    refused = await asyncio.to_thread(invoke, "backup", "--config", config, "--to", tmp_path / "copy")
    assert refused.code == 1
    assert "pgBackRest" in refused.err
    begun = await asyncio.to_thread(invoke, "restore", "--here", "--config", config, "--json")
    assert begun.code == 0, begun.err
    assert json.loads(begun.out)["epoch"] == 1


async def test_a_node_with_other_keys_or_another_simulation_does_not_start(tmp_path: Path) -> None:
    """The books are shared, the keys are not: a node that would give out addresses of its own is refused."""
    store = store_of(tmp_path)
    async with served(settings(tmp_path / "first", store=store)) as house:
        await house.application.treasury.watchers["BITCOIN"].settled()
        other = settings(tmp_path / "second", store=store)
        other.folder.mkdir(parents=True)
        seed_file = other.folder / SEED_FILE
        seed_file.write_bytes((tmp_path / "first" / "data" / SEED_FILE).read_bytes())
        with pytest.raises(ConfigError, match="the books follow another node's simulation"):
            _ = Application(other, MASTER_KEY)
        seed_file.unlink()
        with pytest.raises(ConfigError, match="but addresses were derived from it"):
            _ = Application(other, MASTER_KEY)
        seed_file.write_bytes(seal_seed(bytes(64), MASTER_KEY, Ids(Clock())))
        real = NodeSettings(url="http://127.0.0.1:1", chain="bitcoin-regtest")
        real_settings = msgspec.structs.replace(other, nodes={"BITCOIN": real}, simulation=Simulation())
        with pytest.raises(ConfigError, match="the keys here are not those"):
            _ = Application(real_settings, MASTER_KEY)


def test_without_the_driver_the_setting_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PostgreSQL's driver is an extra."""
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ConfigError, match=r"install strongroom\[postgresql\]"):
        _ = open_books(Config(data=str(tmp_path), store="postgresql://nowhere/none"), Ids(Clock()))


def test_a_store_that_is_no_postgresql_is_refused_without_being_shown(tmp_path: Path) -> None:
    """There may be a password in it."""
    config = tmp_path / "strongroom.toml"
    config.write_text('store = "mysql://us:secret@host/db"')
    ran = invoke("serve", "--config", config)
    assert ran.code == 2
    assert "setting 'store' must be empty or begin with postgresql://" in ran.err
    assert "secret" not in ran.err
