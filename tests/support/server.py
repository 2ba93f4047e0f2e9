"""A whole server over HTTP on loopback: settings, users with keys, signed requests, and requests byte for byte."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import msgspec

from strongroom.application import Application
from strongroom.config.settings import Asset, Config, Logs, Network, Offer, Rates, Simulation, Tier
from strongroom.engine.command import NOBODY
from strongroom.records.history import LineType
from strongroom.serving import serve
from strongroom.wallet.bookings import prepare_booking
from strongroom.wallet.context import perform_own
from strongroom.wallet.keys import KeyTerms, prepare_key
from strongroom.wallet.users import prepare_user

MASTER_KEY = bytes(range(32))
WALLET = "/api/v3.2/user/wallet"
TRANSFER = "/api/v3.2/user/wallet/transfer"


class Member(NamedTuple):
    """A user of the server under test, with an API key."""

    uid: int
    name: str
    key: str
    secret: str

    def headers(self, path: str, body: bytes = b"", nonce_ms: int | None = None) -> dict[str, str]:
        """Return the authentication headers of a request."""
        nonce = str(nonce_ms or int(time.time() * 1000))
        signed = path.encode() + nonce.encode() + body
        signature = hmac.new(self.secret.encode(), signed, hashlib.sha384).hexdigest()
        return {"request-api": self.key, "request-nonce": nonce, "request-sign": signature}


def settings(folder: Path, **changes: Any) -> Config:
    """Return the settings of a small house on a free port, with limits off and a short drain."""
    config = Config(
        data=str(folder / "data"),
        port=0,
        drain_s=0,
        logs=Logs(level="info"),
        rate_limits={"default": Tier(unlimited=True)},
        rates=Rates(table={"BTC/USDT": "66680.5"}, ecb=False),
        simulation=Simulation(enabled=True, seconds_per_block=60),
        assets={"BTC": Asset(number=1, name="Bitcoin"), "USDT": Asset(number=2, name="Tether")},
        networks={
            "BITCOIN": Network(number=1, short_name="Bitcoin", family="bitcoin", confirmations=2, fee_asset="BTC")
        },
        offers={"BTC": {"BITCOIN": Offer(decimals=8, default=True, withdraw_minimum="0.001")}},
    )
    return msgspec.structs.replace(config, **changes)


async def join(application: Application, name: str, units: int = 0) -> Member:
    """Open a user with all permissions and so many units of Bitcoin."""
    context = application.context
    user = prepare_user(context, NOBODY, name, f"{name}@example.com")
    await perform_own(context, lambda: user)
    key, secret = prepare_key(context, NOBODY, application.box, user.uid, KeyTerms())
    await perform_own(context, lambda: key)
    if units:
        await perform_own(context, lambda: prepare_booking(context, NOBODY, user.uid, 1, LineType.EXPRESS_BUY, units))
    return Member(user.uid, name, key.text, secret)


class Served(NamedTuple):
    """A server that answers, and a client of it."""

    application: Application
    client: httpx.AsyncClient
    url: str
    serving: asyncio.Task[int]

    async def get(self, member: Member, path: str) -> httpx.Response:
        """Send a signed GET."""
        return await self.client.get(path, headers=member.headers(path))

    async def post(self, member: Member, path: str, body: dict[str, Any]) -> httpx.Response:
        """Send a signed POST."""
        content = json.dumps(body).encode()
        return await self.client.post(path, headers=member.headers(path, content), content=content)

    async def raw(self, request: bytes) -> bytes:
        """Send bytes over a connection of its own and return all that comes back until it is closed."""
        host, port = self.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(request)
        try:
            async with asyncio.timeout(10):
                return await reader.read()
        finally:
            writer.close()


@asynccontextmanager
async def served(config: Config) -> AsyncGenerator[Served]:
    """Serve a data folder on loopback while the block runs."""
    application = Application(config, MASTER_KEY)
    async with application.running():
        ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        serving = asyncio.create_task(serve(application, ready.set_result))
        _ = await asyncio.wait((serving, ready), return_when=asyncio.FIRST_COMPLETED)
        url = ready.result()
        # Without certificates, which take longer to read than a request does: there is no TLS here.
        async with httpx.AsyncClient(base_url=url, verify=False) as client:
            try:
                yield Served(application, client, url, serving)
            finally:
                _ = serving.cancel()
                _ = await asyncio.wait([serving])


def transfer_to(receiver: Member, amount: str = "0.1") -> dict[str, str]:
    """Return the body of a transfer."""
    return {"amount": amount, "asset": "BTC", "toUser": receiver.name, "toUserMail": f"{receiver.name}@example.com"}
