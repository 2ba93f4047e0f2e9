"""Releases that follow one another over one database: nodes of two of them side by side, as far as the schema goes."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import pytest

from strongroom.admin.protocol import AddUser, CreateKey, PayFromFaucet
from strongroom.books import open_snapshot
from strongroom.config.settings import Config
from strongroom.engine.port import DiskFailed
from support.harness import V3, Server, Signed
from support.harness_single import ask
from support.house_nodes import Node
from support.moving import another_database
from support.postgres import shared_server

ADDED: Final = """-- compatible from 1
ALTER TABLE "user" ADD COLUMN mood TEXT NOT NULL DEFAULT 'good';
CREATE TABLE novelty (id BIGINT PRIMARY KEY);
"""
BROKEN: Final = """-- a column has another name, which no older release knows
ALTER TABLE profile RENAME COLUMN mail TO address;
"""
LEFT_BEHIND: Final = "the database has schema 3, this release knows 1, and only one that knows 3 may use it"
PATIENCE_S: Final = 60
AMOUNT: Final = Decimal("0.001")
NAMES: Final = ("alice", "bob")


def newer(folder: Path, store: str, *scripts: str) -> Node:
    """Return a node of a release that knows these migrations too."""
    files = [folder.with_name(f"{folder.name}-{number}.sql") for number in range(len(scripts))]
    for file, script in zip(files, scripts, strict=True):
        file.write_text(script)
    return Node(folder, store, program=(sys.executable, "-m", "support.newer_release", *map(str, files), "--"))


@asynccontextmanager
async def ended(*nodes: Node) -> AsyncGenerator[None]:
    """Kill what runs of these nodes when the block ends."""
    try:
        yield
    finally:
        for node in nodes:
            node.kill()


async def settle_in(first: Node, *others: Node) -> None:
    """Open two customers with money, whose keys all nodes know."""
    for name in NAMES:
        await first.operate(AddUser(name, f"{name}@example.com"))
        made = await first.operate(CreateKey(name, ["all"]))
        _ = await first.operate(PayFromFaucet(name, "BTC", "10"))
        for node in (first, *others):
            node.users[name] = {"api_key": made["key"], "api_secret": made["secret"]}


def transfer(server: Server) -> Signed:
    """Return alice's request to send bob a little."""
    body = {"amount": str(AMOUNT), "asset": "BTC", "toUser": "bob", "toUserMail": "bob@example.com"}
    return server.sign("alice", f"{V3}user/wallet/transfer", json.dumps(body).encode())


async def available(node: Node, name: str) -> Decimal:
    """Return what a node says that a customer has of Bitcoin."""
    rows = (await ask(node, "GET", "", node.sign(name, f"{V3}user/wallet"))).json()
    return next(row["available"] for row in rows if row["currency"] == "BTC")


async def until_red(node: Node) -> Any:
    """Wait until a node says that it takes no requests, and return why."""
    async with asyncio.timeout(PATIENCE_S):
        while (answer := await node.readiness()).status == 200:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.02)
    return answer.json()["details"]


async def until_leads(node: Node) -> None:
    """Wait until a node leads."""
    async with asyncio.timeout(PATIENCE_S):
        while not (await node.details())["leads"]:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.02)


async def test_an_older_node_goes_on_while_what_came_leaves_it_working(tmp_path: Path) -> None:
    """A newer node brings tables and columns while an older one answers; both go on, and the older starts again."""
    with another_database(migrated=False) as store:
        old, new = Node(tmp_path / "old", store), newer(tmp_path / "new", store, ADDED)
        async with ended(old, new):
            await old.start()
            await settle_in(old, new)
            new.begin()
            done = 0
            while not await new.is_ready():
                assert (await ask(old, "POST", "", transfer(old))).status == 200
                done += 1
            for node in (old, new, old, new):
                assert (await ask(node, "POST", "", transfer(node))).status == 200
            moved = (done + 4) * AMOUNT
            assert [await available(node, "bob") for node in (old, new)] == [10 + moved] * 2
            assert asked(store, 'SELECT mood FROM "user"') == [("good",)] * 2
            old.kill()
            await old.start()
            assert (await ask(old, "POST", "", transfer(old))).status == 200
            see_who_may_look(store)


def see_who_may_look(store: str) -> None:
    """A signer of the older release goes on; an audit by it would not know everything that it reads."""
    config = Config(store=store)
    open_snapshot(config, living=True).close()
    with pytest.raises(DiskFailed, match="has schema 2, this release knows 1"):
        open_snapshot(config)


async def test_an_older_node_that_is_left_behind_writes_nothing(tmp_path: Path) -> None:
    """It is red and says why, answers 503, leads nothing, and none of its release starts; the newer node goes on."""
    with another_database(migrated=False) as store:
        old, new = Node(tmp_path / "old", store), newer(tmp_path / "new", store, ADDED, BROKEN)
        async with ended(old, new):
            await old.start()
            await settle_in(old, new)
            await until_leads(old)
            await new.start()
            assert LEFT_BEHIND in (await until_red(old))["writer"]
            await until_leads(new)
            assert (await old.details())["leads"] == []
            assert (await ask(new, "POST", "", transfer(new))).status == 200
            assert await available(new, "bob") == 10 + AMOUNT
            new.kill()
            before = asked(store, "SELECT commits, forced FROM journal")
            for _ in range(3):
                refused = await ask(old, "POST", "", transfer(old))
                assert (refused.status, "retry-after" in refused.headers) == (503, True)
            assert LEFT_BEHIND in (await old.details())["writer"]
            await see_it_refuse_to_start(Node(tmp_path / "third", store))
            assert asked(store, "SELECT commits, forced FROM journal") == before


async def see_it_refuse_to_start(node: Node) -> None:
    """A node of the older release ends at once, and says why."""
    node.begin()
    try:
        assert await node.ended(PATIENCE_S)
        assert f"strongroom: {LEFT_BEHIND}" in node.log.read_text()
    finally:
        node.kill()


def asked(store: str, sql: str) -> list[tuple[object, ...]]:
    """Ask the database that a setting `store` names."""
    return shared_server().run(sql, store.partition("?")[0].rpartition("/")[2])
