"""Folios that a node has in memory, beside nodes that change them, and where a database was changed behind them all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import cast

import psycopg
import pytest

from strongroom.clock import Ids, SetClock
from strongroom.engine.command import NOBODY
from strongroom.errors import InvariantBroken
from strongroom.records.users import Name, Profile, User
from strongroom.store.postgres import announcements
from strongroom.store.postgres.announcements import Heard
from strongroom.store.postgres.store import PostgresStore
from strongroom.wallet.context import perform_own
from strongroom.wallet.users import MarkUser
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


def database(world: World) -> PostgresStore:
    """Return a node's store."""
    return cast(PostgresStore, world.store)


async def said(world: World, sender: int, amount: str, receiver: str) -> str:
    """Let a user send bitcoin; return the refusal, empty when it was done."""
    outcome = await world.transfer(world.guard(sender), "BTC", amount, receiver)
    return str(outcome.refusal or "")


async def test_no_node_decides_over_what_another_has_changed(tmp_path: Path) -> None:
    """What one has spent another does not give away again, whoever of them had it in memory before."""
    async with nodes(tmp_path, 3) as worlds:
        alice, bob = await worlds[0].user("alice"), await worlds[0].user("bob")
        await worlds[0].fund(alice, BTC, UNITS)
        database(worlds[2]).warm()
        for turn in range(UNITS):
            assert await said(worlds[turn % 3], alice, SENT, "bob") == ""
        for world in worlds:
            assert "Insufficient" in await said(world, alice, SENT, "bob")
            assert (world.available(alice, BTC), world.available(bob, BTC)) == (0, UNITS)
        assert await said(worlds[1], bob, f"0.00000{UNITS}", "alice") == ""
        assert await said(worlds[2], alice, f"0.00000{UNITS}", "bob") == ""
        assert verify(worlds[0].store).findings == []


async def test_a_node_starts_with_what_the_newest_customers_need(tmp_path: Path) -> None:
    """Names are told while nobody can read them in the database, and what was spent before the start is not there."""
    async with nodes(tmp_path, 2) as [first, second]:
        alice, bob = await first.user("alice"), await first.user("bob")
        await first.fund(alice, BTC, UNITS)
        assert await said(first, alice, SENT, "bob") == ""
        database(second).warm()
        with psycopg.connect(database_of(tmp_path)) as other:
            other.execute('LOCK TABLE name, profile, "user" IN ACCESS EXCLUSIVE MODE')
            assert [second.store.row(Name, name).uid for name in ("alice", "bob@example.com")] == [alice, bob]
            assert second.store.row(Profile, bob).username == "bob"
        assert await said(second, alice, f"0.00000{UNITS}", "bob") == "BADREQUEST: Insufficient wallet balance"
        assert await said(first, alice, SENT, "bob") == ""
        assert await said(second, bob, f"{SENT[:-1]}2", "alice") == ""
        assert verify(first.store).findings == []


async def test_who_is_frozen_after_the_start_is_frozen_at_every_node(tmp_path: Path) -> None:
    """What a node has read when it started is forgotten as soon as another one changes it."""
    async with nodes(tmp_path, 2) as [first, second]:
        alice, _ = await first.user("alice"), await first.user("bob")
        await first.fund(alice, BTC, UNITS)
        database(second).warm()
        await perform_own(first.context, lambda: MarkUser(NOBODY, alice, frozen=True, active=True))
        assert await said(second, alice, SENT, "bob") != ""
        assert second.store.row(User, alice).frozen


async def test_nothing_is_kept_of_a_server_that_lacks_what_was_heard(tmp_path: Path) -> None:
    """One that led before a failover still has keys as they were before they were revoked."""
    async with nodes(tmp_path, 1) as [world]:
        await world.fund(await world.user("alice"), BTC, UNITS)
        store = database(world)
        store._node.follower.heard = Heard(store._commits() + 1)
        store.warm()
        assert store._node.remembered.find(Name, ("alice",), is_current=True) is None
        store._node.follower.heard = Heard(store._commits())
        store.warm()
        assert store._node.remembered.find(Name, ("alice",), is_current=True) is not None


async def test_a_node_whose_database_is_away_starts_cold(tmp_path: Path) -> None:
    """What cannot be read is read later: that is told by whoever asks for it, and is no reason not to start."""
    async with nodes(tmp_path, 1) as [world]:
        alice = await world.user("alice")
        store = database(world)
        store.close_reader()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(store._route, "_given", f"{database_of(tmp_path)}_nowhere")
            store.warm()
        assert store.row(Name, "alice").uid == alice


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
