"""A customer who withdraws ether all the time, and a miner: whatever fails over, each withdrawal is paid once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from decimal import Decimal
from pathlib import Path
from typing import Final

from strongroom.admin.protocol import AdminError, ListWithdrawals, Reconcile
from support.evm import ETHER, HOT
from support.ha_cluster import WAIT_S
from support.ha_house import House
from support.ha_load import AGAIN_S
from support.harness import V3, Server, Unanswered
from support.harness_single import ask
from support.nodes import Anvil, wait_until

SEAT: Final = "network ERC20"
NAME: Final = "carol"
OUTSIDE: Final = "0x00000000000000000000000000000000DeaDBeef"
AMOUNT: Final = Decimal("0.001")
BLOCK_S: Final = 0.5
STOCK: Final = 10 * ETHER
UNAVAILABLE: Final = 503


class Payer:
    """Asks one withdrawal after the other, each again with its Idempotency-Key until it is answered."""

    def __init__(self, house: House, anvil: Anvil) -> None:
        self.house = house
        self.anvil = anvil
        self.asked = 0

    async def settle_in(self) -> None:
        """Give the hot wallet money and the customer a deposit."""
        await self.anvil.pay(HOT, STOCK)
        await self.house.open_account(NAME, {})
        door = self.house.door
        body = json.dumps({"currency": "ETH"}).encode()
        answer = await ask(door, "POST", "", door.sign(NAME, f"{V3}user/wallet/address", body))
        assert answer.status == 200, answer
        await self.anvil.pay(answer.json()[0]["address"], STOCK)
        await wait_until(self._has_money, "the deposit is credited")

    async def _has_money(self) -> bool:
        door = self.house.door
        rows = (await ask(door, "GET", "", door.sign(NAME, f"{V3}user/wallet"))).json()
        return any(row["currency"] == "ETH" and Decimal(row["available"]) > 0 for row in rows)

    async def mine(self) -> None:
        """Make a block now and then, until cancelled."""
        while True:
            _ = await self.anvil.mine(1)
            await asyncio.sleep(BLOCK_S)

    async def act(self, over: asyncio.Event) -> None:
        """Withdraw until it is over; what was begun is asked for until it is answered."""
        while not over.is_set():
            self.asked += 1
            await self._withdraw(self.house.door, f"withdrawal-{self.asked}")
            await asyncio.sleep(AGAIN_S)

    async def _withdraw(self, door: Server, key: str) -> None:
        body = {"currency": "ETH-ERC20", "address": OUTSIDE, "tag": "", "amount": f"{AMOUNT:f}"}
        body |= {"includeWithdrawFee": False}
        async with asyncio.timeout(WAIT_S):
            while True:
                with suppress(Unanswered):
                    path, more = f"{V3}user/wallet/withdraw", {"idempotency-key": key}
                    answer = await ask(door, "POST", "", door.sign(NAME, path, json.dumps(body).encode(), more))
                    if answer.status != UNAVAILABLE:
                        assert answer.status == 200, answer
                        return
                await asyncio.sleep(AGAIN_S)

    async def check(self) -> None:
        """See that one node has the network's seat, and that everything asked for is paid, once."""
        await wait_until(self._is_led, "one node leads the network", WAIT_S)
        await wait_until(self._is_settled, "every withdrawal is settled", WAIT_S)
        paid = int(await self.anvil.rpc("eth_getBalance", OUTSIDE, "latest"), 16)
        assert paid == self.asked * int(AMOUNT * ETHER), f"{paid} wei were paid for {self.asked} withdrawals"
        await wait_until(self._agrees, "books and chain are compared, and agree", WAIT_S)

    async def _agrees(self) -> bool:
        """Compare books and chain at the node that leads; say whether neither moved meanwhile."""
        leader = await self.leader()
        try:
            found = await self.house.nodes[leader].operate(Reconcile()) if leader else []
        except AdminError as error:
            if "moved while" not in str(error):
                raise
            return False
        assert [it["unexplained"] for it in found] in ([], ["0"]), found
        return bool(found)

    async def leader(self) -> str:
        """Return the node that has the network's seat, if it is one alone."""
        found = [name for name, node in self.house.nodes.items() if await _leads(node)]
        return found[0] if len(found) == 1 else ""

    async def _is_led(self) -> bool:
        return bool(await self.leader())

    async def _is_settled(self) -> bool:
        first = next(iter(self.house.nodes.values()))
        return not await first.operate(ListWithdrawals())


async def _leads(node: Server) -> bool:
    try:
        return SEAT in (await node.readiness()).json()["details"]["leads"]
    except Unanswered:
        return False


@asynccontextmanager
async def chain(folder: Path) -> AsyncGenerator[Anvil]:
    """Run a chain in a folder until the block ends; who uses it makes its blocks."""
    async with Anvil(folder) as anvil:
        await anvil.set_automine(False)
        yield anvil
