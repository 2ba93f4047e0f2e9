"""A process that ends: at a crash point that is named, or at one command on the way to the writer, by its number."""

from __future__ import annotations

import asyncio

from strongroom.engine.command import Command
from strongroom.engine.settle import Outcome
from strongroom.wallet.context import Submit


class Killed(BaseException):
    """The process is gone."""


class Killer:
    """Ends the process the first time it comes to a point: at once, or `midway` in what comes next."""

    def __init__(self, point: str, *, midway: bool = False) -> None:
        self.point = point
        self.midway = midway
        self.struck = False

    def __call__(self, point: str) -> None:
        """End it here, or with its next wait."""
        if point != self.point or self.struck:
            return
        self.struck = True
        task = asyncio.current_task()
        if not self.midway or task is None:
            raise Killed
        task.cancel()


class Deadly:
    """A way to the writer that ends the process at one command: before it is queued, or once it is done."""

    def __init__(self, submit: Submit, at: int, *, done: bool) -> None:
        self.commands = 0
        self._submit, self._at, self._done = submit, at, done

    async def __call__(self, command: Command) -> Outcome:
        """Carry a command out, unless it is the one."""
        self.commands += 1
        fatal = self.commands == self._at
        if fatal and not self._done:
            raise Killed
        outcome = await self._submit(command)
        if fatal:
            raise Killed
        return outcome
