"""A whole server on a real node: customers over HTTP, strangers and miners on the node, and the books beside both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing, suppress
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from strongroom.config.settings import Config, Node, Simulation
from strongroom.custody.cold_reconciliation import COLD
from strongroom.custody.reconciliation import Reconciliation
from strongroom.ledger.accounts import owed
from strongroom.records.chains import Holding
from strongroom.records.coins import Coin
from strongroom.records.deposits import Deposit
from strongroom.records.heads import Head
from strongroom.records.withdrawals import Payment, PaymentState
from strongroom.store.sqlite.snapshot import SqliteSnapshot
from strongroom.store.sqlite.store import SqliteStore
from strongroom.wallet.cold import COLD_COIN
from strongroom.wallet.verification import verify
from support.nodes import FIRST_COINS, CoinNode
from support.server import Member, Served, join, served, settings

V3: Final = "/api/v3.2/user/"
NETWORK: Final = 1
ASSET: Final = 1
WAIT_S: Final = 60
LOOK_S: Final = 0.2
PATIENCE_S: Final = 2


def coin_settings(folder: Path, node: CoinNode, chain: str, **more: Any) -> Config:
    """Return the settings of a small house whose one network is that of a node, seen from the first useful block on."""
    declared = Node(**{"url": node.url, "chain": chain, "start_height": FIRST_COINS, **more})
    return settings(folder, simulation=Simulation(), nodes={"BITCOIN": declared})


class CoinHouse:
    """A served house, and the node that its network is on."""

    code = "BTC"
    watched = "BITCOIN"

    def __init__(self, house: Served, node: CoinNode) -> None:
        self.house = house
        self.node = node
        self.store = house.application.store

    async def customer(self, name: str) -> Member:
        """Open a customer with every permission."""
        return await join(self.house.application, name)

    async def address(self, member: Member, code: str = "") -> str:
        """Ask for a deposit address."""
        answer = await self.house.post(member, f"{V3}wallet/address", {"currency": code or self.code})
        assert answer.status_code == 200, answer.text
        return answer.json()[0]["address"]

    async def balance(self, member: Member, code: str = "") -> tuple[Decimal, Decimal]:
        """Return a customer's total and available balance."""
        rows = (await self.house.get(member, f"{V3}wallet")).json(parse_float=Decimal)
        [row] = [row for row in rows if row["currency"] == (code or self.code)]
        return Decimal(row["total"]), Decimal(row["available"])

    async def history(self, member: Member) -> list[dict[str, Any]]:
        """Return a customer's history, the newest first."""
        return (await self.house.get(member, f"{V3}wallet_history")).json(parse_float=Decimal)

    async def withdraw(self, member: Member, address: str, amount: str, code: str = "") -> str:
        """Ask for a withdrawal, and return its reference."""
        currency = f"{code or self.code}-{self.watched}"
        body = {"currency": currency, "address": address, "amount": amount, "tag": ""}
        answer = await self.house.post(member, f"{V3}wallet/withdraw", body)
        assert answer.status_code == 200, answer.text
        return answer.json()["withdrawId"]

    async def statuses(self, member: Member) -> list[str]:
        """Return what a customer's history says of each movement, the newest first."""
        return [row["status"] for row in await self.history(member)]

    async def until(self, holds: Callable[[], Any], what: str) -> None:
        """Wait for books and node to come to something: looked at after every commit, and often for the node's sake."""
        changed = asyncio.Event()
        self.store.subscribe(lambda _: changed.set())
        try:
            async with asyncio.timeout(WAIT_S):
                while not await holds():
                    with suppress(TimeoutError):
                        await asyncio.wait_for(changed.wait(), LOOK_S)
                    changed.clear()
        except TimeoutError:
            deposits = [(it.state, it.height, it.block) for it in self.store.each(Deposit)]
            told = f"{self.house.application.treasury.status()}, deposits {deposits}"
            raise AssertionError(f"never: {what}; {told}") from None
        await self.folded()

    async def folded(self) -> None:
        """Wait until balances show every batch that is on disk: lists of rows are read from there, a moment earlier."""
        assert isinstance(self.store, SqliteStore)
        # The thread that commits does one thing after the other, and the loop hears of each in that order.
        await asyncio.get_running_loop().run_in_executor(self.store._thread, lambda: None)

    async def until_status(self, member: Member, *wanted: str) -> None:
        """Wait until a customer's history reads so, the newest first."""

        async def reads_so() -> bool:
            return tuple(await self.statuses(member)) == wanted

        await self.until(reads_so, f"{wanted}")

    async def mine_until_status(self, member: Member, *wanted: str) -> None:
        """Mine a block whenever the books have worked through the last one, until a history reads so."""
        async with asyncio.timeout(WAIT_S):
            while tuple(await self.statuses(member)) != wanted:
                _ = await self.node.mine(1)
                await self.worked_through()
        await self.folded()

    async def until_waiting(self, count: int) -> None:
        """Wait until so many transactions wait to be mined."""

        async def wait() -> bool:
            return len(await self.node.rpc("getrawmempool")) == count

        await self.until(wait, f"{count} transactions wait")

    async def worked_through(self) -> None:
        """Wait until the watcher has worked through all that the node shows."""
        watcher = self.house.application.treasury.watchers[self.watched]
        # Looked at here with patience: between polls as frequent as ours a busy node seems not to have changed.
        await watcher._chain._look(PATIENCE_S)  # pyright: ignore[reportAttributeAccessIssue]
        async with asyncio.timeout(WAIT_S):
            await watcher.settled()

    async def reconciled(self) -> Reconciliation:
        """Hold the books against the node, as `strongroom reconcile` does."""
        [found] = [it for it in await self.house.application.treasury.reconcile() if it.network != COLD]
        return found

    def owes(self, owner: int) -> int:
        """Return how many units a customer owes the house after reorganisations."""
        return -self.store.row(Head, owed(owner, ASSET).pack()).after

    def check_books(self) -> None:
        """See that the books are whole, and that the coins come to what they say the house owns.

        They are looked at as they are at one moment: the server may be writing meanwhile.
        """
        with closing(SqliteSnapshot(self.house.application.config.folder)) as books:
            assert verify(books).findings == []
            owned = int(books.row(Holding, NETWORK, ASSET).chain_units)
            assert sum(coin.units for coin in books.each(Coin) if _is_owned(books, coin)) == owned


def _is_owned(books: SqliteSnapshot, coin: Coin) -> bool:
    if coin.payment == COLD_COIN:
        return False
    spent = bool(coin.payment) and books.row(Payment, coin.payment).state == PaymentState.FINAL
    return bool(coin.height) and not spent


@asynccontextmanager
async def coin_house(config: Config, node: CoinNode) -> AsyncIterator[CoinHouse]:
    """Serve a house on a node while the block runs; its chain is looked at often."""
    async with served(config) as house:
        for watcher in house.application.treasury.watchers.values():
            watcher._chain._poll_s = 0.05  # pyright: ignore[reportAttributeAccessIssue]
        yield CoinHouse(house, node)
