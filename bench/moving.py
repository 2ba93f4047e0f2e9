"""How long a move from SQLite to PostgreSQL takes, how much disk an item takes in either, and how much log it makes.

    PYTHONPATH=src:tests .venv/bin/python bench/moving.py [--items 200000]

The house is 2,000 customers who have sent each other money; each transfer is one item with two postings and two history
lines, under a signature that is still remembered. After the move they go on there, in commits of 500 and of one.
PostgreSQL has its own defaults, and the same disk.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import resource
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from urllib.parse import quote

from postgres import Cluster, running
from stores import BTC, USERS, furnish, opened, write

from strongroom.admin.moving import move
from strongroom.clock import Clock, Ids
from strongroom.engine.command import Command, Guard
from strongroom.records.users import User
from strongroom.store.sqlite.connection import DATABASE_FILE
from strongroom.wallet.transfers import Transfer

_BATCH = 500
_WINDOW_MS = 3_600_000


async def live(place: str, items: int, batch: int) -> None:
    """Let customers send each other money until the journal has so many items."""
    store, clock, chance = opened(place), Clock(), random.Random(items)
    uids, ids = [user.uid for user in store.rows(User, {}, USERS)], Ids(clock)
    clock.go_on_after(store.last()[1])

    def transfer() -> Command:
        sender, receiver = chance.sample(uids, 2)
        guard = Guard(sender, 1, os.urandom(48), clock.now_ms() + _WINDOW_MS)
        return Transfer(guard, sender, receiver, BTC, chance.randrange(1, 1000), ids.ref(), ids.ref(), False)

    while (left := items - store.last()[0]) > 0:
        await write(store, clock, [transfer() for _ in range(min(left, batch))])
    store.close()


def grow(cluster: Cluster, items: int, more: int, batch: int) -> str:
    """Let the moved house go on, and return what each item has cost."""
    before = disk(cluster)
    asyncio.run(live(cluster.dsn("postgres"), items + more, batch))
    size, log = (now - then for now, then in zip(disk(cluster), before, strict=True))
    return f"in commits of {batch}: {size / more:,.0f} bytes an item, and {log / more:,.0f} of log"


def disk(cluster: Cluster) -> tuple[int, int]:
    """Return the size of the database, and how much log was ever written (bytes)."""
    sql = "SELECT pg_database_size('postgres'), pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')"
    size, log = cluster.run("psql", "-Atc", sql).split("|")
    return int(size), int(log)


def main() -> None:
    """Print a table."""
    options = argparse.ArgumentParser(description="Move a house.")
    options.add_argument("--items", type=int, default=200_000)
    items = options.parse_args().items
    with tempfile.TemporaryDirectory(prefix="strongroom-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        house = folder / "house"
        asyncio.run(furnish(str(house)))
        asyncio.run(live(str(house), items, _BATCH))
        with running(folder / "postgres") as cluster:
            names = dict(part.split("=", 1) for part in cluster.dsn("postgres").split())
            url = f"postgresql://{names['user']}@/{names['dbname']}?host={quote(names['host'], safe='')}"
            url += f"&port={names['port']}"
            took, last = defaultdict[str, float](float), ["", time.monotonic()]

            def tell(what: str, rows: int) -> None:
                now_s = time.monotonic()
                took[last[0]] += now_s - last[1]
                last[:] = [what.partition(" ")[0], now_s]

            began_s = time.monotonic()
            view = move(f"sqlite:{house}", url, tell)
            took_s = time.monotonic() - began_s
            assert view.moved, view.findings
            size, _ = disk(cluster)
            memory_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
            grown = [grow(cluster, items, 20_000, _BATCH), grow(cluster, items + 20_000, 2_000, 1)]
        rows = sum(kind.rows_in_source for kind in view.kinds)
        sqlite = (house / DATABASE_FILE).stat().st_size
        print(f"{view.items:,} items, {rows:,} rows in {took_s:.1f} s: {rows / took_s:,.0f} rows a second")
        print(", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in took.items() if stage))
        each = f"SQLite {sqlite / items:,.0f} bytes an item, PostgreSQL {size / items:,.0f}"
        print(f"{each}; peak memory {memory_mib} MiB", *grown, sep="\n")


if __name__ == "__main__":
    main()
