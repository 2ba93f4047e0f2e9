"""A whole server on a real EVM node: ether and a token, customers over HTTP, and the books beside the chain."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from strongroom.admin import protocol
from strongroom.admin.views import UnsignedView
from strongroom.config.settings import Asset, Config, Hot, Network, Node, Offer, Simulation
from strongroom.custody.keeper import Keeper
from strongroom.custody.reconciliation import Reconciliation
from strongroom.records.chains import Holding
from strongroom.records.coins import Pot
from strongroom.records.withdrawals import OPEN_WITHDRAWALS, Payment, Withdrawal
from strongroom.wallet.addresses import house_address
from strongroom.wallet.payments import OPEN_PAYMENTS
from strongroom.wallet.verification import verify
from support.coin_house import WAIT_S, CoinHouse
from support.evm import call_data, deploy
from support.nodes import Anvil
from support.server import Served, served, settings

ETH, USDT = 3, 2
ETHEREUM: Final = 2
ETHER: Final = 10**18
OUTSIDE: Final = "0x00000000000000000000000000000000DeaDBeef"
"""Somebody else's address."""


def evm_settings(
    folder: Path, anvil: Anvil, token: str, hot: dict[str, Hot] | None = None, *, token_minimum: str = "0", **more: Any
) -> Config:
    """Return the settings of a small house whose one network is that of an EVM node, with ether and a token."""
    declared = Node(url=anvil.url, chain="evm", chain_id=anvil.chain_id, start_height=0, hot=hot or {}, **more)
    return settings(
        folder,
        simulation=Simulation(),
        assets={"ETH": Asset(number=ETH, name="Ether"), "USDT": Asset(number=USDT, name="Tether")},
        networks={
            "ERC20": Network(number=ETHEREUM, short_name="Ethereum", family="evm", confirmations=2, fee_asset="ETH")
        },
        offers={
            "ETH": {"ERC20": Offer(decimals=18, default=True)},
            "USDT": {"ERC20": Offer(decimals=6, token=token, default=True, deposit_minimum=token_minimum)},
        },
        nodes={"ERC20": declared},
    )


class EvmHouse(CoinHouse):
    """A served house, the node that its network is on, and the token that it offers."""

    code = "ETH"
    watched = "ERC20"

    def __init__(self, house: Served, node: Anvil, token: str) -> None:
        super().__init__(house, node)  # pyright: ignore[reportArgumentType]
        self.anvil = node
        self.token = token

    @property
    def keeper(self) -> Keeper:
        """What keeps the hot wallet."""
        return self.house.application.treasury.keepers["ERC20"]

    @property
    def hot(self) -> str:
        """The hot wallet's address."""
        return house_address(self.store, ETHEREUM).address

    async def mint(self, address: str, units: int) -> None:
        """Let the stranger give an address some of the token."""
        call = {"from": (await self.anvil.accounts())[0], "to": self.token, "gas": hex(200_000)}
        data = call_data("mint(address,uint256)", address, units)
        await self.anvil.rpc("eth_sendTransaction", call | {"data": data})

    async def held(self, address: str) -> int:
        """Return what an address has of the token."""
        data = call_data("balanceOf(address)", address)
        return int(await self.anvil.rpc("eth_call", {"to": self.token, "data": data}, "latest"), 16)

    async def ether(self, address: str) -> int:
        """Return what an address has of ether, in wei."""
        return int(await self.anvil.rpc("eth_getBalance", address, "latest"), 16)

    async def stock(self, ether: int = 10, tokens: int = 0) -> None:
        """Give the hot wallet money from outside, and wait until it is booked."""
        await self.house.application.treasury.pools.ready()
        await self.anvil.pay(self.hot, ether * ETHER)
        if tokens:
            await self.mint(self.hot, tokens)
        await self.mine_until(lambda: self.holding(ETH) >= ether * ETHER and self.holding(USDT) >= tokens)

    def holding(self, asset: int) -> int:
        """Return what the books say the house owns on the chain."""
        return int(self.store.row(Holding, ETHEREUM, asset).chain_units)

    def pots(self) -> dict[tuple[int, int], int]:
        """Return what lies on deposit addresses, by position and asset, as the books know it."""
        return {(pot.position, pot.asset): int(pot.chain_units) for pot in self.store.each(Pot) if pot.filled}

    def payments(self) -> list[Payment]:
        """Return all payments, oldest first."""
        return sorted(self.store.each(Payment), key=lambda payment: payment.ref)

    async def is_offered(self, payment: Payment, candidates: int) -> bool:
        """Say whether a payment has so many candidates, and the node has the last of them."""
        if len(payment.candidates) != candidates:
            return False
        return await self.anvil.rpc("eth_getTransactionByHash", payment.candidates[-1]) is not None

    def is_busy(self) -> bool:
        """Say whether a withdrawal or a payment is on its way."""
        open_withdrawals = any(it.state in OPEN_WITHDRAWALS for it in self.store.each(Withdrawal))
        return open_withdrawals or any(it.state in OPEN_PAYMENTS for it in self.payments())

    async def mine_until(self, holds: Any) -> None:
        """Mine a block whenever the books have worked through the last one, until something holds."""
        async with asyncio.timeout(WAIT_S):
            while not holds():
                _ = await self.anvil.mine(1)
                await self.worked_through()
        await self.folded()

    async def reconciled_all(self) -> list[Reconciliation]:
        """Hold the books against the node, as `strongroom reconcile` does: the hot wallet and the deposit addresses."""
        return [it for it in await self.house.application.treasury.reconcile() if it.network != "cold"]

    async def reconciled_cold(self) -> list[Reconciliation]:
        """Hold the books against the cold address."""
        return [it for it in await self.house.application.treasury.reconcile() if it.network == "cold"]

    def check_books(self) -> None:
        """See that the books are whole."""
        assert verify(self.store).findings == []


async def signed_elsewhere(house: EvmHouse, unsigned: UnsignedView) -> protocol.ImportCold:
    """Return the request that brings a payment back, signed by the key that its file is for."""
    signer = house.house.application.treasury.senders["ERC20"]._signer
    body = base64.b64decode(json.loads(unsigned.file)["body"])
    raw = await signer.sign("ERC20", int(unsigned.ref), body)
    return protocol.ImportCold(int(unsigned.ref), raw.hex().encode())


@asynccontextmanager
async def evm_house(folder: Path, anvil: Anvil, **terms: Any) -> AsyncIterator[EvmHouse]:
    """Serve a house on a node with a token of its own, which mines only when told to; the chain is looked at often."""
    await anvil.set_automine(False)
    token = await deploy(anvil, "Token")
    async with reopened(folder, anvil, token, **terms) as house:
        yield house


@asynccontextmanager
async def reopened(folder: Path, anvil: Anvil, token: str, **terms: Any) -> AsyncIterator[EvmHouse]:
    """Serve a house of before, on its node and with its token."""
    async with served(evm_settings(folder, anvil, token, **terms)) as house:
        for watcher in house.application.treasury.watchers.values():
            watcher._chain._poll_s = 0.05  # pyright: ignore[reportAttributeAccessIssue]
        yield EvmHouse(house, anvil, token)
