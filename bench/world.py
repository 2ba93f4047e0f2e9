"""The world that is measured: a house whose customers have a key and money in every asset, made by its own commands."""

from __future__ import annotations

import asyncio
import gc
import random
import sys
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import msgspec

from strongroom.application import Application
from strongroom.books import open_books
from strongroom.clock import Clock, Ids, SetClock
from strongroom.config.secrets import load_master_key, write_master_key
from strongroom.config.settings import Config, load_config
from strongroom.engine.command import NOBODY, Command
from strongroom.engine.port import Books
from strongroom.engine.settle import settle
from strongroom.observe.logs import configure_logs
from strongroom.records.history import LineType
from strongroom.wallet.bookings import Book
from strongroom.wallet.context import Context
from strongroom.wallet.keys import KeyTerms, SecretBox, prepare_key
from strongroom.wallet.users import OpenUser

HERE = Path(__file__).parent
CONFIG_FILE = "house.toml"
CUSTOMERS_FILE = "customers.json"
_CHAINS = "# The chains"
FUNDS = 1_000 * 10**8
"""What every customer has of every asset, in units: a thousand."""

_BATCH = 1_000
_SEED = 20_261_124


class Customer(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A customer with its one key."""

    uid: int
    username: str
    mail: str
    key: str
    secret: str


class World(NamedTuple):
    """A house: its folder, the codes of its assets in the order of their numbers, and its customers."""

    folder: Path
    assets: list[str]
    customers: list[Customer]

    @property
    def config(self) -> Path:
        """The settings file."""
        return self.folder / CONFIG_FILE


def make(folder: Path, users: int, clock: SetClock | None = None, database: str = "") -> World:
    """Make a house with so many customers in a new folder, now or at the time of a clock that is set back.

    Its books are in the folder, or in a PostgreSQL `database`; then it has no chains.
    """
    configure_logs("warning", "console")
    (folder / "data").mkdir(parents=True)
    settings = (HERE / CONFIG_FILE).read_text()
    if database:
        settings = f"store = {database!r}\n{settings.partition(_CHAINS)[0]}"
    _ = (folder / CONFIG_FILE).write_text(settings)
    config = load_config(folder / CONFIG_FILE, {})
    write_master_key(Path(config.master_key_file), Ids(Clock()).random_bytes(32))
    box = SecretBox(load_master_key(config, {}))
    asyncio.run(_declare(config, clock))
    customers: list[Customer] = []
    assets = {code: asset.number for code, asset in config.assets.items()}
    commands = _openings(users, list(assets.values()), box, customers, Ids(clock or Clock()))
    fill(config, commands, users * (len(assets) + 2), clock)
    (folder / CUSTOMERS_FILE).write_bytes(msgspec.json.encode(customers))
    return World(folder, list(assets), customers)


def read(folder: Path) -> World:
    """Return the house that was made in a folder."""
    config = load_config(folder / CONFIG_FILE, {})
    customers = msgspec.json.decode((folder / CUSTOMERS_FILE).read_bytes(), type=list[Customer])
    return World(folder, list(config.assets), customers)


async def _declare(config: Config, clock: SetClock | None) -> None:
    """Start the house once: it keeps its assets, and derives its first addresses."""
    async with Application(config, load_master_key(config, {}), clock).running():
        pass


def _openings(users: int, assets: list[int], box: SecretBox, customers: list[Customer], ids: Ids) -> Iterator[Command]:
    """Yield the commands that open the customers with their keys and their money, and note each customer."""
    context = Context(_nobody, None, Clock(), ids)  # pyright: ignore[reportArgumentType]
    uids = random.Random(_SEED).sample(range(1_000_000_000, 10_000_000_000), users)
    for number, uid in enumerate(uids):
        username = f"user{number:06d}"
        mail = f"{username}@example.com"
        yield OpenUser(NOBODY, uid, username, mail)
        making, secret = prepare_key(context, NOBODY, box, uid, KeyTerms())
        yield making
        for asset in assets:
            yield Book(NOBODY, uid, asset, LineType.DEPOSIT, FUNDS, ids.ref())
        customers.append(Customer(uid, username, mail, making.text, secret))


async def _nobody(_: Command) -> object:
    raise NotImplementedError


def fill(config: Config, commands: Iterable[Command], expected: int, clock: SetClock | None = None) -> None:
    """Carry commands out through the real `settle` and the real store, as fast as that goes.

    Raises RuntimeError if one is refused.
    """
    time_of = clock or Clock()
    books = open_books(config, Ids(time_of))
    # Nothing here makes cycles, and the collector would go through the whole store in memory again and again.
    gc.disable()
    try:
        asyncio.run(_fill(books.store, iter(commands), expected, time_of))
    finally:
        books.close()
        gc.enable()


async def _fill(store: Books, commands: Iterator[Command], expected: int, clock: Clock) -> None:
    done, began_s, lane = 0, time.perf_counter(), store.lanes[0]
    while batch := list(islice(commands, _BATCH)):
        state = await lane.begin(batch)
        now_ms = max(clock.now_ms(), state.last_ms)
        for command in batch:
            outcome = settle(command, state, now_ms)
            if outcome.refusal is not None or outcome.stale:
                raise RuntimeError(f"{command} was refused: {outcome}")
        await lane.commit(state)
        done += len(batch)
        if done % (100 * _BATCH) == 0:
            pace = done / (time.perf_counter() - began_s)
            left_s = (expected - done) / pace
            print(f"  {done:,} of {expected:,} commands, {pace:,.0f} a second, {left_s:,.0f} s left", file=sys.stderr)
