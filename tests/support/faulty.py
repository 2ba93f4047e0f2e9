"""A house behind a line to its node that can fail: what it tells of the network, and what it offers meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from support.coin_house import V3, CoinHouse, coin_house, coin_settings
from support.fault_proxy import FaultProxy
from support.nodes import CoinNode, wait_until
from support.server import Member

V1 = "/public-api/wallet/v1/"
STALE_AFTER_S, SUSPEND_AFTER_S = 1, 2
TERMS: dict[str, Any] = {
    "answer_within_s": 0.5,
    "stale_after_s": STALE_AFTER_S,
    "suspend_deposits_after_s": SUSPEND_AFTER_S,
}


class FaultyHouse(CoinHouse):
    """A house whose way to its node can fail, and a customer who has a coin."""

    line: FaultProxy
    alice: Member

    async def network(self) -> dict[str, Any]:
        """Return what `/readyz` tells of the network; the server takes requests all the while."""
        answer = await self.house.client.get("/readyz")
        assert (answer.status_code, answer.json()["status"]) == (200, "ready")
        return answer.json()["details"]["networks"]["BITCOIN"]

    async def until_told(self, what: str, value: Any) -> None:
        """Wait until `/readyz` tells this of the network."""

        async def is_told() -> bool:
            return (await self.network())[what] == value

        await wait_until(is_told, f"{what} is {value}")

    async def offer(self) -> tuple[bool, bool]:
        """Return whether deposits and withdrawals are offered, as a client without a key is told."""
        answer = await self.house.client.get(f"{V1}crypto/networks", params={"crypto": "BTC"})
        [network] = answer.json()["data"]
        return network["depositEnable"], network["withdrawEnable"]

    async def actions(self) -> tuple[bool, list[str]]:
        """Return whether the customer is offered to deposit, and on which networks."""
        rows = (await self.house.get(self.alice, f"{V1}user/assets")).json()["data"]
        [row] = [row for row in rows if row["asset"] == "BTC"]
        return "DEPOSIT" in row["availableActions"], row["cryptoNetwork"]["depositNetworks"]

    async def metric(self, name: str) -> float:
        """Return a metric of the network."""
        lines = (await self.house.client.get("/metrics")).text.splitlines()
        [line] = [line for line in lines if line.startswith(f'{name}{{network="BITCOIN"}}')]
        return float(line.split()[-1])


@asynccontextmanager
async def faulty_house(folder: Path, node: CoinNode, **more: Any) -> AsyncIterator[FaultyHouse]:
    """Serve a house behind a line to a node, with short limits."""
    async with FaultProxy(node.port) as line:
        config = coin_settings(folder, node, node.chain, **{"url": node.url_at(line.port), **TERMS, **more})
        async with coin_house(config, node) as opened:
            house = FaultyHouse(opened.house, node)
            house.line = line
            house.alice = await house.customer("alice")
            yield house


async def fund(house: FaultyHouse, amount: str = "1") -> str:
    """Credit the customer with an amount, and return the address it came to."""
    address = await house.address(house.alice)
    await house.node.pay(address, amount)
    await house.mine_until_status(house.alice, "COMPLETED")
    return address


async def refuses_addresses(house: FaultyHouse, member: Member) -> None:
    """See that no new address is given out, in either dialect."""
    for path, body in (
        (f"{V3}wallet/address", {"currency": "BTC"}),
        (f"{V1}user/crypto/address", {"crypto": "BTC", "network": "BITCOIN"}),
    ):
        answer = await house.house.post(member, path, body)
        assert answer.status_code == 400, answer.text
        assert (answer.json()["code"], answer.json()["msg"]) == (3505, "BADREQUEST: Invalid protocol")
