"""What every store must do: the same commands lead to the same books, and what was answered is there."""

from __future__ import annotations

import asyncio
from pathlib import Path

import psycopg
import pytest

from strongroom.clock import DAY_MS, Ids, SetClock
from strongroom.engine.command import Command, Guard
from strongroom.engine.settle import Outcome
from strongroom.errors import INSUFFICIENT_BALANCE, INVALID_NONCE
from strongroom.records.guards import Nonce, Reply
from strongroom.records.history import Line, Thread
from strongroom.records.users import Name
from strongroom.store.postgres.schema import DatabaseNewer
from strongroom.store.postgres.store import PostgresStore
from strongroom.store.sqlite.store import SqliteStore
from strongroom.wallet.context import Remember
from support.postgres import database_of, shared_server
from support.world import BTC, NOW_MS, World, new_store, opened

COIN = 100_000_000


async def test_a_transfer_moves_money_from_one_user_to_the_other(world: World) -> None:
    """What the sender loses the receiver gains, and nothing else changes."""
    alice, bob = await world.user("alice"), await world.user("bob")
    await world.fund(alice, BTC, 10 * COIN)
    outcome = await world.transfer(world.guard(alice), "btc", "1.5", "Bob")
    assert outcome.refusal is None
    assert (world.available(alice, BTC), world.available(bob, BTC)) == (850_000_000, 150_000_000)


async def test_an_overdraft_is_refused_and_leaves_the_books_as_they_were(world: World) -> None:
    """A refusal changes no balance, but stands in the journal."""
    alice = await world.user("alice")
    await world.user("bob")
    await world.fund(alice, BTC, COIN)
    before = sorted(world.store.balances())
    outcome = await world.transfer(world.guard(alice), "BTC", "1.00000001", "bob")
    assert outcome.refusal is not None
    assert outcome.refusal.error is INSUFFICIENT_BALANCE
    assert sorted(world.store.balances()) == before
    assert world.store.items(outcome.item, 1)[0].refusal == "insufficient_balance"


async def test_rows_of_several_values_come_in_one_look_in_key_order(world: World) -> None:
    """Who lists payments of several states sees each once, oldest first or newest first, and at most the limit."""
    numbers = {name: await world.user(name) for name in ("dora", "carol", "bob", "alice")}
    wanted = {"uid": (numbers["dora"], numbers["alice"], numbers["bob"])}
    everything = ["alice", "alice@example.com", "bob", "bob@example.com", "dora", "dora@example.com"]
    assert [row.folded for row in world.store.rows(Name, wanted, 10)] == everything
    assert [row.folded for row in world.store.rows(Name, wanted, 3)] == everything[:3]
    assert [row.folded for row in world.store.rows(Name, wanted, 3, newest_first=True)] == everything[:2:-1]
    assert [row.folded for row in world.store.rows(Name, {**wanted, "folded": "bob"}, 10)] == ["bob"]


async def test_a_signature_is_used_up_by_success_and_by_refusal(world: World) -> None:
    """The same signed request again is an invalid nonce, whether the first succeeded or not."""
    alice = await world.user("alice")
    await world.user("bob")
    await world.fund(alice, BTC, COIN)
    for amount in ("0.25", "5", "bad amount"):
        guard = world.guard(alice)
        await world.transfer(guard, "BTC", amount, "bob")
        again = await world.transfer(guard, "BTC", amount, "bob")
        assert again.refusal is not None
        assert again.refusal.error is INVALID_NONCE
    assert world.available(alice, BTC) == 75_000_000


async def test_two_requests_with_one_signature_in_one_batch_are_done_once(world: World) -> None:
    """Twins that wait in the queue together are told apart from two transfers."""
    alice = await world.user("alice")
    await world.user("bob")
    await world.fund(alice, BTC, COIN)
    guard = world.guard(alice)
    outcomes = await asyncio.gather(*(world.transfer(guard, "BTC", "0.1", "bob") for _ in range(5)))
    assert sum(outcome.refusal is None for outcome in outcomes) == 1
    assert world.available(alice, BTC) == 90_000_000


async def test_an_idempotency_key_answers_the_first_reply_again(world: World) -> None:
    """A retry with a fresh signature moves nothing and tells what the first told; its own signature is used up too."""
    alice = await world.user("alice")
    await world.user("bob")
    await world.fund(alice, BTC, COIN)
    first = await world.transfer(world.guard(alice, "key", "print"), "BTC", "0.1", "bob")
    retry = world.guard(alice, "key", "print")
    second = await world.transfer(retry, "BTC", "0.1", "bob")
    assert second.repeated
    assert (second.result, second.at_ms) == (first.result, first.at_ms)
    assert world.available(alice, BTC) == 90_000_000
    other = await world.transfer(world.guard(alice, "key", "other"), "BTC", "0.2", "bob")
    assert other.refusal is not None
    assert other.refusal.error.name == "idempotency_mismatch"


async def test_a_refusal_does_not_burn_the_idempotency_key(world: World) -> None:
    """After a refusal the same key carries the request out."""
    alice = await world.user("alice")
    await world.user("bob")
    refused = await world.transfer(world.guard(alice, "key", "print"), "BTC", "0.1", "bob")
    assert refused.refusal is not None
    await world.fund(alice, BTC, COIN)
    done = await world.transfer(world.guard(alice, "key", "print"), "BTC", "0.1", "bob")
    assert done.refusal is None
    assert not done.repeated


async def test_a_hundred_transfers_at_once_share_commits_and_all_count(world: World) -> None:
    """Concurrent transfers are batched, none is lost and the last of them are refused when the money is gone."""
    alice, bob = await world.user("alice"), await world.user("bob")
    await world.fund(alice, BTC, 90)
    outcomes = await asyncio.gather(
        *(world.transfer(world.guard(alice), "BTC", "0.00000001", "bob") for _ in range(100))
    )
    assert sum(outcome.refusal is None for outcome in outcomes) == 90
    assert (world.available(alice, BTC), world.available(bob, BTC)) == (0, 90)


async def test_history_lines_are_linked_from_the_newest_to_the_oldest(world: World) -> None:
    """Walking back along a thread visits every line once, and far pointers keep their promise."""
    alice = await world.user("alice")
    await world.user("bob")
    await world.fund(alice, BTC, COIN)
    for _ in range(40):
        await world.transfer(world.guard(alice), "BTC", "0.01", "bob")
    thread = world.store.row(Thread, alice, 0, 0)
    numbers, line = [], world.store.line(thread.newest)
    while line != Line(0):
        numbers.append(line.number)
        assert line.all_count == thread.count - len(numbers) + 1
        assert line.all_jump < line.number
        line = world.store.line(line.all_before)
    assert len(numbers) == 41
    assert numbers == sorted(numbers, reverse=True)


class SameSalts(Ids):
    """Ids whose random bytes are the same in every run."""

    def random_bytes(self, count: int) -> bytes:
        """Return bytes that are no secret."""
        return bytes(place % 251 for place in range(count))


async def test_the_same_commands_with_the_same_salts_have_the_same_root(tmp_path: Path) -> None:
    """Two houses that did the same in a file and in a database are sealed alike, name for name and byte for byte."""
    commands: list[Command] = []
    ids = SameSalts(SetClock(NOW_MS))
    async with opened(SqliteStore(tmp_path, ids)) as world:
        submit = world.context.submit

        async def noted(command: Command) -> Outcome:
            commands.append(command)
            return await submit(command)

        world.context.submit = noted
        alice = await world.user("alice")
        await world.user("bob")
        await world.fund(alice, BTC, COIN)
        for amount in ("0.1", "2", "0.25"):
            await world.transfer(world.guard(alice, amount, "print"), "BTC", amount, "bob")
        in_a_file = world.store.frontier()
    async with opened(PostgresStore(database_of(tmp_path), ids)) as world:
        for command in commands:
            _ = await world.writer.submit(command)
        assert world.store.frontier() == in_a_file
        assert [seal.count for seal in world.store.seals()][-1] == in_a_file.count


async def test_remembered_replies_do_not_pile_up(tmp_path: Path) -> None:
    """However many keyed requests come, the replies on disk are those of a day and a little more."""
    async with opened(new_store("sqlite", tmp_path)) as world:
        alice = await world.user("alice")
        await world.user("bob")
        await world.fund(alice, BTC, COIN)
        for day in range(3):
            for part in range(3):
                guards = [world.guard(alice, f"{day} {part} {n}", "print") for n in range(1000)]
                await asyncio.gather(*(world.transfer(guard, "BTC", "0.00000001", "bob") for guard in guards))
                world.clock.at_ms += 10_000
            assert len(world.store.rows(Reply, {}, 10_000)) <= 5_000
            world.clock.at_ms += 2 * DAY_MS


async def test_the_embedded_store_opens_again_with_all_it_had(tmp_path: Path) -> None:
    """Balances, histories, signatures, replies and the seal are the same after a restart, swept or not."""
    async with opened(new_store("sqlite", tmp_path)) as world:
        alice, bob = await world.user("alice"), await world.user("bob")
        await world.fund(alice, BTC, COIN)
        for _ in range(30):
            used = world.guard(alice, "once", "same")
            await world.transfer(used, "BTC", "0.01", "bob")
            await world.transfer(world.guard(alice), "BTC", "0.001", "bob")
        before = sorted(world.store.balances()), world.store.frontier(), world.store.row(Thread, bob, 0, 0)
    async with opened(new_store("sqlite", tmp_path)) as world:
        assert isinstance(world.store, SqliteStore)
        assert (sorted(world.store.balances()), world.store.frontier(), world.store.row(Thread, bob, 0, 0)) == before
        assert world.available(bob, BTC) == 4_000_000
        replayed = await world.transfer(used, "BTC", "0.01", "bob")
        assert replayed.repeated
        bare = await world.transfer(used.__class__(alice, 1, used.signature, used.expires_ms), "BTC", "0.01", "bob")
        assert bare.refusal is not None
        assert bare.refusal.error is INVALID_NONCE


async def test_what_only_remembers_a_signature_does_not_make_the_journal_longer(tmp_path: Path) -> None:
    """Reading addresses commits a signature each time, and leaves nothing behind once that is forgotten."""
    async with opened(new_store("sqlite", tmp_path)) as world:
        alice = await world.user("alice")
        seals = len(list(world.store.seals()))
        for place in range(20):
            command = Remember(Guard(alice), 1, place.to_bytes(48, "big"), world.clock.now_ms() + 30_000)
            await world.context.submit(command)
        assert len(list(world.store.seals())) == seals
    async with opened(new_store("sqlite", tmp_path)) as world:
        assert world.store.row(Nonce, 1, (19).to_bytes(48, "big")).expires_ms


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_signatures_are_forgotten_when_their_windows_have_closed(kind: str, tmp_path: Path) -> None:
    """The memory of used signatures is as long as the windows are, whatever is kept of it on disk."""
    async with opened(new_store(kind, tmp_path)) as world:
        alice, bob = await world.user("alice"), await world.user("bob")
        await world.fund(alice, BTC, COIN)
        used = [world.guard(alice) for _ in range(20)]
        for guard in used:
            await world.transfer(guard, "BTC", "0.01", "bob")
        world.clock.at_ms += 60_000
        for _ in range(2):
            await world.transfer(world.guard(bob), "BTC", "0.01", "alice")
        assert not any(world.store.row(Nonce, 1, guard.signature).expires_ms for guard in used)
        late = await world.transfer(used[0], "BTC", "0.01", "bob")
        assert late.refusal is not None
        assert late.refusal.error is INVALID_NONCE


async def test_a_database_of_a_newer_release_is_left_alone(tmp_path: Path) -> None:
    """There is no way back: nothing is opened, and nothing changed."""
    dsn = database_of(tmp_path)
    database = dsn.rsplit("=", 1)[1]
    shared_server().run("INSERT INTO migration VALUES (99, 99)", database)
    with pytest.raises(DatabaseNewer, match="schema 99"):
        PostgresStore(dsn, Ids(SetClock(NOW_MS)))
    shared_server().run("DELETE FROM migration WHERE number = 99", database)


async def test_a_text_that_no_database_can_hold_is_found_nowhere(tmp_path: Path) -> None:
    """Whoever asks for a name with a NUL in it hears that nobody has it."""
    async with opened(new_store("postgres", tmp_path)) as world:
        assert world.store.row(Name, "a\0b").uid == 0
        assert world.store.rows(Name, {"folded": "a\0b"}, 5) == []


async def test_the_journal_in_a_database_cannot_be_changed(tmp_path: Path) -> None:
    """Items and seals that are there stay as they are, whoever asks for it."""
    async with opened(new_store("postgres", tmp_path)) as world:
        await world.user("alice")
        database = database_of(tmp_path).rsplit("=", 1)[1]
        for change in ("UPDATE item SET text = ''", "DELETE FROM item", "DELETE FROM batch", "TRUNCATE item"):
            with pytest.raises(psycopg.errors.RaiseException, match="append-only"):
                shared_server().run(change, database)
