"""Payments to the cold address that their signer sends himself, and not the server: they are what was drafted."""

from __future__ import annotations

import asyncio
import base64
import json
from decimal import Decimal
from pathlib import Path

import pytest

from strongroom.admin import protocol
from strongroom.admin.commands import carry_out
from strongroom.admin.protocol import AdminError
from strongroom.config.settings import Config
from strongroom.ledger.accounts import Purpose
from strongroom.ledger.accounts import house as house_account
from strongroom.records.coins import Coin
from strongroom.records.deposits import Deposit
from strongroom.records.heads import Head
from strongroom.records.withdrawals import Payment, PaymentState
from support.coin_house import ASSET, WAIT_S, CoinHouse, coin_house, coin_settings
from support.nodes import Bitcoind
from support.server import Member

STRANGER = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"
COLD = "bcrt1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3qzf4jry"
SENT = 150_000_000


@pytest.fixture
def config(tmp_path: Path, bitcoind: Bitcoind) -> Config:
    """The settings of a house with a cold address."""
    return coin_settings(tmp_path, bitcoind, "bitcoin-regtest", cold_address=COLD)


async def opened(house: CoinHouse) -> Member:
    """Open a customer who has two bitcoin and a half in one coin."""
    alice = await house.customer("alice")
    await house.node.pay(await house.address(alice), "2.5")
    await house.until_status(alice, "PROCESSING")
    await house.mine_until_status(alice, "COMPLETED")
    return alice


async def signed(house: CoinHouse, file: str) -> str:
    """Return the transaction of a file, as its signer has it, in hex."""
    told = json.loads(file)
    signer = house.house.application.treasury.senders["BITCOIN"]._signer
    return (await signer.sign("BITCOIN", int(told["payment"]), base64.b64decode(told["body"]))).hex()


async def exported(house: CoinHouse) -> tuple[int, str]:
    """Have one and a half prepared for the cold address and signed; return its reference and the transaction."""
    unsigned = await carry_out(house.house.application, protocol.PrepareCold("BITCOIN", "BTC", "1.5"))
    return int(unsigned.ref), await signed(house, unsigned.file)


async def check_sent_once(house: CoinHouse, alice: Member, ref: int, txid: str) -> None:
    """See that the books have what the chain has: one payment to the cold address, its change, and nothing found."""
    payment = house.store.row(Payment, ref)
    assert (payment.state, payment.txid) == (PaymentState.FINAL, txid)
    assert [it.owner for it in house.store.each(Deposit)] == [alice.uid]
    assert house.store.row(Head, house_account(Purpose.COLD, ASSET).pack()).after == -SENT
    [free] = [it for it in house.store.each(Coin) if it.height and not it.payment]
    assert free.units == 250_000_000 - SENT - int(payment.chain_fee_units)
    told = await house.node.rpc("scantxoutset", "start", [f"addr({COLD})"])
    assert Decimal(told["total_amount"]) == Decimal("1.5")
    assert [it.differences for it in await house.house.application.treasury.reconcile()] == [(), ()]
    house.check_books()


async def mined(house: CoinHouse, ref: int) -> None:
    """Mine until a payment is final."""
    async with asyncio.timeout(WAIT_S):
        while house.store.row(Payment, ref).state != PaymentState.FINAL:
            _ = await house.node.mine(1)
            await house.worked_through()
            _ = await house.house.application.treasury.senders["BITCOIN"].step()


async def test_what_its_signer_sends_while_the_server_starts_again_is_settled_once(
    config: Config, bitcoind: Bitcoind
) -> None:
    """Nobody brings the file back: the chain has it, its change is no deposit, and the next withdrawal spends that."""
    async with coin_house(config, bitcoind) as house:
        alice = await opened(house)
        ref, raw = await exported(house)
    txid = await bitcoind.rpc("sendrawtransaction", raw)
    async with coin_house(config, bitcoind) as house:
        await mined(house, ref)
        await check_sent_once(house, alice, ref, txid)
        with pytest.raises(AdminError, match="does not wait to be signed elsewhere"):
            _ = await carry_out(house.house.application, protocol.ImportCold(ref, raw.encode()))
        await house.withdraw(alice, STRANGER, "0.5")
        await house.mine_until_status(alice, "COMPLETED", "COMPLETED")
        told = await bitcoind.rpc("scantxoutset", "start", [f"addr({STRANGER})"])
        assert Decimal(told["total_amount"]) == Decimal("0.5")
        assert [it.differences for it in await house.house.application.treasury.reconcile()] == [(), ()]
        house.check_books()


async def test_what_its_signer_has_sent_may_be_brought_back_too(config: Config, bitcoind: Bitcoind) -> None:
    """While no block has it the server takes it, as one that it would send itself; it is the same payment."""
    async with coin_house(config, bitcoind) as house:
        alice = await opened(house)
        ref, raw = await exported(house)
        txid = await bitcoind.rpc("sendrawtransaction", raw)
        await house.worked_through()
        assert (await carry_out(house.house.application, protocol.ImportCold(ref, raw.encode()))).state == "signed"
        await mined(house, ref)
        await check_sent_once(house, alice, ref, txid)


async def test_what_its_signer_has_sent_waits_again_when_its_block_is_gone(config: Config, bitcoind: Bitcoind) -> None:
    """After its end too, and a block of the other branch without it: it can be brought back, and is settled once."""
    async with coin_house(config, bitcoind) as house:
        alice = await opened(house)
        ref, raw = await exported(house)
        txid = await bitcoind.rpc("sendrawtransaction", raw)
        await mined(house, ref)
        told = await bitcoind.rpc("getrawtransaction", txid, 1)
        await bitcoind.invalidate(told["blockhash"])
        for _ in range(told["confirmations"] + 1):
            _ = await bitcoind.rpc("generateblock", await bitcoind.stranger("getnewaddress"), [])
        await house.worked_through()
        assert house.store.row(Payment, ref).state == PaymentState.RESERVED
        assert house.store.row(Head, house_account(Purpose.COLD, ASSET).pack()).after == 0
        house.check_books()
        assert (await carry_out(house.house.application, protocol.ImportCold(ref, raw.encode()))).state == "signed"
        await mined(house, ref)
        await check_sent_once(house, alice, ref, txid)


async def test_a_dearer_one_that_its_signer_sends_is_the_payment(config: Config, bitcoind: Bitcoind) -> None:
    """It came back signed, was hurried, and the dearer file never came back: the chain has that one all the same."""
    async with coin_house(config, bitcoind) as house:
        alice = await opened(house)
        ref, raw = await exported(house)
        _ = await carry_out(house.house.application, protocol.ImportCold(ref, raw.encode()))
        while not await bitcoind.rpc("getrawmempool"):
            _ = await house.house.application.treasury.senders["BITCOIN"].step()
        dearer = await signed(house, (await carry_out(house.house.application, protocol.HurryCold(ref))).file)
    txid = await bitcoind.rpc("sendrawtransaction", dearer)
    async with coin_house(config, bitcoind) as house:
        await mined(house, ref)
        assert house.store.row(Payment, ref).candidates[-1] == txid
        await check_sent_once(house, alice, ref, txid)
