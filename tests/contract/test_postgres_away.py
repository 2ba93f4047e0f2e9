"""A database that goes away and comes back elsewhere: what one node makes of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import psycopg
import pytest

from strongroom import crashpoints
from strongroom.clock import Ids, SetClock
from strongroom.engine.port import DiskFailed
from strongroom.engine.state import State
from strongroom.errors import UNAVAILABLE, InvariantBroken, Refused
from strongroom.records.users import Name, User
from strongroom.store.postgres.connection import Limits, connect_reader
from strongroom.store.postgres.following import BEHIND
from strongroom.store.postgres.store import PostgresStore
from support.fault_proxy import Mode
from support.nodes import free_port, wait_until
from support.paying import Payouts, paying
from support.postgres import database_of, database_through, shared_server
from support.proxied import Line, proxied
from support.world import BTC, NOW_MS, World, opened

LIMITS: Final = Limits(connect_s=2, answer_s=2.0, read_s=2.0)
AT_ONCE_S: Final = 0.5
COMMITTED: Final = "transaction committed"


@pytest.fixture
def line() -> Iterator[Line]:
    """A line to the server, and no crash point armed when the test is over."""
    with proxied(shared_server().port) as line:
        yield line
        crashpoints.arm(None)


def store_through(folder: Path, line: Line) -> PostgresStore:
    """Return a store whose database is at the other end of a line."""
    return PostgresStore(database_through(folder, line.port), Ids(SetClock(NOW_MS)), LIMITS)


@asynccontextmanager
async def followed(folder: Path, line: Line) -> AsyncIterator[World]:
    """Open a node behind a line, which hears what others commit."""
    store = store_through(folder, line)
    async with opened(store) as world:
        following = asyncio.create_task(store.follow())
        yield world
        _ = following.cancel()


def cut_when_committed(line: Line) -> None:
    """Cut the line as soon as the next COMMIT was answered."""

    def cut(point: str) -> None:
        if point == COMMITTED:
            crashpoints.arm(None)
            line.turn(Mode.REFUSE)

    crashpoints.arm(cut)


def among_others(folder: Path) -> str:
    """Return how the database is found among several addresses, at the first of which nobody is."""
    names = dict(part.split("=", 1) for part in database_of(folder).split())
    hosts = f"host=127.0.0.1,{names['host']} port={free_port()},{names['port']}"
    return f"{hosts} user={names['user']} dbname={names['dbname']} target_session_attrs=read-write"


async def test_a_node_finds_the_server_that_writes_among_several(tmp_path: Path) -> None:
    """It reads, walks and commits where `target_session_attrs=read-write` leads, and what reads cannot write there."""
    conninfo = among_others(tmp_path)
    async with opened(PostgresStore(conninfo, Ids(SetClock(NOW_MS)), LIMITS)) as world:
        uid = await world.user("alice")
        assert [user.uid for user in world.store.each(User)] == [uid]
        reader = connect_reader(conninfo, LIMITS)
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction), reader.within(LIMITS.read_s):
            reader.run("DELETE FROM node")
        reader.close()


async def test_what_was_committed_is_answered_though_the_database_goes_at_that_moment(
    tmp_path: Path, line: Line
) -> None:
    """Beside a sender that listens to every commit: nobody is told "not done" of what is in the books."""
    async with paying(store_through(tmp_path, line), tmp_path) as payouts:
        sender = payouts.sender()
        assert await sender.step()
        await funded(payouts)
        [receiver] = [name for name in ("alice", "bob") if payouts.reads.row(Name, name).uid == payouts.bob]
        cut_when_committed(line)
        outcome = await payouts.world.transfer(payouts.world.guard(payouts.alice), "BTC", "0.5", receiver)
        assert outcome.refusal is None
        line.turn(Mode.PASS)
        assert payouts.world.available(payouts.bob, BTC) == 50_000_000


async def funded(payouts: Payouts) -> None:
    """Give alice a bitcoin."""
    await payouts.world.fund(payouts.alice, BTC, 100_000_000)


async def test_a_subscriber_that_reads_the_books_stops_the_writer(tmp_path: Path, line: Line) -> None:
    """It is a mistake of ours, and whoever waits is not told that nothing was done."""
    with pytest.raises(InvariantBroken, match="a subscriber has read the books"):
        await commit_beside_a_reader(tmp_path, line)


async def commit_beside_a_reader(folder: Path, line: Line) -> None:
    """Commit something beside a subscriber that reads when there is no database any more."""
    async with opened(store_through(folder, line)) as world:

        def read(state: State) -> None:
            del state
            _ = world.store.last()

        uid = await world.user("alice")
        world.store.subscribe(read)
        cut_when_committed(line)
        with pytest.raises(InvariantBroken, match="the writer stopped"):
            await world.fund(uid, BTC, 1)
        line.turn(Mode.PASS)


@pytest.mark.parametrize("mode", [Mode.STALL, Mode.REFUSE], ids=["silent", "refused"])
async def test_while_the_database_is_away_no_reader_waits_for_it(tmp_path: Path, line: Line, mode: Mode) -> None:
    """Once a node knows, it says so at once to everybody, and reads again soon after the database is back."""
    async with followed(tmp_path, line) as world:
        uid = await world.user("alice")
        line.turn(mode)
        await wait_until(lambda: knows(world), "the node knows that the database is away")
        began_s = time.monotonic()
        for _ in range(10):
            with pytest.raises(DiskFailed):
                _ = world.store.row(User, uid)
            with pytest.raises(DiskFailed):
                _ = list(world.store.each(User))
        assert time.monotonic() - began_s < AT_ONCE_S
        line.turn(Mode.PASS)
        await wait_until(lambda: knows(world, away=False), "the node knows that it is back")
        assert world.store.row(User, uid).uid == uid


async def test_a_database_that_falls_silent_holds_a_node_up_once(tmp_path: Path, line: Line) -> None:
    """Who reads first waits as long as a read may take, and tries no other connection; everybody else is told at once,
    although nothing could be asked meanwhile."""
    store = store_through(tmp_path, line)
    async with opened(store) as world:
        _ = await world.user("alice")
        line.turn(Mode.STALL)
        began_s = time.monotonic()
        for _ in range(10):
            with pytest.raises(DiskFailed):
                _ = store.last()
        assert time.monotonic() - began_s < LIMITS.read_s + AT_ONCE_S
        line.turn(Mode.PASS)
        following = asyncio.create_task(store.follow())
        await wait_until(lambda: knows(world, away=False), "the node knows that it is back")
        assert store.last()[0] > 0
        _ = following.cancel()


async def knows(world: World, *, away: bool = True) -> bool:
    """Say whether a node says that the database is away, or that it is not."""
    assert isinstance(world.store, PostgresStore)
    return bool(world.store.trouble) is away


async def test_books_that_have_lost_commits_are_not_gone_on_with(tmp_path: Path, line: Line) -> None:
    """After a failover that lost what this node has seen it is not ready, decides nothing, and says what to do."""
    async with followed(tmp_path, line) as world:
        uid = await world.user("alice")
        database = database_of(tmp_path).rpartition("dbname=")[2]
        shared_server().run("UPDATE journal SET commits = commits - 1", database)
        await wait_until(lambda: knows(world), "the node knows that commits are gone")
        assert isinstance(world.store, PostgresStore)
        assert world.store.trouble == BEHIND
        assert not world.store.is_current
        before = world.store.last()
        with pytest.raises(Refused) as refused:
            await world.fund(uid, BTC, 1)
        assert refused.value.error is UNAVAILABLE
        assert world.store.last() == before
        shared_server().run("UPDATE journal SET commits = commits + 1", database)
        await wait_until(lambda: knows(world, away=False), "the node knows that nothing is missing")
        await until_taken(world)
        await world.fund(uid, BTC, 1)


async def test_other_commits_in_the_place_of_lost_ones_are_told_apart(tmp_path: Path, line: Line) -> None:
    """A database that has lost what this node has seen, and made as many commits since, is not gone on with either."""
    async with followed(tmp_path, line) as world:
        uid = await world.user("alice")
        await world.fund(uid, BTC, 1)
        database = database_of(tmp_path).rpartition("dbname=")[2]
        newest = "number = (SELECT commits FROM journal)"
        [(kept,)] = shared_server().run(f"SELECT id FROM batch WHERE {newest}", database)
        rewriting = "SET session_replication_role = replica; UPDATE batch SET id"
        shared_server().run(f"{rewriting} = gen_random_uuid() WHERE {newest}", database)
        with pytest.raises(Refused) as refused:
            await world.fund(uid, BTC, 1)
        assert refused.value.error is UNAVAILABLE
        await wait_until(lambda: knows(world), "the node knows that commits are gone")
        assert isinstance(world.store, PostgresStore)
        assert world.store.trouble == BEHIND
        shared_server().run(f"{rewriting} = '{kept}' WHERE {newest}", database)
        await wait_until(lambda: knows(world, away=False), "the node knows that nothing is missing")
        await until_taken(world)
        await world.fund(uid, BTC, 1)
        assert world.available(uid, BTC) == 2


async def until_taken(world: World) -> None:
    """Wait until commands are taken again."""

    async def is_calm() -> bool:
        return not world.writer.trouble

    await wait_until(is_calm, "commands are taken again")


async def test_a_restart_of_the_server_is_not_taken_for_its_absence(tmp_path: Path, line: Line) -> None:
    """Connections that were cut are replaced before anybody is told of trouble."""
    async with followed(tmp_path, line) as world:
        uid = await world.user("alice")
        line.cut()
        for _ in range(20):
            assert world.store.row(User, uid).uid == uid
            await asyncio.sleep(0.02)
            assert await knows(world, away=False)
