"""A Litecoin node that fails, and a Litecoin chain that changes its mind, as an older node than Bitcoin's tells it.

What is the same for both is shown by the tests of Bitcoin's; this is what goes by the node's own words.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from strongroom.admin import protocol
from strongroom.admin.commands import carry_out
from strongroom.custody import offline
from strongroom.custody.cold_reconciliation import COLD, LESS, MORE
from strongroom.custody.reconciliation import Reconciliation
from support.coin_house import V3, CoinHouse, coin_house, coin_settings
from support.fault_proxy import Mode
from support.faulty import faulty_house, fund, refuses_addresses
from support.nodes import FIRST_COINS, Bitcoind, Litecoind, wait_until
from support.server import transfer_to

NOBODY = Litecoind.nobody


@pytest.fixture
async def litecoind(tmp_path: Path) -> AsyncIterator[Litecoind]:
    """A node whose stranger has coins to spend."""
    async with Litecoind(tmp_path / "node") as node:
        _ = await node.mine(FIRST_COINS + 3)
        yield node


async def test_a_node_that_is_away_and_then_slow_loses_nothing(tmp_path: Path, litecoind: Litecoind) -> None:
    """Deposits are suspended and withdrawals wait; what comes in small pieces then is paid and credited once."""
    async with faulty_house(tmp_path, litecoind, answer_within_s=5) as house:
        address = await fund(house)
        await house.until_told("stale", False)
        house.line.mode = Mode.REFUSE
        await house.until_told("deposits_suspended", True)
        await refuses_addresses(house, house.alice)
        await house.withdraw(house.alice, NOBODY, "0.5")
        await litecoind.pay(address, "0.125")
        _ = await litecoind.mine(2)
        house.line.delay_s, house.line.slow_bytes, house.line.mode = 0.005, 1_024, Mode.SLOW
        await house.until_told("deposits_suspended", False)
        await house.mine_until_status(house.alice, "COMPLETED", "COMPLETED", "COMPLETED")
        assert await litecoind.paid_to(NOBODY) == Decimal("0.5")
        assert await house.balance(house.alice) == (Decimal("0.625"), Decimal("0.625"))
        assert (await house.reconciled()).differences == ()
        house.check_books()


async def test_a_bitcoin_node_in_its_place_is_not_followed(tmp_path: Path, litecoind: Litecoind) -> None:
    """Both call their chain `regtest`: what tells them apart is the first block."""
    async with faulty_house(tmp_path, litecoind) as house, Bitcoind(tmp_path / "other") as other:
        _ = await fund(house)
        await other.copy_login(litecoind)
        _ = await other.mine(3)
        house.line.turn_to(other.port)
        await house.until_told("watcher", "the node follows another chain (regtest) than litecoin-regtest")
        await house.withdraw(house.alice, NOBODY, "0.5")
        house.line.turn_to(litecoind.port)
        await house.mine_until_status(house.alice, "COMPLETED", "COMPLETED")
        assert await litecoind.paid_to(NOBODY) == Decimal("0.5")
        house.check_books()


async def test_a_node_that_is_behind_is_waited_for(tmp_path: Path, litecoind: Litecoind) -> None:
    """One that lacks the newest blocks takes nothing back, and one that knows of more than it has is not followed."""
    async with Litecoind(tmp_path / "other") as other, faulty_house(tmp_path, litecoind) as house:
        await other.copy_login(litecoind)
        await litecoind.connect(other)
        await litecoind.agree(other)
        await litecoind.disconnect(other)
        _ = await fund(house)
        height, behind = await litecoind.height(), await other.height()
        house.line.turn_to(other.port)
        await house.until_told(
            "watcher", f"the node's newest block is {behind}, the books have worked through {height}"
        )
        assert await house.balance(house.alice) == (Decimal(1), Decimal(1))
        for nth in range(behind + 1, height + 1):
            block = await litecoind.rpc("getblockhash", nth)
            await other.rpc("submitheader", await litecoind.rpc("getblockheader", block, False))
        for block in await litecoind.mine(6):
            await other.rpc("submitheader", await litecoind.rpc("getblockheader", block, False))
        await house.until_told("watcher", f"the node is behind: it has {behind} blocks of {height + 6}")
        await other.connect(litecoind)
        await litecoind.agree(other)
        await house.until_told("stale", False)
        assert await house.statuses(house.alice) == ["COMPLETED"]
        house.check_books()


@pytest.mark.parametrize("mined", [False, True], ids=["waiting", "mined"])
async def test_a_payment_that_the_node_took_without_a_word_is_paid_once(
    tmp_path: Path, litecoind: Litecoind, mined: bool
) -> None:
    """The time ran out, but the node has it: offered again it is known, or in a block already, and no other is made."""
    async with faulty_house(tmp_path, litecoind) as house:
        _ = await fund(house)
        house.line.about, house.line.mode = b'"sendrawtransaction"', Mode.SWALLOW
        await house.withdraw(house.alice, NOBODY, "0.5")
        _ = await house.line.swallowed.wait()
        await house.until_told("sender", "the node has not answered in 0.5 s")
        [waiting] = await litecoind.rpc("getrawmempool")
        if mined:
            _ = await litecoind.mine(1)
        house.line.mode = Mode.PASS
        await house.until_told("sender", "")
        await house.mine_until_status(house.alice, "COMPLETED", "COMPLETED")
        assert await litecoind.paid_to(NOBODY) == Decimal("0.5")
        assert (await house.history(house.alice))[0]["txId"] == waiting
        assert (await house.reconciled()).differences == ()
        house.check_books()


@pytest.fixture
async def house(tmp_path: Path, litecoind: Litecoind) -> AsyncIterator[CoinHouse]:
    """A server on it, whose cold wallet is the stranger's own."""
    cold = await litecoind.stranger("getnewaddress")
    async with coin_house(coin_settings(tmp_path, litecoind, litecoind.chain, cold_address=cold), litecoind) as house:
        yield house


async def test_a_reorganisation_past_credit_and_settlement(house: CoinHouse) -> None:
    """What was credited and is spent elsewhere is owed, and the payment that was final is mined again, once."""
    node = house.node
    alice, bob = await house.customer("alice"), await house.customer("bob")
    await node.pay(await house.address(bob), "1")
    await house.mine_until_status(bob, "COMPLETED")
    txid = await node.pay(await house.address(alice), "0.5")
    [lost, *_] = await node.mine(3)
    await house.until_status(alice, "COMPLETED")
    sent = await house.house.post(alice, f"{V3}wallet/transfer", transfer_to(bob, "0.375"))
    assert sent.status_code == 200
    await house.withdraw(bob, NOBODY, "0.75")
    await house.mine_until_status(bob, "COMPLETED", "COMPLETED", "COMPLETED")
    rival = await node.rival_of(txid)
    height = await node.height()
    await node.invalidate(lost)
    _ = await node.rpc("generateblock", await node.stranger("getnewaddress"), [rival])
    _ = await node.mine(height - await node.height() + 1)
    await house.worked_through()
    assert (await house.balance(alice), house.owes(alice.uid)) == ((0, 0), 37_500_000)
    house.check_books()
    await house.mine_until_status(bob, "COMPLETED", "COMPLETED", "COMPLETED")
    assert await node.paid_to(NOBODY) == Decimal("0.75")
    assert await house.balance(bob) == (Decimal("0.625"), Decimal("0.625"))
    assert (await house.reconciled()).differences == ()
    house.check_books()


async def test_cold_money_is_held_against_the_chain(house: CoinHouse) -> None:
    """What was sent to the cold address is found there; what somebody spends of it, or adds to it, is told."""
    alice, node = await house.customer("alice"), house.node
    application = house.house.application
    await node.pay(await house.address(alice), "2")
    await house.mine_until_status(alice, "COMPLETED")
    unsigned = await carry_out(application, protocol.PrepareCold("BITCOIN", "BTC", "1.25"))
    body = offline.decode(unsigned.file.encode()).body
    signature = await application.treasury.senders["BITCOIN"]._signer.sign("BITCOIN", int(unsigned.ref), body)
    taken = await carry_out(application, protocol.ImportCold(int(unsigned.ref), signature.hex().encode()))

    async def is_final() -> bool:
        _ = await node.mine(1)
        await house.worked_through()
        final = await carry_out(application, protocol.ListPayments("final"))
        return [it.ref for it in final] == [taken.ref]

    async def is_sent() -> bool:
        return bool(await node.rpc("getrawmempool"))

    await wait_until(is_sent, "it is broadcast")
    await wait_until(is_final, "it is final")
    cold = await cold_of(house)
    assert (cold.chain_units, cold.books_units, cold.differences) == (125_000_000, 125_000_000, ())
    address = application.treasury.keepers["BITCOIN"].terms.cold_address
    await node.pay(address, "0.5")
    _ = await node.mine(1)
    await house.worked_through()
    assert [(it.units, it.cause) for it in (await cold_of(house)).differences] == [(50_000_000, MORE)]
    spent = [it for it in await node.stranger("listunspent") if it["address"] == address]
    inputs = [{"txid": it["txid"], "vout": it["vout"]} for it in spent]
    raw = await node.rpc("createrawtransaction", inputs, {await node.stranger("getnewaddress"): "1.749"})
    signed = await node.stranger("signrawtransactionwithwallet", raw)
    _ = await node.rpc("sendrawtransaction", signed["hex"])
    _ = await node.mine(1)
    await house.worked_through()
    assert [(it.units, it.cause) for it in (await cold_of(house)).differences] == [(-125_000_000, LESS)]
    house.check_books()


async def cold_of(house: CoinHouse) -> Reconciliation:
    """Return what lies on the cold address, held against the books."""
    told: Any = await house.house.application.treasury.reconcile()
    [found] = [it for it in told if it.network == COLD]
    return found
