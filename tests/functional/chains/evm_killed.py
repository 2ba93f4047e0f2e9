"""Servers that die at named places while they sweep and pay on an EVM node: nothing is paid twice, and nothing lost."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path

import httpx
import pytest

from strongroom.records.withdrawals import PaymentState
from support.coin_house import V3
from support.demos import environment
from support.evm_house import ETHER, OUTSIDE, EvmHouse, evm_house, evm_settings
from support.evm_process import HOUSE
from support.harness_strikes import Plan, Strike
from support.nodes import Anvil, free_port, wait_until
from support.server import MASTER_KEY, Member, served

STEPS = ("commit move", "commit reserve", "signature", "commit sign", "broadcast", "commit mine", "commit finish")
FEW = ("after commit move", "after signature", "after broadcast", "before commit mine", "before commit finish")
ALL = tuple(f"{side} {step}" for step in STEPS for side in ("before", "after"))
AMOUNT = Decimal("0.25")


class Rounds:
    """A customer of a house whose server dies round after round."""

    def __init__(self, folder: Path, anvil: Anvil, alice: Member, address: str) -> None:
        self._folder = folder
        self._anvil = anvil
        self._alice = alice
        self._address = address
        self.plan = Plan(folder / "plan")

    @asynccontextmanager
    async def server(self) -> AsyncIterator[tuple[httpx.AsyncClient, asyncio.subprocess.Process]]:
        """Serve the folder in a process of its own, which is gone when the block is left."""
        port = free_port()
        more = {"STRONGROOM_MASTER_KEY": MASTER_KEY.hex(), "STRONGROOM_PORT": str(port)}
        command = [sys.executable, "-m", "support.harness_strikes", str(self.plan.path), "serve"]
        command += ["--config", str(self._folder / "house.toml")]
        paths = {"PYTHONPATH": os.pathsep.join((environment()["PYTHONPATH"], str(Path(__file__).parents[2])))}
        with (self._folder / "log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *command, env={**environment(), **paths, **more}, stdout=log, stderr=log
            )
        try:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:

                async def is_ready() -> bool:
                    try:
                        return process.returncode is not None or (await client.get("/readyz")).status_code == 200
                    except httpx.TransportError:
                        return False

                await wait_until(is_ready, "the server is ready or dead")
                yield client, process
        finally:
            if process.returncode is None:
                process.kill()
            _ = await process.wait()

    async def die_at(self, place: str) -> None:
        """Let a customer deposit and withdraw while blocks are mined, until the server dies at a place."""
        self.plan.aim(Strike(place))
        async with self.server() as (client, process):
            await self._anvil.pay(self._address, ETHER)
            await self._withdraw(client)
            async with asyncio.timeout(60):
                while process.returncode is None:
                    _ = await self._anvil.mine(1)
                    try:
                        async with asyncio.timeout(0.2):
                            _ = await process.wait()
                    except TimeoutError:
                        continue
        assert self.plan.struck, place

    async def _withdraw(self, client: httpx.AsyncClient) -> None:
        """Ask for a withdrawal; a server that is dead already has accepted none."""
        path, body = (
            f"{V3}wallet/withdraw",
            {"currency": "ETH-ERC20", "address": OUTSIDE, "amount": str(AMOUNT), "tag": ""},
        )
        content = json.dumps(body).encode()
        try:
            answer = await client.post(path, headers=self._alice.headers(path, content), content=content)
            assert answer.status_code == 200, answer.text
        except httpx.TransportError:
            return


async def play(folder: Path, anvil: Anvil, places: tuple[str, ...]) -> None:
    """Let the server die at every place, then let all come to rest, and count."""
    async with evm_house(folder, anvil) as house:
        await house.stock(ether=5)
        alice = await house.customer("alice")
        address = await house.address(alice)
        await anvil.pay(address, 20 * ETHER)
        await house.mine_until(lambda: [it.state for it in house.payments()] == [PaymentState.FINAL])
        token = house.token
    (folder / "house.toml").write_text(HOUSE.format(url=anvil.url, token=token))
    before = int(await anvil.rpc("eth_getBalance", OUTSIDE, "latest"), 16)
    rounds = Rounds(folder, anvil, alice, address)
    for place in places:
        await rounds.die_at(place)
    async with served(evm_settings(folder, anvil, token)) as again:
        house = EvmHouse(again, anvil, token)
        await house.mine_until(lambda: all(it.state == PaymentState.FINAL for it in house.payments()))
        await house.mine_until(lambda: not house.is_busy())
        statuses = await house.statuses(alice)
        assert set(statuses) == {"COMPLETED"}
        paid = len(statuses) - 1 - len(places)
        assert 0 < paid <= len(places)
        after = int(await anvil.rpc("eth_getBalance", OUTSIDE, "latest"), 16)
        assert after - before == paid * AMOUNT * ETHER
        assert (await house.balance(alice))[0] == 20 + len(places) - paid * AMOUNT
        assert all(not it.unexplained_units for it in await house.reconciled_all())
        house.check_books()


async def test_money_is_moved_once_wherever_the_server_dies(tmp_path: Path, anvil: Anvil) -> None:
    """Killed while it sweeps and pays, a server goes on where it was: each withdrawal is paid once, each sweep made."""
    await play(tmp_path, anvil, FEW)


@pytest.mark.soak
async def test_money_is_moved_once_at_every_place_to_die(tmp_path: Path, anvil: Anvil) -> None:
    """The same at every place that a sweep and a payment come through."""
    await play(tmp_path, anvil, ALL)
