"""Blocks of the rate limits among nodes over one database: all are heard, however many there are at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from strongroom.clock import Clock, Ids
from strongroom.engine.blocks import Block
from strongroom.store.postgres.blocks import MOST_WAITING, PostgresBlocks
from strongroom.store.postgres.store import PostgresStore
from support.postgres import database_of

WITHIN_S: Final = 60.0
DAY_MS: Final = 86_400_000


class Node:
    """One node's blocks, and what it has heard."""

    def __init__(self, folder: Path) -> None:
        self.blocks = PostgresBlocks(database_of(folder))
        self.heard: dict[str, Block] = {}
        self._news = asyncio.Event()

    def hear(self, block: Block) -> None:
        """Note a block."""
        self.heard[block.name] = block
        self._news.set()

    async def until_heard(self, count: int) -> None:
        """Wait until so many were heard of."""
        async with asyncio.timeout(WITHIN_S):
            while len(self.heard) < count:
                self._news.clear()
                _ = await self._news.wait()


@asynccontextmanager
async def nodes(folder: Path, count: int) -> AsyncIterator[list[Node]]:
    """Run so many nodes over the test's database."""
    PostgresStore(database_of(folder), Ids(Clock())).close()
    found = [Node(folder) for _ in range(count)]
    running = [asyncio.create_task(node.blocks.run(node.hear)) for node in found]
    try:
        yield found
    finally:
        for task in running:
            _ = task.cancel()
        for task in running:
            with suppress(asyncio.CancelledError):
                await task
        for node in found:
            node.blocks.close()


def block(name: str, until_ms: int = DAY_MS, rung: int = 1) -> Block:
    """Return a block that is far from over."""
    now_ms = Clock().now_ms()
    return Block(name, now_ms + until_ms, rung, now_ms + 2 * DAY_MS)


async def test_all_are_heard_when_there_are_more_at_once_than_one_question_tells(tmp_path: Path) -> None:
    """An attack from thousands of addresses hides no block behind others."""
    async with nodes(tmp_path, 3) as (first, second, third):
        for number in range(MOST_WAITING):
            first.blocks.tell(block(f"first {number}"))
            second.blocks.tell(block(f"second {number}"))
        await third.until_heard(2 * MOST_WAITING)
        first.blocks.tell(block("one more"))
        await third.until_heard(2 * MOST_WAITING + 1)
        assert "one more" in third.heard


async def test_of_one_name_the_block_that_ends_last_is_everybodys(tmp_path: Path) -> None:
    """A shorter one that is told later ends nothing, for a node that starts then neither."""
    async with nodes(tmp_path, 2) as (first, second):
        first.blocks.tell(block("both", rung=2))
        await second.until_heard(1)
        second.blocks.tell(block("both", until_ms=1_000))
        second.blocks.tell(block("told with it"))
        await first.until_heard(2)
        async with nodes(tmp_path, 1) as (third,):
            await third.until_heard(2)
            assert third.heard["both"].rung == 2
