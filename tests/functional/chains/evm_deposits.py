"""Deposits on an EVM network, seen on a real node."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from strongroom.custody.chain import Output, Unreachable
from strongroom.custody.networks.evm import EvmChain
from strongroom.custody.networks.evm_transactions import network_of
from support.evm import ETHER, OURS, EvmWorld, evm_world
from support.nodes import asking


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[EvmWorld]:
    """A node that mines only when told to, with a token."""
    async with evm_world(tmp_path) as it:
        yield it


async def newest(world: EvmWorld) -> list[Output]:
    """Mine what waits and return the outputs of that block."""
    (block_hash,) = await world.anvil.mine(1)
    return list(await world.chain.outputs_in(block_hash))


async def test_ether_is_seen_waiting_and_then_in_its_block(world: EvmWorld) -> None:
    """A deposit of ether shows before it is mined, under the name it keeps in its block."""
    txid = await world.anvil.pay(OURS, ETHER)
    expected = [Output(txid, 0, OURS, "", "", ETHER)]
    assert list(await world.chain.mempool()) == expected
    assert await newest(world) == expected
    assert list(await world.chain.mempool()) == []


async def test_a_token_is_seen_once_it_is_mined(world: EvmWorld) -> None:
    """A token deposit shows in its block, and not before: its log has no place yet."""
    _ = await world.call(world.token, "mint(address,uint256)", (await world.anvil.accounts())[0], 500)
    _ = await newest(world)
    txid = await world.call(world.token, "transfer(address,uint256)", OURS, 123)
    assert list(await world.chain.mempool()) == []
    assert await newest(world) == [Output(txid, 1, OURS, "", world.token, 123)]


async def test_a_token_paid_by_another_contract_is_a_deposit(world: EvmWorld) -> None:
    """A contract that pays a token from inside a call of its own makes a deposit like anybody."""
    _ = await world.call(world.token, "mint(address,uint256)", world.payer, 500)
    _ = await newest(world)
    txid = await world.call(world.payer, "payToken(address,address,uint256)", world.token, OURS, 77)
    assert await newest(world) == [Output(txid, 1, OURS, "", world.token, 77)]


async def test_ether_that_a_contract_forwards_is_not_seen(world: EvmWorld) -> None:
    """Ether forwarded inside a transaction reaches the address, and is the contract's output only."""
    txid = await world.call(world.payer, "forward(address)", OURS, wei=ETHER)
    assert await newest(world) == [Output(txid, 0, world.payer, "", "", ETHER)]
    assert int(await world.anvil.rpc("eth_getBalance", OURS, "latest"), 16) == ETHER


async def test_a_transaction_that_failed_pays_nobody(world: EvmWorld) -> None:
    """Value sent with a call that was undone, and a token transfer beyond the balance, are no outputs."""
    _ = await world.call(world.token, "transfer(address,uint256)", OURS, 10**30)
    _ = await world.call(world.token, "mint(address,uint256)", OURS, 1, wei=ETHER)
    assert await newest(world) == []


async def test_a_block_given_up_can_still_be_read_or_is_empty(world: EvmWorld) -> None:
    """A reorganisation changes the best chain, and reading the block it gave up does no harm."""
    txid = await world.anvil.pay(OURS, ETHER)
    (orphan,) = await world.anvil.mine(1)
    height = (await world.chain.tip()).height
    await world.anvil.reorg(1)
    block = await world.chain.block_at(height)
    assert block is not None
    assert block.hash != orphan
    assert list(await world.chain.outputs_in(orphan)) in ([], [Output(txid, 0, OURS, "", "", ETHER)])
    assert list(await world.chain.outputs_in("0x" + "1" * 64)) == []


async def test_blocks_follow_each_other(world: EvmWorld) -> None:
    """Each block names the one before it, and above the tip there is none."""
    _ = await world.anvil.mine(2)
    tip = await world.chain.tip()
    parent = await world.chain.block_at(tip.height - 1)
    assert parent is not None
    assert parent.hash == tip.parent_hash
    assert parent.time_ms <= tip.time_ms
    assert await world.chain.block_at(tip.height + 1) is None
    assert await world.chain.block_at(tip.height) == tip


async def test_whoever_waits_is_told_of_a_change(world: EvmWorld) -> None:
    """Waiting ends with a payment that arrives and with a block, and at the latest in time."""
    # What there is already is news to a view that has just begun.
    seen = await world.chain.wait_change(await world.chain.wait_change(-1, 0), 1)
    assert await world.chain.wait_change(seen, 0.1) == seen
    _ = await world.anvil.pay(OURS, 1)
    after_payment = await world.chain.wait_change(seen, 10)
    _ = await world.anvil.mine(1)
    assert seen < after_payment < await world.chain.wait_change(after_payment, 10)


async def test_a_node_that_is_down_is_waited_for(world: EvmWorld) -> None:
    """Waiting for a change does not raise while the node is down, all else says that it is unreachable."""
    seen = await world.chain.wait_change(-1, 0)
    await world.anvil.stop()
    assert await world.chain.wait_change(seen, 0.1) == seen
    with pytest.raises(Unreachable):
        _ = await world.chain.tip()


async def test_another_chain_is_refused(world: EvmWorld) -> None:
    """A node on another chain than the one that was named is not used."""
    await world.chain.check_identity()
    async with asking(world.anvil.url) as node:
        other = EvmChain(network_of("POLYGON", {}), 137, lambda _: OURS, [], node)
        with pytest.raises(Unreachable, match="chain 31337, not 137"):
            await other.check_identity()
