"""Reads of a server on PostgreSQL are answered beside its event loop: who waits for one keeps nobody else waiting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg
import pytest

from strongroom.api import reading
from strongroom.clock import Clock, Ids
from strongroom.config.settings import Simulation
from strongroom.custody.signer import seal_seed
from strongroom.engine.command import NOBODY
from strongroom.records.history import LineType
from strongroom.treasury import SEED_FILE
from strongroom.wallet.bookings import prepare_booking
from strongroom.wallet.context import perform_own
from support.evm import SEED
from support.house_nodes import store_of
from support.nodes import wait_until
from support.postgres import database_of
from support.server import MASTER_KEY, TRANSFER, WALLET, Member, Served, join, served, settings, transfer_to

HISTORY = "/api/v3.2/user/wallet_history"
COIN = 100_000_000


@pytest.fixture
async def house(tmp_path: Path) -> AsyncGenerator[Served]:
    """A server over a database."""
    alone = Simulation(enabled=False)
    config = settings(tmp_path, store=store_of(tmp_path), simulation=alone, networks={}, offers={})
    config.folder.mkdir(parents=True)
    (config.folder / SEED_FILE).write_bytes(seal_seed(SEED, MASTER_KEY, Ids(Clock())))
    async with served(config) as house:
        yield house


async def rich(house: Served) -> Member:
    """Open alice, who has paid in at the bank: her history asks for the rows of deposits."""
    alice = await join(house.application, "alice")
    context = house.application.context
    await perform_own(context, lambda: prepare_booking(context, NOBODY, alice.uid, 1, LineType.DEPOSIT, COIN))
    return alice


@contextmanager
def locked(folder: Path, table: str) -> Iterator[None]:
    """Let nobody read a table."""
    with closing(psycopg.connect(database_of(folder))) as connection:
        _ = connection.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE".encode())
        yield


async def waiting(house: Served) -> str:
    """Return how many reads wait for the database, as the metrics say."""
    page = (await house.client.get("/metrics")).text
    return next(line.split()[1] for line in page.splitlines() if line.startswith("strongroom_reads_waiting "))


async def test_a_read_that_waits_keeps_nobody_else_waiting(tmp_path: Path, house: Served) -> None:
    """While the database holds one customer's history back, all others are answered, and changes are made."""
    alice, bob = await rich(house), await join(house.application, "bob")
    with locked(tmp_path, "deposit"):
        history = asyncio.create_task(house.get(alice, HISTORY))
        await wait_until(lambda: is_waiting(house, 1), "the history is being read")
        assert (await house.post(alice, TRANSFER, transfer_to(bob))).status_code == 200
        assert [row["available"] for row in (await house.get(bob, WALLET)).json() if row["currency"] == "BTC"] == [0.1]
        assert (await house.client.get("/readyz")).status_code == 200
        assert not history.done()
    assert [row["type"] for row in (await history).json()] == ["Deposit"]
    assert await waiting(house) == "0.0"


async def is_waiting(house: Served, count: int) -> bool:
    """Say whether so many reads wait."""
    return await waiting(house) == f"{count}.0"


async def test_no_more_reads_wait_than_the_bound(
    tmp_path: Path, house: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More are told at once that the system is busy, in their own dialect; what waited is answered all the same."""
    monkeypatch.setattr(reading, "MOST_WAITING", 2)
    alice = await rich(house)
    with locked(tmp_path, "deposit"):
        histories = [asyncio.create_task(house.get(alice, HISTORY)) for _ in range(2)]
        await wait_until(lambda: is_waiting(house, 2), "both histories are being read")
        refused = await house.get(alice, HISTORY)
        assert (refused.status_code, refused.json()["message"]) == (503, "System busy")
    assert [(await history).status_code for history in histories] == [200, 200]
    assert (await house.get(alice, HISTORY)).status_code == 200


async def test_a_bad_read_is_refused_and_a_failed_one_is_no_secret(tmp_path: Path, house: Served) -> None:
    """A parameter that is none is told as ever; what takes too long at the database is answered 503."""
    alice = await rich(house)
    refused = await house.client.get(f"{HISTORY}?count=0", headers=alice.headers(HISTORY))
    assert (refused.status_code, refused.json()["errorCode"]) == (400, -2)
    with locked(tmp_path, "deposit"):
        failed = await house.client.get(HISTORY, headers=alice.headers(HISTORY), timeout=60)
    assert (failed.status_code, failed.json()["message"]) == (503, "Ledger cannot be read")
    assert (await house.get(alice, HISTORY)).status_code == 200
