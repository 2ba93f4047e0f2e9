"""Payments to the cold address that their signer sends himself: no books know of one until a block has it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from strongroom.admin import protocol
from strongroom.admin.commands import carry_out
from strongroom.admin.protocol import AdminError
from strongroom.ledger.accounts import Purpose, house
from strongroom.records.heads import Head
from strongroom.records.withdrawals import Payment, PaymentPurpose, PaymentState
from strongroom.wallet.payments import nonce_of
from support.evm_house import ETH, ETHER, OUTSIDE, USDT, EvmHouse, evm_house, reopened, signed_elsewhere
from support.nodes import Anvil, wait_until
from support.server import Member

COLD: Final = "0x000000000000000000000000000000000000dEaD"
GWEI: Final = 10**9
AMOUNTS: Final = {"ETH": ("4", ETH, 400_000_000), "USDT": ("100.5", USDT, 10_050_000_000)}
"""What goes to the cold address of each asset: as it is asked for, the asset's number, in the ledger's units."""


@asynccontextmanager
async def stocked(folder: Path, anvil: Anvil) -> AsyncIterator[EvmHouse]:
    """Serve a house with money on its hot wallet."""
    async with evm_house(folder, anvil, cold_address=COLD) as home:
        await home.stock(tokens=500_000_000)
        await anvil.rpc("anvil_setBalance", OUTSIDE, "0x0")
        yield home


@pytest.fixture
async def home(tmp_path: Path, anvil: Anvil) -> AsyncIterator[EvmHouse]:
    """A server with money on its hot wallet."""
    async with stocked(tmp_path, anvil) as home:
        yield home


async def endowed(home: EvmHouse) -> Member:
    """Open a customer who has three ether, which are on the hot wallet."""
    alice = await home.customer("alice")
    await home.anvil.pay(await home.address(alice), 3 * ETHER)
    await home.mine_until(lambda: [it.state for it in home.payments()] == [PaymentState.FINAL])
    return alice


async def exported(home: EvmHouse, asset: str) -> protocol.ImportCold:
    """Have a payment to the cold address signed elsewhere."""
    unsigned = await carry_out(home.house.application, protocol.PrepareCold("ERC20", asset, AMOUNTS[asset][0]))
    return await signed_elsewhere(home, unsigned)


async def send(home: EvmHouse, signed: protocol.ImportCold) -> str:
    """Let the signer send what he has signed, and return its txid."""
    return await home.anvil.rpc("eth_sendRawTransaction", "0x" + signed.content.decode())


def cold_payment(home: EvmHouse) -> Payment:
    """Return the one payment to the cold address."""
    [found] = [it for it in home.payments() if it.purpose == PaymentPurpose.COLD]
    return found


async def paid_outside(home: EvmHouse) -> int:
    """Return what somebody else's address has, in wei."""
    return await home.ether(OUTSIDE)


async def check_books(home: EvmHouse, asset: str, txid: str) -> None:
    """See that the payment is in the books once, and that books and chain agree on all addresses."""
    _, number, units = AMOUNTS[asset]
    payment = cold_payment(home)
    assert (payment.state, payment.txid, payment.address) == (PaymentState.FINAL, txid, COLD)
    assert home.store.row(Head, house(Purpose.COLD, number).pack()).after == -units
    found: list[Any] = await home.house.application.treasury.reconcile()
    assert [(it.network, it.asset, it.differences) for it in found if it.differences] == []
    home.check_books()


@pytest.mark.parametrize("asset", AMOUNTS)
async def test_what_the_server_has_forgotten_is_a_payment_to_the_cold_address(
    tmp_path: Path, anvil: Anvil, asset: str
) -> None:
    """A withdrawal waits while a transaction that nobody knows has the nonce, and goes on with the next one."""
    async with stocked(tmp_path, anvil) as home:
        alice = await endowed(home)
        signed = await exported(home, asset)
    async with reopened(tmp_path, anvil, home.token, cold_address=COLD) as again:
        txid = await send(again, signed)
        await again.withdraw(alice, OUTSIDE, "1")
        sender = again.house.application.treasury.senders["ERC20"]

        async def waits() -> bool:
            return any("that the books do not know" in reason for reason in sender.status.stuck.values())

        await wait_until(waits, "the withdrawal waits")
        assert await again.statuses(alice) == ["PROCESSING", "COMPLETED"]
        await again.mine_until(lambda: not again.is_busy() and len(again.payments()) == 3)
        assert await again.statuses(alice) == ["COMPLETED", "COMPLETED"]
        assert await paid_outside(again) == ETHER
        nonces = [nonce_of(it.spends[0]) for it in again.payments() if it.purpose != PaymentPurpose.SWEEP]
        assert sorted(nonces) == [0, 1]
        await check_books(again, asset, txid)
        with pytest.raises(AdminError, match="no such payment"):
            _ = await carry_out(again.house.application, signed)


async def test_what_is_sent_beside_the_server_is_not_taken_once_more(home: EvmHouse) -> None:
    """Without a restart it is found as well, and its file that is brought back is told to be that payment."""
    signed = await exported(home, "ETH")
    txid = await send(home, signed)
    await home.mine_until(lambda: not home.is_busy() and bool(home.payments()))
    with pytest.raises(AdminError, match=f"it was sent already, and is payment {cold_payment(home).ref}"):
        _ = await carry_out(home.house.application, signed)
    await check_books(home, "ETH", txid)


async def test_a_withdrawal_whose_nonce_is_spent_by_it_fails_and_the_next_is_paid(home: EvmHouse) -> None:
    """The signer's transaction offers more and takes the withdrawal's place: its customer has the money again."""
    alice = await endowed(home)
    await home.anvil.rpc("anvil_setNextBlockBaseFeePerGas", hex(40 * GWEI))
    _ = await home.anvil.mine(1)
    signed = await exported(home, "ETH")
    await home.anvil.rpc("anvil_setNextBlockBaseFeePerGas", hex(GWEI))
    _ = await home.anvil.mine(1)
    await home.withdraw(alice, OUTSIDE, "1")

    async def is_offered() -> bool:
        return int((await home.anvil.rpc("txpool_status"))["pending"], 16) == 1

    await wait_until(is_offered, "the withdrawal is offered")
    txid = await send(home, signed)
    await home.mine_until(lambda: not home.is_busy() and len(home.payments()) == 3)
    assert await home.statuses(alice) == ["FAILURE", "COMPLETED"]
    assert (await home.balance(alice, "ETH"), await paid_outside(home)) == ((3, 3), 0)
    await check_books(home, "ETH", txid)
    await home.withdraw(alice, OUTSIDE, "2")
    await home.mine_until(lambda: not home.is_busy())
    assert await home.statuses(alice) == ["COMPLETED", "FAILURE", "COMPLETED"]
    assert await paid_outside(home) == 2 * ETHER
    await check_books(home, "ETH", txid)
