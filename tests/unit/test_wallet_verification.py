"""Verification: clean books pass, and whatever is changed in the file behind the server's back is found and named."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from strongroom.engine.command import NOBODY
from strongroom.ledger.accounts import Account, Purpose, available, held, house, omnibus
from strongroom.ledger.entries import Posting, move
from strongroom.records.addresses import Address
from strongroom.records.chains import Holding
from strongroom.records.deposits import Deposit, DepositState
from strongroom.records.history import Entry, LineType
from strongroom.records.withdrawals import Withdrawal, WithdrawalState
from strongroom.store.memory import MemoryStore
from strongroom.store.sqlite.connection import DATABASE_FILE
from strongroom.store.sqlite.snapshot import SqliteSnapshot
from strongroom.wallet.audit.findings import Findings, FoundWrong, NoFindings
from strongroom.wallet.audit.stretch import Stretch
from strongroom.wallet.bookings import prepare_booking
from strongroom.wallet.context import perform_own
from strongroom.wallet.verification import Report, conclude, verify
from support.effects import Do
from support.world import BITCOIN, BTC, USDT, World, new_store, opened

COIN = 100_000_000


class Books:
    """Closed books in a file: who is who in them, and the item of each deed by its name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.alice = 0
        self.items: dict[str, int] = {}

    def change(self, *statements: str) -> None:
        """Change the file by plain SQL, its triggers dropped first."""
        with sqlite3.connect(self.folder / DATABASE_FILE) as connection:
            triggers = connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall()
            for (name,) in triggers:
                connection.execute(f"DROP TRIGGER {name}")
            for statement in statements:
                assert connection.execute(statement).rowcount > 0, statement
        connection.close()

    def rewrite(self, deed: str, path: str, change: str) -> None:
        """Put something else into the text of a deed's item: `change` is SQL in which `it` is what stands there."""
        new = change.replace("it", f"(text ->> '{path}')")
        self.change(f"UPDATE item SET text = json_set(text, '{path}', {new}) WHERE number = {self.items[deed]}")

    def verify(self) -> Report:
        """Verify the file as it is."""
        snapshot = SqliteSnapshot(self.folder)
        try:
            return verify(snapshot)
        finally:
            snapshot.close()

    def verify_in_two(self, at: int) -> Report | None:
        """Verify in two stretches, the second one from the seal over `at` items on; None if they do not fit."""
        with closing(SqliteSnapshot(self.folder)) as reads:
            seal = reads.seal_over(at)
            findings = Findings()
            try:
                one = Stretch(findings, reads.seals())
                one.read(reads, seal.count)
                other = Stretch(NoFindings(), reads.seals(seal.count), seal)
                other.read(reads, reads.last()[0])
                for parcel in other.parcels():
                    one.take_over(parcel)
            except FoundWrong:
                return None
            findings.settle(by_item=True)
            return conclude(one, reads, findings)


async def fill(world: World) -> tuple[int, dict[str, int]]:
    """Do one of everything, and return alice's user id and the items; each is a batch of its own."""
    items: dict[str, int] = {}
    alice = await world.user("alice")
    await world.user("bob")
    await world.fund(alice, BTC, 10 * COIN)
    items["funding"] = world.store.last()[0]
    for name in ("first", "second", "third"):
        world.clock.at_ms += 1_000
        items[name] = (await world.transfer(world.guard(alice), "BTC", "1", "bob")).item
    items["refused"] = (await world.transfer(world.guard(alice), "BTC", "100", "bob")).item
    world.clock.at_ms += 1_000
    deposit = Deposit(501, alice, BTC, BITCOIN, "bcrt1q", txid="ab", amount=5 * COIN, state=DepositState.CREDITED)
    arrival = Do(
        NOBODY,
        (Posting(omnibus(BITCOIN, BTC), -5 * COIN), Posting(available(alice, BTC), 5 * COIN)),
        (deposit, Holding(BITCOIN, BTC, str(5 * COIN)), Address(BITCOIN, "bcrt1q", "", 1, alice, BTC, 7, paid=True)),
        (Entry(alice, BTC, LineType.DEPOSIT, 501, 5 * COIN, 5 * COIN),),
    )
    items["deposit"] = (await perform_own(world.context, lambda: arrival)).item
    withdrawal = Withdrawal(
        601, alice, BTC, BITCOIN, "bcrt1p", asked=COIN, to_address=COIN - 500, fee=500, state=WithdrawalState.APPROVED
    )
    hold = Do(NOBODY, move(available(alice, BTC), held(alice, BTC), COIN), (withdrawal,))
    items["hold"] = (await perform_own(world.context, lambda: hold)).item
    await perform_own(
        world.context, lambda: prepare_booking(world.context, NOBODY, alice, USDT, LineType.EXPRESS_BUY, COIN)
    )
    items["last"] = world.store.last()[0]
    return alice, items


@pytest.fixture
async def books(tmp_path: Path) -> Books:
    """Books in a file, closed."""
    books = Books(tmp_path)
    async with opened(new_store("sqlite", tmp_path)) as world:
        books.alice, books.items = await fill(world)
    assert books.verify().is_whole
    return books


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A house on a file, open."""
    async with opened(new_store("sqlite", tmp_path)) as world:
        yield world


async def test_clean_books_are_whole_and_counted(world: World, tmp_path: Path) -> None:
    """The report of clean books has no finding, the numbers of what was read, and the root of the newest seal."""
    _, items = await fill(world)
    report = verify(world.store)
    assert report.findings == []
    assert (report.items, report.first_wrong_item) == (items["last"], 0)
    assert report.postings == sum(len(item.postings) for item in world.store.items(1, 100))
    assert report.lines == sum(len(item.lines) for item in world.store.items(1, 100))
    assert report.accounts == len(list(world.store.balances()))
    assert report.root == world.store.frontier().root().hex()
    snapshot = SqliteSnapshot(tmp_path)
    assert verify(snapshot) == report
    snapshot.close()


async def test_clean_books_in_memory_are_whole() -> None:
    """Verification is one for every store."""
    async with opened(MemoryStore()) as world:
        await fill(world)
        assert verify(world.store).is_whole


async def test_new_books_are_whole(tmp_path: Path) -> None:
    """Where nothing happened yet nothing is wrong."""
    new_store("sqlite", tmp_path).close()  # type: ignore[union-attr]
    snapshot = SqliteSnapshot(tmp_path)
    assert verify(snapshot).is_whole
    snapshot.close()


async def test_a_snapshot_stands_still_while_the_server_goes_on(world: World, tmp_path: Path) -> None:
    """What is committed after a snapshot was taken is not in it, and does not make it look broken."""
    alice, items = await fill(world)
    snapshot = SqliteSnapshot(tmp_path)
    for _ in range(20):
        await world.transfer(world.guard(alice), "BTC", "0.01", "bob")
    report = verify(snapshot)
    snapshot.close()
    assert (report.findings, report.items) == ([], items["last"])
    assert verify(world.store).items == items["last"] + 20


def raise_a_posting(books: Books) -> str:
    """Give bob more than alice lost."""
    books.rewrite("second", "$.postings[1][1]", "it + 1")
    return "second"


def raise_both_postings(books: Books) -> str:
    """Move more in an entry that still sums to zero."""
    for place, more in ((0, "it - 7"), (1, "it + 7")):
        books.rewrite("second", f"$.postings[{place}][1]", more)
        books.rewrite("second", f"$.postings[{place}][2]", more)
    return "second"


def remove_an_item(books: Books) -> str:
    """Leave a transfer out with all its effects."""
    books.change(f"DELETE FROM item WHERE number = {books.items['second']}")
    return "second"


def remove_the_newest_item(books: Books) -> str:
    """Leave the last deed out, as if it had never been."""
    books.change(f"DELETE FROM item WHERE number = {books.items['last']}")
    return "last"


def change_a_command(books: Books) -> str:
    """Let somebody else have asked."""
    books.rewrite("third", "$.command.amount", "it + 1")
    return "third"


def turn_a_refusal_round(books: Books) -> str:
    """Make a refused request look as if nothing had been refused."""
    books.rewrite("refused", "$.refusal", "''")
    return "refused"


def date_an_item_back(books: Books) -> str:
    """Let an entry be older than the one before it."""
    books.rewrite("third", "$.at_ms", "it - 5000")
    return "third"


def change_a_history_line(books: Books) -> str:
    """Tell the customer of another amount than was booked."""
    books.rewrite("first", "$.lines[0][6]", "1")
    return "first"


def hide_a_history_line(books: Books) -> str:
    """Link a history past one of its lines."""
    books.rewrite("third", "$.lines[0][15]", "1")
    books.rewrite("third", "$.lines[0][16]", "0")
    return "third"


def raise_a_swept_balance(books: Books) -> str:
    """Give alice a balance that no posting leads to."""
    packed = available(books.alice, USDT).pack()
    books.change(
        f"INSERT OR REPLACE INTO folio VALUES ({books.alice}, '{{\"{packed}\":[999,99]}}', x'80')",
        f"UPDATE progress SET swept_item = {books.items['last']}",
    )
    return "last"


def invent_an_account(books: Books) -> str:
    """Add a balance out of nothing; no item is to blame."""
    heads = json.dumps({Account(4242, BTC, Purpose.AVAILABLE).pack(): [5, 1]})
    books.change(f"INSERT INTO folio VALUES (4242, '{heads}', x'80')")
    return ""


def settle_a_withdrawal_by_hand(books: Books) -> str:
    """Mark a withdrawal as settled while its money is held."""
    books.change(f"UPDATE withdrawal SET state = {WithdrawalState.SETTLED} WHERE ref = 601")
    return "hold"


def redirect_a_withdrawal(books: Books) -> str:
    """Send a withdrawal to another address."""
    books.change("UPDATE withdrawal SET address = 'bcrt1thief' WHERE ref = 601")
    return "hold"


def change_a_deposit(books: Books) -> str:
    """Let a deposit have been larger."""
    books.change("UPDATE deposit SET amount = amount * 2 WHERE ref = 501")
    return "deposit"


def remove_a_deposit(books: Books) -> str:
    """Let a deposit never have been."""
    books.change("DELETE FROM deposit WHERE ref = 501")
    return "deposit"


def invent_a_deposit(books: Books) -> str:
    """Add a deposit that no item wrote."""
    columns = ", ".join(Deposit.__struct_fields__)
    rest = ", ".join(Deposit.__struct_fields__[1:])
    books.change(f"INSERT INTO deposit ({columns}) SELECT 777, {rest} FROM deposit WHERE ref = 501")
    return ""


def take_over_an_address(books: Books) -> str:
    """Let somebody else own the address that a customer pays to."""
    books.change("UPDATE address SET owner = 666 WHERE address = 'bcrt1q'")
    return "deposit"


def lower_a_holding(books: Books) -> str:
    """Let the house own less on a chain than its omnibus account says."""
    books.change("UPDATE holding SET chain_units = '1'")
    return "deposit"


def change_the_settings(books: Books) -> str:
    """Lower a fee without a command."""
    books.change("UPDATE settings SET version = version + 1")
    return "settings"


def replace_a_seal(books: Books) -> str:
    """Put another hash where a batch's seal stood."""
    books.change(f"UPDATE batch SET peaks = zeroblob(length(peaks)) WHERE last_item = {books.items['second']}")
    return "second"


def spoil_effects(books: Books) -> str:
    """Make an item's effects unreadable."""
    books.rewrite("hold", "$.rows", "'[['")
    return "hold"


TAMPERINGS = [
    raise_a_posting,
    raise_both_postings,
    remove_an_item,
    remove_the_newest_item,
    change_a_command,
    turn_a_refusal_round,
    date_an_item_back,
    change_a_history_line,
    hide_a_history_line,
    raise_a_swept_balance,
    invent_an_account,
    settle_a_withdrawal_by_hand,
    redirect_a_withdrawal,
    change_a_deposit,
    remove_a_deposit,
    invent_a_deposit,
    take_over_an_address,
    lower_a_holding,
    change_the_settings,
    replace_a_seal,
    spoil_effects,
]


@pytest.mark.parametrize("tamper", TAMPERINGS)
async def test_whatever_is_changed_in_the_file_is_named(books: Books, tamper: Callable[[Books], str]) -> None:
    """The first wrong item is the one that was tampered with, or that the changed row came from."""
    books.items |= {"": 0, "settings": 1}
    deed = tamper(books)
    report = books.verify()
    assert not report.is_whole
    assert report.first_wrong_item == books.items[deed], report.findings


async def test_whole_books_are_whole_wherever_their_journal_is_divided(books: Books) -> None:
    """Two stretches, read apart and joined at any batch, come to the report that one reading comes to."""
    report = books.verify()
    assert [books.verify_in_two(at) for at in range(1, report.items)] == [report] * (report.items - 1)


@pytest.mark.parametrize("tamper", TAMPERINGS)
async def test_what_is_changed_is_found_wherever_the_journal_is_divided(
    books: Books, tamper: Callable[[Books], str]
) -> None:
    """No division hides anything: it shows in a stretch, at the joint, or in what is kept."""
    items = books.verify().items
    tamper(books)
    reports = [books.verify_in_two(at) for at in range(1, items)]
    assert [report for report in reports if report is not None and report.is_whole] == []


async def test_a_whole_journal_written_anew_shows_in_its_root_only(books: Books) -> None:
    """Whoever recomputes every seal passes the file's own checks; the root that was published outside tells."""
    root = books.verify().root
    other = Books(books.folder / "other")
    async with opened(new_store("sqlite", other.folder)) as world:
        await fill(world)
    report = other.verify()
    assert report.is_whole
    assert report.root != root


async def test_findings_are_bounded(books: Books) -> None:
    """Books with hundreds of wrong places give the first twenty."""
    books.change("UPDATE item SET text = json_set(text, '$.at_ms', 5, '$.postings[0][1]', 1)")
    assert len(books.verify().findings) == 20


async def test_an_account_out_of_its_bounds_is_found(tmp_path: Path) -> None:
    """A customer below zero is reported even where every sum and seal is right."""
    store = MemoryStore()
    async with opened(store) as world:
        alice, items = await fill(world)
        short = 8 * COIN
        loan = Do(NOBODY, (Posting(house(Purpose.EQUITY, USDT), -COIN), Posting(house(Purpose.INVENTORY, USDT), COIN)))
        await perform_own(world.context, lambda: loan)
        [sealed], [item] = store.journal(items["hold"], 1), store.items(items["hold"], 1)
        postings = [
            msgspec.structs.replace(
                booked, amount=booked.amount * 20, after=booked.after - 19 * COIN * (1 if booked.amount < 0 else -1)
            )
            for booked in item.postings
        ]
        text = msgspec.json.encode(msgspec.structs.replace(item, postings=postings))
        store._journal[items["hold"] - 1] = sealed._replace(text=text)
        found = [
            what for number, what in map(msgspec.structs.astuple, verify(store).findings) if number == items["hold"]
        ]
    assert f"AVAILABLE of owner {alice}, asset {BTC} falls below 0, to {-short}" in found


async def test_holds_without_an_open_withdrawal_are_found(world: World) -> None:
    """Money that is held for nothing is reported with the item that holds it."""
    alice, _ = await fill(world)
    stray = Do(NOBODY, move(available(alice, BTC), held(alice, BTC), 3))
    outcome = await perform_own(world.context, lambda: stray)
    report = verify(world.store)
    assert [finding.item for finding in report.findings] == [outcome.item]
    assert "open withdrawals hold 100000000" in report.findings[0].what


async def test_an_omnibus_account_beside_its_exact_total_is_found(world: World) -> None:
    """Coins that are booked without a word of the chain's own total are reported."""
    await fill(world)
    stray = Do(NOBODY, move(omnibus(BITCOIN, BTC), house(Purpose.EQUITY, BTC), 3))
    outcome = await perform_own(world.context, lambda: stray)
    report = verify(world.store)
    assert [finding.item for finding in report.findings] == [outcome.item]
    assert "its exact total comes to -500000000" in report.findings[0].what
