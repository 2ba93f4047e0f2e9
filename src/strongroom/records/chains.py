"""What is known of a chain: its best block as last seen, and what the house owns on it in the chain's own units."""

from __future__ import annotations

from typing import Final

from strongroom.records.kept import Kept

REMEMBERED_BLOCKS: Final = 1024
"""So many of the newest blocks are known by their hash: a reorganisation may be that deep."""


class Tip(Kept, frozen=True, gc=False):
    """The best block that the watcher has worked through."""

    network: int
    height: int = 0
    block: str = ""
    at_ms: int = 0


class Passed(Kept, frozen=True, gc=False):
    """A block that the watcher has worked through, in the ring of the newest ones: `slot` = height modulo the ring."""

    KEY = 2

    network: int
    slot: int
    height: int = 0
    block: str = ""


class Holding(Kept, frozen=True, gc=False):
    """Exact total of an asset on a network in chain units (wei, drops), as text: it may exceed 64 bits.

    The omnibus account is its floor in ledger units, or 0 where a reorganisation took it below zero.
    """

    KEY = 2

    network: int
    asset: int
    chain_units: str = "0"
