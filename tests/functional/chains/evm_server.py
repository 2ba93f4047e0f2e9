"""A whole server on an EVM node: deposits, sweeps with gas, withdrawals, and books that agree with the chain."""

from __future__ import annotations

from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path

import pytest

from strongroom.admin import protocol
from strongroom.admin.commands import carry_out
from strongroom.admin.protocol import AdminError
from strongroom.records.withdrawals import PaymentPurpose, PaymentState
from strongroom.wallet.pots import due_pots
from support.evm_house import ETH, ETHER, ETHEREUM, OUTSIDE, USDT, EvmHouse, evm_house, signed_elsewhere
from support.nodes import Anvil, wait_until


@pytest.fixture
async def house(tmp_path: Path, anvil: Anvil) -> AsyncIterator[EvmHouse]:
    """A server on that node, with ether of its own."""
    async with evm_house(tmp_path, anvil) as it:
        await it.stock()
        yield it


async def is_reconciled(house: EvmHouse) -> bool:
    """Say whether books and chain agree, on every asset and to the last unit."""
    found = await house.reconciled_all()
    assert len(found) == 2
    return all(it.unexplained_units == 0 and it.books_units == it.chain_units for it in found)


async def test_ether_is_credited_and_swept(house: EvmHouse) -> None:
    """A customer's ether is credited, and then lies on the hot wallet; the chain's fee is the house's."""
    alice = await house.customer("alice")
    address = await house.address(alice)
    await house.anvil.pay(address, 3 * ETHER)
    await house.mine_until(lambda: [it.state for it in house.payments()] == [PaymentState.FINAL])
    [sweep] = house.payments()
    assert sweep.purpose == PaymentPurpose.SWEEP
    assert await house.balance(alice) == (Decimal(3), Decimal(3))
    left = await house.ether(address)
    assert 0 < left < ETHER // 100
    assert house.pots() == {(sweep.source, ETH): left}
    assert await house.ether(house.hot) == 13 * ETHER - left - int(sweep.chain_fee_units)
    assert await is_reconciled(house)
    house.check_books()


async def test_a_token_is_swept_with_gas_from_the_hot_wallet(house: EvmHouse) -> None:
    """An address with tokens and no ether gets gas first, then its tokens go to the hot wallet."""
    alice = await house.customer("alice")
    address = await house.address(alice, "USDT")
    await house.mint(address, 250_000_000)
    await house.mine_until(lambda: [it.state for it in house.payments()] == [PaymentState.FINAL] * 2)
    gas, sweep = house.payments()
    assert (gas.purpose, sweep.purpose) == (PaymentPurpose.GAS, PaymentPurpose.SWEEP)
    assert gas.target == sweep.source
    assert await house.balance(alice, "USDT") == (Decimal(250), Decimal(250))
    assert (await house.held(address), await house.held(house.hot)) == (0, 250_000_000)
    assert house.pots() == {(sweep.source, ETH): await house.ether(address)}
    assert (await house.balance(alice))[0] == 0
    assert await is_reconciled(house)
    house.check_books()


async def test_what_a_sweep_leaves_is_left_until_more_arrives(house: EvmHouse) -> None:
    """An address that is paid again is swept again; in between nobody asks what its rest is worth."""
    alice = await house.customer("alice")
    address = await house.address(alice)
    for sweeps in (1, 2):
        await house.anvil.pay(address, 3 * ETHER)
        await house.mine_until(lambda n=sweeps: [it.state for it in house.payments()] == [PaymentState.FINAL] * n)
        assert due_pots(house.store, ETHEREUM) == []
    assert await house.balance(alice) == (Decimal(6), Decimal(6))
    assert await is_reconciled(house)


async def test_less_than_a_deposit_must_have_is_not_swept(tmp_path: Path, anvil: Anvil) -> None:
    """Nobody can have our ether spent as gas by paying next to nothing in tokens again and again."""
    async with evm_house(tmp_path, anvil, token_minimum="5") as house:
        await house.stock()
        alice = await house.customer("alice")
        address = await house.address(alice, "USDT")
        await house.mint(address, 4_999_999)
        await house.mine_until(lambda: USDT in {asset for _, asset in house.pots()})
        assert await house.keeper.step()
        assert house.payments() == []
        await house.mint(address, 1)
        await house.mine_until(lambda: [it.state for it in house.payments()] == [PaymentState.FINAL] * 2)
        assert await house.held(house.hot) == 5_000_000


async def test_what_was_swept_pays_withdrawals(house: EvmHouse) -> None:
    """Ether and tokens that customers deposited are withdrawn to addresses outside, each paid once."""
    alice = await house.customer("alice")
    await house.anvil.pay(await house.address(alice), 20 * ETHER)
    await house.mint(await house.address(alice, "USDT"), 90_000_000)
    await house.mine_until(lambda: USDT not in {asset for _, asset in house.pots()} and len(house.payments()) == 3)
    before = await house.ether(OUTSIDE)
    await house.withdraw(alice, OUTSIDE, "15.5")
    await house.withdraw(alice, OUTSIDE, "60.25", "USDT")
    await house.mine_until(lambda: [it.state for it in house.payments()] == [PaymentState.FINAL] * 5)
    assert await house.ether(OUTSIDE) - before == 15_500_000_000_000_000_000
    assert await house.held(OUTSIDE) == 60_250_000
    assert (await house.statuses(alice))[:2] == ["COMPLETED", "COMPLETED"]
    assert await is_reconciled(house)
    house.check_books()


async def test_ether_that_a_contract_forwards_shows_in_the_reconciliation(house: EvmHouse) -> None:
    """What no transaction of a known kind has paid is nobody's deposit, and stands out with its address."""
    alice = await house.customer("alice")
    address = await house.address(alice)
    await house.anvil.rpc("anvil_setBalance", address, hex(ETHER))
    _ = await house.anvil.mine(3)
    await house.worked_through()
    [ether] = [it for it in await house.reconciled_all() if it.asset == "ETH"]
    assert ether.unexplained_units == ETHER
    assert [address in it.cause for it in ether.differences] == [True]
    assert (await house.balance(alice))[0] == 0


async def test_a_reorganisation_past_a_deposit_and_its_sweep_takes_both_back(house: EvmHouse) -> None:
    """The deposit is gone, the sweep is on its way again, and when the deposit is paid anew both are as they were."""
    alice = await house.customer("alice")
    address = await house.address(alice)
    await house.anvil.pay(address, 3 * ETHER)
    await house.mine_until(lambda: [it.state for it in house.payments()] == [PaymentState.FINAL])
    [sweep] = house.payments()
    height = await house.anvil.height()
    await house.anvil.reorg(height - sweep.height + 6)
    _ = await house.anvil.mine(1)
    await house.worked_through()
    assert (await house.balance(alice))[0] == 0
    assert house.pots() == {}
    assert house.payments()[0].state in (PaymentState.SIGNED, PaymentState.VOIDED)
    assert await is_reconciled(house)
    house.check_books()


async def test_a_settled_withdrawal_that_a_reorganisation_took_is_paid_again(house: EvmHouse) -> None:
    """It is told as under way, the same transaction is offered again, and it is paid once."""
    alice = await house.customer("alice")
    await house.anvil.pay(await house.address(alice), 3 * ETHER)
    await house.mine_until(lambda: [it.state for it in house.payments()] == [PaymentState.FINAL])
    before = await house.ether(OUTSIDE)
    await house.withdraw(alice, OUTSIDE, "1")
    await house.mine_until(lambda: not house.is_busy())
    payment = house.payments()[-1]
    await house.anvil.reorg(await house.anvil.height() - payment.height + 1)
    _ = await house.anvil.mine(1)
    await house.worked_through()
    assert (await house.statuses(alice))[0] == "PROCESSING"
    await house.mine_until(lambda: not house.is_busy())
    assert (await house.statuses(alice))[0] == "COMPLETED"
    assert house.payments()[-1].txid == payment.txid
    assert await house.ether(OUTSIDE) - before == ETHER
    assert await is_reconciled(house)
    house.check_books()


async def test_a_withdrawal_whose_block_undid_it_may_be_paid_on_another_branch(house: EvmHouse) -> None:
    """It has failed, and the customer has the money again; when the chain takes that back it is paid, and charged."""
    alice = await house.customer("alice")
    await house.anvil.pay(await house.address(alice), 3 * ETHER)
    await house.mine_until(lambda: [it.state for it in house.payments()] == [PaymentState.FINAL])
    receiver = "0x00000000000000000000000000000000000cafe0"
    await house.withdraw(alice, receiver, "1")
    await wait_until(lambda: waits(house), "the payment waits for its block")
    await house.anvil.rpc("anvil_setCode", receiver, "0x5f5ffd")
    await house.mine_until(lambda: not house.is_busy())
    assert ((await house.statuses(alice))[0], (await house.balance(alice))[1]) == ("FAILURE", Decimal(3))
    payment = house.payments()[-1]
    assert payment.state == PaymentState.VOIDED
    assert await is_reconciled(house)
    await house.anvil.reorg(await house.anvil.height() - payment.height + 1)
    await house.anvil.rpc("anvil_setCode", receiver, "0x")
    _ = await house.anvil.mine(1)
    await house.worked_through()
    assert ((await house.statuses(alice))[0], (await house.balance(alice))[1]) == ("PROCESSING", Decimal(2))
    await house.mine_until(lambda: not house.is_busy())
    assert (await house.statuses(alice))[0] == "COMPLETED"
    assert (house.payments()[-1].txid, await house.ether(receiver)) == (payment.candidates[0], ETHER)
    assert await house.balance(alice) == (Decimal(2), Decimal(2))
    assert await is_reconciled(house)
    house.check_books()


async def waits(house: EvmHouse) -> bool:
    """Say whether a transaction waits for its block."""
    return int(await house.anvil.rpc("eth_getBlockTransactionCountByNumber", "pending"), 16) == 1


async def test_ether_goes_to_the_cold_address_and_a_nonce_is_never_held_for_it(tmp_path: Path, anvil: Anvil) -> None:
    """What is away to be signed holds nothing up; when a withdrawal was quicker it is refused, and prepared again."""
    cold = "0x000000000000000000000000000000000000dEaD"
    async with evm_house(tmp_path, anvil, cold_address=cold) as house:
        await house.stock()
        alice = await house.customer("alice")
        await house.anvil.pay(await house.address(alice), 3 * ETHER)
        await house.mine_until(lambda: [it.state for it in house.payments()] == [PaymentState.FINAL])
        application = house.house.application
        prepare = protocol.PrepareCold("ERC20", "ETH", "4")
        overtaken = await signed_elsewhere(house, await carry_out(application, prepare))
        await house.withdraw(alice, OUTSIDE, "1")
        await house.mine_until(lambda: len(house.payments()) == 2 and not house.is_busy())
        before = house.holding(ETH)
        with pytest.raises(AdminError, match="used meanwhile: prepare it again"):
            _ = await carry_out(application, overtaken)
        assert (len(house.payments()), house.holding(ETH)) == (2, before)
        request = await signed_elsewhere(house, await carry_out(application, prepare))
        _ = await carry_out(application, request)
        await house.mine_until(lambda: len(house.payments()) == 3 and not house.is_busy())
        assert await house.ether(cold) == 4 * ETHER
        assert house.payments()[-1].purpose == PaymentPurpose.COLD
        assert house.holding(ETH) == before - 4 * ETHER - int(house.payments()[-1].chain_fee_units)
        with pytest.raises(AdminError, match="does not wait"):
            _ = await carry_out(application, request)
        assert await is_reconciled(house)
        house.check_books()
