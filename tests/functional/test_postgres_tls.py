"""A house whose database is reached over TLS, as the guide tells operators to reach it."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from strongroom.admin.protocol import AddUser, CreateKey, PayFromFaucet
from strongroom.clock import Ids, SetClock
from strongroom.store.postgres.store import PostgresStore
from strongroom.wallet.verification import verify
from support.demos import invoke
from support.harness import V3
from support.harness_single import ask
from support.house_nodes import Node
from support.paying import COIN
from support.postgres_tls import TlsServer, certified
from support.world import BTC, NOW_MS, opened

AT_ONCE = 1_500
WAIT_S = 60.0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[TlsServer]:
    """A PostgreSQL that demands TLS."""
    server = TlsServer(tmp_path)
    yield server
    server.stop()


async def test_a_house_works_over_tls(tmp_path: Path, server: TlsServer) -> None:
    """Every one of its connections is encrypted, with the server's name and authority verified."""
    node = Node(tmp_path / "node", server.url(server.new_database(), "verify-full", server.authority))
    try:
        await node.start()
        await node.operate(AddUser("alice", "alice@example.com"))
        made = await node.operate(CreateKey("alice", ["all"]))
        _ = await node.operate(PayFromFaucet("alice", "BTC", "10"))
        node.users["alice"] = {"api_key": made["key"], "api_secret": made["secret"]}
        wallet = await ask(node, "GET", "", node.sign("alice", f"{V3}user/wallet"))
        assert [row["available"] for row in wallet.json() if row["currency"] == "BTC"] == [10]
        assert server.connections() == {(True, "TLSv1.3")}
        verified = await asyncio.to_thread(invoke, "ledger", "verify", "--config", node.config)
        assert verified.code == 0, verified.err
    finally:
        node.kill()


async def test_a_large_batch_and_a_long_answer_come_through(tmp_path: Path, server: TlsServer) -> None:
    """What is longer than TLS encrypts in one piece is written, and read again, as it is without TLS."""
    url = server.url(server.new_database(), "verify-full", server.authority)
    async with opened(PostgresStore(url, Ids(SetClock(NOW_MS)))) as world:
        alice, bob = await world.user("alice"), await world.user("bob")
        await world.fund(alice, BTC, COIN)
        outcomes = await asyncio.gather(
            *(world.transfer(world.guard(alice), "BTC", "0.0001", "bob") for _ in range(AT_ONCE))
        )
        assert {outcome.refusal for outcome in outcomes} == {None}
        assert world.available(bob, BTC) == AT_ONCE * COIN // 10_000
        assert len(world.store.journal(1, 2 * AT_ONCE)) > AT_ONCE
        assert verify(world.store).findings == []


@pytest.mark.parametrize(
    ("host", "is_known", "told"),
    [("localhost", False, "certificate verify failed"), ("db.example", True, 'does not match host name "db.example"')],
)
def test_a_server_that_proves_nothing_is_not_used(
    tmp_path: Path, server: TlsServer, host: str, is_known: bool, told: str
) -> None:
    """One of another authority, or with another name, is refused before it is told anything, and the reason named."""
    strange = tmp_path / "strange.crt"
    _ = certified("stranger", tmp_path, strange)
    url = server.url(server.new_database(), "verify-full", server.authority if is_known else strange, host)
    node = Node(tmp_path / "node", url)
    command = [*node.program, "serve", "--config", str(node.config)]
    served = subprocess.run(command, env=node.environment, capture_output=True, text=True, timeout=WAIT_S, check=False)
    assert (served.returncode, served.stdout) == (1, "")
    assert told in served.stderr
    assert "Traceback" not in served.stderr
