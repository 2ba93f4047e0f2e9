"""The application: every room put together into one house that runs in one process and one event loop."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec

from strongroom.api.authentication import DEFAULT_WINDOW_MS, Authenticator
from strongroom.api.calls import Services
from strongroom.api.client_address import ClientAddresses, read_networks
from strongroom.api.dialects import v3
from strongroom.api.limits import RateLimits, TierLimits
from strongroom.api.server import Api
from strongroom.clock import Clock, Ids
from strongroom.engine.writer import Writer
from strongroom.store.sqlite.store import SqliteStore
from strongroom.wallet.context import Context
from strongroom.wallet.keys import SecretBox


class Means(msgspec.Struct, frozen=True):
    """What an application is opened with."""

    folder: Path
    master_key: bytes
    tiers: dict[str, TierLimits]
    window_ms: int = DEFAULT_WINDOW_MS
    trusted_proxies: tuple[str, ...] = ()


class Application:
    """A house with its books open: the store, the writer, the use cases and the API over them."""

    def __init__(self, means: Means, clock: Clock, events: Events) -> None:
        """Open the data folder. Raises `DataFolderBusy` if another server has it open."""
        self.clock = clock
        self.ids = Ids(clock)
        self.store = SqliteStore(means.folder, self.ids)
        clock.advance_to(self.store.last()[1])
        self.writer = Writer(self.store, clock, events)
        self.context = Context(self.writer.submit, self.store, clock, self.ids)
        self.box = SecretBox(means.master_key)
        self.api = Api(
            Services(self.context, None),
            v3.OPERATIONS,
            Authenticator(self.store, clock, self.box.open, means.window_ms),
            RateLimits(clock, means.tiers),
            ClientAddresses(read_networks(means.trusted_proxies)),
            events,
        )
