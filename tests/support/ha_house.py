"""A house over a cluster: three nodes that find the database by all its addresses, and HAProxy before them."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from strongroom.admin.protocol import AddUser, CreateKey, PayFromFaucet
from support.demos import invoke
from support.ha_cluster import COUNT, DATABASE, HOST, POLL_S, WAIT_S, Cluster, Missing, Program
from support.ha_lines import Lines
from support.harness import Server, Signed, Unanswered, Wire
from support.house_nodes import Node
from support.nodes import free_port, wait_until

OURS: Final = "x-request-id"
"""A header of every answer of ours: what lacks it is the balancer's own, and says nothing of what was done."""

WINDOW: Final = "nonce_window_ms = 600000\n"
"""A request is asked again as it was when a round is over."""

PRICES: Final = """
[assets.USDT]
number = 4
name = "Tether"
[rates]
table_as_of = "2026-01-01T00:00:00Z"
table_max_age_s = 315360000
spread = "0.001"
[rates.table]
"BTC/USDT" = "66680.5"
"XRP/USDT" = "1.4215"
"""

BALANCER: Final = """
defaults
    mode http
    timeout connect 2s
    timeout check 2s
    timeout client 60s
    timeout server 60s
    timeout queue 1s
    # Only a connection that was never made is tried at another node.
    retries 2
    option redispatch
frontend house
    bind {host}:{port}
    default_backend nodes
backend nodes
    balance roundrobin
    option httpchk GET /readyz
    http-check expect status 200
    default-server check inter 500ms fall 2 rise 1
{servers}
"""


class BalancedWire(Wire):
    """A connection to the balancer; an answer of its own is none of ours."""

    async def send_together(self, requests: Any) -> Any:
        """Send requests and return our answers. Raises `Unanswered`, also where the balancer has spoken for us."""
        answers = await super().send_together(requests)
        if not all(OURS in answer.headers for answer in answers):
            raise Unanswered
        return answers


class Door(Server):
    """The balancer, as customers see the house."""

    def __init__(self, folder: Path, port: int) -> None:
        super().__init__(folder)
        self.port = port
        self._address = (HOST, port)
        self._nonce = 0

    def sign(
        self, username: str, path: str, body: bytes = b"", more: Mapping[str, str] | None = None, method: str = "POST"
    ) -> Signed:
        """Return a request with a nonce that no other has: two customers may ask for the same at the same moment."""
        self._nonce = max(self._nonce + 1, time.time_ns() // 1_000_000)
        return self.sign_at(self._nonce, username, path, body, more, method)

    def wire(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Wire:
        """Return a connection to the house behind it."""
        return BalancedWire(reader, writer)


class House:
    """node1 to node3 and the door before them."""

    def __init__(self, cluster: Cluster, lines: Lines, more: str = "") -> None:
        self.cluster = cluster
        self.nodes: dict[str, Node] = {}
        for name in (f"node{number}" for number in range(1, COUNT + 1)):
            ports = [str(lines.lay(name, member, cluster.ports[member])) for member in cluster.members]
            store = (
                f"postgresql://{DATABASE}@/{DATABASE}?host={','.join([HOST] * COUNT)}&port={','.join(ports)}"
                "&target_session_attrs=read-write"
            )
            self.nodes[name] = node = Node(cluster.folder / name, store, PRICES + more)
            node.config.write_text(WINDOW + node.config.read_text())
        self.door = Door(cluster.folder / "door", free_port())
        self._balancer = self._balanced()

    def _balanced(self) -> Program:
        servers = "\n".join(f"    server {name} {HOST}:{node.port}" for name, node in self.nodes.items())
        config = self.cluster.folder / "haproxy.cfg"
        config.write_text(BALANCER.format(host=HOST, port=self.door.port, servers=servers))
        program = shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin:/usr/bin")
        if program is None:
            raise Missing("there is no HAProxy: run scripts/setup-ha.sh")
        return Program("haproxy", self.cluster.folder, [program, "-db", "-f", str(config)])

    async def start(self) -> None:
        """Start the nodes one after the other, and the balancer."""
        for node in self.nodes.values():
            await node.start()
        self._balancer.start()

    async def open_account(self, user: str, money: dict[str, str], parent: str = "") -> None:
        """Open a user with a key and money; all nodes know the key."""
        first = next(iter(self.nodes.values()))
        await first.operate(AddUser(user, f"{user}@example.com", parent))
        made = await first.operate(CreateKey(user, ["all"]))
        for asset, amount in money.items():
            _ = await first.operate(PayFromFaucet(user, asset, amount))
        for server in (self.door, *self.nodes.values()):
            server.users[user] = {"api_key": made["key"], "api_secret": made["secret"]}

    async def ready(self) -> None:
        """Return once every node takes requests, and the balancer knows. Raises `TimeoutError`."""
        deadline_s = time.monotonic() + WAIT_S
        servers = [*self.nodes.values(), *[self.door] * COUNT]
        while True:
            waiting = [server for server in servers if not await is_ready(server)]
            if not waiting:
                return
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"not ready: {waiting}; logs are in {self.cluster.folder}")
            await asyncio.sleep(POLL_S)

    async def refuses(self, trouble: str) -> None:
        """Return once every node says that it takes no requests, and why."""
        for name, node in self.nodes.items():

            async def says(node: Node = node) -> bool:
                with suppress(Unanswered):
                    return (await node.details())["writer"] == trouble
                return False

            await wait_until(says, f"{name} says: {trouble}", WAIT_S)

    async def verify(self) -> None:
        """Let the auditor's command say that the books are whole."""
        node = next(iter(self.nodes.values()))
        verified = await asyncio.to_thread(invoke, "ledger", "verify", "--config", node.config)
        assert verified.code == 0, verified.out + verified.err

    def stop(self) -> None:
        """Kill the balancer and the nodes."""
        self._balancer.kill()
        for node in self.nodes.values():
            if node.runs and not node.has_ended:
                node.wake()
            node.kill()


async def is_ready(server: Server) -> bool:
    """Say whether `/readyz` is green."""
    try:
        async with asyncio.timeout(5), server.connected() as wire:
            return (await wire.send("GET", Signed("/readyz", {}, b""))).status == 200
    except (Unanswered, TimeoutError):
        return False
