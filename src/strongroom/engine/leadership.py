"""Leadership: which of the nodes over one ledger runs a background loop.

It saves work and nothing else: two nodes that run the same loop do no harm, because every step of it is decided over
the rows as they are, and done once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Protocol

from strongroom.engine.supervisor import Loop


async def rest() -> None:
    """Do nothing until cancelled: what a node does for most loops while another one leads."""
    _ = await asyncio.Event().wait()


class Leadership(Protocol):
    """Who leads is decided seat by seat, each by its name; loops that belong together share one."""

    @property
    def led(self) -> frozenset[str]:
        """The seats that this process has now."""
        ...

    async def lead(self, seat: str, loop: Loop, standby: Loop = rest) -> None:
        """Run a loop whenever this process has the seat, and `standby` whenever it has not, until cancelled.

        Ends as the loop ends, and raises what it raises.
        """
        ...

    async def run(self) -> None:
        """Ask for the seats again and again, until cancelled; only where the books are shared."""
        ...

    def close(self) -> None:
        """Give every seat up."""
        ...


class SoleLeadership:
    """The leadership of a process that has its ledger to itself."""

    def __init__(self) -> None:
        self._led: set[str] = set()

    @property
    def led(self) -> frozenset[str]:
        """Every seat that was asked for."""
        return frozenset(self._led)

    async def lead(self, seat: str, loop: Loop, standby: Loop = rest) -> None:
        """Run the loop."""
        self._led.add(seat)
        await loop()

    async def run(self) -> None:
        """Do nothing until cancelled."""
        await rest()

    def close(self) -> None:
        """Do nothing."""


class Seats:
    """The seats of a process that has to ask for them: `hold` says which ones it has, and the loops follow."""

    def __init__(self) -> None:
        self._changed: dict[str, asyncio.Event] = {}
        self.held: frozenset[str] = frozenset()

    @property
    def wanted(self) -> list[str]:
        """The seats that loops are to be run for, in the order they were asked for."""
        return list(self._changed)

    def hold(self, held: frozenset[str]) -> None:
        """Have these seats and no others."""
        changed, self.held = self.held ^ held, held
        for seat in changed & self._changed.keys():
            self._changed[seat].set()
            self._changed[seat] = asyncio.Event()

    async def lead(self, seat: str, loop: Loop, standby: Loop) -> None:
        """Run one loop or the other, as long as that is right, until cancelled or it ends."""
        _ = self._changed.setdefault(seat, asyncio.Event())
        while True:
            changed = self._changed[seat]
            leading = seat in self.held
            if await _ended((loop if leading else standby)(), changed):
                return


async def _ended(work: Any, changed: asyncio.Event) -> bool:
    """Work until the seat changes hands; say whether the work ended before. Raises what it raises."""
    tasks = asyncio.ensure_future(_awaited(work)), asyncio.ensure_future(changed.wait())
    try:
        _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if tasks[0].done():
            tasks[0].result()
            return True
        return False
    finally:
        for task in tasks:
            _ = task.cancel()
        _ = await asyncio.gather(*tasks, return_exceptions=True)


def _awaited(work: Any) -> Coroutine[Any, Any, None]:
    async def wait() -> None:
        await work

    return wait()
