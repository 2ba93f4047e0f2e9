"""The world outside: strangers who pay in, blocks and reorganisations, payments that fail, and what the chains say."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections import Counter
from collections.abc import Iterable
from contextlib import closing, suppress
from decimal import Decimal
from pathlib import Path
from typing import Final

from strongroom.admin.protocol import (
    AdminError,
    FailNext,
    ListWithdrawals,
    MineBlocks,
    PayFromFaucet,
    Reorganise,
)
from support.harness import Answer, Server, Signed, Unanswered
from support.harness_load import NETWORKS, STRANGERS, USERS, Customers
from support.harness_model import ASSETS, Deed, Model

DEEP: Final = 6
"""With so many blocks more everything is final on every network."""

SETTLED_WITHIN_S: Final = 60
_PAUSE_S: Final = 0.05
_UNITS: Final = {"BTC": 8, "USDT": 6, "XRP": 6}
_REORGANISED: Final = ("BITCOIN", "ERC20")
"""Networks on which the newest block is never final."""


class Outside:
    """What happens to a server's chains, by the operator's socket."""

    def __init__(self, customers: Customers) -> None:
        self.customers = customers
        self.server: Server = customers.server
        self.chance = customers.chance

    async def act(self, model: Model, *, rough: bool) -> None:
        """Pay in and mine until nobody answers; if it is rough, payments fail and blocks are taken back too."""
        with suppress(Unanswered):
            while True:
                await self._pay_in(model)
                for network in NETWORKS.values():
                    await self._mine(network, 1)
                if rough:
                    undone = self.chance.random() < 0.5
                    await self.server.operate(FailNext(self.chance.choice(list(NETWORKS.values())), undone))
                    await self.server.operate(Reorganise(self.chance.choice(_REORGANISED), 1))
                await asyncio.sleep(_PAUSE_S)

    async def _pay_in(self, model: Model) -> None:
        user, asset = self.chance.choice(USERS), self.chance.choice(ASSETS)
        amount = self.customers.new_amount(asset)
        deed = Deed(user, "deposit", asset, amount, Signed("", {}, b""), receiver=user, unanswered=1)
        model.deeds.append(deed)
        try:
            said = await self.server.operate(PayFromFaucet(user, asset, str(amount)))
            deed.answers.append(Answer(200, {}, json.dumps(said).encode()))
        except AdminError as error:
            deed.answers.append(Answer(400, {}, json.dumps({"message": str(error)}).encode()))
        deed.unanswered = 0

    async def _mine(self, network: str, count: int) -> int:
        """Mine blocks and return the newest one's height."""
        return (await self.server.operate(MineBlocks(network, count)))[-1]["height"]

    async def bury(self, since_ms: int) -> None:
        """Mine until every deposit since a time is credited."""
        async with asyncio.timeout(SETTLED_WITHIN_S):
            await self._follow()
            while any(row["status"] == "PROCESSING" for row in await self._arrivals(since_ms)):
                await self._follow()

    async def settle(self) -> None:
        """Mine until every withdrawal has ended, well or badly."""
        try:
            async with asyncio.timeout(SETTLED_WITHIN_S):
                while await self.server.operate(ListWithdrawals("open")):
                    await self._follow()
                    await asyncio.sleep(_PAUSE_S)
        except TimeoutError:
            waiting = await self.server.operate(ListWithdrawals("open"))
            raise AssertionError(f"withdrawals that do not end: {waiting}\n{self._log()}") from None

    async def _follow(self) -> None:
        """Mine a good deal, and wait until the books have worked through all of it."""
        heights = {network: await self._mine(network, DEEP) for network in NETWORKS.values()}
        while True:
            known = (await self.server.readiness()).json()["details"]["networks"]
            if all(known[network]["height"] >= height for network, height in heights.items()):
                return
            await asyncio.sleep(_PAUSE_S / 5)

    async def _arrivals(self, since_ms: int) -> list[dict[str, str]]:
        return [dict(row) for row in await self.customers.history(since_ms) if row["type"] == "Deposit"]

    def _log(self) -> str:
        return self.server.log.read_text()[-2000:]


Paid = tuple[str, str, str, int]
"""Network, address, tag and amount of what the house paid to a stranger."""


def payments_of(folder: Path) -> Counter[Paid]:
    """Return what the chains' own file has of mined payments by the house to our strangers."""
    sql = (
        "SELECT o.network, o.address, o.tag, o.amount FROM output o JOIN tx USING (network, txid)"
        " WHERE tx.nonce IS NOT NULL AND tx.state = 'mined'"
    )
    with closing(sqlite3.connect(folder / "chains.sqlite")) as chains:
        rows = chains.execute(sql).fetchall()
    strangers = {address for address, _ in STRANGERS.values()}
    return Counter(
        (network, address, tag, int(amount)) for network, address, tag, amount in rows if address in strangers
    )


def payments_for(deeds: Iterable[Deed]) -> Counter[Paid]:
    """Return what the house owes the chains for these withdrawals."""
    return Counter(
        (NETWORKS[deed.asset], *STRANGERS[deed.asset], int(deed.credited * Decimal(10) ** _UNITS[deed.asset]))
        for deed in deeds
    )
