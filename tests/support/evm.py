"""An EVM network for the tests: a node with the test contracts deployed, and our view of its chain."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from eth_abi.abi import encode
from eth_utils.crypto import keccak

from strongroom.custody.chain import Candidate, Payee
from strongroom.custody.derivation import Branch, account_xpubs
from strongroom.custody.formats import EVM
from strongroom.custody.networks.evm import EvmChain
from strongroom.custody.networks.evm_signing import EvmScheme
from strongroom.custody.networks.evm_transactions import network_of
from strongroom.custody.rpc import Node
from strongroom.demo.evm_node import bytecode_of
from strongroom.wallet.payments import Draft
from support.nodes import Anvil, asking

SEED: Final = bytes(range(64))
ETHER: Final = 10**18
CONTRACTS: Final = Path(__file__).parents[1] / "data" / "evm"
"""The contracts of the tests, beside those that demos have too."""

PLAIN: Final = network_of("ETHEREUM", {})
_BRANCH: Final = Branch(PLAIN, account_xpubs(SEED, [PLAIN])["ETHEREUM"])
HOT: Final = _BRANCH.address(0).address
OURS: Final = _BRANCH.address(1).address
"""A customer's deposit address, at position 1."""

THEIRS: Final = "0x00000000000000000000000000000000DeaDBeef"
"""Somebody else's address."""


def address_at(position: int) -> str:
    """Return our address of a position."""
    return _BRANCH.address(position).address


class EvmWorld:
    """The node, the contracts' addresses in EIP-55, our view of the chain and our signer."""

    def __init__(self, anvil: Anvil, node: Node, token: str, payer: str) -> None:
        self.anvil = anvil
        self.token = token
        self.payer = payer
        network = network_of("ETHEREUM", {token: 6})
        self.chain = EvmChain(network, anvil.chain_id, address_at, [token], node, poll_s=0.02)
        self.scheme = EvmScheme(SEED, network, anvil.chain_id)

    async def call(self, to: str, signature: str, *values: Any, wei: int = 0, gas: int = 200_000) -> str:
        """Let the stranger call a contract, `gas` given so that nothing is tried out first; return the txid."""
        call = {"from": (await self.anvil.accounts())[0], "to": to, "data": call_data(signature, *values)}
        return await self.anvil.rpc("eth_sendTransaction", call | {"value": hex(wei), "gas": hex(gas)})

    async def fund(self, ether: int = 10, tokens: int = 1_000_000) -> None:
        """Give the hot wallet money, in blocks of their own."""
        await self.anvil.pay(HOT, ether * ETHER)
        await self.call(self.token, "mint(address,uint256)", HOT, tokens)
        await self.anvil.mine(1)

    def signed(self, draft: Draft) -> Candidate:
        """Return a draft's candidate."""
        return self.chain.assemble(draft.body, self.scheme.sign(draft.body))

    def ether_to(self, amount: int, address: str = THEIRS) -> Payee:
        """Return somebody to whom native coin is paid."""
        return Payee(address, "", "", amount)

    def token_to(self, amount: int, address: str = THEIRS) -> Payee:
        """Return somebody to whom the token is paid."""
        return Payee(address, "", self.token, amount)


def call_data(signature: str, *values: Any) -> str:
    """Return the data that calls a contract's function, named as in `mint(address,uint256)`."""
    types = [kind for kind in signature[signature.index("(") + 1 : -1].split(",") if kind]
    return "0x" + (keccak(text=signature)[:4] + encode(types, values)).hex()


async def deploy(anvil: Anvil, name: str) -> str:
    """Put one of the contracts on the chain, the demo's token or one of the tests', and return its address."""
    own = CONTRACTS / f"{name}.json"
    bytecode = json.loads(own.read_text("utf-8"))["bytecode"] if own.exists() else bytecode_of(name)
    call = {"from": (await anvil.accounts())[0], "data": bytecode, "gas": hex(3_000_000)}
    txid = await anvil.rpc("eth_sendTransaction", call)
    _ = await anvil.mine(1)
    receipt = await anvil.rpc("eth_getTransactionReceipt", txid)
    return EVM.normalise(receipt["contractAddress"])


@asynccontextmanager
async def evm_world(folder: Path) -> AsyncIterator[EvmWorld]:
    """Run a node with the contracts on it, which mines only when told to."""
    async with Anvil(folder) as anvil, asking(anvil.url) as node:
        await anvil.set_automine(False)
        token, payer = await deploy(anvil, "Token"), await deploy(anvil, "Payer")
        yield EvmWorld(anvil, node, token, payer)
