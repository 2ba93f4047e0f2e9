"""Histories: lines written by no business of their own, and what a scan would find among them."""

from __future__ import annotations

import random
from typing import Final

from strongroom.engine.command import NOBODY
from strongroom.records.history import Entry, Line, LineType
from strongroom.records.kept import Kept
from strongroom.wallet.history import count_lines, lines_of, newest_lines
from support.effects import Do
from support.world import BTC, NOW_MS, USDT, World

OWNER: Final = 77
_LINES_PER_COMMAND: Final = 15


async def tell(world: World, *entries: Entry, kept: tuple[Kept, ...] = ()) -> None:
    """Write lines, and rows beside the first of them; ten milliseconds pass with every few lines."""
    for first in range(0, max(1, len(entries)), _LINES_PER_COMMAND):
        world.clock.at_ms += 10
        await world.context.submit(Do(NOBODY, (), () if first else kept, entries[first : first + _LINES_PER_COMMAND]))


async def tell_randomly(world: World, count: int, seed: int) -> list[Line]:
    """Write lines of random assets and types, and return all of them, newest first."""
    chance = random.Random(seed)
    types = [LineType.TRANSFER_OUT, LineType.TRANSFER_IN, LineType.CONVERT, LineType.SUB_ACCOUNT_IN]
    entries = [
        Entry(OWNER, chance.choice((BTC, USDT)), chance.choice(types), ref, ref, ref) for ref in range(1, count + 1)
    ]
    await tell(world, *entries)
    return [line for item in reversed(world.store.items(1, 1_000_000)) for line in reversed(item.lines)]


def within(line: Line, start_ms: int | None, end_ms: int | None) -> bool:
    """Say whether a line lies within the times, the start inclusive and the end exclusive."""
    return (start_ms is None or line.at_ms >= start_ms) and (end_ms is None or line.at_ms < end_ms)


def see_pages(world: World, everything: list[Line], pages: int, seed: int) -> None:
    """Ask for random pages, whatever assets, types, times and sizes: each is what a scan of all lines would find."""
    chance = random.Random(seed)
    times = [None, 0, *(line.at_ms + shift for line in everything[::40] for shift in (0, 1)), NOW_MS * 2]
    for _ in range(pages):
        start_ms, end_ms = chance.choice(times), chance.choice(times)
        types = None if chance.random() < 0.3 else chance.sample(list(LineType)[:9], chance.randrange(6))
        skip, limit = chance.choice((0, 1, 2, 7, chance.randrange(450))), chance.randrange(1, 60)
        found = [
            line
            for line in everything
            if within(line, start_ms, end_ms) and line.asset == BTC and (types is None or line.type in types)
        ]
        assert lines_of(world.store, OWNER, BTC, types, start_ms, end_ms, limit, skip) == found[skip : skip + limit]
        assert count_lines(world.store, OWNER, BTC, types, start_ms, end_ms) == len(found)
        whole = [line for line in everything if within(line, start_ms, end_ms)]
        assert newest_lines(world.store, OWNER, None, start_ms, end_ms, limit, skip) == whole[skip : skip + limit]
