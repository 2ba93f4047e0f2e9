"""The disk of a simulated machine: it fails, and loses what was not synced, when the seed says so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Final

import apsw

from support.harness_disk import END_OF_COMMIT, LOG, SYNC, WRITE, FailingPower

_KINDS: Final = (apsw.IOError, apsw.FullError)
_POWER_SHARES: Final = {WRITE: 0.1, SYNC: 1.0, END_OF_COMMIT: 0.0}
"""How much likelier the power fails at one operation than at another: a commit has many writes."""


class PowerFailed(BaseException):
    """The machine has no power any more."""


class SimulatedDisk(FailingPower):
    """A disk that fails by chance: `odds` of a fault by operation, and `power_odds` that the power fails at a sync.

    A fault lasts for a few operations. `lost_power` is called with what is left in the files.
    """

    def __init__(self, folder: Path, chance: Random, lost_power: Callable[[dict[str, bytes]], None]) -> None:
        super().__init__(folder, chance, often=0)
        self.odds: dict[str, float] = {}
        self.power_odds = 0.0
        self.broken_for = 0
        self._lost_power = lost_power

    def ask(self, operation: str, file: str) -> None:
        """Meet a fault, or not."""
        if operation not in {WRITE, SYNC, END_OF_COMMIT} or not (self.odds or self.power_odds or self.broken_for):
            return
        if file == LOG and self._chance.random() < self.power_odds * _POWER_SHARES[operation]:
            self._lost_power({name: self._torn(name) for name in self._open})
            raise PowerFailed
        if self.broken_for:
            self.broken_for -= 1
            raise _KINDS[self.broken_for % 2]("the disk is still broken")
        if self._chance.random() < self.odds.get(operation, 0):
            self.broken_for = self._chance.choice((0, 0, 0, 1, 2, 6))
            raise self._chance.choice(_KINDS)(f"{operation} of {file} fails")

    def calm(self) -> None:
        """Work from now on."""
        self.odds, self.power_odds, self.broken_for = {}, 0.0, 0
