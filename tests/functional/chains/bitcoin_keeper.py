"""A hot wallet between its marks on a real node: consolidation, the cold address, fees raised by hand."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path

import pytest

from strongroom.admin.socket import admin_socket
from strongroom.config.settings import Hot
from strongroom.ledger.accounts import Purpose
from strongroom.ledger.accounts import house as house_account
from strongroom.records.coins import Coin
from strongroom.records.heads import Head
from strongroom.records.withdrawals import Payment, PaymentPurpose, PaymentState
from support.coin_house import ASSET, CoinHouse, coin_house, coin_settings
from support.demos import Ran, environment
from support.nodes import Bitcoind, wait_until

STRANGER = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"
COLD = "bcrt1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3qzf4jry"
MARKS = {"BTC": Hot(low="0.5", high="2", keep="1")}


@pytest.fixture
async def house(tmp_path: Path, bitcoind: Bitcoind) -> AsyncIterator[CoinHouse]:
    """A house that consolidates from ten coins on, and keeps a bitcoin hot of two and more."""
    more = {"hot": MARKS, "cold_address": COLD, "consolidate_above": 10, "consolidate_fee": 300}
    config = coin_settings(tmp_path, bitcoind, "bitcoin-regtest", **more)
    async with coin_house(config, bitcoind) as it, admin_socket(it.house.application):
        yield it


def payments(house: CoinHouse, purpose: PaymentPurpose) -> list[Payment]:
    """Return the payments of a purpose, oldest first."""
    return sorted((it for it in house.store.each(Payment) if it.purpose == purpose), key=lambda it: it.ref)


async def command(house: CoinHouse, *words: str) -> Ran:
    """Run one of the operator's commands beside the server, in a process of its own."""
    words = (*words, "--data", str(house.house.application.config.folder), "--json")
    pipe, program = asyncio.subprocess.PIPE, (sys.executable, "-m", "strongroom.cli.main")
    process = await asyncio.create_subprocess_exec(*program, *words, env=environment(), stdout=pipe, stderr=pipe)
    out, err = await process.communicate()
    assert process.returncode is not None
    return Ran(process.returncode, out.decode(), err.decode())


async def waiting(house: CoinHouse, what: str) -> None:
    """Wait until a transaction waits to be mined."""

    async def waits() -> bool:
        return bool(await house.node.rpc("getrawmempool"))

    await wait_until(waits, what)


async def test_many_small_coins_become_one(house: CoinHouse) -> None:
    """Eleven deposits become one coin at the house's own address, for one fee that the house pays."""
    alice = await house.customer("alice")
    address = await house.address(alice)
    for _ in range(11):
        await house.node.pay(address, "0.01")
    _ = await house.node.mine(2)
    await house.until_status(alice, *["COMPLETED"] * 11)

    async def is_done() -> bool:
        return [it.state for it in payments(house, PaymentPurpose.CONSOLIDATION)] == [PaymentState.FINAL]

    await waiting(house, "a consolidation waits")
    _ = await house.node.mine(2)
    await house.until(is_done, "the coins are one")
    [coin] = [it for it in house.store.each(Coin) if it.height and not it.payment]
    fee = int(payments(house, PaymentPurpose.CONSOLIDATION)[0].chain_fee_units)
    assert (coin.units, coin.position) == (11_000_000 - fee, 0)
    assert await house.balance(alice) == (Decimal("0.11"), Decimal("0.11"))
    assert (await house.reconciled()).differences == ()
    house.check_books()


async def hurry(house: CoinHouse, ref: int, folder: Path) -> None:
    """Have a payment that came back signed signed once more, for a higher fee."""
    dearer, signed = folder / "dearer.json", folder / "dearer"
    told = await command(house, "cold", "hurry", str(ref), "--out", str(dearer))
    assert told.code == 0, told
    body = base64.b64decode(json.loads(dearer.read_text())["body"])
    signer = house.house.application.treasury.senders["BITCOIN"]._signer
    signed.write_text((await signer.sign("BITCOIN", ref, body)).hex())
    taken = await command(house, "cold", "import", str(ref), str(signed))
    assert taken.code == 0, taken
    assert len(payments(house, PaymentPurpose.COLD)[0].candidates) == 2
    refused = await command(house, "cold", "give-up", str(ref))
    assert (refused.code, "coins is not given up" in refused.err) == (1, True)

    async def is_replaced() -> bool:
        return await house.node.rpc("getrawmempool") == [payments(house, PaymentPurpose.COLD)[0].candidates[1]]

    await wait_until(is_replaced, "the dearer one has replaced the other")


async def test_what_is_above_the_high_mark_goes_to_the_cold_address(house: CoinHouse, tmp_path: Path) -> None:
    """It is prepared, signed elsewhere, taken back and mined; a withdrawal waits meanwhile for what comes back."""
    alice = await house.customer("alice")
    await house.node.pay(await house.address(alice), "2.5")
    _ = await house.node.mine(2)
    await house.until_status(alice, "COMPLETED")

    async def is_prepared() -> bool:
        return bool(payments(house, PaymentPurpose.COLD))

    await house.until(is_prepared, "a payment to the cold address is prepared")
    [cold] = payments(house, PaymentPurpose.COLD)
    assert (cold.state, cold.units, cold.address) == (PaymentState.RESERVED, "150000000", COLD)
    await house.withdraw(alice, STRANGER, "0.4")
    await house.until_status(alice, "PROCESSING", "COMPLETED")
    [hot] = json.loads((await command(house, "hot")).out)
    assert (hot["hot"], hot["state"]) == ("0", "low")
    assert not await house.node.rpc("getrawmempool")
    file = tmp_path / "unsigned.json"
    exported = await command(house, "cold", "export", str(cold.ref), "--out", str(file))
    assert exported.code == 0, exported
    seed = tmp_path / "signed"
    scheme = house.house.application.treasury.senders["BITCOIN"]._signer
    body = json.loads(file.read_text())
    assert body["pays"] == [{"to": COLD, "tag": "", "asset": "native", "amount": "1.5"}]
    signed = await scheme.sign("BITCOIN", cold.ref, cold.body)
    seed.write_text(signed.hex())
    refused = await command(house, "cold", "import", str(cold.ref), str(file))
    assert refused.code == 1
    taken = await command(house, "cold", "import", str(cold.ref), str(seed))
    assert taken.code == 0, taken

    await waiting(house, "it is broadcast")
    await hurry(house, cold.ref, tmp_path)
    _ = await house.node.mine(2)

    async def is_final() -> bool:
        return payments(house, PaymentPurpose.COLD)[0].state == PaymentState.FINAL

    await house.until(is_final, "it is final")
    on_cold = house.store.row(Head, house_account(Purpose.COLD, ASSET).pack()).after
    assert on_cold == -150_000_000
    told = await house.node.rpc("scantxoutset", "start", [f"addr({COLD})"])
    assert Decimal(told["total_amount"]) == Decimal("1.5")
    await waiting(house, "the withdrawal is paid with what came back")
    _ = await house.node.mine(2)
    await house.until_status(alice, "COMPLETED", "COMPLETED")
    assert await house.balance(alice) == (Decimal("2.1"), Decimal("2.1"))
    assert (await house.reconciled()).differences == ()
    house.check_books()


async def test_a_fee_is_raised_by_hand(house: CoinHouse) -> None:
    """The payment is replaced by one with a higher fee, and the customer is paid once."""
    alice = await house.customer("alice")
    await house.node.pay(await house.address(alice), "1")
    _ = await house.node.mine(2)
    await house.until_status(alice, "COMPLETED")
    await house.withdraw(alice, STRANGER, "0.4")

    await waiting(house, "the payment waits")
    [payment] = payments(house, PaymentPurpose.WITHDRAWALS)
    refused = await command(house, "payment", "give-up", str(payment.ref))
    assert (refused.code, "withdrawal give-up" in refused.err) == (1, True)
    hurried = await command(house, "payment", "hurry", str(payment.ref))
    assert hurried.code == 0, hurried

    async def is_replaced() -> bool:
        return len(payments(house, PaymentPurpose.WITHDRAWALS)[0].candidates) == 2

    await house.until(is_replaced, "there is a dearer candidate")
    _ = await house.node.mine(2)
    await house.until_status(alice, "COMPLETED", "COMPLETED")
    again = payments(house, PaymentPurpose.WITHDRAWALS)[0]
    assert again.txid == again.candidates[1]
    assert int(again.chain_fee_units) > int(payment.chain_fee_units)
    refused = await command(house, "payment", "hurry", str(payment.ref))
    assert (refused.code, "that no block has can be hurried" in refused.err) == (1, True)
    told = await house.node.rpc("scantxoutset", "start", [f"addr({STRANGER})"])
    assert Decimal(told["total_amount"]) == Decimal("0.4")
    assert (await house.reconciled()).differences == ()
    house.check_books()
