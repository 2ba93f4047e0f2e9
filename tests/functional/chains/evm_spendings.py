"""What the hot wallet has spent, found on a real EVM chain by whoever does not know of it."""

from __future__ import annotations

from pathlib import Path

from strongroom.custody.chain import Funds, Output, Spending
from strongroom.wallet.payments import nonce_text
from support.evm import HOT, OURS, THEIRS, evm_world


def hot_only(address: str) -> int | None:
    """Know the hot wallet's address, and no other."""
    return 0 if address == HOT else None


def both(address: str) -> int | None:
    """Know the hot wallet's address and that of a customer."""
    return {HOT: 0, OURS: 1}.get(address)


async def test_the_hot_wallets_transactions_are_found_with_nonce_and_payees(tmp_path: Path) -> None:
    """A block tells what of ours was spent and whom it paid, coin and token, and nothing of what strangers spent."""
    async with evm_world(tmp_path) as world:
        await world.fund()
        drafts = [
            await world.chain.draft([payee], Funds(nonce=nonce))
            for nonce, payee in enumerate((world.ether_to(5), world.token_to(7)))
        ]
        txids = [await world.chain.broadcast(world.signed(draft).blob) for draft in drafts]
        _ = await world.anvil.pay(OURS, 9)
        [block] = await world.anvil.mine(1)
        assert await world.chain.spends_in(block, hot_only) == [
            Spending(txids[0], (nonce_text(0),), (Output(txids[0], 0, THEIRS, "", "", 5, ours=True),)),
            Spending(txids[1], (nonce_text(1),), (Output(txids[1], 1, THEIRS, "", world.token, 7, ours=True),)),
        ]
        assert await world.chain.spends_in("0x" + "00" * 32, hot_only) == []


async def test_what_a_deposit_address_has_spent_is_found_as_well(tmp_path: Path) -> None:
    """A sweep is told with the nonce of the address that made it, and so is what waits for its block."""
    async with evm_world(tmp_path) as world:
        await world.anvil.pay(OURS, 10**18)
        _ = await world.anvil.mine(1)
        move = await world.chain.sweep(1, "", 10**18)
        txid = await world.chain.broadcast(world.signed(move.draft).blob)
        assert (await world.chain.waiting(both), await world.chain.waiting(hot_only)) == ([txid], [])
        [block] = await world.anvil.mine(1)
        [spending] = await world.chain.spends_in(block, both)
        assert (spending.txid, spending.spends) == (txid, (nonce_text(0, 1),))
        assert [(it.address, it.amount) for it in spending.outputs] == [(HOT, move.units)]
        assert await world.chain.spends_in(block, hot_only) == []
        assert await world.chain.waiting(both) == []
