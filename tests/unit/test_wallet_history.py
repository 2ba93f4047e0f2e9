"""History: pages, totals and times over linked lines, at a cost that does not grow with the history."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import cast

import msgspec
import pytest

from strongroom.records.chains import Tip
from strongroom.records.deposits import Deposit, DepositState
from strongroom.records.history import Entry, Line, LineType, Note
from strongroom.records.kept import Kept
from strongroom.records.withdrawals import Withdrawal, WithdrawalState
from strongroom.store.memory import MemoryStore
from strongroom.wallet import history
from strongroom.wallet.history import (
    FamilyTransfer,
    Status,
    count_lines,
    describe,
    family_transfers,
    lines_of,
    newest_lines,
)
from support.histories import OWNER, see_pages, tell, tell_randomly
from support.world import BITCOIN, BTC, ERC20, ETH, NOW_MS, USDT, World, opened

COIN = 100_000_000


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """A house in memory."""
    async with opened(MemoryStore()) as world:
        yield world


@contextmanager
def counted(world: World) -> Iterator[list[int]]:
    """Note each line that is read."""
    numbers: list[int] = []
    store = cast(MemoryStore, world.store)
    read = store.line

    def line(number: int) -> Line:
        numbers.append(number)
        return read(number)

    store.line = line  # type: ignore[method-assign]
    try:
        yield numbers
    finally:
        store.line = read  # type: ignore[method-assign]


async def test_every_page_of_every_choice_has_the_lines_a_scan_would_find(world: World) -> None:
    """Whatever asset, types, times, page and size are asked for, the answer is that of reading everything."""
    see_pages(world, await tell_randomly(world, 400, seed=1), pages=1_500, seed=2)


@pytest.fixture(params=[10_000])
async def long_world(world: World, request: pytest.FixtureRequest) -> World:
    """A house with a user of ten thousand lines."""
    await tell_randomly(world, request.param, seed=3)
    return world


@pytest.mark.parametrize("skip", [0, 1, 50, 2_500, 9_990])
async def test_a_page_anywhere_in_a_long_history_reads_few_lines(long_world: World, skip: int) -> None:
    """Ten thousand lines cost a page of ten a few dozen look-ups, at the beginning, in the middle and at the end."""
    middle_ms = NOW_MS + 3_300
    with counted(long_world) as numbers:
        page = newest_lines(long_world.store, OWNER, None, None, None, 10, skip)
    assert len(page) == 10
    assert len(numbers) <= 120
    with counted(long_world) as numbers:
        newest_lines(long_world.store, OWNER, None, None, middle_ms, 10)
        newest_lines(long_world.store, OWNER, None, middle_ms, None, 10, skip)
    assert len(numbers) <= 200


@pytest.mark.parametrize("skip", [0, 1, 50, 1_000, 4_500])
async def test_a_page_of_many_types_reads_few_lines_as_well(long_world: World, skip: int) -> None:
    """Merging the types of an asset costs some steps for each of them, never a walk over what is skipped."""
    with counted(long_world) as numbers:
        page = lines_of(long_world.store, OWNER, BTC, None, NOW_MS + 20, None, 10, skip)
    assert len(page) == 10
    assert len(numbers) <= 500


async def test_a_total_reads_few_lines(long_world: World) -> None:
    """Counting thousands of lines between two times looks at a few dozen for each type."""
    with counted(long_world) as numbers:
        total = count_lines(long_world.store, OWNER, BTC, None, NOW_MS + 1_000, NOW_MS + 5_000)
    assert total > 2_000
    assert len(numbers) <= 4 * 60


async def test_family_history_covers_both_directions_in_every_asset(world: World) -> None:
    """A user sees what went to and came from its sub-accounts, newest first, with names and a total."""
    alice, carol = await world.user("alice"), await world.user("carol")
    sub = await world.user("alice-sub1", alice)
    for asset in (BTC, USDT):
        await world.fund(alice, asset, 10 * COIN)
    await world.transfer(world.guard(alice), "BTC", "2", "alice-sub1")
    await world.transfer(world.guard(sub), "BTC", "1", "alice")
    await world.transfer(world.guard(alice), "USDT", "3", "alice-sub1")
    await world.transfer(world.guard(alice), "USDT", "4", "carol")
    catalogue = world.context.catalogue
    first = family_transfers(world.store, catalogue, alice, None, None, 1, 2)
    second = family_transfers(world.store, catalogue, alice, None, None, 2, 2)
    assert (first.total, second.total) == (3, 3)
    assert [
        (one.sender, one.receiver, one.asset.code, one.amount) for one in (*first.transfers, *second.transfers)
    ] == [
        ("alice", "alice-sub1", "USDT", 3 * COIN),
        ("alice-sub1", "alice", "BTC", COIN),
        ("alice", "alice-sub1", "BTC", 2 * COIN),
    ]
    assert isinstance(first.transfers[0], FamilyTransfer)
    assert family_transfers(world.store, catalogue, sub, None, None, 1, 10).total == 3
    assert family_transfers(world.store, catalogue, carol, None, None, 1, 10).total == 0


async def described(world: World, entry: Entry, *kept: Kept) -> history.HistoryRow:
    """Write one line with its rows and return what it tells."""
    await tell(world, entry, kept=kept)
    line = newest_lines(world.store, entry.owner, None, None, None, 1)[0]
    [row] = describe(world.store, world.context.catalogue, [line])
    return row


@pytest.mark.parametrize(
    ("state", "status", "net"),
    [
        (DepositState.SEEN, "PROCESSING", 90),
        (DepositState.CONFIRMING, "PROCESSING", 90),
        (DepositState.CREDITED, "COMPLETED", 90),
        (DepositState.DROPPED, "CANCELLED", 0),
        (DepositState.TOO_SMALL, "FAILURE", 0),
        (DepositState.WITHHELD, "PROCESSING", 90),
        (DepositState.REVERSED, "PROCESSING", 90),
    ],
)
async def test_a_deposit_line_tells_the_deposits_own_state(
    world: World, state: DepositState, status: str, net: int
) -> None:
    """The line was written once; its status, transaction and effect follow the deposit."""
    deposit = Deposit(5, OWNER, ETH, ERC20, "0xAb", txid="0xtx", amount=100, fee=10, state=state)
    row = await described(world, Entry(OWNER, ETH, LineType.DEPOSIT, 5, 100, 90, 10, ERC20), deposit)
    assert (row.course.status.value, row.net, row.amount) == (status, net, 100)
    assert (row.course.to_address, row.course.txid) == ("0xAb", "0xtx")
    assert row.course.network is not None
    assert row.course.network.code == "ERC20"


@pytest.mark.parametrize(
    ("state", "status", "net"),
    [
        (WithdrawalState.AWAITING, "PENDING", -100),
        (WithdrawalState.APPROVED, "PROCESSING", -100),
        (WithdrawalState.PAYING, "PROCESSING", -100),
        (WithdrawalState.SETTLED, "COMPLETED", -100),
        (WithdrawalState.REJECTED, "CANCELLED", 0),
        (WithdrawalState.CANCELLED, "CANCELLED", 0),
        (WithdrawalState.EXPIRED, "EXPIRED", 0),
        (WithdrawalState.FAILED, "FAILURE", 0),
    ],
)
async def test_a_withdrawal_line_tells_the_withdrawals_own_state(
    world: World, state: WithdrawalState, status: str, net: int
) -> None:
    """What was released again left the balance as it was, and cost nothing."""
    withdrawal = Withdrawal(6, OWNER, BTC, BITCOIN, "bcrt1q", "", 100, 90, 10, state, txid="ab")
    row = await described(world, Entry(OWNER, BTC, LineType.WITHDRAW, 6, 100, -100, 10, BITCOIN), withdrawal)
    assert (row.course.status.value, row.net, row.fees) == (status, net, 10 if net else 0)


@pytest.mark.parametrize(
    ("height", "tip", "now"), [(0, 0, 0), (0, 100, 0), (100, 99, 0), (100, 100, 1), (100, 101, 2), (100, 200, 3)]
)
async def test_confirmations_count_up_to_what_the_network_needs(world: World, height: int, tip: int, now: int) -> None:
    """A transaction in the newest block has one confirmation, one in no block has none."""
    deposit = Deposit(5, OWNER, ETH, ERC20, "0xAb", state=DepositState.CONFIRMING, height=height, block="b" * height)
    entry = Entry(OWNER, ETH, LineType.DEPOSIT, 5, 100, 90, 10, ERC20)
    row = await described(world, entry, deposit, Tip(ERC20, tip))
    assert row.course.confirmations == (now, 3)


async def test_a_credited_deposit_keeps_all_its_confirmations(world: World) -> None:
    """Once it is complete it does not become unconfirmed again."""
    deposit = Deposit(5, OWNER, ETH, ERC20, "0xAb", state=DepositState.CREDITED, height=100, block="b")
    entry = Entry(OWNER, ETH, LineType.DEPOSIT, 5, 100, 90, 10, ERC20)
    assert (await described(world, entry, deposit, Tip(ERC20, 100))).course.confirmations == (3, 3)


async def test_an_address_with_a_tag_is_one_text(world: World) -> None:
    """Where there is a tag, the receiver is told as address:tag."""
    withdrawal = Withdrawal(6, OWNER, BTC, BITCOIN, "rAddress", "42", 100, 90, 10, WithdrawalState.PAYING)
    row = await described(world, Entry(OWNER, BTC, LineType.WITHDRAW, 6, 100, -100, 10, BITCOIN), withdrawal)
    assert row.course.to_address == "rAddress:42"


async def test_inside_the_house_there_is_no_transaction_and_no_other_name(world: World) -> None:
    """An internal withdrawal and its deposit say so, and never name the other user."""
    bob = await world.user("bob")
    withdrawal = Withdrawal(6, OWNER, BTC, BITCOIN, "b", "", 100, 90, 10, WithdrawalState.SETTLED, deposit=7, txid="x")
    entry = Entry(OWNER, BTC, LineType.WITHDRAW, 6, 100, -100, 10, BITCOIN, other=bob, note=Note.INTERNAL)
    row = await described(world, entry, withdrawal)
    assert (row.course.internal, row.course.txid, row.course.confirmations, row.counterparty) == (True, "", None, "")
    deposit = Deposit(7, bob, BTC, BITCOIN, "b", amount=90, state=DepositState.CREDITED, internal=True)
    row = await described(world, Entry(bob, BTC, LineType.DEPOSIT, 7, 90, 90, 0, BITCOIN, other=OWNER), deposit)
    assert (row.course.internal, row.course.status, row.counterparty) == (True, Status.COMPLETED, "")


async def test_money_from_the_bank_is_complete_and_on_no_network(world: World) -> None:
    """A deposit that was booked without a chain has no network, address or confirmations."""
    row = await described(world, Entry(OWNER, USDT, LineType.DEPOSIT, 9, 100, 100))
    assert row.course == history.Course()


async def test_a_transfer_names_the_other_user_and_a_conversion_the_other_leg(world: World) -> None:
    """Each line tells what it needs of its other side."""
    bob = await world.user("bob")
    sent = await described(world, Entry(OWNER, USDT, LineType.TRANSFER_OUT, 9, 100, -100, other=bob))
    assert (sent.counterparty, sent.net) == ("bob", -100)
    leg = Entry(OWNER, USDT, LineType.CONVERT, 9, 100, -100, other_asset=BTC, other_amount=7, rate="0.07")
    row = await described(world, leg)
    assert row.other_asset is not None
    assert (row.other_asset.code, row.other_amount, row.rate) == ("BTC", 7, "0.07")
    assert msgspec.json.encode(row)
