"""Epochs: each restore from a backup begins one, in which nothing is paid before books and chain have been compared."""

from __future__ import annotations

from typing import Final

from strongroom.records.kept import Kept, Key


class Epoch(Kept, frozen=True, gc=False):
    """The one row (`id` 0) that counts how often the books were restored from a backup, and when the last time began.

    The number is also that of the branch of addresses that are given out.
    """

    id: int
    number: int = 0
    began_ms: int = 0


EPOCH_KEY: Final[Key] = (Epoch, 0)


class Reconciled(Kept, frozen=True, gc=False):
    """The latest epoch in which a network's books were brought to its chain, `by_hand` where the operator said so.

    `unknown` counts what was paid without a withdrawal in the books, for as long as no customer is named for it.
    """

    network: int
    epoch: int = 0
    by_hand: bool = False
    unknown: int = 0
