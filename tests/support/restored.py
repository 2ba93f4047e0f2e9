"""A house that is lost after its backup, on every store: what it did in between stands on its chains alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from strongroom.admin import restoring
from strongroom.config.settings import Config
from strongroom.custody.derivation import Branch
from strongroom.custody.families import NETWORKS
from strongroom.custody.keeper import Keeper, KeeperTerms
from strongroom.custody.pool import AddressPools, Source
from strongroom.custody.sender import PaymentTerms, Sender
from strongroom.custody.watcher import Watcher
from strongroom.records.withdrawals import Withdrawal
from strongroom.store.memory import MemoryStore
from strongroom.store.postgres.store import PostgresStore
from strongroom.wallet.epochs import prepare_epoch
from support.paying import _XPUBS, CODES, COIN, Payouts, paying
from support.postgres import copy_database
from support.world import BITCOIN, BTC, AnyStore, new_store

AHEAD: Final = 20
"""So many addresses beyond the backup's are watched in tests."""

Story = Callable[[Payouts], Awaitable[None]]


def copied(store: MemoryStore) -> MemoryStore:
    """Return a store in memory as another one is now."""
    copy = MemoryStore()
    copy._kept, copy._journal, copy._lines = dict(store._kept), list(store._journal), dict(store._lines)
    copy._frontier, copy._last_ms = store._frontier, store._last_ms
    return copy


class Backup:
    """A backup of a store, of any kind."""

    def __init__(self, store: AnyStore, folder: Path) -> None:
        self._memory = copied(store) if isinstance(store, MemoryStore) else None
        self._is_database = isinstance(store, PostgresStore)
        self._file = folder / "backup.sqlite"
        if self._is_database:
            copy_database(folder / "first", folder / "second")
        elif self._memory is None:
            _ = restoring.back_up(Config(data=str(folder / "first")), self._file)

    async def restored(self, folder: Path) -> AnyStore:
        """Return a store made of it, as the program does that where it does."""
        if self._memory is not None:
            return self._memory
        if self._is_database:
            return new_store("postgres", folder / "second")
        _ = await asyncio.to_thread(restoring.restore, self._file, folder / "second")
        return new_store("sqlite", folder / "second")


class House:
    """A house with its watcher, keeper and sender of one network, which work when they are told to."""

    def __init__(
        self, payouts: Payouts, network: int = BITCOIN, terms: PaymentTerms | None = None, cold: str = ""
    ) -> None:
        self.payouts = payouts
        self.network = network
        self.context = payouts.world.context
        chain = payouts.chain(network)
        self.pools = AddressPools(
            self.context, {network: Source(Branch(NETWORKS[CODES[network]], _XPUBS[CODES[network]]), chain)}
        )
        self.watcher = Watcher(self.context, chain, network, start=None, cold_address=cold)
        self.sender: Sender = payouts.sender(network, terms=terms)
        self.keeper = Keeper(self.context, chain, network, KeeperTerms(cold_address=cold))

    async def stock(self) -> None:
        """Let the pool do its work once; what it dies of is raised."""
        task, ready = asyncio.create_task(self.pools.run()), asyncio.create_task(self.pools.ready())
        _ = await asyncio.wait((task, ready), return_when=asyncio.FIRST_COMPLETED)
        died = task.done()
        _ = task.cancel(), ready.cancel()
        ended, _ = await asyncio.gather(task, ready, return_exceptions=True)
        if died and isinstance(ended, BaseException):
            raise _single(ended)

    async def follow(self) -> None:
        """Let the watcher go round until it went through."""
        async with asyncio.timeout(60):
            while not await self.watcher.try_round():
                assert not self.watcher.status.error, self.watcher.status

    async def work(self, blocks: int = 1) -> None:
        """Let sender and watcher see so many blocks, one after the other."""
        for _ in range(blocks):
            _ = await self.payouts.node.mine(CODES[self.network])
            await self.follow()
            assert await self.sender.step()
        await self.follow()

    async def round(self) -> None:
        """Let each part of the house do what there is to do now."""
        if self.watcher.restoration.is_waiting:
            await self.stock()
        await self.follow()
        assert await self.keeper.step(), self.keeper.status
        _ = await self.sender.step()

    @property
    def reason(self) -> str:
        """Why payments wait."""
        return self.watcher.restoration.reason


def _single(error: BaseException) -> BaseException:
    """Return what is in a group of one."""
    while isinstance(error, BaseExceptionGroup):
        [error] = error.exceptions
    return error


async def begin(payouts: Payouts) -> None:
    """Give alice coins that no watcher has to find, and let the watcher begin behind them."""
    await payouts.endow(payouts.alice, BTC, BITCOIN, 10 * COIN)
    _ = await payouts.node.mine("BITCOIN")
    await House(payouts).follow()


async def paid(payouts: Payouts, *withdrawals: Withdrawal) -> None:
    """Let a house pay withdrawals until they are settled."""
    house = House(payouts)
    for withdrawal in withdrawals:
        await payouts.pay(house.sender, withdrawal, follow=house.follow)
    await house.follow()


@asynccontextmanager
async def restored(kind: str, folder: Path, before: Story, after: Story) -> AsyncIterator[Payouts]:
    """Let a house live a story, be backed up, go on, be lost, and come back of its backup beside the same chains."""
    (folder / "first").mkdir(parents=True)
    store = new_store(kind, folder / "first")
    async with paying(store, folder) as payouts:
        await begin(payouts)
        await before(payouts)
        backup = Backup(store, folder)
        await after(payouts)
    async with paying(await backup.restored(folder), folder) as payouts:
        payouts.world._signatures = 10_000  # so that none of the backup's is used again
        if kind != "sqlite":
            await payouts.do(lambda: prepare_epoch(payouts.world.context))
        yield payouts
