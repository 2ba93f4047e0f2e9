"""A whole house served over real HTTP from a thread of the test's own process, with ways to act as its operator.

Blocks are mined only when a test asks for them, so that every state on the way can be seen.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import uvloop

from strongroom import serving
from strongroom.application import Application
from strongroom.clock import Clock
from strongroom.config.settings import Asset, Config, Fee, Network, Offer, Rates, Simulation, Tier
from strongroom.engine.command import NOBODY, Command
from strongroom.engine.settle import Outcome
from strongroom.errors import check
from strongroom.ledger.accounts import Account, Purpose, available, house
from strongroom.ledger.entries import Posting
from strongroom.money import parse_amount
from strongroom.records.history import LineType
from strongroom.records.settings import Settings
from strongroom.wallet.addresses import house_address
from strongroom.wallet.bookings import prepare_booking
from strongroom.wallet.context import perform_own
from strongroom.wallet.holdings import chain_units
from strongroom.wallet.keys import KeyTerms, prepare_key, prepare_revocation
from strongroom.wallet.settings import prepare_settings
from strongroom.wallet.users import MarkUser, find_user, prepare_user
from strongroom.wallet.verification import Report, verify
from support.client import ApiClient, Credentials, Nonces
from support.effects import Do

MASTER_KEY = bytes(range(32))
NEVER_S = 31_536_000.0
WAIT_S = 60.0
UNLIMITED = {"default": Tier(unlimited=True)}

_Result = TypeVar("_Result")


def mail_of(username: str) -> str:
    """Return the mail of a user of the house."""
    return f"{username}@example.com"


def catalogue() -> dict[str, Any]:
    """Return the assets, networks, offers and rates of the house.

    GOLD has no rate, JPY only one that is too old, OLD is disabled, and GEM has two decimals and can only be sent.
    """
    everything = ("CONVERT", "WITHDRAW", "SEND")
    assets = {
        "BTC": Asset(number=1, name="Bitcoin"),
        "ETH": Asset(number=2, name="Ether"),
        "USDT": Asset(number=3, name="Tether"),
        "XRP": Asset(number=4, name="XRP"),
        "USD": Asset(number=5, name="US Dollar", fiat=True, actions=everything),
        "EUR": Asset(number=6, name="Euro", fiat=True),
        "JPY": Asset(number=7, name="Yen", fiat=True),
        "GOLD": Asset(number=8, name="Gold", fiat=True),
        "OLD": Asset(number=9, name="Old coin", enabled=False),
        "GEM": Asset(number=10, name="Gems", scale=2, fiat=True, actions=("SEND",)),
    }
    networks = {
        "BITCOIN": Network(number=1, short_name="Bitcoin", family="bitcoin", confirmations=2, fee_asset="BTC"),
        "ERC20": Network(
            number=2, short_name="Ethereum", name="Ethereum (ERC20)", family="evm", confirmations=3, fee_asset="ETH"
        ),
        "RIPPLE": Network(
            number=3, short_name="Ripple", family="ripple", confirmations=1, extension="tag", fee_asset="XRP"
        ),
    }
    fee = Fee(minimum="0.0005")
    per_cent = Fee(minimum="5", rate="0.001", extra="1")
    offers = {
        "BTC": {
            "BITCOIN": Offer(
                decimals=8, default=True, deposit_minimum="0.0001", withdraw_minimum="0.001", withdraw_fee=fee
            )
        },
        "ETH": {
            "ERC20": Offer(decimals=18, default=True, withdraw_fee=Fee(minimum="0.01"), daily_limit="5"),
        },
        "USDT": {
            "ERC20": Offer(decimals=6, token="USDT", default=True, deposit_fee=Fee(minimum="1"), withdraw_fee=per_cent)
        },
        "XRP": {
            "RIPPLE": Offer(decimals=6, default=True, withdraw_fee=Fee(minimum="0.25"), approve_above="500"),
        },
    }
    table = {"BTC/USDT": "60000", "ETH/USDT": "3000.5", "XRP/USDT": "0.5", "USDT/USD": "1", "EUR/USD": "1.1"}
    rates = Rates(table=table, table_max_age_s=31_536_000, ecb=True, ecb_max_age_s=1, spread="0.001")
    return {"assets": assets, "networks": networks, "offers": offers, "rates": rates}


def config_of(folder: Path, **changes: Any) -> Config:
    """Return the settings of a house in a folder, without rate limits unless told otherwise."""
    settings = catalogue() | {
        "data": str(folder),
        "port": 0,
        "rate_limits": UNLIMITED,
        "simulation": Simulation(enabled=True, seconds_per_block=NEVER_S),
        "drain_s": 0,
        "finish_s": 1,
    }
    return Config(**settings | changes)


class House:
    """A house with its books open and its doors too."""

    def __init__(self, config: Config, clock: Clock | None = None) -> None:
        self.config = config
        self.clock = clock or Clock()
        self.url = ""
        self.nonces = Nonces(self.clock.now_ms)
        self.application: Application
        self._clients: list[ApiClient] = []
        self._keys: dict[str, Credentials] = {}
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None

    def start(self) -> None:
        """Open the books and the doors."""
        ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(ready,), daemon=True)
        self._thread.start()
        check(ready.wait(WAIT_S * 3), "the house opens in time")
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Close both."""
        for client in self._clients:
            client.close()
        self._clients = []
        if self._thread is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join(WAIT_S)
            check(not self._thread.is_alive(), "the house closes in time")
        if self._failure is not None:
            raise self._failure

    def restart(self) -> None:
        """Close everything, and open the same books again at another address."""
        self.stop()
        self.start()

    def _serve(self, ready: threading.Event) -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(self._main(ready))
        except BaseException as error:  # noqa: BLE001 - the thread that waits for us raises it
            self._failure = error
        finally:
            ready.set()

    async def _main(self, ready: threading.Event) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        self.application = Application(self.config, MASTER_KEY, self.clock)
        async with self.application.running():
            server = serving._Server(serving._uvicorn_config(self.application))
            bound = serving.bind(self.config.host, self.config.port)
            task = asyncio.create_task(server.serve(sockets=[bound]))
            _ = await server.listening.wait()
            self.url = serving.url_of(bound)
            ready.set()
            _ = await self._stopping.wait()
            server.should_exit = True
            await task

    def run(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """Return what a coroutine returns on the house's own event loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(WAIT_S)

    def ask(self, question: Callable[[], _Result]) -> _Result:
        """Return what a function returns on the house's own event loop."""

        async def answer() -> _Result:
            return question()

        return self.run(answer())

    def do(self, prepare: Callable[[], Command]) -> Outcome:
        """Carry out a command of the operator."""
        return self.run(perform_own(self.application.context, prepare))

    # Users and keys.

    def open_user(self, username: str, parent: str = "") -> int:
        """Open a user, or a sub-account, and return its id."""
        context = self.application.context
        above = self.uid(parent) if parent else 0
        self.do(lambda: prepare_user(context, NOBODY, username, mail_of(username), above))
        return self.uid(username)

    def uid(self, username: str) -> int:
        """Return a user's id."""
        return self.ask(lambda: find_user(self.application.store, username).uid)

    def mark(self, username: str, *, frozen: bool = False, active: bool = True) -> None:
        """Freeze a user, or make it inactive, or neither."""
        uid = self.uid(username)
        self.do(lambda: MarkUser(NOBODY, uid, frozen, active))

    def make_key(self, username: str, **terms: Any) -> Credentials:
        """Make a key with all permissions, or with these terms."""
        context, owner = self.application.context, self.uid(username)
        command, secret = self.ask(lambda: prepare_key(context, NOBODY, self.application.box, owner, KeyTerms(**terms)))
        self.do(lambda: command)
        return Credentials(command.text, secret)

    def revoke(self, key: Credentials) -> None:
        """Revoke a key."""
        self.do(lambda: prepare_revocation(self.application.context, NOBODY, key.key))

    def client(self, username: str = "", credentials: Credentials | None = None, **terms: Any) -> ApiClient:
        """Return a client for a user, with a key of its own if terms are given; for nobody without a name."""
        if username and credentials is None:
            if terms or username not in self._keys:
                credentials = self.make_key(username, **terms)
                self._keys = {username: credentials} | self._keys
            else:
                credentials = self._keys[username]
        client = ApiClient(self.url, credentials, self.nonces)
        self._clients.append(client)
        return client

    # Money.

    def units(self, asset: str, amount: str) -> tuple[int, int]:
        """Return an asset's number, and an amount of it in units."""
        found = self.application.context.catalogue.asset(asset)
        return found.number, parse_amount(amount, found.scale)

    def fund(self, username: str, **amounts: str) -> None:
        """Give a user money that arrived at the bank."""
        owner, context = self.uid(username), self.application.context
        for asset, amount in amounts.items():
            number, units = self.units(asset, amount)
            self.do(lambda n=number, u=units: prepare_booking(context, NOBODY, owner, n, LineType.EXPRESS_BUY, u))

    def give(self, username: str, **amounts: str) -> None:
        """Give a user money of the house's own."""
        owner = self.uid(username)
        for asset, amount in amounts.items():
            number, units = self.units(asset, amount)
            self._move(house(Purpose.EQUITY, number), available(owner, number), units)

    def stock(self, **amounts: str) -> None:
        """Give the house inventory to convert from."""
        for asset, amount in amounts.items():
            number, units = self.units(asset, amount)
            self._move(house(Purpose.BANK, number), house(Purpose.INVENTORY, number), units)

    def _move(self, source: Account, target: Account, units: int) -> None:
        booking = Do(NOBODY, (Posting(source, -units), Posting(target, units)))
        self.do(lambda: booking)

    def books(self) -> list[tuple[int, int, int]]:
        """Return every account's balance and count of postings."""
        return self.ask(lambda: sorted(self.application.store.balances()))

    def verify(self) -> Report:
        """Check the books against themselves."""
        return self.ask(lambda: verify(self.application.store))

    # Settings.

    @contextmanager
    def settings(self, asset: str, **changes: Any) -> Iterator[None]:
        """Change an asset's offers for a while."""
        number = self.units(asset, "1")[0]
        before = self.ask(lambda: self.application.store.row(Settings, 0).snapshot)
        offers = tuple(msgspec.structs.replace(o, **changes) if o.asset == number else o for o in before.offers)
        with self.snapshot(offers=offers):
            yield

    @contextmanager
    def snapshot(self, **changes: Any) -> Iterator[None]:
        """Change the settings for a while."""
        context = self.application.context
        before = self.ask(lambda: self.application.store.row(Settings, 0).snapshot)
        after = msgspec.structs.replace(before, **changes)
        self.do(lambda: prepare_settings(context, NOBODY, after))
        try:
            yield
        finally:
            self.do(lambda: prepare_settings(context, NOBODY, before))

    # Chains.

    def mine(self, network: str, count: int = 1) -> None:
        """Mine blocks."""
        node = self.application.treasury.node
        check(node is not None, "the house has a simulated node")
        self.run(node.mine(network, count))  # pyright: ignore[reportOptionalMemberAccess]

    def pay(self, network: str, address: str, asset: str, amount: str, tag: str = "") -> str:
        """Let a stranger pay an address on a chain, and return the txid."""
        node, context = self.application.treasury.node, self.application.context
        number, units = self.units(asset, amount)
        offer = next(
            o for o in context.catalogue.offers_of(number) if context.catalogue.network(o.network).code == network
        )
        on_chain = chain_units(units, offer, context.catalogue.assets[number])
        return self.run(node.faucet(network, address, tag, offer.token, on_chain))  # pyright: ignore[reportOptionalMemberAccess]

    def fill_hot_wallet(self, network: str, asset: str, amount: str) -> None:
        """Let coins arrive at the house's own address, deep enough to be booked as inventory."""
        context = self.application.context
        number = context.catalogue.network_named(network).number
        home = self.ask(lambda: house_address(context.reads, number))
        before = self.books()
        self.pay(network, home.address, asset, amount, home.tag)
        self.mine(network, 5)
        eventually(lambda: self.books() != before)


def eventually(condition: Callable[[], Any], timeout_s: float = WAIT_S) -> Any:
    """Return what a condition says as soon as it is true; fail when that takes too long."""
    end_s = time.monotonic() + timeout_s
    while not (found := condition()):
        if time.monotonic() > end_s:
            raise AssertionError(f"did not happen within {timeout_s} s: {condition}")
        time.sleep(0.01)
    return found


@contextmanager
def unchanged(house: House) -> Iterator[None]:
    """Check that the books are the same after a block as before it."""
    before = house.books()
    yield
    assert house.books() == before


@contextmanager
def opened(folder: Path, clock: Clock | None = None, **changes: Any) -> Iterator[House]:
    """Serve a new house with alice, bob and alice's sub-account, each with money, until the block ends."""
    house = House(config_of(folder, **changes), clock)
    house.start()
    try:
        for username, parent in (("alice", ""), ("bob", ""), ("alice-sub1", "alice")):
            house.open_user(username, parent)
        house.fund("alice", BTC="10", ETH="100", USDT="100000", XRP="10000", USD="50000", EUR="1000", GEM="10")
        house.fund("bob", BTC="10", USDT="100000")
        house.fund("alice-sub1", BTC="1")
        house.stock(BTC="50", ETH="50", USDT="1000000", USD="1000000", EUR="1000", GOLD="5", JPY="5")
        yield house
    finally:
        house.stop()
