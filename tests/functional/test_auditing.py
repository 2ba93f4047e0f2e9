"""The audit by several processes: it says what one says, and never that books are whole when it could not tell."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import sqlite3
from pathlib import Path

import pytest

from strongroom.admin.auditing import AuditFailed, Span, Worker, audit_folder
from strongroom.config.settings import Config
from strongroom.ledger.seals import Frontier
from strongroom.store.sqlite.connection import DATABASE_FILE
from support.demos import invoke
from support.world import BTC, new_store, opened

COIN = 100_000_000
TRANSFERS = 300


async def fill(folder: Path) -> None:
    """Let three users pay each other, a few at a time, so that histories are long and cross every division."""
    rng = random.Random(7)
    names = ("ann", "ben", "cleo")
    async with opened(new_store("sqlite", folder)) as world:
        uids = {name: await world.user(name) for name in names}
        for uid in uids.values():
            await world.fund(uid, BTC, 1_000 * COIN)
        for _ in range(TRANSFERS // 5):
            world.clock.at_ms += 1_000
            pairs = [rng.sample(names, 2) for _ in range(5)]
            await asyncio.gather(*[world.transfer(world.guard(uids[one]), "BTC", "1", to) for one, to in pairs])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Books with some hundred transfers, closed."""
    folder = tmp_path_factory.mktemp("audited")
    asyncio.run(fill(folder))
    return folder


def changed(whole: Path, folder: Path, statement: str) -> Path:
    """Return a copy of the books in which a statement has changed something behind the server's back."""
    copy = folder / "changed"
    shutil.copytree(whole, copy)
    with sqlite3.connect(copy / DATABASE_FILE) as database:
        for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            database.execute(f"DROP TRIGGER {name}")
        assert database.execute(statement).rowcount >= 1
    database.close()
    return copy


def test_however_many_processes_read_they_come_to_the_same_report(whole: Path) -> None:
    """Counts, root and the verdict do not depend on how the work was shared."""
    report = audit_folder(whole, 1)
    assert report.is_whole
    assert report.lines >= 2 * TRANSFERS
    assert [audit_folder(whole, processes) for processes in (2, 3)] == [report, report]


@pytest.mark.parametrize("item", [30, 170, 290])
def test_a_wrong_item_is_named_whichever_process_reads_it(whole: Path, tmp_path: Path, item: int) -> None:
    """The findings are those of one reading from the first item on."""
    statement = f"UPDATE item SET text = json_set(text, '$.at_ms', 5) WHERE number = {item}"
    folder = changed(whole, tmp_path, statement)
    report = audit_folder(folder, 3)
    assert report.first_wrong_item == item
    assert report == audit_folder(folder, 1)


def test_the_command_shares_the_work_and_tells_how_fast_it_went(whole: Path) -> None:
    """`--processes` is taken, and the JSON line has the time and the rate."""
    ran = invoke("ledger", "verify", "--data", whole, "--processes", "2", "--json")
    report = json.loads(ran.out)
    assert (ran.code, report["whole"]) == (0, True)
    assert report["postings_per_second"] == report["postings"] * 1_000 // report["took_ms"]


def test_the_command_names_the_wrong_item_and_ends_with_1(whole: Path, tmp_path: Path) -> None:
    """An item that is gone from the second stretch is no whole journal."""
    folder = changed(whole, tmp_path, "DELETE FROM item WHERE number = 250")
    ran = invoke("ledger", "verify", "--data", folder, "--processes", "2")
    assert ran.code == 1
    assert "the first wrong item is 250" in ran.err


def test_a_process_that_dies_makes_the_audit_fail(whole: Path) -> None:
    """Where a process was killed nobody knows whether its stretch is whole, and the audit says so."""
    worker = Worker(Config(data=str(whole)), Span(Frontier(), TRANSFERS))
    worker.process.kill()
    with pytest.raises(AuditFailed, match="died with exit code -9"):
        list(worker.parcels())
    worker.end()


def test_books_that_a_process_cannot_read_make_the_audit_fail(whole: Path, tmp_path: Path) -> None:
    """What one process cannot read is told by the one that was asked, in a line of its own."""
    copy = tmp_path / "broken"
    shutil.copytree(whole, copy)
    size = (copy / DATABASE_FILE).stat().st_size
    with (copy / DATABASE_FILE).open("r+b") as file:
        file.seek(size // 2)
        file.write(b"\xff" * 65_536)
    worker = Worker(Config(data=str(copy)), Span(Frontier(), TRANSFERS))
    with pytest.raises(AuditFailed, match="cannot be read"):
        list(worker.parcels())
    worker.end()
