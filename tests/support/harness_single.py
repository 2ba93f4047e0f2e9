"""One customer who sends one amount, and looks at what a server says of itself meanwhile."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal
from typing import Any, Final

from support.harness import V3, Answer, Server, Signed

AMOUNT: Final = Decimal("0.25")
PATIENCE_S: Final = 20
QUIET_S: Final = 3_600
"""Seconds between blocks, so that nothing is written but what is asked for."""


async def ask(server: Server, method: str, path: str, request: Signed | None = None) -> Answer:
    """Send one request over a connection of its own."""
    async with server.connected() as wire:
        return await wire.send(method, request or Signed(path, {}, b""))


async def send(server: Server, request: Signed) -> Answer:
    """Send a transfer."""
    return await ask(server, "POST", "", request)


async def balance(server: Server, username: str) -> Decimal:
    """Return what a user can spend of Bitcoin."""
    rows = (await ask(server, "GET", "", server.sign(username, f"{V3}user/wallet"))).json()
    return next(row["available"] for row in rows if row["currency"] == "BTC")


async def both(server: Server) -> tuple[Decimal, Decimal]:
    """Return what alice and bob can spend of Bitcoin."""
    return await balance(server, "alice"), await balance(server, "bob")


def transfer(server: Server) -> Signed:
    """Return alice's request to send bob a quarter."""
    to = {"toUser": "bob", "toUserMail": "bob@example.com"}
    body = json.dumps({"amount": str(AMOUNT), "asset": "BTC", **to}).encode()
    return server.sign("alice", f"{V3}user/wallet/transfer", body)


async def until_status(server: Server, status: int) -> Any:
    """Wait until `/readyz` answers with a status, and return what it says."""
    async with asyncio.timeout(PATIENCE_S):
        while (answer := await server.readiness()).status != status:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.02)
    return answer.json()
