"""Pots: what lies on the deposit addresses of a chain of accounts, each moved together with what put it there."""

from __future__ import annotations

from strongroom.engine.command import View
from strongroom.engine.port import Reads
from strongroom.records.coins import Pot

MAX_POTS = 10_000
"""So many filled pots of a network are looked at at once."""


def pot_change(view: View, network: int, position: int, asset: int, units: int) -> Pot:
    """Return the pot of an address's asset with so many chain units more (or fewer); the view must have it."""
    after = int(view.get(Pot, network, position, asset).chain_units) + units
    return Pot(network, position, asset, str(after), filled=after != 0)


def filled_pots(reads: Reads, network: int, limit: int = MAX_POTS) -> list[Pot]:
    """Return the pots of a network that have something in them, by position, at most `limit`."""
    return reads.rows(Pot, {"network": network, "filled": True}, limit)
