"""What the tests of chains of inputs and outputs share: a wallet's keys, its chain, and a real node to pay it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from strongroom.custody.chain import Candidate, Fate, Funds, Payee
from strongroom.custody.derivation import Branch, account_xpubs, master_fingerprint, seed_of
from strongroom.custody.families import BITCOIN, LITECOIN, Network
from strongroom.custody.networks.utxo import UtxoChain
from strongroom.custody.networks.utxo_parameters import CHAINS, CoinChain
from strongroom.custody.networks.utxo_signing import UtxoScheme
from strongroom.custody.networks.utxo_transactions import Body, select
from strongroom.records.coins import Coin
from strongroom.wallet.payments import Draft
from support.nodes import FIRST_COINS, Bitcoind, Litecoind, asking, need_node

SEED: Final = seed_of("abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about")
TAPROOT: Final = msgspec.structs.replace(BITCOIN, purpose=86)
LITECOIN_TAPROOT: Final = msgspec.structs.replace(LITECOIN, purpose=86)
BITCOIN_CHAIN: Final = CHAINS["bitcoin-regtest"]
LITECOIN_CHAIN: Final = CHAINS["litecoin-regtest"]
_BLOCKS: Final = 5


def branch_of(network: Network) -> Branch:
    """Return the deposit branch of a network's wallet."""
    return Branch(network, account_xpubs(SEED, [network])[network.id])


def three_coins(network: Network, parameters: CoinChain, stranger: str, rate_per_kvb: int = 5_000) -> Body:
    """Return a body that pays 120,000 of three coins of 50,000 at our positions 0, 1 and 2, with change."""
    branch = branch_of(network)
    funds = Funds(coins=tuple(Coin(1, f"{index + 1:064x}:{index}", index, 50_000, 1) for index in range(3)))
    payees = [Payee(stranger, "", "", 120_000)]
    return select(payees, funds, rate_per_kvb, parameters, lambda index: branch.address(index).address)


class CoinWallet(NamedTuple):
    """A node, and our view of its chain with the keys of one network."""

    outside: Bitcoind | Litecoind
    chain: UtxoChain
    scheme: UtxoScheme
    branch: Branch

    def address(self, position: int) -> str:
        """Return our address of a position."""
        return self.branch.address(position).address

    async def receive(self, position: int, amount_text: str) -> str:
        """Let a stranger pay one of our addresses; return the txid."""
        return await self.outside.pay(self.address(position), amount_text)

    async def coins_of(self, block_hash: str) -> tuple[Coin, ...]:
        """Return the coins that a block holds for our first addresses."""
        ours = {self.address(position): position for position in range(10)}
        return tuple(
            Coin(1, f"{it.txid}:{it.index}", ours[it.address], it.amount, height=1)
            for it in await self.chain.outputs_in(block_hash)
            if it.address in ours
        )

    async def funded(self, *amounts: str) -> Funds:
        """Return coins of these amounts at our positions 1, 2, ..., mined."""
        for position, amount in enumerate(amounts, 1):
            _ = await self.receive(position, amount)
        coins: list[Coin] = []
        # A busy node may leave one out of its next block.
        for _ in range(_BLOCKS):
            coins += await self.coins_of((await self.outside.mine(1))[0])
            if len(coins) == len(amounts):
                break
        return Funds(coins=tuple(coins))

    async def stranger(self, amount: int) -> Payee:
        """Return somebody to pay."""
        return Payee(await self.outside.stranger("getnewaddress"), "", "", amount)

    def signed(self, draft: Draft) -> Candidate:
        """Return a draft's candidate."""
        return self.chain.assemble(draft.body, self.scheme.sign(draft.body))

    async def pay(self, draft: Draft) -> str:
        """Sign and broadcast a draft; return the txid."""
        return await self.chain.broadcast(self.signed(draft).blob)

    async def fate(self, txid: str, draft: Draft) -> Fate:
        """Return what the chain knows of a draft's transaction."""
        return (await self.chain.transaction(txid, draft.spends)).fate


@asynccontextmanager
async def coin_wallet(
    kind: type[Bitcoind | Litecoind], folder: Path, network: Network, parameters: CoinChain, *options: str
) -> AsyncIterator[CoinWallet]:
    """Start a node whose stranger is rich, and stop it in the end."""
    _ = need_node(kind.program)
    branch = branch_of(network)
    async with kind(folder, *options) as outside, asking(outside.url) as node:
        chain = UtxoChain(
            network,
            parameters,
            node,
            lambda index: branch.address(index).address,
            poll_s=0.05,
            keys=branch,
            fingerprint=master_fingerprint(SEED),
        )
        await outside.mine(FIRST_COINS)
        yield CoinWallet(outside, chain, UtxoScheme(SEED, network, parameters), branch)
