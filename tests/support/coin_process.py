"""A server on a coin node in a process of its own, which can be killed at any moment and started again."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any, Final, Self

import httpx

from support.coin_house import V3
from support.demos import environment
from support.nodes import FIRST_COINS, CoinNode, free_port, wait_until
from support.server import MASTER_KEY, Member

HOUSE: Final = """\
data = "data"
[nodes.BITCOIN]
url = "{url}"
chain = "{chain}"
start_height = {first}
[rate_limits.default]
unlimited = true
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


class ServerProcess:
    """A server of a folder with settings as a text; the process is killed when the block is left."""

    watched = ""

    def __init__(self, folder: Path, settings: str) -> None:
        self._folder = folder
        self._process: asyncio.subprocess.Process | None = None
        self._settings = folder / "house.toml"
        self._settings.write_text(settings)
        self.client = httpx.AsyncClient(verify=False)

    @property
    def pid(self) -> int:
        """Return the process id, 0 while it does not run."""
        return self._process.pid if self._process else 0

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.kill()

    async def start(self) -> None:
        """Start the server, and return once it is ready."""
        port = free_port()
        more = {"STRONGROOM_MASTER_KEY": MASTER_KEY.hex(), "STRONGROOM_PORT": str(port)}
        command = [sys.executable, "-m", "strongroom.cli.main", "serve", "--config", str(self._settings)]
        with (self._folder / "log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *command, env={**environment(), **more}, stdout=log, stderr=log
            )
        self.client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", verify=False)
        await wait_until(self._is_ready, "the server is ready")

    async def kill(self) -> None:
        """End the server at once, as a loss of power would."""
        process, self._process = self._process, None
        await self.client.aclose()
        if process is not None:
            process.kill()
            _ = await process.wait()

    async def _is_ready(self) -> bool:
        try:
            return (await self.client.get("/readyz")).status_code == 200
        except httpx.TransportError:
            return False

    async def network(self) -> dict[str, Any]:
        """Return what the server tells of its network."""
        return (await self.client.get("/readyz")).json()["details"]["networks"][self.watched]

    async def post(self, member: Member, path: str, body: dict[str, Any], idempotency_key: str = "") -> httpx.Response:
        """Send a signed POST below v3's user path. Raises `httpx.TransportError` when the server dies meanwhile."""
        content = json.dumps(body).encode()
        headers = member.headers(f"{V3}{path}", content)
        if idempotency_key:
            headers["Idempotency-Key"] = idempotency_key
        return await self.client.post(f"{V3}{path}", headers=headers, content=content)


class CoinProcess(ServerProcess):
    """A server of a folder that `coin_house` serves as well."""

    watched = "BITCOIN"

    def __init__(self, folder: Path, node: CoinNode, chain: str) -> None:
        super().__init__(folder, HOUSE.format(url=node.url, chain=chain, first=FIRST_COINS))
