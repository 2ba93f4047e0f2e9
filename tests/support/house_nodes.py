"""Nodes of one house: servers in processes of their own over one PostgreSQL database, each with a data folder."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from strongroom.clock import Clock, Ids
from strongroom.custody.signer import seal_seed
from strongroom.treasury import SEED_FILE
from support.demos import STRONGROOM, environment
from support.evm import SEED
from support.harness import READY_WITHIN_S, TESTS, Server, Unanswered
from support.nodes import Anvil, free_port
from support.postgres import database_of, shared_server
from support.server import MASTER_KEY

PAUSE_S: Final = 0.05
_HOUSE: Final = """
data = "data"
store = "{store}"
port = {port}
drain_s = 0
[rate_limits.default]
{limits}
[assets.BTC]
number = 1
name = "Bitcoin"
[assets.XRP]
number = 2
name = "Ripple"
scale = 6
"""
"""A house of assets without networks: they come from its bank."""

ETHEREUM: Final = """
[assets.ETH]
number = 3
name = "Ether"
[networks.ERC20]
number = 2
short_name = "Ethereum"
family = "evm"
confirmations = 2
fee_asset = "ETH"
[offers.ETH.ERC20]
decimals = 18
default = true
[nodes.ERC20]
url = "{url}"
chain = "evm"
chain_id = {chain_id}
start_height = 0
"""


def store_of(folder: Path) -> str:
    """Return the setting `store` for the database of a test's folder."""
    return url_of(database_of(folder))


def url_of(dsn: str) -> str:
    """Return how libpq finds a database of the tests' server as a URL."""
    names = dict(part.split("=", 1) for part in dsn.split())
    assert names["port"] == str(shared_server().port)
    return f"postgresql://{names['user']}@/{names['dbname']}?host={quote(names['host'], safe='')}&port={names['port']}"


class Node(Server):
    """One node: a server that is started, paused, killed and started again."""

    def __init__(
        self,
        folder: Path,
        store: str,
        more: str = "",
        limits: str = "unlimited = true",
        program: Sequence[str] = STRONGROOM,
    ) -> None:
        super().__init__(folder / "data", program)
        (folder / "data").mkdir(parents=True, mode=0o700)
        self.store = store
        self.config = folder / "strongroom.toml"
        self.port = free_port()
        self._address = ("127.0.0.1", self.port)
        self.config.write_text(_HOUSE.format(store=store, port=self.port, limits=limits) + more)
        (folder / "data" / SEED_FILE).write_bytes(seal_seed(SEED, MASTER_KEY, Ids(Clock())))

    @property
    def environment(self) -> dict[str, str]:
        """What the program is run with."""
        own = environment() | {"STRONGROOM_MASTER_KEY": MASTER_KEY.hex()}
        return own | {"PYTHONPATH": f"{own['PYTHONPATH']}{os.pathsep}{TESTS}"}

    def begin(self) -> None:
        """Start the process, and do not wait for it."""
        command = [*self.program, "serve", "--config", str(self.config)]
        with self.log.open("a") as log:
            self._process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, text=True, env=self.environment
            )

    async def start(self) -> None:
        """Start the process and wait until it serves."""
        self.begin()
        async with asyncio.timeout(READY_WITHIN_S):
            while not await self.is_ready():
                assert self._process is not None
                assert self._process.poll() is None, self.log.read_text()[-2000:]
                await asyncio.sleep(PAUSE_S)

    async def is_ready(self) -> bool:
        """Say whether it takes requests."""
        try:
            return (await self.readiness()).status == 200
        except Unanswered:
            return False

    async def details(self) -> Any:
        """Return the details of `/readyz`."""
        return (await self.readiness()).json()["details"]

    @property
    def has_ended(self) -> bool:
        """Whether the process has ended of itself."""
        return self._process is not None and self._process.poll() is not None

    def pause(self) -> None:
        """Stop the process as it stands."""
        os.kill(self.pid, signal.SIGSTOP)

    def wake(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)


@asynccontextmanager
async def two_nodes(
    folder: Path, more: str = "", limits: str = "unlimited = true"
) -> AsyncGenerator[tuple[Node, Node]]:
    """Run two nodes over a new database until the block ends; the first has started when the second does."""
    store = store_of(folder)
    first, second = Node(folder / "first", store, more, limits), Node(folder / "second", store, more, limits)
    try:
        await first.start()
        await second.start()
        yield first, second
    finally:
        for node in (first, second):
            if node.runs:
                node.wake()
            node.kill()


def on_anvil(anvil: Anvil) -> str:
    """Return the settings of a network on a node."""
    return ETHEREUM.format(url=anvil.url, chain_id=anvil.chain_id)
