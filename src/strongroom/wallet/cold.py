"""Cold coins: what lies on a network's cold address, noted as its blocks show it, so that it can be held against them.

No key of ours can spend them: they are in nobody's payment and no part of what the chain's holdings are.
"""

from __future__ import annotations

from typing import Final

from strongroom.engine.command import NOBODY, Command, Decision, View
from strongroom.engine.port import Reads
from strongroom.records.coins import Coin
from strongroom.records.kept import Key

COLD_COIN: Final = -1
"""Stands in a coin's `payment` where it lies on the cold address."""


class NoteColdCoin(Command, frozen=True):
    """Note an output to the cold address, in the block at a height."""

    network: int
    outpoint: str
    units: int
    height: int

    def needs(self) -> list[Key]:
        """The coin."""
        return [Coin.at(self.network, self.outpoint)]

    def decide(self, view: View, now_ms: int) -> Decision:
        """Note it, once."""
        coin = Coin(self.network, self.outpoint, 0, self.units, self.height, COLD_COIN)
        return Decision(rows=[] if view.get(Coin, self.network, self.outpoint) == coin else [coin])


def prepare_cold_coin(reads: Reads, network: int, outpoint: str, units: int, height: int) -> NoteColdCoin | None:
    """Return the command that notes an output to the cold address, None for one that is noted."""
    known = reads.row(Coin, network, outpoint)
    return None if known.height == height else NoteColdCoin(NOBODY, network, outpoint, units, height)


def cold_coins(reads: Reads, network: int, limit: int) -> list[Coin]:
    """Return what was ever noted on a network's cold address, spent since or not."""
    return reads.rows(Coin, {"network": network, "payment": COLD_COIN}, limit)
