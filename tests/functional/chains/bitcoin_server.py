"""A server on a real Bitcoin node: what customers are paid, what they pay out, and what the chain takes back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path

import pytest

from strongroom.custody.chain import Funds, Payee
from strongroom.records.coins import Coin
from support.coin_house import CoinHouse, coin_house, coin_settings
from support.nodes import Bitcoind

STRANGER = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"


@pytest.fixture(params=[False, True], ids=["segwit", "taproot"])
async def house(request: pytest.FixtureRequest, tmp_path: Path, bitcoind: Bitcoind) -> AsyncIterator[CoinHouse]:
    """A server on it, with each kind of address in turn."""
    config = coin_settings(tmp_path, bitcoind, "bitcoin-regtest", taproot=request.param)
    async with coin_house(config, bitcoind) as house:
        yield house


async def paid_to(node: Bitcoind, address: str) -> Decimal:
    """Return what an address has been paid in blocks, as the node tells it."""
    told = await node.rpc("scantxoutset", "start", [f"addr({address})"])
    return Decimal(told["total_amount"])


async def test_a_deposit_is_seen_at_once_and_credited_when_it_is_deep(house: CoinHouse) -> None:
    """A customer sees what is on its way, and has it after the network's confirmations, once."""
    alice = await house.customer("alice")
    await house.node.pay(await house.address(alice), "0.5")
    await house.until_status(alice, "PROCESSING")
    assert await house.balance(alice) == (0, 0)
    await house.mine_until_status(alice, "COMPLETED")
    assert await house.balance(alice) == (Decimal("0.5"), Decimal("0.5"))
    _ = await house.node.mine(3)
    await house.worked_through()
    assert await house.balance(alice) == (Decimal("0.5"), Decimal("0.5"))
    house.check_books()


async def test_withdrawals_are_paid_once_and_change_pays_the_next(house: CoinHouse) -> None:
    """The stranger has what was asked for, the house bears the chain's fee, and coins and books agree to the unit."""
    alice = await house.customer("alice")
    await house.node.pay(await house.address(alice), "1")
    await house.until_status(alice, "PROCESSING")
    await house.mine_until_status(alice, "COMPLETED")
    for nth, amount in enumerate(("0.25", "0.5"), 1):
        await house.withdraw(alice, STRANGER, amount)
        await house.mine_until_status(alice, *["COMPLETED"] * (nth + 1))
        house.check_books()
    assert await paid_to(house.node, STRANGER) == Decimal("0.75")  # pyright: ignore[reportArgumentType]
    assert await house.balance(alice) == (Decimal("0.25"), Decimal("0.25"))


async def test_books_and_chain_agree_at_every_step_of_a_withdrawal(tmp_path: Path, bitcoind: Bitcoind) -> None:
    """What is mined and not yet final is told as the cause; before and after there is no difference at all."""
    config = coin_settings(tmp_path, bitcoind, "bitcoin-regtest")
    async with coin_house(config, bitcoind) as house:
        alice = await house.customer("alice")
        await bitcoind.pay(await house.address(alice), "1")
        await house.until_status(alice, "PROCESSING")
        await house.mine_until_status(alice, "COMPLETED")
        found = await house.reconciled()
        assert (found.books_units, found.chain_units, found.differences) == (100_000_000, 100_000_000, ())
        await house.withdraw(alice, STRANGER, "0.25")
        sender = house.house.application.treasury.senders["BITCOIN"]
        while not await bitcoind.rpc("getrawmempool"):
            _ = await sender.step()
        _ = await bitcoind.mine(1)
        [difference] = (await house.reconciled()).differences
        assert (difference.units, difference.explained) == (-100_000_000, True)
        assert "is mined and not final yet" in difference.cause
        await house.mine_until_status(alice, "COMPLETED", "COMPLETED")
        found = await house.reconciled()
        assert (found.books_units, found.differences) == (found.chain_units, ())


async def test_a_coin_that_somebody_else_spent_is_unexplained(tmp_path: Path, bitcoind: Bitcoind) -> None:
    """A key used outside shows in the next comparison, by its outpoint and amount."""
    config = coin_settings(tmp_path, bitcoind, "bitcoin-regtest")
    async with coin_house(config, bitcoind) as house:
        alice = await house.customer("alice")
        await bitcoind.pay(await house.address(alice), "0.5")
        await house.until_status(alice, "PROCESSING")
        await house.mine_until_status(alice, "COMPLETED")
        treasury = house.house.application.treasury
        [coin] = house.store.each(Coin)
        chain, scheme = treasury.watchers["BITCOIN"]._chain, treasury._signer._schemes["BITCOIN"]  # pyright: ignore
        draft = await chain.draft([Payee(STRANGER, "", "", 10_000_000)], Funds(coins=(coin,)))
        _ = await bitcoind.rpc("sendrawtransaction", scheme.sign(draft.body).hex())
        _ = await bitcoind.mine(1)
        found = await house.reconciled()
        assert found.unexplained_units == coin.units
        assert coin.outpoint in found.differences[0].cause


async def test_a_deposit_that_the_chain_takes_back_is_credited_again_when_it_is_back(house: CoinHouse) -> None:
    """After a reorganisation past the credit the customer has nothing, and once more the amount when it is deep."""
    alice = await house.customer("alice")
    await house.node.pay(await house.address(alice), "0.5")
    await house.until_status(alice, "PROCESSING")
    [block] = await house.node.mine(1)
    _ = await house.node.mine(2)
    await house.until_status(alice, "COMPLETED")
    await house.node.invalidate(block)

    async def is_taken_back() -> bool:
        return await house.balance(alice) == (0, 0)

    _ = await house.node.rpc("generateblock", await house.node.stranger("getnewaddress"), [])
    await house.until(is_taken_back, "the deposit is taken back")
    house.check_books()
    await house.mine_until_status(alice, "COMPLETED")
    assert await house.balance(alice) == (Decimal("0.5"), Decimal("0.5"))
    house.check_books()


async def test_a_deposit_that_came_while_the_server_was_down_is_found(tmp_path: Path, bitcoind: Bitcoind) -> None:
    """The next start reads the blocks that it has missed, and the first one a hundred, from the very first on."""
    config = coin_settings(tmp_path, bitcoind, "bitcoin-regtest", start_height=0)
    async with coin_house(config, bitcoind) as first:
        alice = await first.customer("alice")
        address = await first.address(alice)
    await bitcoind.pay(address, "0.1")
    _ = await bitcoind.mine(5)
    async with coin_house(config, bitcoind) as second:
        await second.until_status(alice, "COMPLETED")
        assert await second.balance(alice) == (Decimal("0.1"), Decimal("0.1"))
        second.check_books()


async def test_a_node_of_another_chain_is_not_followed(tmp_path: Path, bitcoind: Bitcoind) -> None:
    """The network says so, and no address is given out that a wrong chain would be asked about."""
    config = coin_settings(tmp_path, bitcoind, "bitcoin-test")
    async with coin_house(config, bitcoind) as house:
        watcher = house.house.application.treasury.watchers["BITCOIN"]
        assert not await watcher.try_round()
        assert watcher.status.error == "the node follows another chain (regtest) than bitcoin-test"


async def test_withdrawals_of_several_customers_share_a_transaction(tmp_path: Path, bitcoind: Bitcoind) -> None:
    """With `batch` two customers are paid by one transaction with one fee."""
    config = coin_settings(tmp_path, bitcoind, "bitcoin-regtest", batch=10)
    async with coin_house(config, bitcoind) as house:
        members = [await house.customer(name) for name in ("alice", "bob")]
        for member in members:
            await bitcoind.pay(await house.address(member), "0.5")
        for member in members:
            await house.mine_until_status(member, "COMPLETED")
        sender = house.house.application.treasury.senders["BITCOIN"]
        sender._asked.clear()
        for member in members:
            await house.withdraw(member, STRANGER, "0.1")
        for member in members:
            await house.mine_until_status(member, "COMPLETED", "COMPLETED")
        txids = {row["txId"] for member in members for row in await house.history(member) if row["type"] == "Withdraw"}
        assert len(txids) <= 2
        assert await paid_to(bitcoind, STRANGER) == Decimal("0.2")
        house.check_books()
