"""History on every store: the same pages, telling the same, in few questions where each takes a round trip."""

from __future__ import annotations

from pathlib import Path

from strongroom.clock import Ids, SetClock
from strongroom.records.chains import Tip
from strongroom.records.deposits import Deposit, DepositState
from strongroom.records.history import Entry, LineType, Thread
from strongroom.records.kept import Kept
from strongroom.records.users import Name, Profile
from strongroom.records.withdrawals import Payment, Withdrawal, WithdrawalState
from strongroom.wallet.history import describe, lines_of, newest_lines
from support.counted import Counted
from support.histories import OWNER, see_pages, tell, tell_randomly
from support.postgres import database_of
from support.world import BITCOIN, BTC, ERC20, ETH, NOW_MS, USDT, World, opened

LINES = 300


async def test_every_page_has_the_lines_a_scan_would_find(world: World) -> None:
    """Whatever is asked for, the answer is that of reading everything."""
    see_pages(world, await tell_randomly(world, LINES, seed=1), pages=40, seed=2)


async def test_a_page_tells_of_its_rows_as_they_stand(world: World) -> None:
    """Each line is told with its own deposit, withdrawal, payment and other user, those that are not there included."""
    bob = await world.user("bob")
    for entry, kept in told_by(bob):
        await tell(world, entry, kept=kept)
    lines = newest_lines(world.store, OWNER, None, None, None, 10)
    rows = describe(world.store, world.context.catalogue, lines)
    assert [(row.type, row.course.status.value, row.course.txid, row.counterparty) for row in rows] == [
        (LineType.DEPOSIT, "COMPLETED", "", ""),
        (LineType.TRANSFER_OUT, "COMPLETED", "", "bob"),
        (LineType.WITHDRAW, "PROCESSING", "newest", ""),
        (LineType.DEPOSIT, "PROCESSING", "0xtx", ""),
    ]
    assert [row.course.confirmations for row in rows] == [None, None, (0, 2), (2, 3)]


def told_by(bob: int) -> list[tuple[Entry, tuple[Kept, ...]]]:
    """Return lines, each with the rows it is about."""
    deposit = Deposit(
        5, OWNER, ETH, ERC20, "0xAb", txid="0xtx", amount=9, state=DepositState.CONFIRMING, height=9, block="b"
    )
    withdrawal = Withdrawal(6, OWNER, BTC, BITCOIN, "bcrt1q", "", 9, 8, 1, WithdrawalState.PAYING, payment=3)
    payment = Payment(3, BITCOIN, candidates=("first", "newest"))
    return [
        (Entry(OWNER, ETH, LineType.DEPOSIT, 5, 9, 9, 0, ERC20), (deposit, Tip(ERC20, 10))),
        (Entry(OWNER, BTC, LineType.WITHDRAW, 6, 9, -9, 1, BITCOIN), (withdrawal, payment)),
        (Entry(OWNER, USDT, LineType.TRANSFER_OUT, 7, 9, -9, other=bob), ()),
        (Entry(OWNER, USDT, LineType.DEPOSIT, 8, 9, 9), ()),
    ]


async def test_several_rows_come_in_the_order_they_were_asked_for(world: World) -> None:
    """Rows of several kinds, those that are not there among them, stand where their addresses stood."""
    alice, bob = await world.user("alice"), await world.user("bob")
    addresses = [Profile.at(bob), Name.at("alice"), Name.at("nobody"), Profile.at(alice), Name.at("no\0body")]
    found = world.store.rows_at([*addresses, Profile.at(bob)])
    assert found == [world.store.row(key[0], *key[1:]) for key in [*addresses, Profile.at(bob)]]
    assert [getattr(row, "username", getattr(row, "uid", None)) for row in found] == [
        "bob",
        alice,
        0,
        "alice",
        0,
        "bob",
    ]
    assert world.store.rows_at([]) == []


async def test_lines_come_with_none_but_those_that_the_link_leads_to(world: World) -> None:
    """Whoever asks for some lines gets these, and of the others only what lies behind them, each as it stands."""
    await tell_randomly(world, LINES, seed=3)
    threads = world.store.threads(OWNER, [(0, 0), (BTC, LineType.CONVERT), (ETH, LineType.CONVERT)])
    assert threads == [
        world.store.row(Thread, OWNER, *kind) for kind in ((0, 0), (BTC, LineType.CONVERT), (ETH, LineType.CONVERT))
    ]
    whole, kind, _ = threads
    for link in ("all_before", "all_jump", "kind_before", "kind_jump"):
        lines = world.store.trails([whole.newest, kind.newest], link, 7)
        allowed = set[int]()
        for newest in (whole.newest, kind.newest):
            line = world.store.line(newest)
            for _ in range(7):
                allowed.add(line.number)
                line = world.store.line(getattr(line, link) or getattr(line, f"{link.partition('_')[0]}_before"))
        numbers = {line.number for line in lines}
        assert {whole.newest, kind.newest} <= numbers <= allowed
        assert all(line == world.store.line(line.number) for line in lines)


async def test_a_page_from_a_database_costs_a_few_questions(tmp_path: Path) -> None:
    """Each is a round trip for which everybody waits: their number does not grow with the page, or with the history."""
    async with opened(Counted(database_of(tmp_path), Ids(SetClock(NOW_MS)))) as world:
        store = world.store
        assert isinstance(store, Counted)
        bob, catalogue = await world.user("bob"), world.context.catalogue
        await tell(
            world, *(Entry(OWNER, BTC, LineType.TRANSFER_OUT, ref, 1, -1, other=bob) for ref in range(3 * LINES))
        )

        def asked(start_ms: int | None, end_ms: int | None, asset: int | None, skip: int = 0) -> int:
            before = store.questions
            lines = (
                newest_lines(store, OWNER, None, start_ms, end_ms, 50, skip)
                if asset is None
                else lines_of(store, OWNER, asset, None, start_ms, end_ms, 50, skip)
            )
            assert len(describe(store, catalogue, lines)) == 50
            return store.questions - before

        assert asked(None, None, None) <= 3
        assert asked(None, None, None) <= 2
        assert asked(None, None, BTC) <= 2
        assert asked(NOW_MS - 1, None, BTC) <= 3
        middle_ms = NOW_MS + 300
        assert asked(NOW_MS + 7, middle_ms, BTC) <= 12
        assert asked(None, None, None, skip=500) <= 12
