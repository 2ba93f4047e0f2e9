"""The bank test: while many move money, nobody ever reads books in which some of it is missing or there twice."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from random import Random
from typing import Final

from strongroom.clock import Ids, SetClock
from strongroom.engine.port import Reads
from strongroom.errors import INSUFFICIENT_BALANCE
from strongroom.ledger.accounts import NEVER_NEGATIVE, Purpose, unpack
from strongroom.store.sqlite.snapshot import SqliteSnapshot
from strongroom.store.sqlite.store import SqliteStore
from strongroom.wallet.balances import balance_of
from strongroom.wallet.verification import verify
from support.world import BTC, NOW_MS, USDT, World, opened

WRITERS: Final = 16
READERS: Final = 4
LASTING_S: Final = 4.0
NAMES: Final = tuple(f"holder{number}" for number in range(8))
EACH: Final = {BTC: 1_000, USDT: 5_000}
"""Units, so few that many transfers find nothing left to move."""

ASSETS: Final = {BTC: "BTC", USDT: "USDT"}
WHOLE: Final = {asset: units * len(NAMES) for asset, units in EACH.items()}


def check_books(balances: Iterable[tuple[int, int, int]]) -> None:
    """Every asset's accounts sum to zero, the customers have what they paid in, and nobody is below zero."""
    everything: Counter[int] = Counter()
    customers: Counter[int] = Counter()
    for packed, balance, _ in balances:
        account = unpack(packed)
        everything[account.asset] += balance
        assert balance >= 0 or account.purpose not in NEVER_NEGATIVE
        if account.purpose == Purpose.AVAILABLE:
            customers[account.asset] += balance
    assert not any(everything.values())
    assert customers == WHOLE


def check_holders(reads: Reads, holders: list[int]) -> None:
    """The same, of what the API shows each of them."""
    for asset, whole in WHOLE.items():
        found = [balance_of(reads, holder, asset).available for holder in holders]
        assert min(found) >= 0
        assert sum(found) == whole


class Reader(threading.Thread):
    """Reads the books from disk, again and again, beside the server; every reading is of one moment, none goes back."""

    def __init__(self, folder: Path, holders: list[int]) -> None:
        super().__init__()
        self.readings = 0
        self.failure: BaseException | None = None
        self.stopping = threading.Event()
        self._folder, self._holders = folder, holders

    def run(self) -> None:
        """Read until stopped."""
        try:
            self._read()
        except BaseException as error:  # noqa: BLE001 - the test raises it
            self.failure = error

    def _read(self) -> None:
        newest = 0
        while not self.stopping.is_set():
            snapshot = SqliteSnapshot(self._folder)
            try:
                check_books(snapshot.balances())
                check_holders(snapshot, self._holders)
                assert snapshot.last()[0] >= newest
                newest = snapshot.last()[0]
            finally:
                snapshot.close()
            self.readings += 1


async def move(world: World, uids: dict[str, int], chance: Random, ends_s: float, told: Counter[str]) -> None:
    """Send somebody something, again and again; what is left to move decides whether it goes."""
    while time.monotonic() < ends_s:
        sender, receiver = chance.sample(NAMES, 2)
        asset = chance.choice(list(ASSETS))
        amount = f"0.{chance.randrange(1, EACH[asset]):08}"
        guard = world.guard(uids[sender])
        outcome = await world.transfer(guard, ASSETS[asset], amount, receiver)
        assert outcome.refusal is None or outcome.refusal.error is INSUFFICIENT_BALANCE
        told["refused" if outcome.refusal else "done"] += 1


async def look(world: World, holders: list[int], ends_s: float) -> int:
    """Read the committed state as the API does, between any two commits."""
    readings = 0
    while time.monotonic() < ends_s:
        check_holders(world.store, holders)
        check_books(world.store.balances())
        readings += 1
        await asyncio.sleep(0.002)
    return readings


async def test_money_is_constant_in_every_reading(tmp_path: Path) -> None:
    """Sixteen move money and four read: each reading has all of it, and nobody is ever below zero."""
    async with opened(SqliteStore(tmp_path, Ids(SetClock(NOW_MS)))) as world:
        uids = {name: await world.user(name) for name in NAMES}
        holders = list(uids.values())
        for holder in holders:
            for asset, units in EACH.items():
                await world.fund(holder, asset, units)
        readers = [Reader(tmp_path, holders) for _ in range(READERS // 2)]
        for reader in readers:
            reader.start()
        ends_s, told = time.monotonic() + LASTING_S, Counter[str]()
        try:
            moving = [move(world, uids, Random(number), ends_s, told) for number in range(WRITERS)]
            looking = [look(world, holders, ends_s) for _ in range(READERS - len(readers))]
            *_, one, other = await asyncio.gather(*moving, *looking)
        finally:
            for reader in readers:
                reader.stopping.set()
                await asyncio.to_thread(reader.join)
        assert [reader.failure for reader in readers] == [None] * len(readers)
        readings = [one, other, *(reader.readings for reader in readers)]
        print(f"bank test: {dict(told)}, readings {readings}")
        assert min(*readings, told["done"], told["refused"]) > 10
        assert verify(world.store).findings == []
