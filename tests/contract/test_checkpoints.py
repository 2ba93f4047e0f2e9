"""The write-ahead log: it starts anew under load, and no commit waits for a reader."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from pathlib import Path

import pytest

from strongroom.store.sqlite import checkpoints
from strongroom.store.sqlite.snapshot import SqliteSnapshot
from strongroom.store.sqlite.store import SqliteStore
from strongroom.wallet.verification import verify
from support.world import BTC, World, new_store, opened


async def work(world: World, alice: int, batches: int) -> list[int]:
    """Write batches of transfers and return the pages in the log after each."""
    assert isinstance(world.store, SqliteStore)
    pages: list[int] = []
    for _ in range(batches):
        guards = [world.guard(alice) for _ in range(40)]
        await asyncio.gather(*(world.transfer(guard, "BTC", "0.00000001", "bob") for guard in guards))
        pages.append(world.store.log_pages)
    return pages


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:  # pyright: ignore[reportUnusedFunction]
    """Let a log be long soon."""
    monkeypatch.setattr(checkpoints, "START_AT_PAGES", 60)
    monkeypatch.setattr(checkpoints, "FINISH_AT_PAGES", 20)
    monkeypatch.setattr(checkpoints, "LOOK_EVERY_COMMITS", 2)


async def test_the_log_starts_anew_while_commits_go_on(tmp_path: Path) -> None:
    """However much is written without a pause, the log stays short, and the books are whole."""
    async with opened(new_store("sqlite", tmp_path)) as world:
        alice, _ = await world.user("alice"), await world.user("bob")
        await world.fund(alice, BTC, 10**9)
        pages = await work(world, alice, 80)
        assert sum(after < before for before, after in pairwise(pages)) >= 3
        assert max(pages) < 600
        assert verify(world.store).is_whole


async def test_a_reader_holds_the_log_and_no_commit(tmp_path: Path) -> None:
    """While an audit reads, the log grows and commits go on; once it has ended the log starts anew."""
    async with opened(new_store("sqlite", tmp_path)) as world:
        alice, _ = await world.user("alice"), await world.user("bob")
        await world.fund(alice, BTC, 10**9)
        audit = SqliteSnapshot(tmp_path)
        held = await work(world, alice, 40)
        # A log that was copied whole just before the audit began starts anew once more, which the second look tells.
        assert held[4:] == sorted(held[4:])
        assert verify(audit).is_whole
        audit.close()
        assert min(await work(world, alice, 80)) < held[-1]
