"""Transfers on every store: who can send what to whom, decided over the books as they are at that moment."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from strongroom.engine.command import NOBODY, Command
from strongroom.errors import Refused
from strongroom.records.history import LineType, Thread
from strongroom.records.users import Name
from strongroom.wallet.context import perform_own
from strongroom.wallet.settings import prepare_settings
from strongroom.wallet.transfers import Transfer, prepare_transfer
from strongroom.wallet.users import MarkUser
from strongroom.wallet.verification import verify
from support.world import BTC, EVERY_STORE, SNAPSHOT, World, new_store, opened

COIN = 100_000_000

FROZEN = (28, "BADREQUEST: Account is frozen")
NOBODY_THERE = (28, "BADREQUEST: Receiver not found")


@pytest.fixture(params=EVERY_STORE)
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    """A house on each store in turn, with alice, who has a Bitcoin, her sub-account, and bob."""
    async with opened(new_store(request.param, tmp_path)) as world:
        alice = await world.user("alice")
        await world.user("alice-sub1", alice)
        await world.user("alice-sub2", alice)
        await world.user("bob")
        await world.fund(alice, BTC, COIN)
        yield world
        assert verify(world.store).findings == []


def prepare(world: World, sender: str, receiver: str, **names: str) -> Transfer:
    """Return a transfer of half a Bitcoin as it is decided later."""
    number = world.store.row(Name, sender).uid
    return prepare_transfer(world.context, world.guard(number), "BTC", "0.5", receiver, **names)


async def refusal(world: World, command: Command) -> tuple[int, str]:
    """Return code and message of the refusal that a command meets, which leaves the balances as they were."""
    before = sorted(world.store.balances())
    outcome = await world.context.submit(command)
    assert outcome.refusal is not None
    assert sorted(world.store.balances()) == before
    return outcome.refusal.error.code, outcome.refusal.message


async def mark(world: World, name: str, *, frozen: bool = False, active: bool = True) -> None:
    """Freeze a user, or make it inactive."""
    number = world.store.row(Name, name).uid
    await perform_own(world.context, lambda: MarkUser(NOBODY, number, frozen=frozen, active=active))


async def test_nobody_sends_anything_to_himself(world: World) -> None:
    """It would change nothing, and tell of two lines that mean nothing: it is refused."""
    assert await refusal(world, prepare(world, "alice", "alice")) == (28, "BADREQUEST: Receiver is the sender")


async def test_what_has_changed_since_a_transfer_was_prepared_counts(world: World) -> None:
    """A user who is frozen or closed meanwhile neither sends nor, where closed, receives; a frozen one receives."""
    to_bob = [prepare(world, "alice", "bob") for _ in range(4)]
    await mark(world, "alice", frozen=True)
    assert await refusal(world, to_bob[0]) == FROZEN
    await mark(world, "alice", active=False)
    assert await refusal(world, to_bob[1]) == FROZEN
    await mark(world, "alice")
    await mark(world, "bob", active=False)
    assert await refusal(world, to_bob[2]) == NOBODY_THERE
    with pytest.raises(Refused) as caught:
        prepare(world, "alice", "bob")
    assert (caught.value.error.code, caught.value.message) == NOBODY_THERE
    await mark(world, "bob", frozen=True)
    assert (await world.context.submit(to_bob[3])).refusal is None
    assert world.available(world.store.row(Name, "bob").uid, BTC) == COIN // 2


async def test_an_asset_that_is_no_longer_sent_is_refused(world: World) -> None:
    """Also in a transfer that was prepared while it was."""
    prepared = prepare(world, "alice", "bob")
    bitcoin, *others = SNAPSHOT.assets
    changed = (msgspec.structs.replace(bitcoin, actions=("CONVERT",)), *others)
    settings = msgspec.structs.replace(SNAPSHOT, assets=changed)
    await perform_own(world.context, lambda: prepare_settings(world.context, NOBODY, settings))
    assert await refusal(world, prepared) == (11, "BADREQUEST: Invalid currency BTC")


async def test_all_names_of_the_receiver_must_be_his(world: World) -> None:
    """Who gives a mail as well, or a number, means one user only: where they are of two, nobody gets anything."""
    bob = world.store.row(Name, "bob").uid
    assert prepare(world, "alice", "bob", mail="BOB@example.com", uid=str(bob)).receiver == bob
    for names in ({"mail": "alice@example.com"}, {"uid": str(bob + 1)}, {"mail": "nobody@example.com"}):
        with pytest.raises(Refused) as caught:
            prepare(world, "alice", "bob", **names)
        assert (caught.value.error.code, caught.value.message) == NOBODY_THERE


@pytest.mark.parametrize(
    ("sender", "receiver", "out_type", "in_type"),
    [
        ("alice", "alice-sub1", LineType.SUB_ACCOUNT_OUT, LineType.SUB_ACCOUNT_IN),
        ("alice-sub1", "alice", LineType.SUB_ACCOUNT_OUT, LineType.SUB_ACCOUNT_IN),
        ("alice-sub1", "alice-sub2", LineType.SUB_ACCOUNT_OUT, LineType.SUB_ACCOUNT_IN),
        ("alice", "bob", LineType.TRANSFER_OUT, LineType.TRANSFER_IN),
        ("bob", "alice-sub1", LineType.TRANSFER_OUT, LineType.TRANSFER_IN),
    ],
)
async def test_each_side_has_a_line_of_its_own(
    world: World, sender: str, receiver: str, out_type: LineType, in_type: LineType
) -> None:
    """The sender's is of what left, the receiver's of what came, each with an order of its own and the other's name."""
    ours, theirs = (world.store.row(Name, name).uid for name in (sender, receiver))
    if sender != "alice":
        await world.fund(ours, BTC, COIN)
    command = prepare(world, sender, receiver)
    before = world.available(ours, BTC), world.available(theirs, BTC)
    outcome = await world.context.submit(command)
    assert msgspec.json.decode(outcome.result) == {"ref": command.out_ref, "asset": BTC, "amount": COIN // 2}
    assert (world.available(ours, BTC), world.available(theirs, BTC)) == (before[0] - COIN // 2, before[1] + COIN // 2)
    lines = [
        world.store.line(world.store.row(Thread, owner, BTC, type_).newest)
        for owner, type_ in ((ours, out_type), (theirs, in_type))
    ]
    assert [(line.owner, line.amount, line.net, line.ref, line.other, line.fees) for line in lines] == [
        (ours, COIN // 2, -COIN // 2, command.out_ref, theirs, 0),
        (theirs, COIN // 2, COIN // 2, command.in_ref, ours, 0),
    ]
    assert command.out_ref != command.in_ref
