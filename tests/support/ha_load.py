"""Customers of a house that fails over: they go on whatever they are answered, and note when they were served."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from itertools import pairwise
from random import Random
from typing import Final

from support.harness import V3, Answer, Server, Signed, Unanswered, Wire
from support.harness_addresses import Listed
from support.harness_load import PAGE, UNAVAILABLE, USERS, Customers, Wish
from support.harness_model import ASSETS, Deed, Model, Row
from support.nodes import wait_until

WORKERS: Final = 8
PACE_S: Final = 0.15
"""Between an answer and the next request there is a pause of at most this."""

AGAIN_S: Final = 0.5
"""Who was not answered, or is to come again, pauses for at most this."""

SLICE_MS: Final = 5_000
MONEY: Final = {"BTC": "1000", "USDT": "300000", "XRP": "300000"}
FAMILIES: Final = {"alice-sub1": "alice"}
TOLD: Final = {"200", "400", "503", "unanswered"}
"""All that may become of a request; anything else is a mistake of ours."""

LASTING: Final = 5
"""After so many further acknowledged changes the service is there again."""


class Clients(Customers):
    """Customers without a chain: transfers and conversions, many with an Idempotency-Key that is used again."""

    def __init__(self, server: Server, chance: Random) -> None:
        super().__init__(server, chance)
        self.over = asyncio.Event()
        self.acknowledged_s: list[float] = []
        """The moments of the monotonic clock at which a change was acknowledged."""

        self.told: Counter[str] = Counter()

    def begin(self) -> None:
        """Begin a new round."""
        self.over = asyncio.Event()
        self.acknowledged_s = []
        self.told = Counter()

    async def act(self, model: Model) -> None:
        """Ask for one thing after the other until it is over, over a new connection after each that was lost."""
        again: Deed | None = None
        while not self.over.is_set():
            try:
                async with self.server.connected() as wire:
                    while not self.over.is_set():
                        deed, request = self._next(model, again)
                        again = deed if deed.key else None
                        answer = await self.attempt(wire, deed, request)
                        if answer.status != UNAVAILABLE:
                            again = None
                        await self._pause(AGAIN_S if answer.status == UNAVAILABLE else PACE_S)
            except Unanswered:
                self.told["unanswered"] += 1
                await self._pause(AGAIN_S)

    def _next(self, model: Model, again: Deed | None) -> tuple[Deed, Signed]:
        """Return what is asked next: what waits to be asked again, now and then what was answered, or a new deed."""
        keyed = [deed for deed in model.deeds[-WORKERS:] if deed.key and deed.answers]
        if again is None and keyed and self.chance.random() < 0.1:
            again = self.chance.choice(keyed)
        if again is not None:
            return again, self.renewed(again)
        model.deeds.append(deed := self.think(model))
        return deed, deed.first

    async def attempt(self, wire: Wire, deed: Deed, request: Signed) -> Answer:
        """Send a deed's request and note what becomes of it."""
        answer = await super().attempt(wire, deed, request)
        if answer.status == 200:
            self.acknowledged_s.append(time.monotonic())
        self.told[str(answer.status)] += 1
        return answer

    async def served_again(self, within_s: float) -> None:
        """Return once some more changes were acknowledged."""
        enough = len(self.acknowledged_s) + LASTING

        async def are_enough() -> bool:
            return len(self.acknowledged_s) >= enough

        await wait_until(are_enough, "customers are served", within_s)

    async def _pause(self, most_s: float) -> None:
        await asyncio.sleep(self.chance.uniform(0, most_s))

    def _withdraw(self, user: str, asset: str, amount: str) -> Wish:
        return self._transfer(user, asset, amount)

    def _readdress(self, model: Model, user: str, asset: str) -> Deed | None:
        return None

    async def history(self, since_ms: int) -> list[Row]:
        """Return every history row of everybody since a time, slice by slice, each shorter than a page."""
        rows: list[Row] = []
        ends_ms = time.time_ns() // 1_000_000 + SLICE_MS
        async with self.server.connected() as wire:
            for user in USERS:
                for start_ms in range(since_ms, ends_ms, SLICE_MS):
                    request = self.server.sign(user, f"{V3}user/wallet_history")
                    query = f"?startTime={start_ms}&endTime={start_ms + SLICE_MS}&count={PAGE}"
                    page = (await wire.send("GET", request, query)).json()
                    assert len(page) < PAGE, "a slice of a round has fewer rows than a page"
                    rows += [row for row in page if row["currency"] in ASSETS]
        return rows

    async def addresses(self) -> Listed:
        """Return nothing: the house has no chain for these assets."""
        return {}


def longest_gap_s(began_s: float, moments_s: list[float], ended_s: float) -> float:
    """Return the longest time between two acknowledged changes, from the beginning to the end."""
    marks = [began_s, *sorted(moments_s), ended_s]
    return max(after - before for before, after in pairwise(marks))
