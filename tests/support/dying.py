"""A way to the writer that ends the process at one command, chosen by its number."""

from __future__ import annotations

from strongroom.engine.command import Command
from strongroom.engine.settle import Outcome
from strongroom.wallet.context import Submit


class Killed(Exception):
    """The process ended here."""


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
