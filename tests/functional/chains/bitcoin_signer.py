"""A server that holds no seed: its payments are signed by `strongroom signer`, a process of its own, from a vault."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest

from strongroom.admin.payments import hurry_payment
from strongroom.admin.protocol import AdminError, HurryPayment
from strongroom.records.withdrawals import Payment
from support.coin_house import CoinHouse, coin_house, coin_settings
from support.demos import environment, invoke
from support.nodes import Bitcoind

STRANGER = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"
CAPS = """\
[networks.BITCOIN]
max_fee = "100000"
[networks.BITCOIN.daily]
native = "40000000"
"""


class Vault:
    """A vault of a house's data folder, and the signer that opens it."""

    def __init__(self, folder: Path, url: str) -> None:
        self.data = folder / "data"
        self.socket = folder / "desk" / "socket"
        self._state = folder / "state"
        self._state.mkdir()
        (self._state / "caps.toml").write_text(CAPS)
        self._passphrase = folder / "passphrase"
        self._passphrase.write_text("correct horse battery staple\n")
        self._config = folder / "house.toml"
        self._config.write_text(f'[nodes.BITCOIN]\nurl = "{url}"\nchain = "bitcoin-regtest"\n')
        self._options = ("--data", self.data, "--config", self._config, "--passphrase-file", self._passphrase)
        assert invoke("vault", "init", *self._options).code == 0

    @contextmanager
    def signing(self) -> Iterator[subprocess.Popen[str]]:
        """Run the signer while the block runs."""
        command = [sys.executable, "-m", "strongroom.cli.main", "signer", *map(str, self._options)]
        command += ["--state", str(self._state), "--socket", str(self.socket)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment()) as process:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("listening")
            try:
                yield process
            finally:
                process.terminate()


@pytest.fixture
async def vault(tmp_path: Path, bitcoind: Bitcoind) -> Vault:
    """A vault with its public keys beside the books."""
    return await asyncio.to_thread(Vault, tmp_path, bitcoind.url)


@pytest.fixture
async def house(tmp_path: Path, bitcoind: Bitcoind, vault: Vault) -> AsyncIterator[CoinHouse]:
    """A server whose payments the process at the vault's socket signs."""
    config = coin_settings(tmp_path, bitcoind, "bitcoin-regtest")
    config = msgspec.structs.replace(config, signer_socket=str(vault.socket))
    async with coin_house(config, bitcoind) as house:
        yield house


async def test_a_payment_waits_for_the_signer_and_its_cap_is_kept(house: CoinHouse, vault: Vault) -> None:
    """Without the signer nothing is paid, with it what its own cap allows, and beyond that it says no."""
    alice = await house.customer("alice")
    await house.node.pay(await house.address(alice), "1")
    await house.until_status(alice, "PROCESSING")
    await house.mine_until_status(alice, "COMPLETED")
    assert not (vault.data / "seed.sealed").exists()

    await house.withdraw(alice, STRANGER, "0.25")
    sender = house.house.application.treasury.senders["BITCOIN"]
    async with asyncio.timeout(60):
        while not sender.status.trouble.startswith("the signer does not answer"):
            _ = await sender.step()
    [payment] = house.house.application.store.rows(Payment, {}, 2)
    with pytest.raises(AdminError, match="still being signed: try again when it is out"):
        _ = await hurry_payment(house.house.application, HurryPayment(payment.ref))
    with vault.signing():
        _ = await sender.step()
        await house.mine_until_status(alice, "COMPLETED", "COMPLETED")
        await house.withdraw(alice, STRANGER, "0.5")
        async with asyncio.timeout(60):
            while not any(why.startswith("the signer refuses") for why in sender.status.stuck.values()):
                _ = await sender.step()
        await house.mine_until_status(alice, "PROCESSING", "COMPLETED", "COMPLETED")
    assert await house.balance(alice) == (Decimal("0.75"), Decimal("0.25"))
    house.check_books()


async def test_what_was_signed_is_settled_while_the_signer_is_away(house: CoinHouse, vault: Vault) -> None:
    """A later withdrawal waits for its signature, and the earlier one gets its confirmations and is done."""
    alice = await house.customer("alice")
    address = await house.address(alice)
    for _ in range(2):
        await house.node.pay(address, "0.5")
    await house.until_status(alice, "PROCESSING", "PROCESSING")
    await house.mine_until_status(alice, "COMPLETED", "COMPLETED")
    await house.withdraw(alice, STRANGER, "0.1")
    sender = house.house.application.treasury.senders["BITCOIN"]
    with vault.signing():
        async with asyncio.timeout(60):
            while not await house.node.rpc("getrawmempool"):
                _ = await sender.step()
    await house.withdraw(alice, STRANGER, "0.2")
    await house.mine_until_status(alice, "PROCESSING", "COMPLETED", "COMPLETED", "COMPLETED")
    house.check_books()
