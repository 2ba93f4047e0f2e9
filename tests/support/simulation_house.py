"""The house of the simulation: its settings, its people and its coins, made once and copied for every seed."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from random import Random
from typing import Any, Final, NamedTuple
from unittest import mock

from strongroom import application, treasury
from strongroom.application import Application
from strongroom.config.settings import Asset, Config, Fee, Network, Offer, Rates, Simulation, Tier
from strongroom.engine.command import NOBODY
from strongroom.ledger.accounts import Purpose, house
from strongroom.records.addresses import Placed
from strongroom.records.history import LineType
from strongroom.wallet import addresses
from strongroom.wallet.addresses import AddressRule, GiveAddress, house_address
from strongroom.wallet.bookings import FundHouse, prepare_booking
from strongroom.wallet.context import perform_own
from strongroom.wallet.keys import KeyTerms, prepare_key
from strongroom.wallet.users import prepare_user
from support.simulation_coins import CoinSigner, use_coins
from support.simulation_loop import NoThread, SimulatedClock, SimulatedIds, Timeline, VirtualLoop

MASTER_KEY: Final = bytes(range(32))
COIN: Final = 100_000_000
BTC, ETH, USDT = 1, 2, 3
CODES: Final = {BTC: "BTC", ETH: "ETH", USDT: "USDT"}
ASSETS: Final = (BTC, USDT)
"""What customers move; ether pays the chain's fees only."""

NETWORKS: Final = {BTC: "BITCOIN", ETH: "ERC20", USDT: "ERC20"}
NUMBERS: Final = {"BITCOIN": 1, "ERC20": 2}
SWEPT: Final = frozenset({"ERC20"})
"""Networks whose deposit addresses are swept."""

COLD: Final = {
    "BITCOIN": "bcrt1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3qzf4jry",
    "ERC20": "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
}
"""Where the house's cold money is: examples of BIP-173 and EIP-55."""

COLD_FEE: Final = {BTC: 0, USDT: 0}
"""What the chain takes of what comes back from there."""

TOKENS: Final = {BTC: "", ETH: "", USDT: "USDT"}
CHAIN_UNIT: Final = {BTC: 1, USDT: 100}
"""Ledger units in a unit of the chain."""

WITHDRAW_FEE: Final = {BTC: 50_000, USDT: 5 * COIN}
DEPOSIT_FEE: Final = {BTC: 0, USDT: 1 * COIN}
DEPOSIT_MINIMUM: Final = {BTC: 10_000, USDT: 0}
FAMILY: Final = {"alice", "alice-sub1"}
OPENING: Final = {
    "alice": {BTC: 2 * COIN, USDT: 6_000 * COIN},
    "bob": {BTC: 1 * COIN, USDT: 4_000 * COIN},
    "carol": {BTC: COIN // 2, USDT: 9_000 * COIN},
    "alice-sub1": {BTC: COIN // 4, USDT: 500 * COIN},
}
AHEAD: Final = 20
"""So many addresses beyond a backup's are watched: no seed asks for so many."""

_STOCK_COINS: Final = 2
"""In so many coins the house begins, where it has coins."""

_NEVER_S: Final = 31_536_000.0


class Member(NamedTuple):
    """A customer with an API key and a deposit address per asset."""

    uid: int
    name: str
    key: str
    secret: str
    homes: dict[int, str]


class Template(NamedTuple):
    """A founded house at rest: its files, its people, and what its journal and balances were."""

    files: dict[str, bytes]
    members: dict[str, Member]
    items: int
    balances: dict[int, int]
    ended_s: float


def config_of(folder: Path) -> Config:
    """Return the settings of the simulated house."""
    bitcoin = Network(number=1, short_name="Bitcoin", family="bitcoin", confirmations=2, fee_asset="BTC")
    ether = Network(number=2, short_name="Ethereum", family="evm", confirmations=3, fee_asset="ETH")
    return Config(
        data=str(folder),
        port=0,
        drain_s=0,
        finish_s=30,
        approval_expires_s=8,
        rate_limits={"default": Tier(unlimited=True)},
        rates=Rates(
            table={"BTC/USDT": "60000", "ETH/USDT": "3000.5"},
            table_as_of="2026-09-21T00:00:00Z",
            table_max_age_s=10**9,
            ecb=False,
        ),
        simulation=Simulation(enabled=True, seconds_per_block=_NEVER_S),
        assets={
            "BTC": Asset(number=BTC, name="Bitcoin"),
            "ETH": Asset(number=ETH, name="Ether"),
            "USDT": Asset(number=USDT, name="Tether"),
        },
        networks={"BITCOIN": bitcoin, "ERC20": ether},
        offers={
            "BTC": {
                "BITCOIN": Offer(
                    decimals=8,
                    default=True,
                    deposit_minimum="0.0001",
                    withdraw_minimum="0.001",
                    withdraw_fee=Fee(minimum="0.0005"),
                    approve_above="0.2",
                )
            },
            "ETH": {"ERC20": Offer(decimals=18, default=True)},
            "USDT": {
                "ERC20": Offer(
                    decimals=6,
                    token="USDT",
                    default=True,
                    deposit_fee=Fee(minimum="1"),
                    withdraw_fee=Fee(minimum="5"),
                    approve_above="2000",
                )
            },
        },
    )


@contextmanager
def hurried(*, coins: bool) -> Iterator[None]:
    """Work out once what is the same at every start of the house: its keys, its xpubs and its reference pages.

    With `coins` one of its networks is one of coins, and is signed for as such.
    """
    pages = _pages()
    with (
        mock.patch.object(application, "static_pages", return_value=pages),
        mock.patch.object(treasury, "account_xpubs", _xpubs),
        mock.patch.object(treasury, "LocalSigner", _coin_signer if coins else _signer),
        mock.patch.object(treasury, "Branch", _branch),
        mock.patch.object(addresses, "AHEAD", AHEAD),
    ):
        yield


_derive, _sign_with, _branch_of = treasury.account_xpubs, treasury.LocalSigner, treasury.Branch
_pages = cache(application.static_pages)
_made: dict[Any, Any] = {}


def _once(key: Any, make: Any) -> Any:
    if key not in _made:
        _made[key] = make()
    return _made[key]


def _xpubs(seed: bytes, networks: Any) -> Any:
    found = tuple(networks)
    return _once(("xpubs", seed, *(it.id for it in found)), lambda: _derive(seed, found))


def _signer(seed: bytes, networks: Any, _schemes: Any = None) -> Any:
    found = tuple(networks)
    return _once(("signer", seed, *(it.id for it in found)), lambda: _sign_with(seed, found))


def _coin_signer(seed: bytes, networks: Any, _schemes: Any = None) -> Any:
    found = tuple(networks)
    return _once(("coin signer", seed, *(it.id for it in found)), lambda: CoinSigner(seed, found))


def _branch(network: Any, xpub: str) -> Any:
    return _once(("branch", network.id, xpub), lambda: _Derived(network, xpub))


class _Derived(_branch_of):
    """A branch that derives each address once."""

    def addresses(self, first: int, count: int) -> list[Any]:
        return [self.address(position) for position in range(first, first + count)]

    def address(self, position: int) -> Any:
        return _once(("address", self.network.id, position), lambda: super(_Derived, self).address(position))


def template(scratch: Path, *, coins: bool) -> Template:
    """Return the founded house; the first time it is made, in a folder of its own under `scratch`."""
    return _once(("template", coins), lambda: _founded(scratch / "template", coins=coins))


def _founded(folder: Path, *, coins: bool) -> Template:
    timeline = Timeline()
    folder.mkdir(parents=True)
    loop = VirtualLoop(timeline, lambda executor: (0.0, 0.001))
    try:
        with hurried(coins=coins):
            founding = _Founding(folder, timeline, coins=coins)
            loop.run_until_complete(founding.found())
        files = {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != "lock"}
        return Template(files, founding.members, founding.items, founding.balances, timeline.now_s)
    finally:
        loop.close()
        shutil.rmtree(folder)


class _Founding:
    """Opens the house for the first time."""

    def __init__(self, folder: Path, timeline: Timeline, *, coins: bool) -> None:
        self._coins = coins
        clock = SimulatedClock(timeline)
        self._make = lambda: Application(
            config_of(folder), MASTER_KEY, clock, SimulatedIds(clock, Random("template")), NoThread()
        )
        self.members: dict[str, Member] = {}
        self.items = 0
        self.balances: dict[int, int] = {}

    async def found(self) -> None:
        """Open users, give them keys, addresses and money, and let coins arrive for the house."""
        self._application = self._make()
        if self._coins:
            use_coins(self._application.treasury)
        async with self._application.running():
            for name, money in OPENING.items():
                await self._join(name, money)
            await self._stock()
            self.items = self._application.store.last()[0]
            self.balances = {account: after for account, after, _ in self._application.store.balances()}

    async def _own(self, command: Any) -> None:
        await perform_own(self._application.context, lambda: command)

    async def _join(self, name: str, money: dict[int, int]) -> None:
        context = self._application.context
        parent = self.members["alice"].uid if name == "alice-sub1" else 0
        user = prepare_user(context, NOBODY, name, f"{name}@example.com", parent)
        await self._own(user)
        key, secret = prepare_key(context, NOBODY, self._application.box, user.uid, KeyTerms())
        await self._own(key)
        homes: dict[int, str] = {}
        for asset, units in money.items():
            await self._own(prepare_booking(context, NOBODY, user.uid, asset, LineType.EXPRESS_BUY, units))
            network = NUMBERS[NETWORKS[asset]]
            placed = self._application.treasury.pools.take(network)
            assert isinstance(placed, Placed)
            place = (placed.network, placed.position, placed.address, placed.tag)
            await self._own(GiveAddress(NOBODY, user.uid, asset, *place, AddressRule.TEN_UNUSED))
            homes[asset] = placed.address
        self.members[name] = Member(user.uid, name, key.text, secret, homes)

    async def _stock(self) -> None:
        """Give the house inventory at the bank, and coins on the chains for withdrawals and their fees."""
        node = self._application.treasury.node
        assert node is not None
        for asset, units in ((BTC, 10 * COIN), (USDT, 500_000 * COIN)):
            await self._own(FundHouse(NOBODY, asset, units, house(Purpose.BANK, asset), Purpose.INVENTORY))
        for asset, amount in ((BTC, 50 * COIN), (ETH, 10 * 10**18), (USDT, 10**12)):
            network = NETWORKS[asset]
            home = house_address(self._application.context.reads, NUMBERS[network])
            shares = _STOCK_COINS if self._coins and asset == BTC else 1
            for _ in range(shares):
                await node.faucet(network, home.address, home.tag, TOKENS[asset], amount // shares)
        for network in NUMBERS:
            await node.mine(network, 4)
        await asyncio.sleep(1)
        for watcher in self._application.treasury.watchers.values():
            await watcher.settled()
