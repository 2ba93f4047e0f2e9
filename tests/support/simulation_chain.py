"""The chains as a seed makes them: a bad line to the node, behind which an outside world does as it likes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from random import Random
from typing import Any, Final, TypeVar

from strongroom.custody.chain import (
    Block,
    Candidate,
    Funds,
    Output,
    Payee,
    PositionOf,
    Rejected,
    Spending,
    TransactionStatus,
    Unreachable,
)
from strongroom.custody.derivation import Branch
from strongroom.custody.keeper import Keeper, KeeperTerms
from strongroom.custody.networks.simulated import SimulatedChain
from strongroom.custody.sender import PaymentTerms
from strongroom.records.coins import Coin
from strongroom.wallet.moves import Move
from strongroom.wallet.payments import Draft
from support.simulation_coins import CONSOLIDATE_ABOVE, CoinedChain, use_coins
from support.simulation_house import COLD, SWEPT
from support.simulation_sweeps import SweptChain

Result = TypeVar("Result")

CheckSent = Callable[[str], None]
"""Told the network whenever something is handed to it."""

_LONG_S: Final = 3.0


class Line:
    """How well the node is reached: the odds of each trouble."""

    def __init__(self) -> None:
        self.slow = self.silent = self.rejecting = self.forgetful = 0.0


class DistantChain:
    """A network as seen over a line that is slow, broken or answers no: the chain port."""

    def __init__(
        self, chain: SimulatedChain, line: Line, chance: Random, check_alive: Callable[[], None], check_sent: CheckSent
    ) -> None:
        self._check_sent = check_sent
        self._chain = chain
        self._line = line
        self._chance = chance
        self._check_alive = check_alive

    @property
    def network(self) -> str:
        """Return the network's id."""
        return self._chain.network

    async def _through(self, ask: Callable[[], Awaitable[Result]]) -> Result:
        """Ask the node after a while, and hear the answer a while later, or never."""
        await self._wait()
        if self._chance.random() < self._line.silent:
            raise Unreachable("the question was lost")
        answer = await ask()
        await self._wait()
        return answer

    async def _wait(self) -> None:
        if self._chance.random() < self._line.slow:
            await asyncio.sleep(self._chance.random() ** 4 * _LONG_S)
        self._check_alive()

    async def check_identity(self) -> None:
        """See whether the node answers."""
        await self._through(self._chain.check_identity)

    async def tip(self) -> Block:
        """Return the newest block of the best chain."""
        return await self._through(self._chain.tip)

    async def block_at(self, height: int) -> Block | None:
        """Return the best chain's block at `height`."""
        return await self._through(lambda: self._chain.block_at(height))

    async def outputs_in(self, block_hash: str) -> Sequence[Output]:
        """Return every output of a block."""
        return await self._through(lambda: self._chain.outputs_in(block_hash))

    async def spends_in(self, block_hash: str, position_of: PositionOf) -> Sequence[Spending]:
        """Return the house's own transactions of a block."""
        return await self._through(lambda: self._chain.spends_in(block_hash, position_of))

    async def mempool(self) -> Sequence[Output]:
        """Return what waits to be mined."""
        return await self._through(self._chain.mempool)

    async def transaction(self, txid: str, spends: Sequence[str] = ()) -> TransactionStatus:
        """Return where a transaction stands."""
        return await self._through(lambda: self._chain.transaction(txid, spends))

    async def lies_at(self, address: str, asset_id: str) -> int:
        """Return what lies on any address."""
        return await self._through(lambda: self._chain.lies_at(address, asset_id))

    async def inputs_of(self, txid: str) -> Sequence[str]:
        """Return what a stranger's transaction spends."""
        return await self._through(lambda: self._chain.inputs_of(txid))

    async def watch(self, addresses: Collection[str]) -> None:
        """Tell the node that addresses are ours."""
        await self._through(lambda: self._chain.watch(addresses))

    async def balance(self, asset_id: str) -> int:
        """Return what the hot wallet can spend."""
        return await self._through(lambda: self._chain.balance(asset_id))

    async def unspent(self, outpoints: Sequence[str], *, waiting: bool = False) -> Collection[str]:
        """Return those of the outputs that are unspent."""
        return await self._through(lambda: self._chain.unspent(outpoints, waiting=waiting))

    @property
    def spends_coins(self) -> bool:
        """Tell whether payments spend coins."""
        return self._chain.spends_coins

    @property
    def needs_sweeps(self) -> bool:
        """Tell whether deposits must be swept."""
        return self._chain.needs_sweeps

    @property
    def payees_at_once(self) -> int:
        """Return how many payees one transaction may have."""
        return self._chain.payees_at_once

    async def draft(self, payees: Sequence[Payee], funds: Funds) -> Draft:
        """Return a payment to be signed."""
        return await self._through(lambda: self._chain.draft(payees, funds))

    async def redraft(self, draft: Draft) -> Draft | None:
        """Return the same payment for a higher fee."""
        return await self._through(lambda: self._chain.redraft(draft))

    async def sweep(self, position: int, asset_id: str, units: int) -> Move:
        """Return a move of what lies on a deposit address."""
        return await self._through(lambda: self._swept.sweep(position, asset_id, units))

    async def consolidation(self, coins: Sequence[Coin]) -> Move:
        """Return a move that makes one coin of many."""
        return await self._through(lambda: self._coined.consolidation(coins))

    def txid_of(self, body: bytes) -> str:
        """Return what a body's transaction will be called."""
        return self._coined.txid_of(body)

    @property
    def _coined(self) -> CoinedChain:
        assert isinstance(self._chain, CoinedChain)
        return self._chain

    async def gas(self, position: int, units: int, funds: Funds) -> Move:
        """Return a move of the native coin to a deposit address."""
        return await self._through(lambda: self._swept.gas(position, units, funds))

    async def held(self, positions: Sequence[int], asset_id: str) -> Sequence[int]:
        """Return what lies on each of our addresses."""
        return await self._through(lambda: self._swept.held(positions, asset_id))

    async def waiting(self, position_of: PositionOf) -> Sequence[str]:
        """Return the transactions of our addresses that wait to be mined."""
        return await self._through(lambda: self._swept.waiting(position_of))

    @property
    def _swept(self) -> SweptChain:
        assert isinstance(self._chain, SweptChain)
        return self._chain

    def assemble(self, body: bytes, signature: bytes) -> Candidate:
        """Put a payment and its signature together."""
        return self._chain.assemble(body, signature)

    def unsigned(self, body: bytes) -> str:
        """Return a payment for a signer elsewhere."""
        return self._chain.unsigned(body)

    def import_signed(self, body: bytes, text: str) -> Candidate:
        """Put a payment and what a signer elsewhere made of it together."""
        return self._chain.import_signed(body, text)

    async def broadcast(self, blob: bytes) -> str:
        """Hand a payment to the network; the node may say no, or take it without anybody hearing so."""
        self._check_sent(self.network)
        await self._wait()
        if self._chance.random() < self._line.rejecting:
            raise Rejected("the node does not like it now")
        if self._chance.random() < self._line.silent:
            raise Unreachable("the question was lost")
        txid = await self._chain.broadcast(blob)
        if self._chance.random() < self._line.forgetful:
            raise Unreachable("the answer was lost")
        await self._wait()
        return txid

    async def wait_change(self, seen: int, timeout_s: float) -> int:
        """Return the change number once it is not `seen` any more."""
        return await self._chain.wait_change(seen, timeout_s)


def watch_through(
    treasury: Any,
    line: Line,
    chance: Random,
    check_alive: Callable[[], None],
    check_sent: CheckSent,
    *,
    moves: bool,
    coins: bool,
) -> None:
    """Let the watchers, senders, keepers and pools of a house see their chains over a line."""
    if coins:
        use_coins(treasury)
    if moves:
        _keep(treasury)
    distant = {
        code: DistantChain(treasury.node.chain(code), line, chance, check_alive, check_sent)
        for code in sorted(treasury.watchers)
    }
    for code, chain in distant.items():
        watcher = treasury.watchers[code]
        watcher._chain = watcher.restoration._chain = treasury.senders[code]._chain = chain
        if moves:
            treasury.keepers[code]._chain = chain
        # Impatient, and several customers in one transaction where the chain can do that.
        treasury.senders[code]._terms = PaymentTerms(batch=3, redraft_after_s=2)
    treasury.pools._sources = treasury._sources = {
        number: source._replace(chain=distant[source.chain.network]) for number, source in treasury._sources.items()
    }


def _address_at(branch: Branch, position: int) -> str:
    return branch.address(position).address


def _keep(treasury: Any) -> None:
    """Let one of the networks need sweeps, and give every network a keeper and a cold address."""
    for number, source in treasury._sources.items():
        code = source.chain.network
        if code in SWEPT:
            chain = SweptChain(treasury.node._store, source.chain.spec, partial(_address_at, source.branch))
            treasury.node._chains[chain.network] = chain
        above = CONSOLIDATE_ABOVE if source.chain.spends_coins else 0
        sender, terms = treasury.senders[code], KeeperTerms(cold_address=COLD[code], consolidate_above=above)
        keeper = Keeper(treasury._context, treasury.node.chain(code), number, terms, sender._drafting)
        treasury.keepers[code] = keeper
        # What a restored house finds there is its own.
        treasury.watchers[code]._cold = treasury.watchers[code].restoration._cold = COLD[code]
