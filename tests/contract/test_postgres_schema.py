"""The schema of a database that a newer release has brought further, seen by a store that was open meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import closing
from typing import Any, Final

import psycopg
import pytest

from strongroom.engine.command import NOBODY
from strongroom.engine.port import DiskFailed, NotDone
from strongroom.store.postgres import schema
from strongroom.store.postgres.connection import Limits
from strongroom.store.postgres.schema import DatabaseNewer, Migration, Standing, prepare_database
from strongroom.wallet.users import prepare_user
from support.moving import another_database, opened_database
from support.world import BTC, World, opened

LEFT_BEHIND: Final = "the database has schema 2, this release knows 1, and only one that knows 2 may use it: upgrade"
NEW_COLUMN: Final = "ALTER TABLE \"user\" ADD COLUMN mood TEXT NOT NULL DEFAULT 'good'"
OTHER_NAME: Final = 'ALTER TABLE "user" RENAME COLUMN parent TO mother'


@pytest.fixture
async def shared() -> AsyncIterator[tuple[World, str]]:
    """A house on a database of its own."""
    with another_database() as url:
        async with opened(opened_database(url)) as world:
            yield world, url


def bring(url: str, monkeypatch: pytest.MonkeyPatch, *more: Migration) -> None:
    """Bring a database further, as a node of a newer release does when it starts."""
    known = schema.migrations()
    with monkeypatch.context() as patched:
        patched.setattr(schema, "migrations", lambda: [*known, *more])
        prepare_database(url, Limits())


async def test_a_store_goes_on_behind_a_migration_that_it_is_compatible_with(
    shared: tuple[World, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it writes has the new column's default; another of its release may open the database too."""
    world, url = shared
    alice = await world.user("alice")
    bring(url, monkeypatch, Migration(NEW_COLUMN, 1))
    await world.user("bob")
    await world.fund(alice, BTC, 100)
    assert (await world.transfer(world.guard(alice), "BTC", "0.000001", "bob")).refusal is None
    opened_database(url).close()
    with psycopg.connect(url) as connection:
        assert connection.execute('SELECT mood FROM "user"').fetchall() == [("good",)] * 2


@pytest.mark.parametrize("sql", [NEW_COLUMN, OTHER_NAME], ids=["nothing it uses", "a column it uses"])
async def test_a_store_that_is_left_behind_neither_begins_nor_settles(
    shared: tuple[World, str], monkeypatch: pytest.MonkeyPatch, sql: str
) -> None:
    """Its next batch is turned away before anything is decided, and the doubt is not ended by a commit."""
    world, url = shared
    command: Any = prepare_user(world.context, NOBODY, "alice", "alice@example.com", 0)
    bring(url, monkeypatch, Migration(sql, 2))
    lane = world.store.lanes[0]
    with closing(psycopg.connect(url, autocommit=True)) as connection:
        before = connection.execute("SELECT commits, forced FROM journal").fetchall()
        with pytest.raises(DiskFailed, match=LEFT_BEHIND):
            await lane.begin([command])
        with pytest.raises(NotDone, match=LEFT_BEHIND):
            await lane.resolve()
        assert connection.execute("SELECT commits, forced FROM journal").fetchall() == before
    with pytest.raises(DatabaseNewer, match=LEFT_BEHIND):
        opened_database(url)


async def test_a_migration_waits_for_the_batch_that_is_under_way(
    shared: tuple[World, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not wait for long: whoever reads for hours must not make all nodes wait."""
    world, url = shared
    lane = world.store.lanes[0]
    state = await lane.begin([])
    monkeypatch.setattr(schema, "_LOCK_TIMEOUT", "SET LOCAL lock_timeout = '100ms'")
    with pytest.raises(psycopg.errors.LockNotAvailable):
        bring(url, monkeypatch, Migration(NEW_COLUMN, 2))
    with closing(psycopg.connect(url)) as connection:
        assert connection.execute("SELECT max(number) FROM migration").fetchall() == [(1,)]
    await lane.commit(state)
    await world.user("alice")


def test_a_migration_says_in_its_first_line_who_may_go_on() -> None:
    """Without that line only those that know it may."""
    assert schema._read("-- compatible from 3\nSELECT 1", 5) == Migration("-- compatible from 3\nSELECT 1", 3)
    assert schema._read("SELECT 1\n-- compatible from 3\n", 5).compatible_from == 5


@pytest.mark.parametrize(
    ("version", "compatible_from", "known", "may"),
    [(3, 3, 3, True), (4, 3, 3, True), (4, 4, 3, False), (1, 1, 4, True)],
)
def test_who_may_use_a_database(version: int, compatible_from: int, known: int, may: bool) -> None:
    """Whoever knows at least what the newest incompatible migration asks for."""
    assert (Standing(version, compatible_from).refusal(known) == "") is may
