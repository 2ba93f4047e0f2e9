"""A small house in one process: a store, the real writer, four assets, and users who can act."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, TypeAlias

import pytest

from strongroom.clock import Ids, SetClock
from strongroom.engine.command import NOBODY, Command, Guard
from strongroom.engine.settle import Outcome
from strongroom.engine.writer import Writer
from strongroom.money import FeeFormula
from strongroom.records.history import LineType
from strongroom.records.settings import AssetSettings, NetworkSettings, OfferSettings, Snapshot
from strongroom.store.memory import MemoryStore
from strongroom.store.postgres.store import PostgresStore
from strongroom.store.sqlite.store import SqliteStore
from strongroom.wallet.balances import balance_of
from strongroom.wallet.bookings import prepare_booking
from strongroom.wallet.context import Context, perform, perform_own
from strongroom.wallet.settings import prepare_settings
from strongroom.wallet.transfers import prepare_transfer
from strongroom.wallet.users import prepare_user
from support.postgres import database_of

AnyStore: TypeAlias = MemoryStore | SqliteStore | PostgresStore

EVERY_STORE: Final = ("memory", "sqlite", "postgres")
"""What the tests of stores themselves run on."""

STORES: Final = ("memory", "sqlite", pytest.param("postgres", marks=pytest.mark.soak))
"""What the tests of commands run on; with PostgreSQL, which has to be asked for every row, in long runs."""

BTC, USDT, ETH, USD = 1, 2, 3, 4
BITCOIN, ERC20 = 1, 2
NOW_MS = 1_790_000_000_000

SNAPSHOT = Snapshot(
    assets=(
        AssetSettings(BTC, "BTC", "Bitcoin", fiat=False),
        AssetSettings(USDT, "USDT", "Tether", fiat=False),
        AssetSettings(ETH, "ETH", "Ether", fiat=False),
        AssetSettings(USD, "USD", "US Dollar", fiat=True),
    ),
    networks=(
        NetworkSettings(BITCOIN, "BITCOIN", "Bitcoin", "Bitcoin", "bitcoin", confirmations=2),
        NetworkSettings(ERC20, "ERC20", "Ethereum", "Ethereum (ERC20)", "evm", confirmations=3),
    ),
    offers=(
        OfferSettings(BTC, BITCOIN, decimals=8, default=True, withdraw_minimum=1000, withdraw_fee=FeeFormula(500)),
        OfferSettings(USDT, ERC20, decimals=6, token="USDT", default=True, withdraw_fee=FeeFormula(5_00000000)),
        OfferSettings(ETH, ERC20, decimals=18, default=True),
    ),
)


class Quiet:
    """Writer events that are kept for the test to look at."""

    def __init__(self) -> None:
        self.failures: list[Exception] = []
        self.troubles: list[str] = []

    def committed(self, commands: int, seconds: float) -> None:
        """Nothing to tell."""

    def failed(self, command: Command, error: Exception) -> None:
        """Keep it."""
        self.failures.append(error)

    def doubtful(self, error: Exception, *, resolved: bool) -> None:
        """Keep it."""
        self.failures.append(error)

    def troubled(self, trouble: str) -> None:
        """Keep it."""
        self.troubles.append(trouble)


class World:
    """A house with its writer running."""

    def __init__(self, store: AnyStore, clock: SetClock) -> None:
        self.store = store
        self.clock = clock
        self.ids = Ids(clock)
        self.events = Quiet()
        self.writer = Writer(store, clock, self.events)
        self.context = Context(self.writer.submit, store, clock, self.ids)
        self._signatures = 0

    def guard(self, owner: int, idempotency_key: str = "", fingerprint: str = "") -> Guard:
        """Return the guard of a fresh signed request."""
        self._signatures += 1
        return Guard(
            owner,
            1,
            self._signatures.to_bytes(48, "big"),
            self.clock.now_ms() + 30_000,
            idempotency_key.encode(),
            fingerprint.encode(),
        )

    async def user(self, name: str, parent: int = 0) -> int:
        """Open a user and return its id."""
        command = prepare_user(self.context, NOBODY, name, f"{name}@example.com", parent)
        await perform_own(self.context, lambda: command)
        return command.uid

    async def fund(self, owner: int, asset: int, amount: int) -> None:
        """Give a user money that arrived at the bank."""
        await perform_own(
            self.context, lambda: prepare_booking(self.context, NOBODY, owner, asset, LineType.EXPRESS_BUY, amount)
        )

    async def transfer(self, guard: Guard, asset: str, amount: str, to: str) -> Outcome:
        """Send money to a user by name."""
        return await perform(self.context, guard, lambda: prepare_transfer(self.context, guard, asset, amount, to))

    def available(self, owner: int, asset: int) -> int:
        """Return what a user can spend."""
        return balance_of(self.context.reads, owner, asset).available


@asynccontextmanager
async def opened(store: AnyStore, ahead_ms: int = 0) -> AsyncIterator[World]:
    """Run a house on a store, with the settings above declared if it is new; its clock may be ahead of others."""
    clock = SetClock(NOW_MS + ahead_ms)
    world = World(store, clock)
    clock.go_on_after(store.last()[1])
    running = asyncio.create_task(world.writer.run())
    if not store.last()[0]:
        await perform_own(world.context, lambda: prepare_settings(world.context, NOBODY, SNAPSHOT))
    try:
        yield world
    finally:
        world.writer.close()
        try:
            await running
        finally:
            if not isinstance(store, MemoryStore):
                store.close()


def new_store(kind: str, folder: Path) -> AnyStore:
    """Return a store of a kind: empty, unless one was kept in this folder before."""
    ids = Ids(SetClock(NOW_MS))
    if kind == "postgres":
        return PostgresStore(database_of(folder), ids)
    return MemoryStore() if kind == "memory" else SqliteStore(folder, ids)


Act = Callable[[World], Awaitable[None]]
