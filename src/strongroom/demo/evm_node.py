"""A demo's EVM node: anvil, with the contracts of the demo's tokens, and a stranger who is rich in all of it.

The stranger is the first of the accounts that the node signs for. It makes the contracts with its first nonces, so that
they have the same addresses in every demo. The node has no password: it listens on loopback, and nothing on it is worth
anything. It holds no key of the house.
"""

from __future__ import annotations

import signal
from importlib import resources
from pathlib import Path
from typing import Any, Final

import msgspec

from strongroom.clock import Clock
from strongroom.config.settings import Node as NodeSettings
from strongroom.custody import formats
from strongroom.custody.chain import Block, Payee
from strongroom.custody.families import NATIVE
from strongroom.custody.networks.evm import RIVAL_BLOCKS
from strongroom.custody.networks.evm_reading import FullBlock, Header, Receipt, Transaction, address_of, quantity, read
from strongroom.custody.networks.evm_transactions import target_of
from strongroom.custody.rpc import Node, RpcError
from strongroom.demo.chains import TOKENS, DemoChain
from strongroom.demo.process import HOST, NodeProcess, free_port
from strongroom.errors import check

CHAIN_ID: Final = 31_337
STATE_FILE: Final = "state"
FIRST_BLOCKS: Final = 1
"""The contracts are in the first block; the house is not there before it."""

KEPT_EVERY_S: Final = 60
"""So often the node writes its chain out, beside when it ends."""

_KNOWN_BLOCKS: Final = RIVAL_BLOCKS + 32
_SUPPLY: Final = 10**16
_ETHER: Final = 10**9
_PLAIN_GAS: Final = 21_000
_CALL_GAS: Final = 100_000
_CONTRACT_GAS: Final = 3_000_000
_BALANCE_OF: Final = "0x70a08231"  # first four bytes of the hash of balanceOf(address)
_MINT: Final = "0x40c10f19"  # first four bytes of the hash of mint(address,uint256)
_WORD_CHARS: Final = 64
_REFUSES: Final = "0x60006000fd"
"""A contract that undoes every call."""


class _Made(msgspec.Struct, frozen=True, rename="camel"):
    contract_address: str


def evm_settings(url: str) -> NodeSettings:
    """Return the settings of the house's network for a node at an address."""
    return NodeSettings(url=url, chain="evm", chain_id=CHAIN_ID, start_height=FIRST_BLOCKS)


def bytecode_of(contract: str) -> str:
    """Return what makes a contract, in hex with 0x."""
    file = resources.files("strongroom.demo") / "contracts" / f"{contract}.json"
    return msgspec.json.decode(file.read_bytes())["bytecode"]


class EvmNode:
    """One node, to be started once: it plays the world outside on its network (`custody.outside.Outside`).

    With a `clock` the node goes by that one when it is told to mine, and not by the system's.
    """

    def __init__(self, chain: DemoChain, program: Path, folder: Path, clock: Clock | None = None) -> None:
        """Choose the node's port. Raises `AdminError` where none is free."""
        self.chain = chain
        self.process = NodeProcess(program, folder, signal.SIGINT)
        self.settings = evm_settings(f"http://{HOST}:{free_port()}")
        self._clock = clock
        self._node = Node(self.settings.url)
        self._stranger = ""
        self._undo_next = False

    async def start(self) -> None:
        """Start the node, with the contracts on it. Raises `AdminError`, `Unreachable`, `ValueError`."""
        state = ("--state", str(self.process.folder / STATE_FILE), "--state-interval", str(KEPT_EVERY_S))
        # Over a restart, too, it knows what was at the newest blocks, as other nodes do.
        history = ("--preserve-historical-states", "--prune-history", str(_KNOWN_BLOCKS))
        chain = ("--chain-id", str(CHAIN_ID), "--no-mining", "--slots-in-an-epoch", "1", "--balance", str(_ETHER))
        born = () if self._clock is None else ("--timestamp", str(self._clock.now_ms() // 1_000))
        place = ("--host", HOST, "--port", str(self.settings.url.rpartition(":")[2]))
        arguments = [*place, *chain, *state, *history, *born, "--silent"]
        await self.process.start(arguments, lambda: self._node.call("eth_chainId"))
        self._stranger = (await self._ask("eth_accounts"))[0]
        if not quantity(await self._ask("eth_blockNumber")):
            await self._make_contracts()

    async def stop(self) -> None:
        """Stop the node, and keep its chain for the next start."""
        await self._node.close()
        await self.process.stop()

    # -- what happens outside

    async def faucet(self, network: str, address: str, tag: str, asset_id: str, amount: int) -> str:
        """Let the stranger pay `amount`, in the smallest unit, to an address, and return the txid."""
        check(network == self.chain.network and not tag, "the node has its own network only")
        if amount > await self._has(asset_id):
            raise ValueError(f"the {self.chain.title} faucet has less than that")
        to, value, data = target_of(Payee(address, "", asset_id, amount))
        return await self._send(to=to, value=hex(value), data="0x" + data.hex(), gas=hex(_CALL_GAS))

    async def mine(self, network: str, count: int = 1) -> list[Block]:
        """Mine `count` blocks; the first takes what waits."""
        check(network == self.chain.network and count > 0, "the node mines its own chain")
        if self._clock is not None:
            _ = await self._ask("anvil_setTime", self._clock.now_ms() // 1_000)
        first = quantity(await self._ask("eth_blockNumber")) + 1
        if self._undo_next and (refused := await self._receivers()):
            await self._mine_undone(refused)
            count -= 1
        if count:
            _ = await self._ask("anvil_mine", hex(count))
        return await self._blocks(first)

    async def reorg(self, network: str, depth: int) -> list[Block]:
        """Replace the last `depth` blocks by `depth` + 1 new ones, which are returned.

        Their transactions are mined again in the newest one.
        """
        height = quantity(await self._ask("eth_blockNumber"))
        check(network == self.chain.network, "the node mines its own chain")
        check(1 <= depth <= min(height - FIRST_BLOCKS, RIVAL_BLOCKS), "a reorganisation spares the older blocks")
        first = height - depth + 1
        given_up = [await self._block(number) for number in range(first, height + 1)]
        txids = [transaction.hash for block in given_up for transaction in block.transactions]
        raw = [await self._ask("eth_getRawTransactionByHash", txid) for txid in txids]
        _ = await self._ask("anvil_reorg", depth, [])
        for transaction in raw:
            _ = await self._ask("eth_sendRawTransaction", transaction)
        _ = await self.mine(network)
        return await self._blocks(first)

    async def void(self, network: str, txid: str) -> None:
        """Let something else spend the nonce of the stranger's waiting transaction, for a fee that has it replaced."""
        check(network == self.chain.network, "the node has its own transactions")
        told = await self._ask("eth_getTransactionByHash", txid)
        fees = {name: hex(2 * quantity(told[name])) for name in ("maxFeePerGas", "maxPriorityFeePerGas")}
        _ = await self._send(to=self._stranger, value="0x0", nonce=told["nonce"], gas=hex(_PLAIN_GAS), **fees)

    def undo_next(self, network: str) -> None:
        """Have the next block with a payment of ours take its fee and pay nobody."""
        check(network == self.chain.network, "the node mines its own chain")
        self._undo_next = True

    # -- blocks

    async def _receivers(self) -> set[str]:
        """Return whom waiting transactions of others than the stranger go to: those are the house's."""
        waiting = read(await self._ask("eth_getBlockByNumber", "pending", True), FullBlock).transactions
        return {each.to for each in waiting if each.to and not self._is_strangers(each)}

    def _is_strangers(self, transaction: Transaction) -> bool:
        return address_of(transaction.sender) == formats.EVM.normalise(self._stranger)

    async def _mine_undone(self, receivers: set[str]) -> None:
        """Mine a block in which nobody at these addresses takes anything."""
        codes = {address: await self._ask("eth_getCode", address, "latest") for address in receivers}
        for address in codes:
            _ = await self._ask("anvil_setCode", address, _REFUSES)
        _ = await self._ask("anvil_mine", hex(1))
        for address, code in codes.items():
            _ = await self._ask("anvil_setCode", address, code)
        self._undo_next = False

    async def _block(self, height: int) -> FullBlock:
        return read(await self._ask("eth_getBlockByNumber", hex(height), True), FullBlock)

    async def _blocks(self, first: int) -> list[Block]:
        """Return the blocks from a height on."""
        newest = quantity(await self._ask("eth_blockNumber"))
        answers = [await self._ask("eth_getBlockByNumber", hex(it), False) for it in range(first, newest + 1)]
        return [read(answer, Header).block() for answer in answers]

    # -- the beginning

    async def _make_contracts(self) -> None:
        """Make the tokens' contracts, and all the tokens that there are for the stranger."""
        tokens = TOKENS[self.chain.network].values()
        code = bytecode_of("Token")
        made = [await self._send(data=code, gas=hex(_CONTRACT_GAS)) for _ in tokens]
        mint = _MINT + self._stranger[2:].rjust(_WORD_CHARS, "0") + f"{_SUPPLY:0{_WORD_CHARS}x}"
        minted = [await self._send(to=token, data=mint, gas=hex(_CALL_GAS)) for token in tokens]
        _ = await self.mine(self.chain.network, FIRST_BLOCKS)
        receipts = [await self._ask("eth_getTransactionReceipt", txid) for txid in (*made, *minted)]
        addresses = [formats.EVM.normalise(read(receipt, _Made).contract_address) for receipt in receipts[: len(made)]]
        check(addresses == list(tokens), "the contracts have the addresses of the settings")
        check(all(read(receipt, Receipt).succeeded for receipt in receipts), "the contracts are made")

    # -- questions

    async def _send(self, **call: str) -> str:
        """Let the stranger send a transaction, and return its txid. Raises `ValueError` for a no, `Unreachable`."""
        return await self._ask("eth_sendTransaction", {"from": self._stranger, **call})

    async def _has(self, asset_id: str) -> int:
        """Return what the stranger has of the native coin, or of a token."""
        if asset_id == NATIVE:
            return quantity(await self._ask("eth_getBalance", self._stranger, "latest"))
        call = {"to": asset_id, "data": _BALANCE_OF + self._stranger[2:].rjust(_WORD_CHARS, "0")}
        return int(await self._ask("eth_call", call, "latest"), 16)

    async def _ask(self, method: str, *parameters: Any) -> Any:
        """Return the node's answer. Raises `ValueError` for a no, `Unreachable`."""
        try:
            return await self._node.call(method, *parameters)
        except RpcError as no:
            raise ValueError(f"{self.process.name} says no: {no.reason}") from None
