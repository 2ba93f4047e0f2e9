"""Nodes over one database, in one process: what each hears of the other, and what it may still rely on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from strongroom.books import open_snapshot
from strongroom.clock import MAX_NODES, Ids, SetClock
from strongroom.config.settings import Config
from strongroom.engine.command import NOBODY
from strongroom.errors import Refused
from strongroom.records.kept import Key
from strongroom.records.settings import SETTINGS_KEY
from strongroom.records.users import User
from strongroom.records.withdrawals import PaymentState
from strongroom.store.postgres.following import CURRENT_S
from strongroom.store.postgres.leadership import PostgresLeadership
from strongroom.store.postgres.store import PostgresStore
from strongroom.wallet.balances import balance_of
from strongroom.wallet.context import perform_own
from strongroom.wallet.settings import prepare_settings
from strongroom.wallet.users import MarkUser, find_receiver
from strongroom.wallet.verification import verify
from support.house_nodes import store_of
from support.nodes import wait_until
from support.paying import COIN, paying
from support.postgres import database_of, shared_server
from support.world import BITCOIN, BTC, NOW_MS, World, opened

WITHIN_S: Final = 5.0


@asynccontextmanager
async def node(folder: Path) -> AsyncIterator[World]:
    """Open one more node over the test's database; it follows nobody by itself."""
    async with opened(PostgresStore(database_of(folder), Ids(SetClock(NOW_MS)))) as world:
        yield world


class Ears:
    """What a store's subscribers are told."""

    def __init__(self, world: World) -> None:
        self.keys: list[Key] = []
        self._told = asyncio.Event()
        world.store.subscribe(self._listen)

    def _listen(self, state: Any) -> None:
        self.keys += state.rows
        self._told.set()

    async def until(self, key: Key) -> None:
        """Wait until a key was told."""
        async with asyncio.timeout(WITHIN_S):
            while key not in self.keys:
                self._told.clear()
                _ = await self._told.wait()


def store(world: World) -> PostgresStore:
    """Return a node's store."""
    assert isinstance(world.store, PostgresStore)
    return world.store


async def test_a_node_that_only_listens_hears_what_others_commit(tmp_path: Path) -> None:
    """A frozen user is told to it soon, with nothing to write of its own."""
    async with node(tmp_path) as first, node(tmp_path) as second:
        ears, following = Ears(second), asyncio.create_task(store(second).follow())
        uid = await first.user("alice")
        assert not second.store.row(User, uid).frozen
        await first.context.submit(MarkUser(NOBODY, uid, frozen=True, active=True))
        await ears.until((User, uid))
        assert second.store.row(User, uid).frozen

        async def is_current() -> bool:
            return second.store.is_current

        await wait_until(is_current, "the node that listens says that it is up to date")
        _ = following.cancel()


async def test_a_node_hears_under_the_lock_of_its_own_batch_too(tmp_path: Path) -> None:
    """Whatever was committed before its own commit was told before that was decided."""
    async with node(tmp_path) as first, node(tmp_path) as second:
        uid = await first.user("alice")
        ears = Ears(second)
        _ = await second.user("bob")
        assert (User, uid) in ears.keys
        assert SETTINGS_KEY not in ears.keys, "what was there when it began is no news"


async def test_what_was_not_heard_in_time_is_not_relied_on(tmp_path: Path) -> None:
    """A node that follows nobody knows half a second later that its memory may be old, and reads settings and users
    anew."""
    async with node(tmp_path) as first, node(tmp_path) as second:
        uid = await first.user("alice")
        assert not second.store.row(User, uid).frozen
        before = second.context.catalogue.snapshot
        off = msgspec.structs.replace(before.assets[-1], enabled=False)
        after = msgspec.structs.replace(before, assets=(*before.assets[:-1], off))
        await asyncio.sleep(CURRENT_S)
        assert not second.store.is_current
        await perform_own(first.context, lambda: prepare_settings(first.context, NOBODY, after))
        await first.context.submit(MarkUser(NOBODY, uid, frozen=True, active=True))
        assert second.context.catalogue.snapshot == after
        assert second.store.row(User, uid).frozen


async def test_a_receiver_that_another_node_opens_is_found_at_once(tmp_path: Path) -> None:
    """That a name was asked for when nobody had it is not remembered; who has it never changes, and is."""
    async with node(tmp_path) as first, node(tmp_path) as second:
        with pytest.raises(Refused, match="Receiver"):
            _ = find_receiver(second.store, "Alice")
        uid = await first.user("alice")
        assert [find_receiver(second.store, name).uid for name in ("Alice", "alice")] == [uid, uid]
        await first.context.submit(MarkUser(NOBODY, uid, frozen=False, active=False))
        await asyncio.sleep(CURRENT_S)
        with pytest.raises(Refused, match="Receiver"):
            _ = find_receiver(second.store, "alice")


def number_of(world: World) -> int:
    """Return the number that a node's references have."""
    return store(world).lanes[0]._ids.ref() % MAX_NODES


def cut_writers(folder: Path, most: int = 100) -> None:
    """End sessions that hold the nodes' numbers."""
    database = database_of(folder).rpartition("dbname=")[2]
    holders = f"SELECT pid FROM pg_locks WHERE locktype = 'advisory' ORDER BY pid LIMIT {most}"
    where = f"datname = '{database}' AND pid IN ({holders})"
    shared_server().run(f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE {where}")


async def test_a_node_whose_number_another_one_had_turns_away_what_waited(tmp_path: Path) -> None:
    """Its references might be the other's as well; what is asked for again has references of a new number."""
    async with node(tmp_path) as first:
        alice, _ = await first.user("alice"), await first.user("bob")
        await first.fund(alice, BTC, COIN)
        cut_writers(tmp_path)
        async with node(tmp_path) as second:
            assert number_of(first) == number_of(second), "the second has the number that was free"
            with pytest.raises(Refused):
                await first.transfer(first.guard(alice), "BTC", "0.1", "bob")
            outcome = await until_done(first, alice)
            assert outcome.refusal is None
            assert number_of(first) != number_of(second)


async def until_done(world: World, sender: int) -> Any:
    """Send a tenth to bob as soon as that is taken."""
    async with asyncio.timeout(WITHIN_S):
        while True:
            with suppress(Refused):
                return await world.transfer(world.guard(sender), "BTC", "0.1", "bob")
            await asyncio.sleep(0.02)


async def test_a_node_that_gets_its_number_back_goes_on(tmp_path: Path) -> None:
    """A connection that was lost, and nobody else had its number: nothing is turned away."""
    async with node(tmp_path) as first:
        alice, _ = await first.user("alice"), await first.user("bob")
        await first.fund(alice, BTC, COIN)
        cut_writers(tmp_path)
        outcome = await first.transfer(first.guard(alice), "BTC", "0.1", "bob")
        assert outcome.refusal is None


async def test_one_of_two_sessions_is_enough_to_keep_a_number(tmp_path: Path) -> None:
    """Another node that comes while one session is lost takes another number, and nothing is turned away."""
    async with node(tmp_path) as first:
        alice, _ = await first.user("alice"), await first.user("bob")
        await first.fund(alice, BTC, COIN)
        cut_writers(tmp_path, most=1)
        async with node(tmp_path) as second:
            assert number_of(first) != number_of(second)
            for _ in range(4):
                assert (await first.transfer(first.guard(alice), "BTC", "0.1", "bob")).refusal is None
            assert number_of(first) != number_of(second)
            assert store(first).nodes == 2


async def test_a_third_node_goes_on_after_a_batch_that_changed_nothing(tmp_path: Path) -> None:
    """It has tried three numbers; what the driver then drops at a ROLLBACK is nothing that commits rely on."""
    async with node(tmp_path), node(tmp_path), node(tmp_path) as third:
        alice, _ = await third.user("alice"), await third.user("bob")
        await third.fund(alice, BTC, COIN)
        guard = third.guard(alice)
        assert (await third.transfer(guard, "BTC", "0.1", "bob")).refusal is None
        replayed = await third.transfer(guard, "BTC", "0.1", "bob")
        assert replayed.refusal is not None
        for _ in range(2):
            assert (await third.transfer(third.guard(alice), "BTC", "0.1", "bob")).refusal is None


async def test_a_snapshot_is_of_one_moment_and_can_be_audited(tmp_path: Path) -> None:
    """What is committed behind it is not in it, in no question and in no walk."""
    config = Config(data=str(tmp_path), store=store_of(tmp_path))
    async with node(tmp_path) as world:
        alice, bob = await world.user("alice"), await world.user("bob")
        await world.fund(alice, BTC, COIN)
        snapshot = open_snapshot(config)
        walk = snapshot.each(User)
        first = next(walk)
        await world.transfer(world.guard(alice), "BTC", "0.1", "bob")
        _ = await world.user("carol")
        assert balance_of(snapshot, bob, BTC).total == 0
        assert sorted(user.uid for user in (first, *walk)) == sorted((alice, bob))
        assert verify(snapshot).is_whole
        assert snapshot.last()[0] == world.store.last()[0] - 2
        snapshot.close()


async def test_a_signed_payment_of_another_process_is_offered_behind_a_commit(tmp_path: Path) -> None:
    """A sender that has not signed it itself commits before it broadcasts: so what it read is on the replicas."""

    class Died(Exception):
        """The sender was killed."""

    def die(point: str) -> None:
        if point == "before broadcast":
            raise Died

    async with paying(PostgresStore(database_of(tmp_path), Ids(SetClock(NOW_MS))), tmp_path) as payouts:
        await payouts.endow(payouts.alice, BTC, BITCOIN, COIN)
        withdrawal = await payouts.withdraw("0.5")
        with pytest.raises(Died):
            await payouts.sender(crash_points=die).step()
        assert payouts.payment(withdrawal).state == PaymentState.SIGNED
        last, _ = payouts.reads.last()
        with pytest.raises(Died):
            await payouts.sender(crash_points=die).step()
        [item] = payouts.reads.items(last + 1, 10)
        assert b'"OfferPayment"' in bytes(item.command)
        sender = payouts.sender()
        await sender.step()
        await sender.step()
        assert payouts.reads.last()[0] == last + 2, "once a process"


async def test_a_seat_is_one_nodes_until_it_goes(tmp_path: Path) -> None:
    """Of two nodes that want it one has it, and the other has it soon after that one is closed."""
    first, second = (PostgresLeadership(database_of(tmp_path)) for _ in range(2))
    led = asyncio.Event()

    async def lead() -> None:
        led.set()
        _ = await asyncio.Event().wait()

    tasks = [asyncio.create_task(first.lead("seat", lead)), asyncio.create_task(first.run())]
    async with asyncio.timeout(WITHIN_S):
        _ = await led.wait()
    led.clear()
    tasks += [asyncio.create_task(second.lead("seat", lead)), asyncio.create_task(second.run())]
    await asyncio.sleep(1.2)
    assert (first.led, second.led) == ({"seat"}, frozenset())
    for task in tasks[:2]:
        _ = task.cancel()
    first.close()
    async with asyncio.timeout(WITHIN_S):
        _ = await led.wait()
    assert second.led == {"seat"}
    for task in tasks[2:]:
        _ = task.cancel()
    _ = await asyncio.wait(tasks)
    second.close()
