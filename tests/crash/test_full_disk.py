"""A disk that is full, as the kernel says it: a real server whose files, its log too, may not grow any more."""

from __future__ import annotations

import asyncio
import json
import resource
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import pytest

from support.demos import run
from support.harness import V3, Answer, Server, Signed, Unanswered

AMOUNT: Final = Decimal("0.25")
PATIENCE_S: Final = 20
FULL: Final = 0
"""Not a byte can be written to any file, the server's log included."""


def limit_files(pid: int, size: int) -> None:
    """Let no file of a process become longer than this, or what is there already be written beyond it."""
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))


async def ask(server: Server, method: str, path: str, request: Signed | None = None) -> Answer:
    """Send one request over a connection of its own."""
    async with server.connected() as wire:
        return await wire.send(method, request or Signed(path, {}, b""))


async def balance(server: Server, username: str) -> Decimal:
    """Return what a user can spend of Bitcoin."""
    rows = (await ask(server, "GET", "", server.sign(username, f"{V3}user/wallet"))).json()
    return next(row["available"] for row in rows if row["currency"] == "BTC")


def transfer(server: Server) -> Signed:
    """Return alice's request to send bob a quarter."""
    to = {"toUser": "bob", "toUserMail": "bob@example.com"}
    body = json.dumps({"amount": str(AMOUNT), "asset": "BTC", **to}).encode()
    return server.sign("alice", f"{V3}user/wallet/transfer", body)


async def until_status(server: Server, status: int) -> Any:
    """Wait until `/readyz` answers with a status, and return what it says."""
    async with asyncio.timeout(PATIENCE_S):
        while (answer := await ask(server, "GET", "/readyz")).status != status:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.05)
    return answer.json()


@pytest.mark.parametrize("killed", [False, True], ids=["room-again", "killed-while-full"])
async def test_a_full_disk_stops_changes_and_loses_nothing(tmp_path: Path, killed: bool) -> None:
    """Balances are read on, changes are put off, `/readyz` says why; with room, or a new start, all goes on."""
    server = Server(tmp_path / "house", seconds_per_block=3600)
    try:
        await server.start()
        before = {name: await balance(server, name) for name in ("alice", "bob")}
        limit_files(server.pid, FULL)
        doubted = asyncio.create_task(ask(server, "POST", "", first := transfer(server)))
        told = await until_status(server, 503)
        assert told["details"]["writer"].startswith("Ledger in doubt")
        refused = await ask(server, "POST", "", transfer(server))
        assert (refused.status, "retry-after" in refused.headers) == (503, True)
        assert await balance(server, "alice") == before["alice"]
        assert not doubted.done()
        if killed:
            server.kill()
            with suppress(Unanswered):
                raise AssertionError(await doubted)
            await server.start()
            kept = before["alice"] - await balance(server, "alice") == AMOUNT
            assert (await ask(server, "POST", "", first)).status == (401 if kept else 200)
        else:
            limit_files(server.pid, resource.RLIM_INFINITY)
            assert (await doubted).status == 503
            await until_status(server, 200)
            assert (await ask(server, "POST", "", first)).status == 200
        assert await balance(server, "alice") == before["alice"] - AMOUNT
        assert await balance(server, "bob") == before["bob"] + AMOUNT
        ran = await asyncio.to_thread(run, "ledger", "verify", "--data", server.folder)
        assert ran.code == 0, ran.out + ran.err
    finally:
        server.kill()
