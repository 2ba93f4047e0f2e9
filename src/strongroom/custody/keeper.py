"""The keeper: moves the house's own money on one network, so that the hot wallet has what it pays with, and not more.

    chain of accounts   what lies on deposit addresses is swept to the hot wallet; an address that cannot pay for the
                        sweep of its tokens gets gas first
    chain of coins      very many small coins are made one while fees are low
    both                less than the low mark is told; what is above the high mark is to go to the cold address

Like the sender it keeps nothing that matters in memory: it only reserves moves, and the sender carries them out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from itertools import groupby
from typing import Final, Protocol, cast

import msgspec
import structlog

from strongroom.crashpoints import reach
from strongroom.custody.chain import (
    Chain,
    ChainError,
    Funds,
    InsufficientFunds,
    NeedsGas,
    Payee,
    PositionOf,
    Rejected,
)
from strongroom.custody.sender import BACK_OFF_S
from strongroom.engine.port import StoreError
from strongroom.engine.state import State
from strongroom.errors import PARAMETER_INVALID, InvariantBroken, Refused
from strongroom.records.coins import Coin, Pot
from strongroom.records.settings import OfferSettings
from strongroom.records.withdrawals import Payment, PaymentPurpose
from strongroom.wallet.context import Context
from strongroom.wallet.epochs import WAITS, waits
from strongroom.wallet.holdings import chain_units
from strongroom.wallet.moves import Move, ReserveMove, prepare_move
from strongroom.wallet.payments import Draft, free_coins, next_nonce, open_payments
from strongroom.wallet.pots import due_pots
from strongroom.wallet.settlements import fee_asset_of

MAX_OPEN: Final = 2_000
MAX_SWEEPS_AT_ONCE: Final = 100
"""A network has at most this many moves under way."""

COINS_AT_ONCE: Final = 100
"""So many of the smallest coins become one at once."""

IDLE_S: Final = 60.0

log = structlog.get_logger("keeper")


class Marks(msgspec.Struct, frozen=True):
    """An asset's marks in the chain's unit, 0 for none: see the settings `hot`."""

    low: int = 0
    high: int = 0
    keep: int = 0
    sweep_above: int = 0


class KeeperTerms(msgspec.Struct, frozen=True):
    """How a hot wallet is kept: the marks by asset, the cold address, and from how many coins on they are made few."""

    marks: Mapping[int, Marks] = {}
    cold_address: str = ""
    consolidate_above: int = 0


class Sweepable(Chain, Protocol):
    """A chain of accounts whose deposit addresses have money apart from the hot wallet's."""

    async def sweep(self, position: int, asset_id: str, units: int) -> Move:
        """Return a move to the hot wallet of what lies on a deposit address. Raises `NeedsGas`, `Rejected`."""
        ...

    async def gas(self, position: int, units: int, funds: Funds) -> Move:
        """Return a move of the native coin to a deposit address. Raises `InsufficientFunds`, `Rejected`."""
        ...

    async def held(self, positions: Sequence[int], asset_id: str) -> Sequence[int]:
        """Return what lies on each of our addresses, in blocks, by their positions."""
        ...

    async def lies_at(self, address: str, asset_id: str) -> int:
        """Return what lies on any address, in blocks."""
        ...

    async def fill(self, draft: Draft) -> Draft | None:
        """Return a payment to the hot wallet itself that spends a draft's nonce in its place; None beyond the cap."""
        ...

    async def waiting(self, position_of: PositionOf) -> Sequence[str]:
        """Return the transactions of our addresses that wait to be mined, by their txids."""
        ...


class Consolidating(Chain, Protocol):
    """A chain of coins."""

    async def consolidation(self, coins: Sequence[Coin]) -> Move:
        """Return a move that makes one coin of many. Raises `Rejected` while that is dear."""
        ...

    def txid_of(self, body: bytes) -> str:
        """Return what a body's transaction will be called, whoever signs it."""
        ...


class KeeperStatus(msgspec.Struct):
    """How a hot wallet stands: `hot` is what it can spend by asset in the chain's unit; `low` and `high` are the assets
    that are beyond their marks, `trouble` says why nothing goes on."""

    network: str
    trouble: str = ""
    hot: dict[int, int] = {}
    low: frozenset[int] = frozenset()
    high: frozenset[int] = frozenset()


class Keeper:
    """The loop that keeps one network's hot wallet; at most one should run per network, but two do no harm.

    `offered` are payments to the cold address that are away to be signed and reserve nothing yet, by their references;
    `replacing` are dearer transactions of those that came back, which are away to be signed as well.
    """

    def __init__(
        self, context: Context, chain: Chain, network: int, terms: KeeperTerms, drafting: asyncio.Lock | None = None
    ) -> None:
        """Make it; `drafting` is held while something is drafted and reserved, which the sender does as well."""
        self._context = context
        self._chain = chain
        self._network = network
        self._terms = terms
        self._drafting = drafting or asyncio.Lock()
        self._at = reach
        self._asked = asyncio.Event()
        self._waiting: dict[int, str] = {}
        self.offered: dict[int, ReserveMove] = {}
        self.replacing: dict[int, Draft] = {}
        self.status = KeeperStatus(chain.network)
        context.reads.subscribe(self._notice)

    @property
    def chain(self) -> Chain:
        """The network as its node tells it."""
        return self._chain

    @property
    def terms(self) -> KeeperTerms:
        """How the hot wallet is kept."""
        return self._terms

    async def run(self) -> None:
        """Keep until cancelled: look when something arrived or a payment has ended, and every minute."""
        failures = 0
        while True:
            self._asked.clear()
            failures = 0 if await self.step() else failures + 1
            wait_s = BACK_OFF_S[min(failures, len(BACK_OFF_S)) - 1] if failures else IDLE_S
            try:
                async with asyncio.timeout(wait_s):
                    _ = await self._asked.wait()
            except TimeoutError:
                pass

    async def step(self) -> bool:
        """Reserve every move that is due; return False if the node or the books did not answer."""
        if waits(self._context.reads, self._network):
            self.status.trouble = WAITS
            return True
        try:
            if self._chain.needs_sweeps:
                await self._sweep(self._open())
            else:
                await self._consolidate(self._open())
            await self._weigh(self._open())
        except (ChainError, Refused, StoreError) as trouble:
            if str(trouble) != self.status.trouble:
                log.warning("keeper_waits", network=self._chain.network, reason=str(trouble))
            self.status.trouble = str(trouble)
            return False
        self.status.trouble = ""
        return True

    def _notice(self, state: State) -> None:
        """Wake the loop when a commit changed what lies somewhere."""
        if any(key[0] is Pot or key[0] is Coin for key in state.rows):
            self._asked.set()

    def _open(self) -> list[Payment]:
        return open_payments(self._context.reads, self._network, MAX_OPEN)

    # -- sweeps

    async def _sweep(self, under_way: Iterable[Payment]) -> None:
        """Sweep every deposit address that has enough, one move an address at a time."""
        moves = [it for it in under_way if it.purpose in (PaymentPurpose.SWEEP, PaymentPurpose.GAS)]
        busy = {position for it in moves for position in (it.source, it.target)}
        room = MAX_SWEEPS_AT_ONCE - len(moves)
        for position, pots in groupby(due_pots(self._context.reads, self._network), lambda pot: pot.position):
            due = [] if position in busy else [pot for pot in pots if self._is_due(pot)]
            # Tokens first: what the native coin's sweep takes would be missing for theirs.
            due.sort(key=lambda pot: not self._offer(pot.asset).token)
            if due and room > 0 and await self._guarded(position, self._sweep_pot(due[0])):
                room -= 1

    def _is_due(self, pot: Pot) -> bool:
        """Say whether a pot has enough: gas for less than a deposit must have would be anybody's way to our ether."""
        offer, asset = self._offer(pot.asset), self._context.catalogue.assets[pot.asset]
        least = chain_units(offer.deposit_minimum, offer, asset)
        marks = self._terms.marks.get(pot.asset, Marks())
        return int(pot.chain_units) >= max(1, marks.sweep_above, least)

    async def _sweep_pot(self, pot: Pot) -> None:
        chain = cast(Sweepable, self._chain)
        async with self._drafting:
            try:
                move = await chain.sweep(pot.position, self._offer(pot.asset).token, int(pot.chain_units))
            except NeedsGas as needed:
                gas = await chain.gas(pot.position, needed.units, self._funds())
                return await self._reserve(PaymentPurpose.GAS, self._native, gas)
            return await self._reserve(PaymentPurpose.SWEEP, pot.asset, move)

    async def _guarded(self, position: int, work: Awaitable[None]) -> bool:
        """Do one address's work and say whether it was done; what stops this one alone is told once."""
        try:
            await work
        except (Rejected, InvariantBroken) as error:
            reason = str(error)
        except Refused as refusal:
            if refusal.error is not PARAMETER_INVALID:
                raise
            reason = refusal.message
        else:
            _ = self._waiting.pop(position, None)
            return True
        if self._waiting.get(position) != reason:
            log.info("not_swept", network=self._chain.network, position=position, reason=reason)
        self._waiting[position] = reason
        return False

    # -- coins

    async def _consolidate(self, under_way: Iterable[Payment]) -> None:
        """Make one coin of the smallest ones, where there are very many."""
        if not self._terms.consolidate_above or any(it.purpose == PaymentPurpose.CONSOLIDATION for it in under_way):
            return
        async with self._drafting:
            coins = free_coins(self._context, self._network)
            if len(coins) <= self._terms.consolidate_above:
                return
            smallest = sorted(coins, key=lambda coin: (coin.units, coin.outpoint))[:COINS_AT_ONCE]
            try:
                move = await cast(Consolidating, self._chain).consolidation(smallest)
            except Rejected as no:
                log.info("not_consolidated", network=self._chain.network, reason=str(no))
                return
            await self._reserve(PaymentPurpose.CONSOLIDATION, self._native, move)

    # -- marks

    async def _weigh(self, under_way: Iterable[Payment]) -> None:
        """Hold what the hot wallet has against its marks."""
        leaving = {it.asset for it in under_way if it.purpose == PaymentPurpose.COLD}
        low, high = set[int](), set[int]()
        for asset, marks in self._terms.marks.items():
            hot = self.status.hot[asset] = await self._hot(asset)
            if hot < marks.low:
                low.add(asset)
            if marks.high and hot > marks.high:
                high.add(asset)
                if self._chain.spends_coins and asset not in leaving:
                    await self._prepare_cold(asset, hot - marks.keep)
        self._tell_marks(frozenset(low), frozenset(high))

    def _tell_marks(self, low: frozenset[int], high: frozenset[int]) -> None:
        new = [("hot_wallet_low", asset) for asset in sorted(low - self.status.low)]
        new += [("hot_wallet_high", asset) for asset in sorted(high - self.status.high)]
        for name, asset in new:
            code = self._context.catalogue.assets[asset].code
            log.warning(name, network=self._chain.network, asset=code, units=self.status.hot[asset])
        self.status.low, self.status.high = low, high

    async def _hot(self, asset: int) -> int:
        """Return what the hot wallet can spend of an asset, in the chain's unit."""
        if self._chain.spends_coins:
            return sum(coin.units for coin in free_coins(self._context, self._network))
        return await self._chain.balance(self._offer(asset).token)

    async def _prepare_cold(self, asset: int, units: int) -> None:
        """Prepare a payment to the cold address, which waits for its signature."""
        async with self._drafting:
            try:
                move = await self.cold_move(asset, units)
            except InsufficientFunds as no:
                log.info("not_prepared_for_cold", network=self._chain.network, reason=str(no))
                return
            await self._reserve(PaymentPurpose.COLD, asset, move)
        log.warning("cold_payment_prepared", network=self._chain.network, units=units)

    async def cold_move(self, asset: int, units: int) -> Move:
        """Return a move of so many of the chain's units to the cold address. Raises `InsufficientFunds`, `Rejected`."""
        address = self._terms.cold_address
        draft = await self._chain.draft([Payee(address, "", self._offer(asset).token, units)], self._funds())
        return Move(draft, units, address)

    def prepare(self, purpose: PaymentPurpose, asset: int, move: Move) -> ReserveMove:
        """Return the command that makes a payment of a move that was drafted.

        What is signed elsewhere may be sent from there: so its transaction is known before, where it has a name.
        """
        coins = self._chain.spends_coins
        away = coins and purpose == PaymentPurpose.COLD
        txid = self.txid_of(move.draft) if away else ""
        return prepare_move(self._context, purpose, self._network, asset, move, coins=coins, txid=txid)

    def txid_of(self, draft: Draft) -> str:
        """Return what a draft's transaction will be called, on a chain of coins."""
        return cast(Consolidating, self._chain).txid_of(draft.body)

    # -- steps

    def _funds(self) -> Funds:
        if self._chain.spends_coins:
            return Funds(coins=tuple(free_coins(self._context, self._network)))
        return Funds(nonce=next_nonce(self._context, self._network))

    def _offer(self, asset: int) -> OfferSettings:
        offer = self._context.catalogue.offer_at(asset, self._network)
        if offer is None:
            raise PARAMETER_INVALID("asset is not on the network")
        return offer

    @property
    def _native(self) -> int:
        """Return the asset in which the chain takes its fees."""
        catalogue = self._context.catalogue
        return fee_asset_of(catalogue, catalogue.network(self._network))

    async def _reserve(self, purpose: PaymentPurpose, asset: int, move: Move) -> None:
        self._at("before commit move")
        outcome = await self._context.submit(self.prepare(purpose, asset, move))
        if outcome.refusal is not None:
            raise outcome.refusal
        if outcome.stale:
            # The same draft would be as stale again: after a reorganisation a nonce may look free that is reserved.
            raise Rejected("what it would spend is reserved")
        self._at("after commit move")
        log.info("move_reserved", network=self._chain.network, purpose=purpose.name.lower(), units=move.units)
