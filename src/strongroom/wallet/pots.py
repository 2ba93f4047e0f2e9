"""Pots: what lies on the deposit addresses of a chain of accounts, each moved together with what put it there."""

from __future__ import annotations

from typing import Final

from strongroom.engine.command import View
from strongroom.engine.port import Reads
from strongroom.records.coins import Pot

MAX_DUE: Final = 10_000
"""So many of the newest addresses with something to sweep are looked at."""

SWEEP_WORTH: Final = 10
"""Native coin is swept when it is so many times what its sweep costs."""


def pot_change(view: View, network: int, position: int, asset: int, units: int, *, due: bool | None = None) -> Pot:
    """Return the pot of an address's asset with so many chain units more (or fewer); the view must have it.

    With `due` it is to be swept from now on, or not; None leaves that as it is.
    """
    pot = view.get(Pot, network, position, asset)
    after = int(pot.chain_units) + units
    return Pot(network, position, asset, str(after), filled=after != 0, due=pot.due if due is None else due)


def filled_pots(reads: Reads, network: int, limit: int) -> list[Pot]:
    """Return the pots of a network that have something in them, by position, at most `limit`."""
    return reads.rows(Pot, {"network": network, "filled": True}, limit)


def due_pots(reads: Reads, network: int) -> list[Pot]:
    """Return the pots that wait to be swept, the newest addresses first, at most 10,000.

    Those that wait long have less than is worth it, so that none of them can hide one that is.
    """
    return reads.rows(Pot, {"network": network, "due": True}, MAX_DUE, newest_first=True)
