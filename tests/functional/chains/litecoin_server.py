"""A server on a real Litecoin node: a deposit, a withdrawal and a reorganisation, from the customer's side."""

from __future__ import annotations

from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path

import pytest

from support.coin_house import CoinHouse, coin_house, coin_settings
from support.nodes import FIRST_COINS, Litecoind


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[CoinHouse]:
    """A server on a node whose stranger has coins to spend."""
    async with Litecoind(tmp_path / "node") as node:
        _ = await node.mine(FIRST_COINS)
        async with coin_house(coin_settings(tmp_path, node, "litecoin-regtest"), node) as house:
            yield house


async def test_a_deposit_is_credited_and_a_withdrawal_paid(house: CoinHouse) -> None:
    """Coins come in, wait for their confirmations, and go out again, and books and coins agree to the unit."""
    alice, stranger = await house.customer("alice"), await house.node.stranger("getnewaddress", "", "bech32")
    await house.node.pay(await house.address(alice), "1")
    await house.until_status(alice, "PROCESSING")
    await house.mine_until_status(alice, "COMPLETED")
    await house.withdraw(alice, stranger, "0.25")
    await house.mine_until_status(alice, "COMPLETED", "COMPLETED")
    received = await house.node.stranger("getreceivedbyaddress", stranger)
    assert Decimal(received) == Decimal("0.25")
    assert await house.balance(alice) == (Decimal("0.75"), Decimal("0.75"))
    house.check_books()


async def test_a_deposit_that_the_chain_takes_back_is_credited_again(house: CoinHouse) -> None:
    """After a reorganisation past the credit the customer has nothing, and once more the amount when it is deep."""
    alice = await house.customer("alice")
    await house.node.pay(await house.address(alice), "0.5")
    await house.until_status(alice, "PROCESSING")
    [block] = await house.node.mine(1)
    _ = await house.node.mine(2)
    await house.until_status(alice, "COMPLETED")
    await house.node.invalidate(block)
    _ = await house.node.mine(1)
    await house.worked_through()
    await house.mine_until_status(alice, "COMPLETED")
    assert await house.balance(alice) == (Decimal("0.5"), Decimal("0.5"))
    house.check_books()
