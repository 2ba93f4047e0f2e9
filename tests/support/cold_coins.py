"""A simulated network as one of coins, as far as what lies on a cold address goes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any


class Coins:
    """The simulated network as one of coins: `spent` are the outputs that somebody has spent."""

    def __init__(self, chain: Any) -> None:
        self._chain = chain
        self.spent: set[str] = set()
        self.spends_coins = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._chain, name)

    async def unspent(self, outpoints: Sequence[str], *, waiting: bool = False) -> Collection[str]:
        """Return those that nobody has spent, and that a block of the best chain has."""
        states = {it: await self._chain.transaction(it.partition(":")[0]) for it in outpoints}
        return [it for it in outpoints if it not in self.spent and states[it].block]
