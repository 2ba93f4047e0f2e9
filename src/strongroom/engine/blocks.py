"""Blocks: who may not call for a while, told among the nodes over one ledger.

What leads to a block is counted by each node for itself; the block is everybody's. It is no part of the books: one that
is lost, or heard of late, lets some calls through.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec


class Block(msgspec.Struct, frozen=True, gc=False):
    """A limit that somebody broke, by a name that all nodes have for it.

    Calls are refused until `until_ms`; `rung` is the place on the ladder that was reached, and from `fresh_ms` on the
    ladder starts again (Unix ms, by the clock of the node that blocked).
    """

    name: str
    until_ms: int
    rung: int
    fresh_ms: int


class Blocks(Protocol):
    """How a node tells the others of its blocks, and hears of theirs."""

    def tell(self, block: Block) -> None:
        """Have other nodes told soon; nothing is waited for."""
        ...

    async def run(self, hear: Callable[[Block], None]) -> None:
        """Tell and hear until cancelled; `hear` may be called again with what it was called with."""
        ...

    def close(self) -> None:
        """End it."""
        ...


class OwnBlocks:
    """The blocks of a process that has its ledger to itself: there is nobody to tell."""

    def tell(self, block: Block) -> None:
        """Tell nobody."""

    async def run(self, hear: Callable[[Block], None]) -> None:
        """Hear nothing."""

    def close(self) -> None:
        """Have nothing to end."""
