"""Settling: replies and signatures to the millisecond, what the journal must and must not hold, and lines in a row."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import ClassVar

import msgspec
import pytest

from strongroom.clock import DAY_MS
from strongroom.engine.command import NOBODY, Command, Decision, Guard, Stale, View
from strongroom.engine.settle import Outcome
from strongroom.errors import IDEMPOTENCY_MISMATCH, INVALID_NONCE, InvariantBroken
from strongroom.ledger.accounts import Purpose, house
from strongroom.ledger.entries import move
from strongroom.records.guards import Nonce
from strongroom.records.history import Entry, LineType, Thread
from strongroom.records.users import Profile, User
from strongroom.store.memory import MemoryStore
from strongroom.wallet.context import Remember
from support.effects import Do
from support.world import BTC, NOW_MS, World, new_store, opened

HOUR_MS = DAY_MS // 24
MOVED = move(house(Purpose.EQUITY, BTC), house(Purpose.DUST, BTC), 7)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """A house in memory."""
    async with opened(MemoryStore()) as world:
        yield world


class Text(msgspec.Struct, frozen=True):
    """A result of any length."""

    t: str


class Say(Command, frozen=True):
    """A command that only has a result."""

    text: str

    def decide(self, view: View, now_ms: int) -> Decision:
        """Say it."""
        return Decision(result=Text(self.text))


class Hesitate(Command, frozen=True):
    """A command whose preparation is always out of date."""

    def decide(self, view: View, now_ms: int) -> Decision:
        """Ask for another."""
        raise Stale


class Unwritten(Do, frozen=True):
    """A command that the journal is not told of."""

    JOURNALED: ClassVar[bool] = False


def dust(world: World) -> int:
    """Return the balance that `MOVED` adds to."""
    return {account: after for account, after, _ in world.store.balances()}.get(house(Purpose.DUST, BTC).pack(), 0)


def keyed(world: World, fingerprint: str = "print") -> Guard:
    """Return the guard of a freshly signed request under one key."""
    return world.guard(1, "key", fingerprint)


async def test_a_reply_is_remembered_for_twenty_five_hours(world: World) -> None:
    """To the last millisecond the first reply comes again, with its stamp; from then on the key is a new one."""
    first = await world.context.submit(Say(keyed(world), "hello"))
    world.clock.at_ms = NOW_MS + 25 * HOUR_MS - 1
    again = await world.context.submit(Say(keyed(world), "hello"))
    assert again == Outcome(NOW_MS, first.result, repeated=True)
    mismatch = await world.context.submit(Say(keyed(world, "other"), "hello"))
    assert mismatch.refusal is not None
    assert mismatch.refusal.error is IDEMPOTENCY_MISMATCH
    assert (mismatch.item, mismatch.result) == (0, b"")
    world.clock.at_ms += 1
    fresh = await world.context.submit(Say(keyed(world, "other"), "hello"))
    assert (fresh.repeated, fresh.refusal, fresh.at_ms) == (False, None, NOW_MS + 25 * HOUR_MS)


async def test_a_keyed_command_keeps_its_rows(world: World) -> None:
    """What a request under a key writes is there, beside the reply that is remembered."""
    row = User(99, 0, 5, active=True)
    await world.context.submit(Do(keyed(world), MOVED, (row,)))
    assert (world.store.row(User, 99), dust(world)) == (row, 7)
    await world.context.submit(Do(keyed(world), MOVED, (row,)))
    assert dust(world) == 7


async def test_a_signature_is_good_until_its_window_closes(world: World) -> None:
    """In its last millisecond a request that waited is carried out, one later it is refused."""
    for late_ms, done in ((0, True), (1, False)):
        guard = world.guard(1)
        world.clock.at_ms = guard.expires_ms + late_ms
        outcome = await world.context.submit(Say(guard, "hello"))
        assert (outcome.refusal is None) is done
        assert done or (outcome.refusal is not None and outcome.refusal.error is INVALID_NONCE)


async def test_a_signature_that_changed_something_is_known_as_spent(world: World) -> None:
    """It authorises nothing again, not even the look at addresses that it could have been made for."""
    guard = world.guard(1)
    await world.context.submit(Say(guard, "hello"))
    assert world.store.row(Nonce, 1, guard.signature) == Nonce(1, guard.signature, guard.expires_ms, spent=True)
    items = world.store.last()[0]
    seen = await world.context.submit(Remember(NOBODY, 1, guard.signature, guard.expires_ms))
    assert seen.refusal is not None
    assert (seen.refusal.error, seen.item, world.store.last()[0]) == (INVALID_NONCE, 0, items)


async def test_what_only_remembers_leaves_no_item(world: World) -> None:
    """A signature seen on a look at addresses is remembered, and the journal is as long as before."""
    items = world.store.last()[0]
    seen = await world.context.submit(Remember(NOBODY, 1, b"s" * 48, NOW_MS + 1))
    assert seen == Outcome(NOW_MS)
    assert (seen.item, seen.result, world.store.last()[0]) == (0, b"", items)
    assert not world.store.row(Nonce, 1, b"s" * 48).spent


async def test_what_is_stale_did_nothing(world: World) -> None:
    """Its signature is as good as before, and it has neither result nor item."""
    guard, items = world.guard(1), world.store.last()[0]
    stale = await world.context.submit(Hesitate(guard))
    assert (stale.stale, stale.result, stale.item, stale.refusal) == (True, b"", 0, None)
    assert world.store.last()[0] == items
    assert (await world.context.submit(Say(guard, "hello"))).refusal is None


async def test_a_command_without_a_result_answers_nothing(world: World) -> None:
    """Its item tells that it was done."""
    outcome = await world.context.submit(Do(NOBODY, MOVED))
    assert (outcome.result, outcome.item) == (b"", world.store.last()[0])


async def test_a_result_has_a_bound(world: World) -> None:
    """Sixteen KiB are answered and remembered; a byte more is a mistake of ours, and is not done."""
    longest = "x" * (16_384 - len('{"t":""}'))
    assert len((await world.context.submit(Say(NOBODY, longest))).result) == 16_384
    items = world.store.last()[0]
    with pytest.raises(InvariantBroken, match="a result fits its bound"):
        await world.context.submit(Say(NOBODY, f"{longest}x"))
    assert world.store.last()[0] == items


@pytest.mark.parametrize(
    ("postings", "lines"),
    [
        (MOVED, ()),
        ((), (Entry(1, BTC, LineType.DEPOSIT, 1, 7, 7),)),
        (MOVED, (Entry(1, BTC, LineType.DEPOSIT, 1, 7, 7),)),
    ],
)
async def test_what_moves_money_stands_in_the_journal(world: World, postings: tuple, lines: tuple) -> None:
    """A command that leaves no item may neither book anything nor tell a customer of it."""
    before = sorted(world.store.balances())
    with pytest.raises(InvariantBroken, match="what moves money stands in the journal"):
        await world.context.submit(Unwritten(NOBODY, postings, (), lines))
    assert sorted(world.store.balances()) == before
    row = User(99, 0, 5, active=True)
    assert (await world.context.submit(Unwritten(NOBODY, (), (row,)))).item == 0
    assert world.store.row(User, 99) == row


async def test_rows_that_must_be_erasable_are_not_in_the_journal(world: World) -> None:
    """A user's row is sealed beside the command that wrote it; names and mails are kept outside the journal."""
    row, profile = User(99, 0, 5, active=True), Profile(99, "someone", "someone@example.com")
    await world.context.submit(Do(NOBODY, kept=(row, profile)))
    [item] = world.store.items(world.store.last()[0], 1)
    assert [kind for kind, _ in item.rows] == ["User"]
    assert world.store.row(Profile, 99) == profile


@pytest.mark.parametrize(("count", "fits"), [(15, True), (16, False)])
async def test_lines_of_one_item_are_linked_in_their_order(world: World, count: int, fits: bool) -> None:
    """Up to fifteen lines of one owner in one item each count on from the one before, in both of their threads."""
    entries = tuple(Entry(1, BTC, LineType.DEPOSIT, ref, 7, 7) for ref in range(1, count + 1))
    if not fits:
        with pytest.raises(InvariantBroken, match="an item's history lines fit into its numbers"):
            await world.context.submit(Do(NOBODY, entries=entries))
        return
    await world.context.submit(Do(NOBODY, entries=entries))
    [item] = world.store.items(world.store.last()[0], 1)
    numbers = [line.number for line in item.lines]
    assert numbers == list(range(16 * item.number, 16 * item.number + count))
    assert [line.all_count for line in item.lines] == [line.kind_count for line in item.lines]
    assert [line.kind_count for line in item.lines] == list(range(1, count + 1))
    assert [line.all_before for line in item.lines] == [line.kind_before for line in item.lines] == [0, *numbers[:-1]]
    assert world.store.row(Thread, 1, BTC, LineType.DEPOSIT).newest == world.store.row(Thread, 1, 0, 0).newest


async def test_every_item_is_salted_so_that_a_proof_gives_nothing_away(tmp_path: Path) -> None:
    """On disk each leaf has sixteen random bytes of its own."""
    async with opened(new_store("sqlite", tmp_path)) as world:
        for _ in range(3):
            await world.context.submit(Do(NOBODY, MOVED))
        salts = [sealed.salt for sealed in world.store.journal(1, 10)]
        assert [len(salt) for salt in salts] == [16] * len(salts)
        assert len(set(salts)) == len(salts) > 3
