"""Payments on an EVM network, carried out on a real node."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from strongroom.custody.chain import Fate, Funds, InsufficientFunds, Payee, Rejected
from strongroom.custody.derivation import BranchKeys
from strongroom.custody.networks import evm_transactions as transactions
from strongroom.custody.networks.evm_transactions import network_of
from strongroom.wallet.payments import Draft, nonce_text
from support.evm import ETHER, HOT, SEED, THEIRS, EvmWorld, evm_world


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[EvmWorld]:
    """A node that mines only when told to, with a token, and with a hot wallet that has money."""
    async with evm_world(tmp_path) as it:
        await it.fund()
        yield it


async def test_ether_is_paid(world: EvmWorld) -> None:
    """A payment of ether is drafted, signed, waits, is mined, and costs the fee that is told."""
    draft = await world.chain.draft([world.ether_to(ETHER)], Funds())
    candidate = world.signed(draft)
    assert draft.spends == (nonce_text(0),)
    assert (await world.chain.transaction(candidate.txid, draft.spends)).fate is Fate.UNKNOWN
    assert await world.chain.broadcast(candidate.blob) == candidate.txid
    assert (await world.chain.transaction(candidate.txid, draft.spends)).fate is Fate.MEMPOOL
    assert await world.chain.balance("") == 9 * ETHER - draft.fee_units
    (block_hash,) = await world.anvil.mine(1)
    status = await world.chain.transaction(candidate.txid, draft.spends)
    assert status.fate is Fate.MINED
    assert status.block is not None
    assert status.block.hash == block_hash
    assert 0 < status.fee <= draft.fee_units
    assert await world.chain.balance("") == 9 * ETHER - status.fee
    (output,) = await world.chain.outputs_in(block_hash)
    assert (output.address, output.amount, output.ours) == (THEIRS, ETHER, True)


async def test_a_token_is_paid(world: EvmWorld) -> None:
    """A payment of a token reaches its receiver, and is off the balance while it waits."""
    draft = await world.chain.draft([world.token_to(400_000)], Funds())
    candidate = world.signed(draft)
    _ = await world.chain.broadcast(candidate.blob)
    assert await world.chain.balance(world.token) == 600_000
    (block_hash,) = await world.anvil.mine(1)
    assert (await world.chain.transaction(candidate.txid, draft.spends)).fate is Fate.MINED
    assert await world.chain.balance(world.token) == 600_000
    (output,) = await world.chain.outputs_in(block_hash)
    assert (output.address, output.asset_id, output.amount, output.ours) == (THEIRS, world.token, 400_000, True)


async def test_the_same_payment_twice_is_fine(world: EvmWorld) -> None:
    """A payment handed over again, waiting or mined, is answered with its own txid."""
    candidate = world.signed(await world.chain.draft([world.ether_to(1)], Funds()))
    for _ in range(2):
        assert await world.chain.broadcast(candidate.blob) == candidate.txid
    _ = await world.anvil.mine(1)
    assert await world.chain.broadcast(candidate.blob) == candidate.txid


async def test_a_payment_takes_the_next_nonce(world: EvmWorld) -> None:
    """A draft spends a nonce that neither our payments nor the chain have used."""
    assert (await world.chain.draft([world.ether_to(1)], Funds(nonce=7))).spends == (nonce_text(7),)
    _ = await world.chain.broadcast(world.signed(await world.chain.draft([world.ether_to(1)], Funds())).blob)
    _ = await world.anvil.mine(1)
    assert (await world.chain.draft([world.ether_to(1)], Funds())).spends == (nonce_text(1),)


async def test_what_is_undone_costs_its_fee(world: EvmWorld) -> None:
    """A token payment that fails in its block is told as undone, with the fee that it took."""
    first = await world.chain.draft([world.token_to(900_000)], Funds(nonce=0))
    second = await world.chain.draft([world.token_to(900_000)], Funds(nonce=1))
    candidates = [world.signed(first), world.signed(second)]
    for candidate in candidates:
        _ = await world.chain.broadcast(candidate.blob)
    (block_hash,) = await world.anvil.mine(1)
    status = await world.chain.transaction(candidates[1].txid, second.spends)
    assert status.fate is Fate.REVERTED
    assert status.block is not None
    assert status.block.hash == block_hash
    assert 0 < status.fee <= second.fee_units
    assert [output.txid for output in await world.chain.outputs_in(block_hash)] == [candidates[0].txid]


async def test_a_higher_fee_takes_the_place_of_a_lower_one(world: EvmWorld) -> None:
    """A payment redrafted for a higher fee is mined in place of the first, which it settles."""
    first = await world.chain.draft([world.ether_to(ETHER)], Funds())
    second = await world.chain.redraft(first)
    assert second is not None
    assert second.spends == first.spends
    assert 8 * second.fee_units >= 9 * first.fee_units
    old, new = world.signed(first), world.signed(second)
    _ = await world.chain.broadcast(old.blob)
    _ = await world.chain.broadcast(new.blob)
    assert (await world.chain.transaction(old.txid, first.spends)).fate is Fate.UNKNOWN
    with pytest.raises(Rejected, match="underpriced"):
        _ = await world.chain.broadcast(old.blob)
    _ = await world.anvil.mine(1)
    mined = await world.chain.transaction(new.txid, second.spends)
    assert mined.fate is Fate.MINED
    rival = await world.chain.transaction(old.txid, first.spends)
    assert rival.fate is Fate.CONFLICTED
    assert rival.block == mined.block
    with pytest.raises(Rejected, match="nonce too low"):
        _ = await world.chain.broadcast(old.blob)


async def foreign(world: EvmWorld, nonce: int) -> str:
    """Spend a nonce of the hot wallet by a transaction that the books know nothing of."""
    draft = await world.chain.draft([world.ether_to(5)], Funds(nonce))
    return await world.chain.broadcast(world.signed(draft).blob)


async def test_a_strangers_transaction_with_the_same_nonce_settles_ours(world: EvmWorld) -> None:
    """What another user of the key mined with our nonce is found, also many blocks later."""
    ours = await world.chain.draft([world.ether_to(ETHER)], Funds())
    candidate = world.signed(ours)
    _ = await foreign(world, 0)
    (block_hash,) = await world.anvil.mine(1)
    for _ in range(2):
        status = await world.chain.transaction(candidate.txid, ours.spends)
        assert status.fate is Fate.CONFLICTED
        assert status.block is not None
        assert status.block.hash == block_hash
        _ = await world.anvil.mine(100)


async def test_a_rival_too_old_settles_nothing(world: EvmWorld) -> None:
    """Beyond the newest 128 blocks nothing is said of who spent a nonce."""
    ours = await world.chain.draft([world.ether_to(ETHER)], Funds())
    _ = await foreign(world, 0)
    _ = await world.anvil.mine(130)
    status = await world.chain.transaction(world.signed(ours).txid, ours.spends)
    assert status.fate is Fate.UNKNOWN
    assert status.block is None


async def test_a_reorganisation_takes_a_payment_out_of_its_block(world: EvmWorld) -> None:
    """A payment in a block that the chain gave up is not mined any more, and can be mined again."""
    draft = await world.chain.draft([world.ether_to(ETHER)], Funds())
    candidate = world.signed(draft)
    _ = await world.chain.broadcast(candidate.blob)
    _ = await world.anvil.mine(1)
    await world.anvil.reorg(1)
    status = await world.chain.transaction(candidate.txid, draft.spends)
    assert status.fate in (Fate.UNKNOWN, Fate.MEMPOOL)
    assert status.block is None
    _ = await world.chain.broadcast(candidate.blob)
    _ = await world.anvil.mine(1)
    assert (await world.chain.transaction(candidate.txid, draft.spends)).fate is Fate.MINED


async def test_too_little_money_is_told_as_such(world: EvmWorld) -> None:
    """A payment beyond the balance, or whose fee is, is refused for lack of funds and nothing else."""
    for payee in (world.ether_to(11 * ETHER), world.ether_to(10 * ETHER), world.token_to(1_000_001)):
        with pytest.raises(InsufficientFunds):
            _ = await world.chain.draft([payee], Funds())
    draft = await world.chain.draft([world.ether_to(ETHER)], Funds())
    await world.anvil.rpc("anvil_setBalance", HOT, "0x1")
    with pytest.raises(InsufficientFunds):
        _ = await world.chain.broadcast(world.signed(draft).blob)


async def test_what_would_be_undone_is_not_drafted(world: EvmWorld) -> None:
    """A transfer that the contract would refuse, and a token unknown here, are refused before anything is signed."""
    for payee in (world.token_to(1, "0x" + "0" * 40), world.ether_to(1, world.token), Payee(THEIRS, "", HOT, 1)):
        with pytest.raises(Rejected) as refusal:
            _ = await world.chain.draft([payee], Funds())
        assert not isinstance(refusal.value, InsufficientFunds)


async def test_another_wallets_transaction_is_not_taken_for_ours(world: EvmWorld) -> None:
    """What somebody else signed, or another payment of ours, is no candidate of a payment."""
    draft = await world.chain.draft([world.ether_to(ETHER)], Funds())
    other = await world.chain.draft([world.ether_to(2 * ETHER)], Funds())
    keys = [BranchKeys(SEED, network_of(name, {})) for name in ("OTHER", "ETHEREUM")]
    assert keys[0].private_key(0) == keys[1].private_key(0)
    with pytest.raises(Rejected):
        _ = world.chain.assemble(draft.body, world.scheme.sign(other.body))


async def test_fees_are_not_raised_beyond_the_cap(world: EvmWorld) -> None:
    """Redrafting again and again ends at the cap, each time at least an eighth above the last."""
    draft: Draft | None = await world.chain.draft([world.ether_to(1)], Funds())
    steps = 0
    while draft is not None and steps < 100:
        before, draft, steps = draft, await world.chain.redraft(draft), steps + 1
    payment = msgspec.json.decode(before.body, type=transactions.EvmPayment)
    assert 5 < steps < 100
    assert int(payment.max_fee_per_gas) <= 500 * 10**9
