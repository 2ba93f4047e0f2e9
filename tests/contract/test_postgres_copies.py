"""Folios that a node has in memory, beside nodes that change them, and where a database was changed behind them all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import psycopg
import pytest

from strongroom.clock import Ids, SetClock
from strongroom.errors import InvariantBroken
from strongroom.store.postgres import announcements
from strongroom.store.postgres.store import PostgresStore
from strongroom.wallet.verification import verify
from support.postgres import database_of
from support.world import BTC, NOW_MS, World, opened

UNITS = 100
SENT = "0.00000001"


@asynccontextmanager
async def nodes(folder: Path, count: int) -> AsyncIterator[list[World]]:
    """Open nodes over the test's database, which follow nobody: they hear of each other with batches of their own."""
    async with AsyncExitStack() as stack:
        worlds: list[World] = []
        for number in range(count):
            store = PostgresStore(database_of(folder), Ids(SetClock(NOW_MS + number)))
            worlds.append(await stack.enter_async_context(opened(store, number)))
            worlds[-1]._signatures = number << 64
        yield worlds


async def said(world: World, sender: int, amount: str, receiver: str) -> str:
    """Let a user send bitcoin; return the refusal, empty when it was done."""
    outcome = await world.transfer(world.guard(sender), "BTC", amount, receiver)
    return str(outcome.refusal or "")


async def test_no_node_decides_over_what_another_has_changed(tmp_path: Path) -> None:
    """What one has spent another does not give away again, whoever of them had it in memory before."""
    async with nodes(tmp_path, 3) as worlds:
        alice, bob = await worlds[0].user("alice"), await worlds[0].user("bob")
        await worlds[0].fund(alice, BTC, UNITS)
        for turn in range(UNITS):
            assert await said(worlds[turn % 3], alice, SENT, "bob") == ""
        for world in worlds:
            assert "Insufficient" in await said(world, alice, SENT, "bob")
            assert (world.available(alice, BTC), world.available(bob, BTC)) == (0, UNITS)
        assert await said(worlds[1], bob, f"0.00000{UNITS}", "alice") == ""
        assert await said(worlds[2], alice, f"0.00000{UNITS}", "bob") == ""
        assert verify(worlds[0].store).findings == []


async def test_nodes_that_transfer_at_the_same_time_decide_over_each_others_commits(tmp_path: Path) -> None:
    """Of what all of them give away at once not a unit is given twice, and none is lost."""
    async with nodes(tmp_path, 3) as worlds:
        alice, bob = await worlds[0].user("alice"), await worlds[0].user("bob")
        await worlds[0].fund(alice, BTC, UNITS)
        told = await asyncio.gather(*(said(worlds[turn % 3], alice, SENT, "bob") for turn in range(2 * UNITS)))
        assert sum(not refusal for refusal in told) == UNITS
        assert worlds[1].available(bob, BTC) == UNITS
        assert verify(worlds[0].store).findings == []


async def test_a_node_that_has_missed_more_than_it_is_told_at_once_reads_everything_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of what was changed behind the commits that it is told of nothing comes from its memory."""
    monkeypatch.setattr(announcements, "AT_ONCE", 3)
    async with nodes(tmp_path, 2) as (first, second):
        alice, bob, carol, _ = [await first.user(name) for name in ("alice", "bob", "carol", "dave")]
        await first.fund(alice, BTC, UNITS)
        await first.fund(carol, BTC, UNITS)
        for _ in range(10):
            # In the end it has heard of everything: of more than one commit with each of its own.
            assert await said(second, alice, SENT, "bob") == ""
        for _ in range(10):
            assert await said(first, carol, SENT, "dave") == ""
        assert await said(first, alice, "0.00000090", "bob") == ""
        assert "Insufficient" in await said(second, alice, SENT, "bob")
        assert await said(second, bob, f"0.00000{UNITS}", "alice") == ""
        assert verify(first.store).findings == []


async def test_a_copy_that_is_out_of_date_gets_into_no_books(tmp_path: Path) -> None:
    """Where a folio was written and no commit tells of it, a batch over an older one is refused, and does nothing."""
    async with nodes(tmp_path, 1) as (world,):
        alice, bob = await world.user("alice"), await world.user("bob")
        await world.fund(alice, BTC, UNITS)
        assert await said(world, alice, SENT, "bob") == ""
        before, _ = world.store.last()
        with psycopg.connect(database_of(tmp_path), autocommit=True) as behind:
            _ = behind.execute("UPDATE folio SET edition = edition + 1 WHERE owner = %s", (alice,))
        with pytest.raises(InvariantBroken, match='"edition"'):
            _ = await said(world, alice, SENT, "bob")
        assert world.store.last()[0] == before
        assert world.available(bob, BTC) == 1
        # It is read again: whoever asks next is served.
        assert await said(world, alice, SENT, "bob") == ""
        assert verify(world.store).findings == []
