"""Confirmations: how many blocks stand on a transaction, as far as anybody needs to know."""

from __future__ import annotations

from typing import NamedTuple

from strongroom.engine.port import ReadsRows
from strongroom.records.chains import Tip
from strongroom.records.settings import NetworkSettings


class Confirmations(NamedTuple):
    """How many confirmations there are `now`, never more than the `needed` ones."""

    now: int
    needed: int


def confirmations_of(
    reads: ReadsRows, network: NetworkSettings, height: int, *, ended: bool = False, needed: int = 0
) -> Confirmations:
    """Return the confirmations of a transaction in the block at `height`, 0 for one that is in no block.

    One whose matter is `ended` well has all that it needed, whatever the network needs by now. `needed` is for one that
    needs others than the network's.
    """
    needed = needed or network.confirmations
    if ended:
        return Confirmations(needed, needed)
    blocks = reads.row(Tip, network.number).height - height + 1 if height else 0
    return Confirmations(min(max(blocks, 0), needed), needed)
