"""A standby that takes over from a server that says nothing any more: nodes wait for the old one no longer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from strongroom import crashpoints
from strongroom.clock import Ids, SetClock
from strongroom.errors import Refused
from strongroom.store.postgres.connection import Limits
from strongroom.store.postgres.store import PostgresStore
from strongroom.wallet.verification import verify
from support.fault_proxy import Mode
from support.nodes import wait_until
from support.postgres import PostgresServer
from support.proxied import Line, proxied
from support.world import BTC, NOW_MS, World, opened

LIMITS: Final = Limits(connect_s=2, answer_s=600.0)
"""Nobody is let go by a limit of his own."""

COIN: Final = 100_000_000
SETTLED_S: Final = 30.0
"""Half as long as the line stalls at most."""


@contextmanager
def replicated() -> Iterator[tuple[PostgresServer, PostgresServer, str]]:
    """Run a server that waits for its standby, and the standby; give a database's name too."""
    primary = PostgresServer(synchronous_standby_names="*")
    try:
        primary.run("ALTER SYSTEM SET synchronous_commit = local")
        primary.run("SELECT pg_reload_conf()")
        standby = PostgresServer(primary)
        try:
            yield primary, standby, primary.new_database()
        finally:
            standby.stop()
    finally:
        primary.stop()


async def sent(world: World, sender: int) -> str:
    """Let bob get a satoshi of alice's; return why not, if not."""
    try:
        outcome = await world.transfer(world.guard(sender), "BTC", "0.00000001", "bob")
    except Refused as refusal:
        return str(refusal)
    return "" if outcome.refusal is None else str(outcome.refusal)


def stall_at(point: str, line: Line) -> asyncio.Event:
    """Let nothing pass the line any more when the next batch has come to a point; the event tells that it has."""
    loop, reached = asyncio.get_running_loop(), asyncio.Event()

    def stall(name: str) -> None:
        if name == point:
            crashpoints.arm(None)
            line.turn(Mode.STALL)
            _ = loop.call_soon_threadsafe(reached.set)

    crashpoints.arm(stall)
    return reached


@pytest.mark.timeout(300)
@pytest.mark.parametrize("point", [pytest.param("batch taken", marks=pytest.mark.soak), "transaction written"])
async def test_a_batch_at_a_server_that_hangs_is_settled_at_its_successor(tmp_path: Path, point: str) -> None:
    """What waits for it is known to be done or not as soon as another server leads, and what comes then is done."""
    with replicated() as (primary, standby, database), proxied(primary.port) as line:
        hosts = f"host=127.0.0.1,127.0.0.1 port={line.port},{standby.port}"
        conninfo = f"{hosts} user=postgres dbname={database} target_session_attrs=read-write"
        store = PostgresStore(conninfo, Ids(SetClock(NOW_MS)), LIMITS)
        async with opened(store) as world:
            following = asyncio.create_task(store.follow())
            alice, bob = await world.user("alice"), await world.user("bob")
            await world.fund(alice, BTC, COIN)
            assert await sent(world, alice) == ""
            # The connection for look-ups leads to the server that is going to hang.
            assert world.available(bob, BTC) == 1
            hangs = stall_at(point, line)
            waiting = asyncio.create_task(sent(world, alice))
            _ = await hangs.wait()
            await wait_until(lambda: knows(store), "the node knows that nothing comes")
            standby.run("SELECT pg_promote()")
            began_s = time.monotonic()
            told = await waiting
            assert time.monotonic() - began_s < SETTLED_S
            await wait_until(lambda: knows(store, away=False), "the node knows its new database")
            assert await sent(world, alice) == ""
            assert world.available(bob, BTC) == 2 + (told == "")
            # The old one would still take commits, which nobody has heard of.
            line.turn(Mode.REFUSE)
            assert verify(world.store).findings == []
            _ = following.cancel()


async def knows(store: PostgresStore, *, away: bool = True) -> bool:
    """Say whether a node knows that its database is away, or that it is not."""
    return bool(store.trouble) is away
