"""Real nodes for the tests, each a process of its own on loopback: `Bitcoind`, `Litecoind` and `Anvil`.

    async with Bitcoind(folder) as node:
        await node.mine(101)
        txid = await node.pay(address, "1.5")

Every node has a stranger: somebody else with money of their own, who mines the blocks and pays us. `make nodes`
installs the programs; a test whose program is missing is skipped with that reason, and fails where `CI` is "true".
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from decimal import Decimal
from itertools import count, islice
from pathlib import Path
from typing import Any, Final, Self

import pytest

from strongroom.custody.chain import Unreachable
from strongroom.custody.rpc import Node, RpcError

BINARIES: Final = Path(__file__).parents[2] / ".nodes" / "bin"
HOST: Final = "127.0.0.1"
WAIT_S: Final = 60.0
"""How long a node may take to start, to stop, or to agree with another."""

POLL_S: Final = 0.02
LOWEST_PORT: Final = 8_000
PORTS: Final = 12_000
"""Below the ports that the system gives to connections, and that a demo draws from: a stopped node finds its own free
again."""

SHARES: Final = 8
"""Each of so many processes that test at once counts through ports of its own, so that none takes another one's between
its choice and its use."""

STRANGER: Final = "stranger"
FIRST_COINS: Final = 125
"""So many blocks are mined before the stranger spends: the coins of a block can be spent after a hundred more. He dates
his payments back now and then, by a hundred blocks at most, and Bitcoin Knots takes none of block 21."""


def need_node(name: str) -> Path:
    """Return a node's program; skip the test where it is missing, and fail it where `CI` is "true"."""
    program = BINARIES / name
    if os.access(program, os.X_OK):
        return program
    reason = f"there is no {name} in .nodes: run 'make nodes'"
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def _ports() -> Iterator[int]:
    """Yield this process's share of the ports again and again, from one at random on."""
    share = PORTS // SHARES
    lowest = LOWEST_PORT + share * (int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % SHARES)
    for number in count(secrets.randbelow(share)):
        yield lowest + number % share


_next_ports: Final = _ports()


def free_port() -> int:
    """Return a port of loopback that nobody listens on, and that was not returned lately."""
    for port in islice(_next_ports, 100):
        with socket.socket() as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    pytest.fail("no port of loopback is free", pytrace=False)


async def wait_until(is_so: Callable[[], Awaitable[bool]], what: str, wait_s: float = WAIT_S) -> None:
    """Return once something is so; fail the test when it takes longer than `wait_s`."""
    deadline_s = time.monotonic() + wait_s
    while not await is_so():
        if time.monotonic() > deadline_s:
            pytest.fail(f"after {wait_s} s it is not so that {what}", pytrace=False)
        await asyncio.sleep(POLL_S)


@asynccontextmanager
async def asking(url: str, timeout_s: float = WAIT_S) -> AsyncIterator[Node]:
    """Give the client of a node that the program under test has, and close it in the end."""
    node = Node(url, timeout_s)
    try:
        yield node
    finally:
        await node.close()


class Process:
    """A node's process, its ports and its log; every start has the same data and the same ports as the one before."""

    program = ""
    stop_signal = signal.SIGTERM

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.log = folder / f"{self.program}.log"
        self.port = free_port()
        self._options = options
        self._binary = need_node(self.program)
        self._process: subprocess.Popen[bytes] | None = None
        self._nodes: dict[str, Node] = {}

    @property
    def url(self) -> str:
        """Return the address that `strongroom.custody.rpc.Node` takes."""
        return f"http://{HOST}:{self.port}"

    @property
    def pid(self) -> int:
        """Return the process id, 0 while the node is stopped."""
        return self._process.pid if self._process else 0

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start the node, and return once it answers."""
        self._spawn()
        try:
            await wait_until(self._answers, f"{self.program} answers")
        except BaseException:
            # Whoever waited gave up, by a failure or by being cancelled: no process is left behind.
            await self.kill()
            raise

    async def stop(self) -> None:
        """Ask the node to save what it has and to end, and wait for that; kill it when it takes too long."""
        await self._end(self.stop_signal)

    async def kill(self) -> None:
        """End the node at once, as a loss of power would."""
        await self._end(signal.SIGKILL)

    async def rpc(self, method: str, *parameters: Any) -> Any:
        """Return a method's result; numbers with a point are `Decimal`. Raises `RpcError`, `Unreachable`."""
        return await self.rpc_at(self.url, method, *parameters)

    async def rpc_at(self, url: str, method: str, *parameters: Any) -> Any:
        """Return a method's result as another address of the same node gives it."""
        if url not in self._nodes:
            self._nodes[url] = Node(url)
        return await self._nodes[url].call(method, *parameters)

    def command(self) -> list[str]:
        """Return the program's options."""
        raise NotImplementedError

    async def is_ready(self) -> bool:
        """Tell whether the node does its work; `RpcError` and `Unreachable` mean that it does not yet."""
        raise NotImplementedError

    def _spawn(self) -> None:
        if self._process is not None:
            pytest.fail(f"{self.program} runs already", pytrace=False)
        self.folder.mkdir(parents=True, exist_ok=True)
        # Some nodes keep files in the home folder too: none of them belongs there.
        environment = os.environ | {"HOME": str(self.folder)}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(self._binary), *self.command(), *self._options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env=environment,
            )

    async def _answers(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            said = self.log.read_text("utf-8", "replace")[-2000:]
            pytest.fail(f"{self.program} ended instead of starting: {said}", pytrace=False)
        try:
            return await self.is_ready()
        except (Unreachable, RpcError):
            return False

    async def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        nodes, self._nodes = self._nodes, {}
        if process is not None:
            process.send_signal(how)
        try:
            for node in nodes.values():
                await node.close()
            if process is not None:
                _ = await asyncio.to_thread(process.wait, WAIT_S)
        except subprocess.TimeoutExpired:
            pass
        finally:
            if process is not None and process.poll() is None:
                process.kill()
                _ = process.wait()


class CoinNode(Process):
    """A node of a chain of coins, in its regression test mode: nothing is mined unless a test says so.

    The stranger has a wallet of that name in the node. `chain` is how
    the settings call its chain, and `nobody` an address there that no wallet of a test knows.
    """

    chain = ""
    nobody = ""

    def __init__(self, folder: Path, *options: str) -> None:
        super().__init__(folder, *options)
        self.peer_port = free_port()
        self.user, self.password = "strongroom", secrets.token_hex(16)

    @property
    def url(self) -> str:
        """Return the node's address with user and password, which is that of no wallet."""
        return self.url_at(self.port)

    def url_at(self, port: int) -> str:
        """Return the same address at another port, that of a line to the node."""
        return f"http://{self.user}:{self.password}@{HOST}:{port}"

    @property
    def peer_address(self) -> str:
        """Return where other nodes reach this one."""
        return f"{HOST}:{self.peer_port}"

    def wallet_url(self, wallet: str) -> str:
        """Return the address of one of the node's wallets."""
        return f"{self.url}/wallet/{wallet}"

    async def stranger(self, method: str, *parameters: Any) -> Any:
        """Return a method's result in the stranger's wallet."""
        return await self.rpc_at(self.wallet_url(STRANGER), method, *parameters)

    def command(self) -> list[str]:
        """Return the program's options: alone unless told to connect, and quick to pass transactions on."""
        return [
            "-regtest",
            f"-datadir={self.folder}",
            "-server",
            f"-rpcuser={self.user}",
            f"-rpcpassword={self.password}",
            f"-rpcport={self.port}",
            "-listen=1",
            f"-port={self.peer_port}",
            f"-bind={HOST}:{self.peer_port}",
            "-connect=0",
            "-dnsseed=0",
            "-listenonion=0",
            "-addresstype=bech32",
            "-changetype=bech32",
            # Keys that no test asks for take longer to make than all else at a start.
            "-keypool=20",
            "-txindex",
            "-printtoconsole=0",
        ]

    async def is_ready(self) -> bool:
        """Tell whether the node answers, with the stranger's wallet open."""
        if STRANGER not in await self.rpc("listwallets"):
            known = await self.rpc("listwalletdir")
            exists = any(wallet["name"] == STRANGER for wallet in known["wallets"])
            await self.rpc("loadwallet" if exists else "createwallet", STRANGER)
        return True

    async def height(self) -> int:
        """Return the height of the best chain."""
        return await self.rpc("getblockcount")

    async def tip(self) -> str:
        """Return the hash of the newest block."""
        return await self.rpc("getbestblockhash")

    async def mine(self, count: int, address: str | None = None) -> list[str]:
        """Mine blocks with all that waits, paid to an address or to a new one of the stranger's; return their hashes.

        A new address each time, because after `invalidate` the same one would make the same invalid block again.
        """
        return await self.rpc("generatetoaddress", count, address or await self.stranger("getnewaddress"))

    async def pay(self, address: str, amount_text: str) -> str:
        """Let the stranger pay an amount such as "0.5", and return the txid; it waits to be mined."""
        return await self.stranger("sendtoaddress", address, amount_text)

    async def rival_of(self, txid: str) -> str:
        """Return a raw transaction that spends elsewhere what a transaction of the stranger's spends."""
        spent: list[dict[str, Any]] = []
        for source in (await self.rpc("getrawtransaction", txid, 1))["vin"]:
            made = (await self.rpc("getrawtransaction", source["txid"], 1))["vout"][source["vout"]]
            place = {"txid": source["txid"], "vout": source["vout"]}
            spent.append({**place, "scriptPubKey": made["scriptPubKey"]["hex"], "amount": made["value"]})
        amount = sum((it["amount"] for it in spent), Decimal(0)) - Decimal("0.0005")
        inputs = [{"txid": it["txid"], "vout": it["vout"]} for it in spent]
        raw = await self.rpc("createrawtransaction", inputs, {await self.stranger("getnewaddress"): amount})
        return (await self.stranger("signrawtransactionwithwallet", raw, spent))["hex"]

    async def paid_to(self, address: str) -> Decimal:
        """Return what an address has in blocks, and has not spent."""
        told = await self.rpc("scantxoutset", "start", [f"addr({address})"])
        return Decimal(str(told["total_amount"]))

    async def balance(self) -> Decimal:
        """Return what the stranger can spend."""
        return await self.stranger("getbalance")

    async def invalidate(self, block_hash: str) -> None:
        """Take a block and all above it off the chain; their transactions wait again. Mine one more to replace them."""
        await self.rpc("invalidateblock", block_hash)

    async def copy_login(self, other: CoinNode) -> None:
        """Take another node's user and password, so that this one can stand in for it; it is started anew."""
        await self.stop()
        self.user, self.password = other.user, other.password
        await self.start()

    async def connect(self, other: CoinNode) -> None:
        """Connect to another node, and return once both know; the longer chain wins on both a moment later."""
        await self.rpc("addnode", other.peer_address, "onetry")
        await wait_until(lambda: self._knows(other), "the nodes are connected")

    async def disconnect(self, other: CoinNode) -> None:
        """End the connections between the two, whichever side made them, and return once both know."""
        for one, two in ((self, other), (other, self)):
            for ours in await one._connections_to(two):
                await one.rpc("disconnectnode", two.peer_address)
                await wait_until(lambda node=two, end=ours: node._has_lost(end), "the nodes are disconnected")
            await wait_until(lambda a=one, b=two: a._is_apart_from(b), "the nodes are disconnected")

    async def agree(self, other: CoinNode) -> None:
        """Return once two connected nodes have the same newest block."""

        async def same() -> bool:
            return await self.tip() == await other.tip()

        await wait_until(same, "the nodes have the same newest block")

    async def _connections_to(self, other: CoinNode) -> list[str]:
        """Return our end of every connection that we made to another node."""
        peers = await self.rpc("getpeerinfo")
        return [peer["addrbind"] for peer in peers if not peer["inbound"] and peer["addr"] == other.peer_address]

    async def _knows(self, other: CoinNode) -> bool:
        ours = await self._connections_to(other)
        # A version is told in the handshake: before it, blocks are not yet passed on.
        theirs = {peer["addr"] for peer in await other.rpc("getpeerinfo") if peer["version"]}
        return any(end in theirs for end in ours)

    async def _has_lost(self, end: str) -> bool:
        return all(peer["addr"] != end for peer in await self.rpc("getpeerinfo"))

    async def _is_apart_from(self, other: CoinNode) -> bool:
        return not await self._connections_to(other)


class Bitcoind(CoinNode):
    """Bitcoin's node in regtest: addresses begin with `bcrt1`."""

    program = "bitcoind"
    chain = "bitcoin-regtest"
    nobody = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"

    def command(self) -> list[str]:
        """Return the program's options."""
        # Peers of these permissions are told of a transaction at once, and not after some seconds of chance.
        whitelist = f"-whitelist=in,out,noban@{HOST}"
        # The stranger's wallet need not outlive a loss of power, and so waits for no disk at every block.
        return [*super().command(), "-fallbackfee=0.00002", whitelist, "-unsafesqlitesync"]


class Litecoind(CoinNode):
    """Litecoin's node in regtest: addresses begin with `rltc1`. It passes transactions on after some seconds only."""

    program = "litecoind"
    chain = "litecoin-regtest"
    nobody = "rltc1qw508d6qejxtdg4y5r3zarvary0c5xw7k693xs3"

    def command(self) -> list[str]:
        """Return the program's options."""
        # Extension blocks stay off: where nobody uses them, no block can be mined above height 431.
        return [*super().command(), "-fallbackfee=0.0002", "-vbparams=mweb:-2:0", f"-whitelist=noban@{HOST}"]


class Anvil(Process):
    """A node of an EVM chain: ten rich accounts that need no key, the first of which is the stranger.

    It mines every transaction at once, unless told by `set_automine`. A clean stop keeps the chain; a kill loses it.
    """

    program = "anvil"
    stop_signal = signal.SIGINT

    def __init__(self, folder: Path, *options: str, chain_id: int = 31337) -> None:
        super().__init__(folder, *options)
        self.chain_id = chain_id

    def command(self) -> list[str]:
        """Return the program's options; a block is safe after one epoch of one slot, and final after two."""
        chain = ["--chain-id", str(self.chain_id), "--slots-in-an-epoch", "1", "--state", str(self.folder / "state")]
        return ["--host", HOST, "--port", str(self.port), "--silent", *chain]

    async def is_ready(self) -> bool:
        """Tell whether the node answers for its chain."""
        return int(await self.rpc("eth_chainId"), 16) == self.chain_id

    async def accounts(self) -> list[str]:
        """Return the addresses that need no key, the stranger's first."""
        return await self.rpc("eth_accounts")

    async def height(self) -> int:
        """Return the height of the best chain."""
        return int(await self.rpc("eth_blockNumber"), 16)

    async def tip(self) -> str:
        """Return the hash of the newest block."""
        return (await self.rpc("eth_getBlockByNumber", "latest", False))["hash"]

    async def mine(self, count: int) -> list[str]:
        """Mine blocks, the first with all that waits, and return their hashes."""
        first = await self.height() + 1
        await self.rpc("anvil_mine", hex(count))
        heights = range(first, first + count)
        return [(await self.rpc("eth_getBlockByNumber", hex(height), False))["hash"] for height in heights]

    async def pay(self, address: str, wei: int) -> str:
        """Let the stranger pay an amount in wei, and return the transaction's hash."""
        stranger = (await self.accounts())[0]
        return await self.rpc("eth_sendTransaction", {"from": stranger, "to": address, "value": hex(wei)})

    async def reorg(self, depth: int) -> None:
        """Replace the newest blocks by as many empty ones: what was in them is gone."""
        await self.rpc("anvil_reorg", depth, [])

    async def set_automine(self, on: bool) -> None:
        """Mine every transaction at once, or let them wait for `mine`."""
        await self.rpc("evm_setAutomine", on)
