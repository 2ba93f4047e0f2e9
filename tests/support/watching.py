"""A house that watches simulated chains: addresses from real branches, deposits from a faucet, all in one loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from strongroom.clock import Clock
from strongroom.custody.chain import Output
from strongroom.custody.derivation import Branch, account_xpubs
from strongroom.custody.families import NETWORKS
from strongroom.custody.networks.simulated import SimulatedNode
from strongroom.custody.pool import AddressPools, Source
from strongroom.custody.watcher import Watcher
from strongroom.engine.command import NOBODY, Command, Decision, View
from strongroom.ledger.accounts import Account, Purpose, available, house, omnibus, owed
from strongroom.ledger.entries import Posting
from strongroom.records.chains import Holding
from strongroom.records.deposits import Deposit, DepositState
from strongroom.records.heads import Head, head_of
from strongroom.records.history import Line, LineType, Thread
from strongroom.records.kept import Key
from strongroom.records.settings import SETTINGS_KEY, AssetSettings, NetworkSettings, OfferSettings, Settings
from strongroom.wallet.addresses import AddressRule, GivenAddress, give_address
from strongroom.wallet.catalogue import catalogue_of
from strongroom.wallet.context import perform_own
from strongroom.wallet.deposits import offered
from strongroom.wallet.holdings import chain_units, holding_change, holding_needs
from strongroom.wallet.settings import prepare_settings
from support.world import BITCOIN, ERC20, SNAPSHOT, AnyStore, World, opened

XRP, RIPPLE = 9, 9
CODES = {BITCOIN: "BITCOIN", ERC20: "ERC20", RIPPLE: "RIPPLE"}
COIN = 100_000_000
XPUBS = account_xpubs(bytes(range(64)), NETWORKS.values())
BRANCHES = {number: Branch(NETWORKS[code], XPUBS[code]) for number, code in CODES.items()}

Change = Callable[[OfferSettings], OfferSettings]


class Leave(Command, frozen=True):
    """Take coins of a user off a chain, as a payment that is final does."""

    owner: int
    asset: int
    network: int
    units: int

    def needs(self) -> list[Key]:
        """Everything that is touched."""
        return [
            SETTINGS_KEY,
            head_of(available(self.owner, self.asset)),
            *holding_needs(self.network, self.asset),
        ]

    def decide(self, view: View, now_ms: int) -> Decision:
        """Book it."""
        offer, found = offered(catalogue_of(view.get(Settings, 0).snapshot), self.network, self.asset)
        rows, delta = holding_change(view, offer, found, -chain_units(self.units, offer, found))
        postings = [
            Posting(available(self.owner, self.asset), -self.units),
            Posting(omnibus(self.network, self.asset), -delta),
            Posting(house(Purpose.DUST, self.asset), delta + self.units),
        ]
        return Decision(postings, rows)


class Watched:
    """A world with a node, pools and watchers at work."""

    def __init__(self, world: World, node: SimulatedNode) -> None:
        self.world = world
        self.node = node
        self.context = world.context
        world._signatures = 1_000 * world.store.last()[0]  # so that none is used again after a restart
        self.context.formats = {code: NETWORKS[code].format for code in CODES.values()}
        self.pools = AddressPools(
            self.context, {number: Source(BRANCHES[number], node.chain(code)) for number, code in CODES.items()}
        )
        self.told: list[tuple[str, Output]] = []
        self.watchers = {number: self.watcher(number) for number in CODES}

    def watcher(self, network: int) -> Watcher:
        """Return one more watcher of a network, which is not running."""
        chain = self.node.chain(CODES[network])
        return Watcher(self.context, chain, network, report=lambda why, what: self.told.append((why, what)))

    async def settled(self) -> None:
        """Wait until every watcher has seen all that there is."""
        for watcher in self.watchers.values():
            await watcher.settled()

    async def address(
        self, owner: int, asset: str, network: str | None = None, rule: AddressRule = AddressRule.TEN_UNUSED
    ) -> GivenAddress:
        """Give a user an address."""
        outcome = await give_address(self.context, self.world.guard(owner), self.pools, asset, network, rule)
        if outcome.refusal is not None:
            raise outcome.refusal
        return msgspec.json.decode(outcome.result, type=GivenAddress)

    async def pay(self, network: int, to: GivenAddress, amount: int, token: str = "") -> str:
        """Let a stranger pay an address; return the txid."""
        return await self.node.faucet(CODES[network], to.address, to.tag, token, amount)

    async def mine(self, network: int, count: int = 1) -> None:
        """Mine blocks and wait until they are worked through."""
        await self.node.mine(CODES[network], count)
        await self.watchers[network].settled()

    async def reorg(self, network: int, depth: int, *drop: str) -> None:
        """Replace the newest blocks and wait until that is worked through."""
        await self.node.reorg(CODES[network], depth, drop)
        await self.watchers[network].settled()

    async def leave(self, owner: int, asset: int, network: int, units: int) -> None:
        """Let coins of a user leave the house by a payment that is final."""
        await perform_own(self.context, lambda: Leave(NOBODY, owner, asset, network, units))

    async def change_offer(self, asset: int, **changes: object) -> None:
        """Change an asset's offers."""
        snapshot = self.context.reads.row(Settings, 0).snapshot
        offers = tuple(
            msgspec.structs.replace(offer, **changes) if offer.asset == asset else offer for offer in snapshot.offers
        )
        changed = msgspec.structs.replace(snapshot, offers=offers)
        await perform_own(self.context, lambda: prepare_settings(self.context, NOBODY, changed))

    def deposits(self, **equal: int | str) -> list[Deposit]:
        """Return the deposits whose fields equal these, oldest first."""
        return self.context.reads.rows(Deposit, equal, 1000)

    def states(self) -> list[DepositState]:
        """Return the states of all deposits, oldest first."""
        return [DepositState(deposit.state) for deposit in self.deposits()]

    def balance(self, account: Account) -> int:
        """Return an account's balance."""
        return self.context.reads.row(Head, account.pack()).after

    def of_house(self, purpose: Purpose, asset: int) -> int:
        """Return the balance of one of the house's accounts."""
        return self.balance(house(purpose, asset))

    def debt(self, owner: int, asset: int) -> int:
        """Return what a customer owes."""
        return -self.balance(owed(owner, asset))

    def owned(self, network: int, asset: int) -> int:
        """Return what the house owns on a network by its omnibus account."""
        return -self.balance(omnibus(network, asset))

    def held(self, network: int, asset: int) -> int:
        """Return the exact total in chain units."""
        return int(self.context.reads.row(Holding, network, asset).chain_units)

    def deposit_lines(self, owner: int, asset: int) -> list[Line]:
        """Return a user's deposit lines of an asset, newest first."""
        found: list[Line] = []
        number = self.context.reads.row(Thread, owner, asset, LineType.DEPOSIT).newest
        while number:
            found.append(self.context.reads.line(number))
            number = found[-1].kind_before
        return found

    def sums(self) -> dict[int, int]:
        """Return the sum of all accounts by asset: the books are whole while each is 0."""
        sums: dict[int, int] = {}
        for account, balance, _ in self.context.reads.balances():
            asset = account >> 6 & 0xFFFF
            sums[asset] = sums.get(asset, 0) + balance
        return sums


SNAPSHOT_WITH_TAGS = msgspec.structs.replace(
    SNAPSHOT,
    assets=(*SNAPSHOT.assets, AssetSettings(XRP, "XRP", "XRP", fiat=False)),
    networks=(
        *SNAPSHOT.networks,
        NetworkSettings(RIPPLE, "RIPPLE", "Ripple", "Ripple", "ripple", confirmations=1, extension="tag"),
    ),
    offers=(*SNAPSHOT.offers, OfferSettings(XRP, RIPPLE, decimals=6, default=True)),
)


@asynccontextmanager
async def watching(store: AnyStore, chains: Path, *, run: bool = True) -> AsyncIterator[Watched]:
    """Run a house on a store and on the chains of a file; without `run` its watchers stand still."""
    node = SimulatedNode(chains, NETWORKS.values(), Clock())
    async with opened(store) as world:
        if RIPPLE not in world.context.catalogue.networks:
            await perform_own(world.context, lambda: prepare_settings(world.context, NOBODY, SNAPSHOT_WITH_TAGS))
        watched = Watched(world, node)
        tasks = [asyncio.create_task(watched.pools.run())]
        tasks += [asyncio.create_task(watcher.run()) for watcher in watched.watchers.values() if run]
        try:
            await watched.pools.ready()
            yield watched
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    node.close()
