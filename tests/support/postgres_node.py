"""A node of a house on PostgreSQL, as a process of its own, and what a test asks of it.

    .venv/bin/python -m support.postgres_node DSN NODE COUNT [POINT]

It makes COUNT random transfers among few customers, sixteen at a time, and prints a JSON line in the end: how each was
answered. With a POINT it stops itself with SIGSTOP when its batch first comes to that crash point, and says so before.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from strongroom import crashpoints
from strongroom.clock import Ids, SetClock
from strongroom.engine.port import DiskFailed
from strongroom.errors import Refused
from strongroom.records.users import Name
from strongroom.store.postgres.connection import Limits
from strongroom.store.postgres.store import PostgresStore
from strongroom.wallet.transfers import prepare_transfer
from support.world import NOW_MS, World, opened

ROOT: Final = Path(__file__).parents[2]
NAMES: Final = ("alice", "bob", "carol", "dave")
AT_ONCE: Final = 16
UNAVAILABLE: Final = "unavailable"
AGAIN_S: Final = 0.05
UNITS: Final = 30
LIMITS: Final = Limits(idle_ms=1_000, lock_ms=8_000, answer_s=10.0)
WAIT_S: Final = 30.0


@asynccontextmanager
async def node_world(dsn: str, node: int) -> AsyncIterator[World]:
    """Run a node; its clock, its references and its signatures are its own."""
    ahead_ms = node * 5_000
    ids = Ids(SetClock(NOW_MS + ahead_ms))
    async with opened(PostgresStore(dsn, ids, LIMITS), ahead_ms) as world:
        world._signatures = node << 64
        yield world


async def transfer(world: World, sender: int, amount: str, receiver: str) -> str:
    """Make one transfer and return how it was answered: "done", or the name of what was said instead."""
    try:
        command = prepare_transfer(world.context, world.guard(sender), "BTC", amount, receiver)
        outcome = await world.context.submit(command)
    except Refused as refusal:
        return refusal.error.name
    except DiskFailed:
        return UNAVAILABLE
    return outcome.refusal.error.name if outcome.refusal else "done"


async def transfer_randomly(world: World, uids: list[int], count: int, chance: random.Random) -> list[str]:
    """Make random transfers, some of more than there is, and return how each was answered.

    Each is asked for again for as long as there is no ledger; that is told too.
    """
    told: list[str] = []
    left = iter(range(count))

    async def one_after_the_other() -> None:
        for _ in left:
            sender, receiver = chance.sample(range(len(uids)), 2)
            amount = f"0.{chance.randrange(1, UNITS):08}"
            while (answer := await transfer(world, uids[sender], amount, NAMES[receiver])) == UNAVAILABLE:
                told.append(answer)
                await asyncio.sleep(AGAIN_S)
            told.append(answer)

    await asyncio.gather(*(one_after_the_other() for _ in range(AT_ONCE)))
    return told


def stop_at(point: str) -> None:
    """Stop this process when its batch first comes to a crash point."""

    def stop(name: str) -> None:
        if name == point:
            crashpoints.arm(None)
            say({"stopped": name})
            # To this thread, so that it does not run on until another one takes the signal.
            signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)

    crashpoints.arm(stop)


def say(what: dict[str, Any]) -> None:
    """Print what has happened."""
    print(json.dumps(what), flush=True)


async def play(dsn: str, node: int, count: int, point: str) -> None:
    """Be a node."""
    async with node_world(dsn, node) as world:
        uids = [world.store.row(Name, name).uid for name in NAMES]
        if point:
            stop_at(point)
        told = await transfer_randomly(world, uids, count, random.Random(node))
        say({"told": told, "troubles": world.events.troubles})


@asynccontextmanager
async def started(dsn: str, node: int, count: int, point: str = "") -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a node, which ends when it is done, or with the block."""
    environ = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'tests'}"}
    command = [sys.executable, "-m", "support.postgres_node", dsn, str(node), str(count), point]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, env=environ)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        _ = await process.wait()


async def said(process: asyncio.subprocess.Process) -> dict[str, Any]:
    """Return the next thing that a node says."""
    assert process.stdout is not None
    async with asyncio.timeout(WAIT_S):
        return json.loads(await process.stdout.readline())


if __name__ == "__main__":
    asyncio.run(play(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]))
