"""Books that go from a file into a database: whole or not at all, and never two houses of the same books."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import closing
from pathlib import Path

import apsw
import msgspec
import pytest

from strongroom.admin import restoring
from strongroom.admin.moving import move
from strongroom.admin.protocol import AdminError
from strongroom.books import open_snapshot
from strongroom.config.settings import Config
from strongroom.engine.command import NOBODY
from strongroom.engine.port import StoreError
from strongroom.errors import INVALID_NONCE
from strongroom.records.history import Thread
from strongroom.records.users import Profile
from strongroom.store.portions import FOLIO, PORTIONS
from strongroom.store.sqlite.connection import DATABASE_FILE, open_reader
from strongroom.store.sqlite.departure import Departure
from strongroom.store.sqlite.moved import MOVED_FILE, DataFolderMoved
from strongroom.store.tables import KINDS
from strongroom.wallet.verification import verify
from support.effects import Do
from support.house_nodes import store_of
from support.moving import (
    FAULTS,
    all_rows,
    another_database,
    contents,
    do_everything,
    is_new,
    live,
    moved,
    no_news,
    opened_database,
    sample,
    sqlite_store,
)
from support.postgres import shared_server
from support.world import BTC, opened

COIN = 100_000_000


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stopped house's data folder, whose books have everything in them; not to be changed."""
    folder = tmp_path_factory.mktemp("lived") / "house"
    asyncio.run(live(folder))
    return folder


@pytest.fixture
def house(lived: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(lived, tmp_path / "house"))


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A database with an empty ledger."""
    return store_of(tmp_path)


def test_everything_is_moved_and_the_source_is_left_as_it_was(house: Path, url: str) -> None:
    """Rows of all kinds, balances, threads, items and seals are the same; the folder has only a mark more."""
    before = contents(house)
    view = moved(house, url)
    assert view.moved
    assert (view.findings, [kind for kind in view.kinds if not kind.equal]) == ([], [])
    assert contents(house) == before | {MOVED_FILE: (house / MOVED_FILE).read_bytes()}
    (house / MOVED_FILE).unlink()
    with closing(sqlite_store(house)) as old, closing(opened_database(url)) as new:
        assert view.root == old.frontier().root().hex()
        assert new.frontier() == old.frontier()
        assert list(new.seals()) == list(old.seals())
        assert (new.last(), new.journal(1, 10**6)) == (old.last(), old.journal(1, 10**6))
        assert all_rows(new) == all_rows(old)
        assert sorted(new.balances()) == sorted(old.balances())
        assert sorted(new.each(Thread), key=Thread.key) == sorted(old.each(Thread), key=Thread.key)
        assert new._commits() == old._commits
        assert verify(new).findings == []


def test_what_was_not_swept_yet_is_moved_as_well(house: Path) -> None:
    """The house has customers whose balances are in the journal's end only: each is among what leaves, once."""
    with closing(Departure(house / DATABASE_FILE)) as departure, closing(open_reader(house)) as reader:
        written = len(reader.execute("SELECT owner FROM folio").fetchall())
        leaving = [row[0] for row in departure.rows(FOLIO)]
    assert len(leaving) > written > 0
    assert leaving == sorted(set(leaving))


async def test_the_house_goes_on_where_it_was(tmp_path: Path, url: str) -> None:
    """A signature that was used is refused, a keyed request has its reply, references go on, and money moves."""
    async with opened(sqlite_store(tmp_path / "house")) as world:
        lived = await do_everything(world)
        used = world.guard(lived.uids["alice"], "key", "print")
        first = await world.transfer(used, "BTC", "0.1", "bob")
        signatures, had = world._signatures, world.available(lived.uids["bob"], BTC)
        refs = {entry.ref for item in world.store.items(1, 10**6) for entry in item.lines}
    assert moved(tmp_path / "house", url).moved
    async with opened(opened_database(url)) as world:
        world._signatures = signatures
        again = await world.transfer(msgspec.structs.replace(used, digest=b"", fingerprint=b""), "BTC", "0.1", "bob")
        assert again.refusal is not None
        assert again.refusal.error is INVALID_NONCE
        replayed = await world.transfer(world.guard(lived.uids["alice"], "key", "print"), "BTC", "0.1", "bob")
        assert (replayed.repeated, replayed.result, replayed.at_ms) == (True, first.result, first.at_ms)
        assert world.available(lived.uids["bob"], BTC) == had
        later = await world.transfer(world.guard(lived.uids["alice"]), "BTC", "0.1", "bob")
        assert later.refusal is None
        assert world.available(lived.uids["bob"], BTC) == had + COIN // 10
        fresh = {line.ref for line in world.store.items(later.item, 1)[0].lines}
        assert fresh
        assert not fresh & refs
        assert verify(world.store).findings == []


async def test_every_kind_of_row_is_moved(tmp_path: Path, url: str) -> None:
    """Whatever kinds there are, rows of each with any values in them arrive as they were."""
    rows = tuple(sample(kind, number) for kind in KINDS for number in (1, 2, 3))
    async with opened(sqlite_store(tmp_path / "house")) as world:
        await world.context.submit(Do(NOBODY, kept=rows))
        before = all_rows(world.store)
    assert {type(row) for row in before} == set(KINDS)
    # What it says would be no whole ledger: so it is found, and all of it has arrived.
    view = moved(tmp_path / "house", url)
    assert [(kind.kind, kind.rows_in_source) for kind in view.kinds if not kind.equal] == []
    assert sum(kind.rows_in_target for kind in view.kinds) >= len(rows)
    assert is_new(url)


def test_no_table_is_forgotten(house: Path, url: str) -> None:
    """Each table of either store is moved, or is one that tells only how that store works."""
    moved_tables = {portion.name for portion in PORTIONS}
    with closing(open_reader(house)) as reader:
        found = {name for (name,) in reader.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert found - moved_tables == {"progress"}
    database = url.partition("?")[0].rpartition("/")[2]
    sql = "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')"
    tables = {name for (name,) in shared_server().run(sql, database)}
    assert tables - moved_tables == {"journal", "migration", "node", "block"}
    assert moved_tables - tables == set()


def test_what_a_killed_server_left_in_its_log_is_moved(tmp_path: Path, url: str) -> None:
    """A database file with a log beside it is read with that log, and both stay."""
    killed = tmp_path / "killed"

    async def live_and_copy() -> None:
        async with opened(sqlite_store(tmp_path / "house")) as world:
            await do_everything(world)
            shutil.copytree(tmp_path / "house", killed)

    asyncio.run(live_and_copy())
    log = (killed / f"{DATABASE_FILE}-wal").read_bytes()
    assert log
    view = moved(killed, url)
    assert view.moved
    assert (killed / f"{DATABASE_FILE}-wal").read_bytes() == log
    with closing(opened_database(url)) as new, closing(sqlite_store(tmp_path / "house")) as old:
        assert new.journal(1, 10**6) == old.journal(1, 10**6)


def test_a_database_without_tables_gets_them(house: Path) -> None:
    """One that was only just created is as good as one with an empty ledger."""
    with another_database(migrated=False) as url:
        assert moved(house, url).moved
        assert not is_new(url)


def test_a_backup_is_moved_without_a_mark(house: Path, tmp_path: Path, url: str) -> None:
    """It belongs to no server; whoever lost something since is told to begin a new epoch."""
    backup = tmp_path / "backup" / "monday.sqlite"
    backup.parent.mkdir()
    _ = restoring.back_up(Config(data=str(house)), backup)
    view = move(f"sqlite:{backup}", url, no_news)
    assert view.moved
    assert any("restore --here" in step for step in view.next)
    assert [path.name for path in backup.parent.iterdir()] == [backup.name]


# -- what is left behind


def test_the_books_that_were_left_behind_are_not_opened(house: Path, url: str) -> None:
    """The message says where they are, and what to remove to go on with them after all."""
    assert moved(house, url).moved
    with pytest.raises(DataFolderMoved, match=r"were moved to postgresql://.* say so in the setting 'store'"):
        sqlite_store(house)
    with pytest.raises(DataFolderMoved, match="were moved to"):
        moved(house, url)
    (house / MOVED_FILE).unlink()
    sqlite_store(house).close()


def test_a_signer_does_not_look_at_books_that_were_left_behind(house: Path, url: str) -> None:
    """It would judge by withdrawals as they were."""
    config = Config(data=str(house))
    open_snapshot(config, living=True).close()
    assert moved(house, url).moved
    with pytest.raises(DataFolderMoved):
        open_snapshot(config, living=True)
    open_snapshot(config).close()


def test_a_mark_that_cannot_be_read_is_one(house: Path) -> None:
    """A file that was torn keeps the books closed."""
    (house / MOVED_FILE).write_text("{")
    with pytest.raises(DataFolderMoved, match="cannot be read"):
        sqlite_store(house)


# -- what differs


@pytest.mark.parametrize(
    ("fault", "found"),
    [
        ("a row is dropped", ["user: what has arrived is not the same"]),
        ("a value is changed", ["nonce: what has arrived is not the same"]),
        ("an item is changed", ["item: what has arrived is not the same", "the root in the source is"]),
        ("money is added", ["folio: what has arrived is not the same", "BTC: the sums differ"]),
    ],
)
def test_nothing_is_kept_where_anything_differs(house: Path, fault: str, found: list[str]) -> None:
    """The view says what; the books of the folder are opened as before."""
    with another_database(FAULTS[fault]) as url:
        view = moved(house, url)
        assert not view.moved
        assert all(any(finding.startswith(what) for finding in view.findings) for what in found), view.findings
        assert view.next == []
        assert is_new(url)
    sqlite_store(house).close()


def test_a_commit_that_is_refused_leaves_the_folder_as_it_was(house: Path) -> None:
    """What the database finds wrong only at the end is told, and the books are opened as before."""
    fault = """CREATE FUNCTION fault() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no room'; END $$;
        CREATE CONSTRAINT TRIGGER fault AFTER INSERT ON "user" DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION fault()"""
    with another_database(fault) as url:
        with pytest.raises(StoreError, match="refused to commit: no room"):
            moved(house, url)
        assert is_new(url)
    sqlite_store(house).close()


@pytest.mark.parametrize("stage", ["copying item", "comparing folio", "committing"])
def test_a_connection_that_is_lost_leaves_an_empty_database(house: Path, url: str, stage: str) -> None:
    """The move is simply done again; lost with the COMMIT, the books are closed until it has been."""
    database = url.partition("?")[0].rpartition("/")[2]

    def cut(what: str, rows: int) -> None:
        if what == stage:
            shared_server()._cut(database)

    why = "say the same again, which finds out" if stage == "committing" else "the database cannot be used"
    with pytest.raises((AdminError, StoreError), match=why):
        move(f"sqlite:{house}", url, cut)
    assert (house / MOVED_FILE).exists() == (stage == "committing")
    assert is_new(url)
    assert moved(house, url).moved


async def test_what_the_database_cannot_keep_is_named(tmp_path: Path, url: str) -> None:
    """A text with the one character that PostgreSQL has no place for stays in the file, with everything else."""
    async with opened(sqlite_store(tmp_path / "house")) as world:
        await world.context.submit(Do(NOBODY, kept=(Profile(5, "na\0me", "mail"),)))
    with pytest.raises(StoreError, match=r"PostgreSQL cannot keep a row of profile: .*column username"):
        moved(tmp_path / "house", url)
    assert is_new(url)
    sqlite_store(tmp_path / "house").close()


def test_books_that_are_not_whole_are_not_moved(house: Path, url: str) -> None:
    """Items that do not make their seal stay where they are."""
    with closing(apsw.Connection(str(house / DATABASE_FILE))) as database:
        for (trigger,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            database.execute(f"DROP TRIGGER {trigger}")
        database.execute("UPDATE item SET text = text || ' ' WHERE number = 20")
    with pytest.raises(AdminError, match="is not whole"):
        moved(house, url)
    assert is_new(url)


def test_balances_that_do_not_follow_from_the_journal_are_not_moved(house: Path, url: str) -> None:
    """Equal on both sides is not enough: what has arrived is audited."""
    with closing(apsw.Connection(str(house / DATABASE_FILE))) as database:
        database.execute("UPDATE user SET frozen = 1 - frozen")
    view = moved(house, url)
    assert not view.moved
    assert all(kind.equal for kind in view.kinds)
    assert view.findings
    assert is_new(url)


# -- refusals


def test_a_database_with_a_ledger_is_refused(house: Path, url: str, tmp_path: Path) -> None:
    """Nothing of it changes."""
    assert moved(house, url).moved
    (house / MOVED_FILE).unlink()
    with pytest.raises(AdminError, match="has a ledger already"):
        moved(house, url)
    with closing(opened_database(url)) as store:
        assert verify(store).findings == []
    assert not (house / MOVED_FILE).exists()


async def test_a_database_that_a_node_has_open_is_refused(house: Path, url: str) -> None:
    """It may begin to write at any moment."""
    with closing(opened_database(url)), pytest.raises(StoreError, match="is open in 1 nodes: stop them first"):
        moved(house, url)


def test_a_database_with_anything_else_in_it_is_refused(house: Path) -> None:
    """The tables may be somebody's; nothing is added to them."""
    with another_database('CREATE TABLE "user" (id INT)', migrated=False) as url:
        for _ in range(2):
            with pytest.raises(StoreError, match="has a table user that is no ledger's"):
                moved(house, url)


def test_a_database_of_a_newer_release_is_refused(house: Path) -> None:
    """Nobody knows what its tables mean."""
    with (
        another_database("INSERT INTO migration VALUES (99, 99)") as url,
        pytest.raises(StoreError, match="has schema 99, this release knows"),
    ):
        moved(house, url)


def test_a_folder_that_a_server_has_open_is_refused(house: Path, url: str) -> None:
    """It is named with the process."""
    with closing(sqlite_store(house)), pytest.raises(StoreError, match="is in use by process"):
        moved(house, url)


@pytest.mark.parametrize(("version", "why"), [(0, "serve it once with this release"), (99, "schema 99, this release")])
def test_another_schema_is_refused(house: Path, url: str, version: int, why: str) -> None:
    """An older one has to be brought up to date first; a newer one is nothing for this release."""
    with closing(apsw.Connection(str(house / DATABASE_FILE))) as database:
        database.execute(f"PRAGMA user_version = {version}")
    with pytest.raises(StoreError, match=why):
        moved(house, url)
    assert is_new(url)


def test_what_is_no_database_is_refused(tmp_path: Path, url: str) -> None:
    """A file of anything else is told in a line."""
    (tmp_path / "x.sqlite").write_text("not a database, but long enough to look like one" * 100)
    with pytest.raises(StoreError, match="cannot be read"):
        move(f"sqlite:{tmp_path / 'x.sqlite'}", url, no_news)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("postgresql://a@b/c", "sqlite:here"),
        ("here", "postgresql://a@b/c"),
        ("sqlite:", "postgresql://a@b/c"),
        ("sqlite:here", "sqlite:there"),
        ("sqlite:here", "postgres://a@b/c"),
    ],
)
def test_there_is_one_direction(source: str, target: str) -> None:
    """Anything else is refused before anything is opened."""
    with pytest.raises(AdminError, match="in no other direction"):
        move(source, target, no_news)


def test_a_folder_without_books_is_refused(tmp_path: Path, url: str) -> None:
    """Nothing is made in it."""
    for place in (tmp_path / "none", tmp_path):
        with pytest.raises(AdminError, match="there is no ledger to move"):
            moved(place, url)
    assert not (tmp_path / "lock").exists()
