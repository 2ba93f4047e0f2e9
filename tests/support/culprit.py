"""A command with a mistake of ours in it: what it keeps, or asks for, no store can hold."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from strongroom.engine.command import Command, Decision, View
from strongroom.records.chains import Tip
from strongroom.records.kept import Key


class Culprit(Command, frozen=True):
    """Keep a tip of this height and block, at the address of a network."""

    JOURNALED: ClassVar[bool] = False

    height: int = 0
    block: str = ""
    network: int = 1

    def needs(self) -> Iterable[Key]:
        """One row."""
        return [Tip.at(self.network)]

    def decide(self, view: View, now_ms: int) -> Decision:
        """Keep it."""
        return Decision(rows=[Tip(self.network, self.height, self.block, now_ms)])
