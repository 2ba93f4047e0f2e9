"""A demo's Bitcoin or Litecoin node in regtest, with a wallet for the world outside: the strangers who pay the house.

The node holds no key of the house and knows none of its addresses. Blocks are mined when told to; after the first ones
they pay nobody, so that the strangers' wallet does not grow with every block.
"""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from strongroom.clock import Clock, Ids
from strongroom.config.settings import Node as NodeSettings
from strongroom.custody.chain import Block
from strongroom.custody.families import NATIVE
from strongroom.custody.networks.utxo_reading import block_of
from strongroom.custody.rpc import Node, RpcError
from strongroom.demo.chains import DemoChain
from strongroom.demo.process import HOST, NodeProcess, free_port
from strongroom.errors import check
from strongroom.files import write_over
from strongroom.money import format_amount

WALLET: Final = "outside"
USER: Final = "strongroom"
PASSWORD_FILE: Final = "password"  # noqa: S105 - the name of the file
BATCH: Final = 20
"""So many customers share a transaction."""

KEPT_EVERY: Final = 10
"""After so many blocks the node writes its chain out: a node that is killed goes back by no more than these."""

_AT_ONCE: Final = 100
_DECIMALS: Final = 8
_RIVAL_FEE: Final = Decimal("0.001")
_PASSWORD_BYTES: Final = 32
_MARK_BYTES: Final = 4


class CoinKind(NamedTuple):
    """What tells the nodes apart: the name of the settings for the house, the file of the node's own, what stands in it
    beside the usual, and how many blocks are mined at first, of which all but the newest hundred can be spent."""

    chain: str
    file: str
    options: str
    first_blocks: int


KINDS: Final[dict[str, CoinKind]] = {
    # The strangers' wallet need not outlive a loss of power, and is much quicker so.
    "bitcoin": CoinKind("bitcoin-regtest", "bitcoin.conf", "fallbackfee=0.00002\nunsafesqlitesync=1", 250),
    # Extension blocks stay off: where nobody uses them, no block can be mined above height 431.
    "litecoin": CoinKind("litecoin-regtest", "litecoin.conf", "fallbackfee=0.0002\nvbparams=mweb:-2:0", 550),
}
"""Of Bitcoin 7,500 coins can be spent then, of Litecoin 13,125: the reward halves every 150 blocks."""

_FILE: Final = """\
# Written anew at every start of the demo; the password is good for as long as this node runs.
regtest=1
[regtest]
server=1
rpcbind={host}
rpcallowip={host}
rpcport={port}
rpcuser={user}
rpcpassword={password}
txindex=1
listen=0
connect=0
dnsseed=0
addresstype=bech32
changetype=bech32
keypool=10
{options}
"""


def coin_settings(kind: CoinKind, url: str) -> NodeSettings:
    """Return the settings of the house's network for a node at an address, which it sees from its first block on."""
    return NodeSettings(url=url, chain=kind.chain, start_height=kind.first_blocks, batch=BATCH)


class CoinNode:
    """One node, to be started once: it plays the world outside on its network (`custody.outside.Outside`).

    With a `clock` the node goes by that one when it is told to mine, and not by the system's.
    """

    def __init__(self, chain: DemoChain, program: Path, folder: Path, clock: Clock | None = None) -> None:
        """Choose the node's port and password. Raises `AdminError` where no port is free."""
        self.chain = chain
        self.process = NodeProcess(program, folder)
        self._kind = KINDS[chain.name]
        self._folder = folder
        self._clock = clock
        self._ids = Ids(Clock())
        self._port = free_port(self._ids)
        self._password = self._ids.random_bytes(_PASSWORD_BYTES).hex()
        url = f"http://{USER}:{self._password}@{HOST}:{self._port}"
        self._node, self._wallet = Node(url), Node(f"{url}/wallet/{WALLET}")
        self._unkept = 0
        settings = coin_settings(self._kind, f"http://{HOST}:{self._port}")
        self.settings = msgspec.structs.replace(settings, user=USER, password_file=str(folder / PASSWORD_FILE))

    async def start(self) -> None:
        """Start the node, with its wallet open and money in it. Raises `AdminError`, `Unreachable`, `RpcError`."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        values = {"host": HOST, "port": self._port, "user": USER, "password": self._password}
        write_over(self._folder / PASSWORD_FILE, self._password.encode())
        write_over(self._folder / self._kind.file, _FILE.format(**values, options=self._kind.options).encode())
        # A wallet looks for nothing before its birth: where the past is written, the node is born in it as well.
        born = [] if self._clock is None else [f"-mocktime={self._now_s(self._clock)}"]
        arguments = [f"-datadir={self._folder}", "-printtoconsole=0", "-debuglogfile=0", *born]
        await self.process.start(arguments, lambda: self._node.call("getblockcount"))
        await self._open_wallet()
        if not await self._node.call("getblockcount"):
            await self._mine_first()

    async def stop(self) -> None:
        """Stop the node, and keep its chain for the next start."""
        # Some nodes wait for whoever is connected before they end.
        await self._node.close()
        await self._wallet.close()
        await self.process.stop()

    # -- what happens outside

    async def faucet(self, network: str, address: str, tag: str, asset_id: str, amount: int) -> str:
        """Let a stranger pay `amount`, in the smallest unit, to an address, and return the txid."""
        check(network == self.chain.network and asset_id == NATIVE and not tag, "the node has this coin only")
        try:
            return await self._wallet.call("sendtoaddress", address, format_amount(amount, _DECIMALS))
        except RpcError as no:
            has = await self._wallet.call("getbalance")
            raise ValueError(f"the {self.chain.title} faucet, which has {has}, cannot pay that: {no.reason}") from None

    async def mine(self, network: str, count: int = 1) -> list[Block]:
        """Mine `count` blocks; the first takes what waits."""
        check(network == self.chain.network and count > 0, "the node mines its own chain")
        if self._clock is not None:
            _ = await self._ask("setmocktime", self._now_s(self._clock))
        hashes: list[str] = await self._ask("generatetodescriptor", count, self._nobody())
        self._unkept += count
        if self._unkept >= KEPT_EVERY:
            await self.keep()
        return await self._blocks(hashes)

    async def reorg(self, network: str, depth: int) -> list[Block]:
        """Replace the last `depth` blocks by `depth` + 1 new ones, which are returned.

        Their transactions are mined again in the newest one.
        """
        height: int = await self._ask("getblockcount")
        check(1 <= depth <= height, "a reorganisation spares the first block")
        _ = await self._ask("invalidateblock", await self._ask("getblockhash", height - depth + 1))
        empty: list[str] = [(await self._ask("generateblock", self._nobody(), []))["hash"] for _ in range(depth)]
        return [*await self._blocks(empty), *await self.mine(network)]

    async def void(self, network: str, txid: str) -> None:
        """Let something else spend what a stranger's waiting transaction spends, for a fee that has it replaced."""
        check(network == self.chain.network, "the node has its own transactions")
        told = await self._ask("getrawtransaction", txid, 1)
        spent: list[dict[str, Any]] = [{"txid": coin["txid"], "vout": coin["vout"]} for coin in told["vin"]]
        total = Decimal(0)
        for coin in spent:
            made = await self._ask("getrawtransaction", coin["txid"], 1)
            total += Decimal(made["vout"][coin["vout"]]["value"])
        own = await self._wallet.call("getnewaddress")
        rival = await self._ask("createrawtransaction", spent, {own: total - _RIVAL_FEE})
        signed = await self._wallet.call("signrawtransactionwithwallet", rival)
        _ = await self._ask("sendrawtransaction", signed["hex"])

    def undo_next(self, network: str) -> None:
        """Raise `ValueError`: a payment in a block of this chain has paid."""
        raise ValueError(f"on {network} nothing that is in a block is undone")

    async def keep(self) -> None:
        """Have the node write its chain out, as it does before it counts all coins."""
        _ = await self._ask("gettxoutsetinfo", "none")
        self._unkept = 0

    def _nobody(self) -> str:
        """Return whom a block pays. It has a mark of its own, so that no block that was given up is ever made again."""
        return f"raw(6a{_MARK_BYTES:02x}{self._ids.random_bytes(_MARK_BYTES).hex()})"

    async def _blocks(self, hashes: list[str]) -> list[Block]:
        return [block_of(await self._ask("getblockheader", mined)) for mined in hashes]

    async def _ask(self, method: str, *parameters: Any) -> Any:
        """Return the node's answer. Raises `ValueError` for a no, `Unreachable`."""
        try:
            return await self._node.call(method, *parameters)
        except RpcError as no:
            raise ValueError(f"{self.process.name} says no: {no.reason}") from None

    # -- the beginning

    async def _open_wallet(self) -> None:
        known = await self._node.call("listwalletdir")
        exists = any(wallet["name"] == WALLET for wallet in known["wallets"])
        _ = await self._node.call("loadwallet" if exists else "createwallet", WALLET)

    async def _mine_first(self) -> None:
        """Mine the strangers' money."""
        left, own = self._kind.first_blocks, await self._wallet.call("getnewaddress")
        while left > 0:
            count = min(left, _AT_ONCE)
            _ = await self._node.call("generatetoaddress", count, own)
            left -= count
        await self.keep()

    @staticmethod
    def _now_s(clock: Clock) -> int:
        return clock.now_ms() // 1_000
