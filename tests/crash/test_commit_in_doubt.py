"""A disk that fails: nobody hears of what is not known, everybody hears the truth, and work goes on when it can."""

from __future__ import annotations

import asyncio
import random
import shutil
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import apsw
import pytest

from strongroom import books
from strongroom.clock import Clock, Ids, SetClock
from strongroom.engine import writer
from strongroom.engine.command import NOBODY, Command
from strongroom.engine.settle import Outcome
from strongroom.engine.writer import IN_DOUBT, STALLED, STOPPED, UNWRITABLE, Writer
from strongroom.errors import UNAVAILABLE, InvariantBroken, Refused
from strongroom.store.sqlite import connection
from strongroom.store.sqlite.snapshot import SqliteSnapshot
from strongroom.store.sqlite.store import SqliteStore
from strongroom.wallet.balances import balance_of
from strongroom.wallet.transfers import prepare_transfer
from strongroom.wallet.users import find_user
from strongroom.wallet.verification import verify
from support.culprit import Culprit
from support.harness_disk import DATABASE, END_OF_COMMIT, LOG, READ, SYNC, WRITE, FaultyDisk
from support.server import TRANSFER, WALLET, join, served, settings, transfer_to
from support.world import BTC, NOW_MS, Quiet, World, opened

COIN: Final = 100_000_000
PATIENCE_S: Final = 10


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the writer try again at once, and call a disk stalled soon."""
    monkeypatch.setattr(writer, "RESOLVE_EVERY_S", 0.01)
    monkeypatch.setattr(writer, "STALLED_AFTER_S", 0.2)


@pytest.fixture
def disk() -> Iterator[FaultyDisk]:
    """A disk without a fault so far."""
    disk = FaultyDisk()
    yield disk
    disk.unregister()


class House(World):
    """A world whose users are known: alice has ten coins, bob none."""

    alice: int
    bob: int

    def send(self, amount: str = "1") -> asyncio.Task[Outcome]:
        """Let alice send to bob."""
        return asyncio.create_task(self.transfer(self.guard(self.alice), "BTC", amount, "bob"))


@asynccontextmanager
async def house_on(folder: Path, disk: FaultyDisk) -> AsyncGenerator[House]:
    """Open a house on a faulty disk; it is founded if it is new."""
    store = SqliteStore(folder, Ids(SetClock(NOW_MS)), vfs=disk.name)
    fresh = not store.last()[0]
    async with opened(store) as world:
        house = world
        house.__class__ = House
        assert isinstance(house, House)
        if fresh:
            alice, _ = await house.user("alice"), await house.user("bob")
            await house.fund(alice, BTC, 10 * COIN)
        house.alice, house.bob = (find_user(store, name).uid for name in ("alice", "bob"))
        yield house


async def until(condition: Callable[[], Any]) -> None:
    """Wait for something that another thread brings about."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - threads and the writer's loop set no event of ours
            await asyncio.sleep(0.001)


async def answer(asked: asyncio.Task[Outcome]) -> str:
    """Return what a request was told in the end: "done", or the name of its refusal."""
    try:
        outcome = await asyncio.wait_for(asked, PATIENCE_S)
    except Refused as refusal:
        return refusal.error.name
    return outcome.refusal.error.name if outcome.refusal else "done"


def take_copy(folder: Path, copy: Path) -> None:
    """Copy the books as they would be found if the power failed now."""
    copy.mkdir()
    for file in (DATABASE, LOG):
        shutil.copyfile(folder / file, copy / file)


def on_disk(folder: Path, copy: Path, house: House) -> int:
    """Return what bob has if the power fails now, or failed when the copy was taken; the books must be whole."""
    if not copy.exists():
        take_copy(folder, copy)
    connection.open_writer(copy).close()
    snapshot = SqliteSnapshot(copy)
    assert verify(snapshot).findings == []
    bob = balance_of(snapshot, house.bob, BTC).available
    assert balance_of(snapshot, house.alice, BTC).available == 10 * COIN - bob
    snapshot.close()
    return bob


DOUBTS: Final = [
    pytest.param((SYNC,), apsw.IOError, id="fsync-fails"),
    pytest.param((WRITE,), apsw.IOError, id="write-fails"),
    pytest.param((WRITE,), apsw.FullError, id="disk-full"),
    pytest.param((READ, WRITE, SYNC), apsw.IOError, id="disk-gone"),
]


@pytest.mark.parametrize(("operations", "error"), DOUBTS)
async def test_nobody_is_answered_while_a_commit_is_in_doubt(
    tmp_path: Path, disk: FaultyDisk, operations: tuple[str, ...], error: type[apsw.Error]
) -> None:
    """The batch waits, whatever waits behind it and comes later is turned away, and the doubt ends with "not done"."""
    async with house_on(tmp_path / "data", disk) as house:
        disk.first_fault = partial(take_copy, tmp_path / "data", tmp_path / "then")
        with disk.fails(*operations, error=error):
            with disk.held():
                doubted = house.send("1")
                await until(lambda: disk.waiting)
                behind = house.send("2")
                await until(lambda: house.writer.depth)
            await until(lambda: house.writer.trouble)
            assert house.writer.trouble.startswith(IN_DOUBT)
            assert await answer(behind) == await answer(house.send("3")) == UNAVAILABLE.name
            met = disk.met
            await until(lambda: disk.met > met + 2)
            assert not doubted.done()
            # Where only the sync failed the frames were in the log: a power failure would have brought the money over.
            assert on_disk(tmp_path / "data", tmp_path / "then", house) == (COIN if operations == (SYNC,) else 0)
        assert await answer(doubted) == UNAVAILABLE.name
        assert house.writer.trouble == ""
        assert on_disk(tmp_path / "data", tmp_path / "settled", house) == 0
        assert await answer(house.send("4")) == "done"
        assert [bool(trouble) for trouble in house.events.troubles] == [True, False]
    async with house_on(tmp_path / "data", disk) as house:
        assert balance_of(house.store, house.bob, BTC).available == 4 * COIN
        assert verify(house.store).findings == []


async def test_a_commit_that_failed_too_late_is_answered_done(tmp_path: Path, disk: FaultyDisk) -> None:
    """When it turns out that the batch in doubt was kept, its requests hear so, and every reader sees it."""
    async with house_on(tmp_path / "data", disk) as house:
        with disk.fails(END_OF_COMMIT, file=DATABASE):
            doubted = house.send("1")
            await until(lambda: house.writer.trouble)
            assert not doubted.done()
        assert await answer(doubted) == "done"
        assert house.available(house.bob, BTC) == COIN
        assert await answer(house.send("2")) == "done"
        assert on_disk(tmp_path / "data", tmp_path / "copy", house) == 3 * COIN


async def test_a_ledger_that_another_program_locks_says_so(
    tmp_path: Path, disk: FaultyDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is in doubt then: the batch is turned away at once, and so is everybody until the lock is gone."""
    monkeypatch.setattr(connection, "BUSY_TIMEOUT_MS", 10)
    async with house_on(tmp_path / "data", disk) as house:
        other = apsw.Connection(str(tmp_path / "data" / DATABASE))
        other.execute("BEGIN IMMEDIATE")
        assert [await answer(asked) for asked in [house.send("1"), house.send("2")]] == [UNAVAILABLE.name] * 2
        assert house.writer.trouble.startswith(UNWRITABLE)
        assert "locked" in house.writer.trouble
        assert await answer(house.send("3")) == UNAVAILABLE.name
        other.close()
        await until(lambda: not house.writer.trouble)
        assert await answer(house.send("4")) == "done"
        assert house.available(house.bob, BTC) == 4 * COIN


async def test_a_disk_that_is_full_before_the_commit_loses_nothing(tmp_path: Path, disk: FaultyDisk) -> None:
    """A statement that finds no room leaves nothing behind, however often it is tried."""
    async with house_on(tmp_path / "data", disk) as house:
        assert isinstance(house.store, SqliteStore)
        books = house.store._writer
        pages = books.execute("PRAGMA page_count").get
        books.execute(f"PRAGMA max_page_count={pages}")
        told = [await answer(house.send("0.0001")) for _ in range(40)]
        assert UNAVAILABLE.name in told
        await until(lambda: not house.writer.trouble)
        books.execute("PRAGMA max_page_count=1000000")
        assert await answer(house.send("1")) == "done"
        expected = COIN + 10_000 * told.count("done")
        assert house.available(house.bob, BTC) == expected
        assert on_disk(tmp_path / "data", tmp_path / "copy", house) == expected


async def test_a_disk_that_cannot_be_read_does_not_end_the_server(tmp_path: Path, disk: FaultyDisk) -> None:
    """Rows that cannot be loaded turn their batch away; the next one finds them."""
    async with house_on(tmp_path / "data", disk):
        pass
    async with house_on(tmp_path / "data", disk) as house:
        with disk.fails(READ, file=DATABASE):
            asked = asyncio.create_task(house.transfer(house.guard(house.alice), "USDT", "1", "bob"))
            assert await answer(asked) == UNAVAILABLE.name
            assert disk.met
        await until(lambda: not house.writer.trouble)
        assert (await house.transfer(house.guard(house.alice), "BTC", "1", "bob")).refusal is None


async def test_a_row_that_cannot_be_read_while_it_is_decided_turns_its_batch_away(
    tmp_path: Path, disk: FaultyDisk
) -> None:
    """Nothing that was asked with it is done; asked again with the same Idempotency-Key, it is done once."""
    async with house_on(tmp_path / "data", disk) as house:
        assert isinstance(house.store, SqliteStore)
        guard = house.guard(house.alice, "key", "fingerprint")
        command = prepare_transfer(house.context, guard, "BTC", "1", "bob")
        reader, lost = house.store._reader, connection.open_reader(tmp_path / "data")
        lost.close()
        house.store._reader = lost
        assert await answer(asyncio.create_task(house.writer.submit(command))) == UNAVAILABLE.name
        house.store._reader = reader
        await until(lambda: not house.writer.trouble)
        assert house.available(house.bob, BTC) == 0
        assert await answer(asyncio.create_task(house.writer.submit(command))) == "done"
        assert house.available(house.bob, BTC) == COIN


async def test_a_stalled_disk_is_told_of_and_answers_when_it_moves(tmp_path: Path, disk: FaultyDisk) -> None:
    """A sync that takes too long turns everybody else away; who it carries is answered when it ends."""
    async with house_on(tmp_path / "data", disk) as house:
        with disk.held():
            stalled = house.send("1")
            await until(lambda: disk.waiting)
            behind = house.send("2")
            await until(lambda: house.writer.trouble == STALLED)
            assert await answer(behind) == await answer(house.send("3")) == UNAVAILABLE.name
            assert not stalled.done()
        assert await answer(stalled) == "done"
        assert house.writer.trouble == ""
        assert house.available(house.bob, BTC) == COIN


@pytest.mark.parametrize(
    "culprit",
    [Culprit(NOBODY, height=1 << 63), Culprit(NOBODY, block="\ud800"), Culprit(NOBODY, network=1 << 70)],
    ids=["too-large-a-number", "no-text", "too-large-a-key"],
)
async def test_a_command_that_cannot_be_kept_fails_alone(tmp_path: Path, disk: FaultyDisk, culprit: Command) -> None:
    """Whoever shared its batch is served, nobody is told to come again with it, and the server goes on."""
    async with house_on(tmp_path / "data", disk) as house:
        before, bad = house.send("1"), asyncio.create_task(house.writer.submit(culprit))
        after = house.send("2")
        assert [await answer(before), await answer(after)] == ["done", "done"]
        with pytest.raises(InvariantBroken, match="Culprit"):
            await bad
        assert len(house.events.failures) == 1
        assert house.events.troubles == []
        assert on_disk(tmp_path / "data", tmp_path / "copy", house) == 3 * COIN


async def test_a_log_that_cannot_be_moved_into_the_database_holds_everything(tmp_path: Path, disk: FaultyDisk) -> None:
    """A reader that stays for long keeps the log from being emptied; it stops nobody, and nothing is lost."""
    async with house_on(tmp_path / "data", disk) as house:
        assert isinstance(house.store, SqliteStore)
        books = house.store._writer
        books.execute("PRAGMA wal_autocheckpoint=1")
        reader = SqliteSnapshot(tmp_path / "data")
        for _ in range(20):
            assert await answer(house.send("0.1")) == "done"
        assert balance_of(reader, house.bob, BTC).available == 0
        assert on_disk(tmp_path / "data", tmp_path / "copy", house) == 2 * COIN
        grown = (tmp_path / "data" / LOG).stat().st_size
        reader.close()
        for _ in range(20):
            assert await answer(house.send("0.1")) == "done"
        assert (tmp_path / "data" / LOG).stat().st_size < grown * 1.2
        assert on_disk(tmp_path / "data", tmp_path / "later", house) == 4 * COIN


async def test_a_writer_that_is_closed_in_doubt_ends(tmp_path: Path, disk: FaultyDisk) -> None:
    """A stop does not wait for a disk that may never come back; who was in doubt gets no promise either way."""
    async with house_on(tmp_path / "data", disk) as house:
        second = Writer(house.store, Clock(), Quiet())
        running = asyncio.create_task(second.run())
        with disk.fails(SYNC):
            doubted = asyncio.create_task(second.submit(Culprit(NOBODY, height=7)))
            await until(lambda: second.trouble)
            second.close()
            async with asyncio.timeout(PATIENCE_S):
                for task in (doubted, running):
                    with pytest.raises(InvariantBroken):
                        await task
        await house.store.lanes[0].resolve()


def mistake(_: object) -> None:
    """Listen to commits, and fail."""
    raise ZeroDivisionError


async def stop_behind_a_commit(folder: Path, disk: FaultyDisk) -> None:
    """Let the writer meet a mistake of ours after a commit, and see what everybody hears. Raises what it met."""
    async with house_on(folder, disk) as house:
        house.store.subscribe(mistake)
        with disk.held():
            carried = house.send("1")
            await until(lambda: disk.waiting)
            behind = house.send("2")
            await until(lambda: house.writer.depth)
        with pytest.raises(InvariantBroken):
            await carried
        assert await answer(behind) == await answer(house.send("3")) == UNAVAILABLE.name
        assert house.writer.trouble == STOPPED


async def test_a_writer_that_stops_leaves_nobody_waiting(tmp_path: Path, disk: FaultyDisk) -> None:
    """Who was in its last batch is told of an error, all others to come again; a new start has what was committed."""
    with pytest.raises(ZeroDivisionError):
        await stop_behind_a_commit(tmp_path / "data", disk)
    async with house_on(tmp_path / "data", disk) as house:
        assert house.available(house.bob, BTC) == COIN


@pytest.mark.parametrize("seed", range(3))
async def test_a_disk_that_comes_and_goes_keeps_every_answer(tmp_path: Path, disk: FaultyDisk, seed: int) -> None:
    """Whatever fails whenever: what was answered is there, what was turned away is not, also after a new start."""
    chance = random.Random(seed)
    faults = [
        ((SYNC,), LOG, apsw.IOError),
        ((WRITE,), LOG, apsw.FullError),
        ((READ, WRITE, SYNC), LOG, apsw.IOError),
        ((END_OF_COMMIT,), DATABASE, apsw.IOError),
    ]
    sent: list[tuple[int, asyncio.Task[Outcome]]] = []
    async with house_on(tmp_path / "data", disk) as house:
        for _ in range(40):
            operations, file, error = chance.choice(faults)
            for _ in range(chance.randrange(1, 6)):
                units = 1 << len(sent) % 20
                sent.append((units, house.send(f"0.{units:08}")))
            await asyncio.sleep(chance.choice((0, 0.01)) * chance.random())
            with disk.fails(*operations, file=file, error=error):
                await asyncio.sleep(chance.random() / 50)
            await until(lambda: chance.random() < 0.1 or not house.writer.trouble)
        told = [(units, await answer(task)) for units, task in sent]
        assert {word for _, word in told} == {"done", UNAVAILABLE.name}
        expected = sum(units for units, word in told if word == "done")
        assert house.available(house.bob, BTC) == expected
        assert on_disk(tmp_path / "data", tmp_path / "copy", house) == expected


async def test_a_server_in_doubt_says_so_and_serves_again(
    tmp_path: Path, disk: FaultyDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over HTTP: the transfer gets no answer, others a 503 to be repeated, reads go on, and `/readyz` says why."""
    monkeypatch.setattr(books, "SqliteStore", partial(SqliteStore, vfs=disk.name))
    async with served(settings(tmp_path)) as server:
        alice, bob = await join(server.application, "alice", COIN), await join(server.application, "bob")
        with disk.fails(SYNC):
            doubted = asyncio.create_task(server.post(alice, TRANSFER, transfer_to(bob, "0.25")))
            await until(lambda: server.application.writer.trouble)
            refused = await server.post(alice, TRANSFER, transfer_to(bob, "0.5"))
            assert (refused.status_code, refused.json()["code"]) == (503, -11)
            assert int(refused.headers["retry-after"]) > 0
            ready = await server.client.get("/readyz")
            assert (ready.status_code, ready.json()["status"]) == (503, "unavailable")
            assert ready.json()["details"]["writer"].startswith(IN_DOUBT)
            wallet = (await server.get(alice, WALLET)).json()
            assert next(row["available"] for row in wallet if row["currency"] == "BTC") == 1
            assert not doubted.done()
        assert (await doubted).status_code == 503
        assert (await server.client.get("/readyz")).status_code == 200
        assert (await server.post(alice, TRANSFER, transfer_to(bob, "0.125"))).status_code == 200
        wallet = (await server.get(bob, WALLET)).json()
        assert next(row["available"] for row in wallet if row["currency"] == "BTC") == 0.125
