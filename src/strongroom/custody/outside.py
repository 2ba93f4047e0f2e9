"""The world outside of a practice chain: the strangers who pay us, and whoever mines.

A house that deals in money has none of this: only practice chains, simulated or on nodes of a demo's own, can be told
what is to happen.
"""

from __future__ import annotations

from typing import Protocol

from strongroom.custody.chain import Block


class Outside(Protocol):
    """What can be made to happen on practice chains, each named by its network's id.

    Every method may raise `Unreachable`, and `ValueError` for what cannot be done.
    """

    async def faucet(self, network: str, address: str, tag: str, asset_id: str, amount: int) -> str:
        """Let a stranger pay `amount`, in the chain's smallest unit, to an address, and return the txid."""
        ...

    async def mine(self, network: str, count: int = 1) -> list[Block]:
        """Mine `count` blocks; the first takes what waits."""
        ...

    async def reorg(self, network: str, depth: int) -> list[Block]:
        """Replace the last `depth` blocks by `depth` + 1 new ones, which are returned.

        The transactions of those that are gone are mined again in the newest one.
        """
        ...

    async def void(self, network: str, txid: str) -> None:
        """Let something else spend what a stranger's waiting transaction spends: it can never be mined."""
        ...

    def undo_next(self, network: str) -> None:
        """Have the block of the next payment of ours take its fee and pay nobody."""
        ...
