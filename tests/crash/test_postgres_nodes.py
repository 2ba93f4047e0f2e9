"""Several nodes on one PostgreSQL, one of them paused in the middle of its batch, and a server that is killed."""

from __future__ import annotations

import asyncio
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest

from strongroom.store.postgres.reads import PostgresReads
from strongroom.store.postgres.route import Route
from strongroom.wallet.verification import verify
from support.postgres import PostgresServer, database_of
from support.postgres_node import AT_ONCE, LIMITS, NAMES, UNAVAILABLE, node_world, said, started, transfer_randomly
from support.world import BTC, AnyStore, World

RICH: Final = 60
COUNT: Final = 400
UNDER_LOAD: Final = 2_000
"""So many that a fast machine is not done with them before the server is killed."""

KILLS: Final = 3
LOOK_EVERY_S: Final = 0.01
SERVED: Final = {"done", "insufficient_balance"}


@asynccontextmanager
async def house(dsn: str) -> AsyncIterator[tuple[World, list[int]]]:
    """A node, in whose house each of few customers has some units."""
    async with node_world(dsn, 0) as world:
        uids = [await world.user(name) for name in NAMES]
        for uid in uids:
            await world.fund(uid, BTC, RICH)
        yield world, uids


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    """A server of the test's own, which it may kill."""
    server = PostgresServer()
    yield server
    server.stop()


def total(reads: PostgresReads | AnyStore) -> int:
    """Return what all customers have together, after a look that nobody is below zero."""
    customers = [balance for account, balance, _ in reads.balances() if account >> 22 > 1_000]
    assert min(customers) >= 0
    return sum(customers)


EARLIER: Final = ("batch decided", "transaction begun")


async def test_two_nodes_make_one_ledger(tmp_path: Path) -> None:
    """Random transfers from two nodes and a third: every reading has all the money, and the books are whole."""
    dsn = database_of(tmp_path)
    async with house(dsn) as (world, uids), started(dsn, 1, COUNT) as first, started(dsn, 2, COUNT) as second:
        before, _ = world.store.last()
        own = asyncio.create_task(transfer_randomly(world, uids, COUNT // 4, random.Random(0)))
        reads, readings = PostgresReads(Route(dsn), LIMITS), 0
        while first.returncode is None or second.returncode is None:
            assert total(reads) == len(NAMES) * RICH
            readings += 1
            await asyncio.sleep(LOOK_EVERY_S)
        reads.close_reader()
        answers = Counter([*(await said(first))["told"], *(await said(second))["told"], *(await own)])
        assert set(answers) == SERVED
        assert readings > 10
        assert world.store.last()[0] == before + answers.total()
        assert verify(world.store).findings == []


@pytest.mark.parametrize(
    "point", ["transaction written", *(pytest.param(it, marks=pytest.mark.soak) for it in EARLIER)]
)
async def test_a_node_that_was_paused_in_its_batch_books_nothing_when_it_wakes_up(tmp_path: Path, point: str) -> None:
    """The server ends its turn, others go on, and what it had decided on an old state is turned away."""
    dsn = database_of(tmp_path)
    async with house(dsn) as (world, uids), started(dsn, 1, AT_ONCE, point) as paused:
        before, _ = world.store.last()
        assert (await said(paused))["stopped"] == point
        meanwhile = await transfer_randomly(world, uids, 20, random.Random(0))
        assert set(meanwhile) <= SERVED
        assert world.store.last()[0] == before + len(meanwhile)
        paused.send_signal(signal.SIGCONT)
        told = await said(paused)
        answers = Counter(told["told"])
        assert answers[UNAVAILABLE] >= 1
        assert told["troubles"]
        assert world.store.last()[0] == before + len(meanwhile) + answers.total() - answers[UNAVAILABLE]
        assert total(world.store) == len(NAMES) * RICH
        assert verify(world.store).findings == []


async def test_a_server_that_is_killed_under_load_loses_nothing_that_was_answered(server: PostgresServer) -> None:
    """After each crash and restart the books hold what was answered "done", once, and nothing that was turned away."""
    dsn = server.dsn(server.new_database())
    async with house(dsn) as (world, uids):
        before, _ = world.store.last()
        answers: Counter[str] = Counter()
        for kill in range(KILLS):
            asked = asyncio.create_task(transfer_randomly(world, uids, UNDER_LOAD, random.Random(kill)))
            await asyncio.sleep(0.05 + 0.05 * kill)
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)
            answers.update(await asked)
        assert answers[UNAVAILABLE] >= KILLS
        assert set(answers) <= SERVED | {UNAVAILABLE}
        assert world.store.last()[0] == before + answers.total() - answers[UNAVAILABLE]
        assert total(world.store) == len(NAMES) * RICH
        assert verify(world.store).findings == []
