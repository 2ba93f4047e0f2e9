"""The application: every room put together into one house that runs in one process and one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from typing import Final

from cryptography.exceptions import InvalidTag

from strongroom.api.authentication import Authenticator
from strongroom.api.calls import Services
from strongroom.api.client_address import ClientAddresses
from strongroom.api.dialects import OPERATIONS
from strongroom.api.health import Front, Page, Readiness
from strongroom.api.limits import RateLimits
from strongroom.api.reading import THREADS, ReadingThreads
from strongroom.api.reference import static_pages
from strongroom.api.server import Api
from strongroom.api.wallet_cache import WalletCache
from strongroom.assembly import networks_of, next_snapshot, rate_book_of, tiers_of
from strongroom.books import open_books
from strongroom.clock import Clock, Ids
from strongroom.config.catalogue import snapshot_of
from strongroom.config.settings import Config, ConfigError
from strongroom.custody.outside import Outside
from strongroom.engine.command import NOBODY
from strongroom.engine.port import DiskFailed
from strongroom.engine.supervisor import Supervisor
from strongroom.engine.writer import Writer
from strongroom.errors import check
from strongroom.observe import books
from strongroom.observe.events import Events
from strongroom.observe.metrics import CONTENT_TYPE, Metrics
from strongroom.records.keys import ApiKey
from strongroom.records.settings import Settings
from strongroom.treasury import HOUSE_SEAT, Treasury
from strongroom.wallet.approvals import expire_due
from strongroom.wallet.context import Context, perform_own
from strongroom.wallet.keys import SecretBox
from strongroom.wallet.settings import prepare_settings

EXPIRY_EVERY_S: Final = 30.0
POOL_READY_S: Final = 30.0
"""How long a start waits for the first deposit addresses before it goes on without them."""

WRITER: Final = "writer"


class Application:
    """A house with its books open: the store, the writer, the use cases, custody, and the API over them.

    `front` is the ASGI application. Nothing runs before `running()`.
    """

    def __init__(
        self,
        config: Config,
        master_key: bytes,
        clock: Clock | None = None,
        ids: Ids | None = None,
        thread: Executor | None = None,
        outside: Mapping[str, Outside] | None = None,
    ) -> None:
        """Open the data folder; a simulator brings its own time, randomness and thread for the store.

        A demo brings who plays the world outside on its practice nodes, by the network's id.

        Raises `ConfigError`, and `StoreError` if another server has the folder open or a newer release wrote it.
        """
        declared = snapshot_of(config)
        rates = rate_book_of(config.rates)
        addresses = ClientAddresses(networks_of("trusted_proxies", config.trusted_proxies))
        operators = networks_of("operations_networks", config.operations_networks)
        self.config = config
        self.clock = clock or Clock()
        self.ids = ids or Ids(self.clock)
        self.metrics = Metrics(self.clock)
        self.events = Events(self.metrics)
        self.box = SecretBox(master_key)
        self.supervisor: Supervisor | None = None
        self._outside = outside or {}
        self._books = open_books(config, self.ids, thread)
        self.store = self._books.store
        try:
            self.clock.go_on_after(self.store.last()[1])
            self.writer = Writer(self.store, self.clock, self.events)
            self.context = Context(self.writer.submit, self.store, self.clock, self.ids, self.writer.offer)
            self.context.rates = rates
            self._snapshot = next_snapshot(self.store.row(Settings, 0).snapshot, declared)
            _check_master_key(self.context, self.box)
            self.treasury = Treasury(config, master_key, self._snapshot, self.context, self._books.leadership)
        except BaseException:
            self._books.close()
            raise
        self.limits = RateLimits(self.clock, tiers_of(config), tell=self._books.blocks.tell)
        services = Services(self.context, self.treasury.pools, WalletCache(self.context))
        readers = self.store.readers(THREADS)
        self._reading = ReadingThreads(services, readers) if readers else None
        self.api = Api(
            services,
            OPERATIONS,
            Authenticator(self.store, self.clock, self.box.open, config.nonce_window_ms),
            self.limits,
            addresses,
            self.events,
            frozenset(config.cors_origins),
            self._reading,
        )
        self.front = Front(self.api, self.clock, self.ids, addresses, self.readiness, self._metrics_page, operators)
        for path, page in static_pages().items():
            self.front.add_page(path, page)
        self._watch()

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Run every loop; at the end stop them in reverse order, write out what was accepted, and close the books."""
        check(self.supervisor is None, "an application runs once")
        self.store.warm()
        self.supervisor = supervisor = Supervisor(self.clock)
        supervisor.start(WRITER, self.writer.run, vital=True)
        leadership = self._books.leadership
        try:
            if self.store.is_shared:
                supervisor.start("announcements", self.store.follow)
                supervisor.start("leadership", leadership.run)
                supervisor.start("blocks", lambda: self._books.blocks.run(self.limits.hear))
            await self._declare()
            await self.treasury.start(supervisor)
            supervisor.start("expiry", lambda: leadership.lead(HOUSE_SEAT, self._expire))
            await self._wait_for_addresses()
            self.treasury.check_keys()
            yield
        finally:
            self.api.draining = True
            await supervisor.stop(but=frozenset({WRITER}))
            self.writer.close()
            await supervisor.join(WRITER, self.config.finish_s)
            await self.treasury.close()
            if self._reading is not None:
                await asyncio.to_thread(self._reading.close)
            self._books.close()

    def outside(self, network: str) -> Outside | None:
        """Return who plays the world outside on a practice network, None on one that is for real."""
        simulated = self.treasury.node if self.treasury.is_simulated(network) else None
        return self._outside.get(network, simulated)

    def drain(self) -> None:
        """Answer 503 to every new request from now on."""
        self.api.draining = True

    def readiness(self) -> Readiness:
        """Return whether requests are taken, and why not; also where the books cannot be read."""
        trouble = self.writer.trouble or self.store.trouble
        try:
            networks = self.treasury.status()
        except DiskFailed as error:
            networks, trouble = {}, trouble or f"Ledger cannot be read: {error}"
        running = self.supervisor is not None
        if self.api.draining:
            status = "draining"
        elif not running:
            status = "starting"
        else:
            status = "unavailable" if trouble else "ready"
        details = {
            "writer": trouble,
            "queue": self.writer.depth,
            "loops": self.supervisor.down if self.supervisor else {},
            "leads": sorted(self._books.leadership.led),
            "networks": networks,
        }
        return Readiness(status == "ready", status, details)

    async def _declare(self) -> None:
        """Keep what the file declares and the books do not know yet."""
        if self.store.row(Settings, 0).snapshot != self._snapshot:
            _ = await perform_own(self.context, lambda: prepare_settings(self.context, NOBODY, self._snapshot))

    async def _wait_for_addresses(self) -> None:
        try:
            async with asyncio.timeout(POOL_READY_S):
                await self.treasury.pools.ready()
        except TimeoutError:
            # The node does not answer: deposits wait, everything else goes on, and `/readyz` tells.
            pass

    async def _expire(self) -> None:
        while True:
            _ = await expire_due(self.context)
            await asyncio.sleep(EXPIRY_EVERY_S)

    def _reads_waiting(self) -> int:
        return 0 if self._reading is None else self._reading.waiting

    def _metrics_page(self) -> Page:
        return Page(CONTENT_TYPE, self.metrics.page())

    def _watch(self) -> None:
        self.metrics.watch("strongroom_queue_commands", "Commands that wait for the writer", lambda: self.writer.depth)
        self.metrics.watch("strongroom_reads_waiting", "Signed reads that wait for the database", self._reads_waiting)
        self.metrics.watch("strongroom_rate_limit_buckets", "Counters of the rate limits", lambda: self.limits.tracked)
        self.metrics.watch("strongroom_ready", "1 while requests are taken", lambda: self.readiness().ready)
        self.metrics.watch("strongroom_log_pages", "Pages in the write-ahead log", lambda: self.store.log_pages)
        self.metrics.watch("strongroom_journal_items", "Items in the journal", lambda: self.store.last()[0])
        self.metrics.collect_with(lambda: books.balances(self.store))
        self.metrics.collect_with(lambda: books.chains(self.store))
        self.metrics.collect_with(lambda: books.open_business(self.store))
        self.metrics.collect_with(self._networks)

    def _networks(self) -> list[books.Metric]:
        fares = books.networks(self.treasury.status())
        hot = {
            (code, self.context.catalogue.assets[asset].code): books.HotWallet(
                units, asset in keeper.status.low, asset in keeper.status.high
            )
            for code, keeper in self.treasury.keepers.items()
            for asset, units in keeper.status.hot.items()
        }
        return [*fares, *books.hot_wallets(hot), *books.unexplained(self.treasury.unexplained)]


def _check_master_key(context: Context, box: SecretBox) -> None:
    """Raise `ConfigError` unless the master key opens the secrets of this data folder: found out now, not later."""
    for key in context.reads.rows(ApiKey, {}, 1):
        try:
            _ = box.open(key.secret, key.text)
        except InvalidTag:
            raise ConfigError(["the master key is not the one that this data folder was made with"]) from None
