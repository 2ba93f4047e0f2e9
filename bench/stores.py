"""Transfers a second at the store, settled and committed: SQLite, and PostgreSQL with one node and with two.

    .venv/bin/python bench/stores.py [--seconds 3] [--batches 1,10,100,500]

Every node is a process that does what the writer does (begin, settle, commit) with batches of a fixed size, each
transfer with a fresh signature; there is no queue and no HTTP. PostgreSQL has its own defaults, and the same disk.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TypeAlias

from postgres import running

from strongroom.clock import Clock, Ids
from strongroom.engine.command import NOBODY, Command, Guard
from strongroom.engine.settle import Outcome, settle
from strongroom.records.history import LineType
from strongroom.records.settings import AssetSettings, Snapshot
from strongroom.records.users import User
from strongroom.store.postgres.store import PostgresStore
from strongroom.store.sqlite.store import SqliteStore
from strongroom.wallet.bookings import prepare_booking
from strongroom.wallet.context import Context
from strongroom.wallet.settings import prepare_settings
from strongroom.wallet.transfers import Transfer
from strongroom.wallet.users import prepare_user

Store: TypeAlias = SqliteStore | PostgresStore

USERS = 2_000
BTC = 1
_COINS = 10**15
_SETTING_UP = 500
_WINDOW_MS = 60_000
_NODE_S = 600


def opened(place: str) -> Store:
    """Return the store of a folder, or of a database where the place is how libpq finds one."""
    ids = Ids(Clock())
    return PostgresStore(place, ids) if "dbname=" in place else SqliteStore(Path(place), ids)


async def write(store: Store, clock: Clock, batch: list[Command]) -> list[Outcome]:
    """Write one batch as the writer does."""
    lane = store.lanes[0]
    state = await lane.begin(batch)
    now_ms = max(clock.now_ms(), state.last_ms)
    outcomes = [settle(command, state, now_ms) for command in batch]
    await lane.commit(state)
    return outcomes


async def furnish(place: str) -> None:
    """Declare an asset, and open users who have enough of it."""
    store, clock = opened(place), Clock()

    async def submit(command: Command) -> Outcome:
        [outcome] = await write(store, clock, [command])
        return outcome

    context = Context(submit, store, clock, Ids(clock))
    await submit(prepare_settings(context, NOBODY, Snapshot((AssetSettings(BTC, "BTC", "Bitcoin", fiat=False),))))
    users = [prepare_user(context, NOBODY, f"user{number}", f"u{number}@example.com", 0) for number in range(USERS)]
    for first in range(0, USERS, _SETTING_UP):
        await write(store, clock, list(users[first : first + _SETTING_UP]))
    funds = [prepare_booking(context, NOBODY, user.uid, BTC, LineType.EXPRESS_BUY, _COINS) for user in users]
    for first in range(0, USERS, _SETTING_UP):
        await write(store, clock, list(funds[first : first + _SETTING_UP]))
    store.close()


async def measure(place: str, batch: int, seconds: float, node: int) -> float:
    """Return how many transfers a second one node makes."""
    store, clock, chance = opened(place), Clock(), random.Random(node)
    uids, ids = [user.uid for user in store.rows(User, {}, USERS)], Ids(clock)

    def transfer() -> Command:
        sender, receiver = chance.sample(uids, 2)
        guard = Guard(sender, 1, os.urandom(48), clock.now_ms() + _WINDOW_MS)
        return Transfer(guard, sender, receiver, BTC, chance.randrange(1, 1000), ids.ref(), ids.ref(), False)

    done, began_s = 0, time.monotonic()
    while time.monotonic() - began_s < seconds:
        outcomes = await write(store, clock, [transfer() for _ in range(batch)])
        done += sum(outcome.refusal is None and not outcome.stale for outcome in outcomes)
    rate = done / (time.monotonic() - began_s)
    store.close()
    return rate


def rates(place: str, batch: int, seconds: float, nodes: int) -> list[float]:
    """Return what each of several nodes made, all at the same time."""
    command = [sys.executable, __file__, "--node", place, "--seconds", str(seconds), "--batches", str(batch)]
    running_nodes = [
        subprocess.Popen([*command, "--number", str(number)], stdout=subprocess.PIPE) for number in range(nodes)
    ]
    return [json.loads(node.communicate(timeout=_NODE_S)[0]) for node in running_nodes]


def main() -> None:
    """Print a table, or be one node of it."""
    options = argparse.ArgumentParser(description="Compare the two stores.")
    options.add_argument("--seconds", type=float, default=3.0)
    options.add_argument("--batches", default="1,10,100,500")
    options.add_argument("--node", default="")
    options.add_argument("--number", type=int, default=0)
    given = options.parse_args()
    batches = [int(text) for text in given.batches.split(",")]
    if given.node:
        print(json.dumps(asyncio.run(measure(given.node, batches[0], given.seconds, given.number))))
        return
    with tempfile.TemporaryDirectory(prefix="strongroom-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        with running(folder / "postgres") as cluster:
            places = {"SQLite": str(folder / "sqlite"), "PostgreSQL": cluster.dsn("postgres")}
            for place in places.values():
                asyncio.run(furnish(place))
            print(f"{'transfers a second, batches of':<32}" + "".join(f"{batch:>10}" for batch in batches))
            for store, nodes in (("SQLite", 1), ("PostgreSQL", 1), ("PostgreSQL", 2)):
                row = [sum(rates(places[store], batch, given.seconds, nodes)) for batch in batches]
                print(f"{f'{store}, {nodes} node(s)':<32}" + "".join(f"{rate:>10,.0f}" for rate in row), flush=True)


if __name__ == "__main__":
    main()
