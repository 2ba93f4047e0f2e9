"""Following a chain on every store: reorganisations, lost transactions, nodes that are away, two watchers, restarts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest

from strongroom.custody.chain import Chain, Fate, TransactionStatus
from strongroom.custody.watcher import UNKNOWN_GRACE_MS, Watcher
from strongroom.ledger.accounts import Purpose
from strongroom.money import FeeFormula
from strongroom.records.deposits import DepositState
from strongroom.wallet.deposits import (
    deposit_confirmations,
    prepare_credit,
    prepare_placing,
)
from strongroom.wallet.verification import verify
from support.watching import COIN, Watched, watching
from support.world import BITCOIN, BTC, ERC20, ETH, STORES, new_store

SEEN, CONFIRMING, CREDITED, DROPPED, TOO_SMALL, REVERSED = (
    DepositState.SEEN,
    DepositState.CONFIRMING,
    DepositState.CREDITED,
    DepositState.DROPPED,
    DepositState.TOO_SMALL,
    DepositState.REVERSED,
)
ETHER = 10**18


@pytest.fixture(params=STORES)
async def house(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Watched]:
    """A house that watches its chains, on each store in turn; its books are whole at the end."""
    async with watching(new_store(request.param, tmp_path), tmp_path / "chains.sqlite") as house:
        await house.settled()
        yield house
        assert not any(house.sums().values())
        assert house.world.events.failures == []


async def test_a_reorganisation_before_the_credit_only_counts_anew(house: Watched) -> None:
    """The deposit is in another block, and needs its confirmations there."""
    alice = await house.world.user("alice")
    await house.pay(ERC20, await house.address(alice, "ETH"), ETHER)
    await house.mine(ERC20, 2)
    before = house.deposits()[0]
    await house.reorg(ERC20, 2)
    [after] = house.deposits()
    assert (after.ref, after.state, after.seen_ms) == (before.ref, CONFIRMING, before.seen_ms)
    assert after.block != before.block
    assert deposit_confirmations(house.context.reads, after) == (1, 3)
    await house.mine(ERC20, 2)
    assert house.world.available(alice, ETH) == COIN
    assert len(house.deposit_lines(alice, ETH)) == 1


async def test_a_reorganisation_past_the_credit_takes_it_back_and_credits_it_again(house: Watched) -> None:
    """The books are as they were before the credit, fee and dust too, until it is deep enough in the new chain."""
    await house.change_offer(ETH, deposit_fee=FeeFormula(extra=100))
    alice = await house.world.user("alice")
    await house.pay(ERC20, await house.address(alice, "ETH"), ETHER + 123)
    await house.settled()
    before = sorted(account for account in house.context.reads.balances() if account[1])
    await house.mine(ERC20, 3)
    assert house.world.available(alice, ETH) == COIN - 100
    await house.reorg(ERC20, 3)
    assert house.states() == [CONFIRMING]
    assert sorted(account for account in house.context.reads.balances() if account[1]) == before
    assert house.held(ERC20, ETH) == 0
    await house.mine(ERC20, 3)
    assert house.states() == [CREDITED]
    assert house.world.available(alice, ETH) == COIN - 100
    assert house.held(ERC20, ETH) == ETHER + 123
    assert len(house.deposit_lines(alice, ETH)) == 1


async def test_what_was_spent_before_a_reorganisation_is_owed_and_repaid_by_the_next_credit(house: Watched) -> None:
    """What is left is taken, the rest is a debt of that customer alone, and the money that comes next repays it."""
    alice, bob = await house.world.user("alice"), await house.world.user("bob")
    given = await house.address(alice, "BTC")
    txid = await house.pay(BITCOIN, given, 10 * COIN)
    await house.mine(BITCOIN, 2)
    await house.world.transfer(house.world.guard(alice), "BTC", "7", "bob")
    await house.reorg(BITCOIN, 2, txid)
    assert house.states() == [DROPPED]
    assert (house.world.available(alice, BTC), house.debt(alice, BTC)) == (0, 7 * COIN)
    assert (house.world.available(bob, BTC), house.owned(BITCOIN, BTC)) == (7 * COIN, 0)
    await house.pay(BITCOIN, given, 8 * COIN)
    await house.mine(BITCOIN, 2)
    assert (house.world.available(alice, BTC), house.debt(alice, BTC)) == (COIN, 0)
    assert house.owned(BITCOIN, BTC) == 8 * COIN


async def test_a_reorganisation_that_takes_more_than_is_left_stops_nobody(house: Watched) -> None:
    """Coins that left the house again are taken back with their deposit: the books bear it, and others are credited."""
    alice, bob = await house.world.user("alice"), await house.world.user("bob")
    txid = await house.pay(BITCOIN, await house.address(alice, "BTC"), 10 * COIN)
    await house.mine(BITCOIN, 2)
    await house.leave(alice, BTC, BITCOIN, 9 * COIN)
    assert (house.world.available(alice, BTC), house.owned(BITCOIN, BTC)) == (COIN, COIN)
    await house.reorg(BITCOIN, 2, txid)
    assert (house.states(), house.debt(alice, BTC), house.owned(BITCOIN, BTC)) == ([DROPPED], 9 * COIN, 0)
    assert house.of_house(Purpose.DUST, BTC) == 9 * COIN
    await house.pay(BITCOIN, await house.address(bob, "BTC"), 20 * COIN)
    await house.mine(BITCOIN, 2)
    assert (house.world.available(bob, BTC), house.owned(BITCOIN, BTC)) == (20 * COIN, 11 * COIN)
    assert house.of_house(Purpose.DUST, BTC) == 0
    assert not verify(house.context.reads).findings


async def test_a_deep_reorganisation_that_spares_every_transaction_changes_nothing(house: Watched) -> None:
    """Deposits are taken back and credited again, though some of their coins have left meanwhile."""
    alice = await house.world.user("alice")
    await house.pay(ERC20, await house.address(alice, "ETH"), 10 * ETHER + 7)
    await house.mine(ERC20, 3)
    await house.leave(alice, ETH, ERC20, 9 * COIN)
    before = sorted((account, after) for account, after, _ in house.context.reads.balances())
    await house.reorg(ERC20, 3)
    assert house.owned(ERC20, ETH) == 0
    await house.mine(ERC20, 3)
    owned_again = {account: after for account, after, _ in house.context.reads.balances() if after}
    assert owned_again == dict(entry for entry in before if entry[1])


async def test_a_shallow_reorganisation_leaves_credited_deposits_alone(house: Watched) -> None:
    """Only what was in the blocks that are gone is taken back."""
    alice = await house.world.user("alice")
    await house.pay(BITCOIN, await house.address(alice, "BTC"), COIN)
    await house.mine(BITCOIN, 3)
    credited = house.deposits()
    await house.reorg(BITCOIN, 2)
    assert house.deposits() == credited
    assert house.world.available(alice, BTC) == COIN


async def test_a_deposit_whose_transaction_is_gone_is_dropped(house: Watched) -> None:
    """Something else spent what it would have spent, in the mempool or in a reorganisation."""
    alice = await house.world.user("alice")
    given = await house.address(alice, "BTC")
    first = await house.pay(BITCOIN, given, COIN)
    await house.settled()
    await house.node.void("BITCOIN", first)
    await house.settled()
    assert house.states() == [DROPPED]
    second = await house.pay(BITCOIN, given, COIN)
    await house.mine(BITCOIN)
    await house.reorg(BITCOIN, 1, second)
    assert house.states() == [DROPPED, DROPPED]
    await house.mine(BITCOIN, 5)
    assert house.world.available(alice, BTC) == 0


async def test_a_node_that_is_away_is_told_and_caught_up_with(house: Watched) -> None:
    """The status says what is wrong while it lasts, and the watcher goes on by itself."""
    alice = await house.world.user("alice")
    given = await house.address(alice, "BTC")
    watcher = house.watchers[BITCOIN]
    house.node.pause("BITCOIN")
    await house.pay(BITCOIN, given, COIN)
    await house.node.mine("BITCOIN", 2)
    assert not await watcher.try_round()
    assert "does not answer" in watcher.status.error
    house.node.resume("BITCOIN")
    await house.settled()
    assert (watcher.status.error, watcher.status.height) == ("", 2)
    assert house.world.available(alice, BTC) == COIN


async def test_a_credit_before_its_time_is_not_carried_out(house: Watched) -> None:
    """The decision counts the confirmations itself, in the block that the books know at that height."""
    alice = await house.world.user("alice")
    await house.pay(BITCOIN, await house.address(alice, "BTC"), COIN)
    await house.mine(BITCOIN)
    [deposit] = house.deposits()
    assert (await house.context.submit(prepare_credit(deposit))).stale
    await house.mine(BITCOIN)
    [deposit] = house.deposits()
    assert deposit.state == CREDITED
    assert (await house.context.submit(prepare_credit(deposit))).stale
    assert house.world.available(alice, BTC) == COIN


async def test_two_watchers_of_one_network_book_everything_once(house: Watched) -> None:
    """Whoever is second finds it done."""
    alice = await house.world.user("alice")
    given = await house.address(alice, "BTC")
    second = house.watcher(BITCOIN)
    running = asyncio.create_task(second.run())
    for round_ in range(4):
        for _ in range(3):
            await house.pay(BITCOIN, given, COIN)
        await house.mine(BITCOIN, 2)
        if round_ == 1:
            await house.reorg(BITCOIN, 3)
    await house.mine(BITCOIN, 2)
    await second.settled()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert house.states() == [CREDITED] * 12
    assert house.world.available(alice, BTC) == house.owned(BITCOIN, BTC) == 12 * COIN


async def test_a_restart_in_the_middle_credits_once(tmp_path: Path) -> None:
    """A deposit seen before, mined while everything was down, and credited before or after, is credited once."""
    for blocks in (0, 1, 0, 2, 1):
        async with watching(new_store("sqlite", tmp_path), tmp_path / "chains.sqlite") as house:
            await house.settled()
            if not house.deposits():
                alice = await house.world.user("alice")
                await house.pay(BITCOIN, await house.address(alice, "BTC"), COIN)
                await house.settled()
            if blocks:
                await house.mine(BITCOIN, blocks)
    async with watching(new_store("sqlite", tmp_path), tmp_path / "chains.sqlite") as house:
        await house.settled()
        assert (house.states(), house.world.available(alice, BTC)) == ([CREDITED], COIN)


async def test_a_reorganisation_during_a_restart_is_found_out(tmp_path: Path) -> None:
    """The chain took back what was credited while nobody looked."""
    async with watching(new_store("sqlite", tmp_path), tmp_path / "chains.sqlite") as house:
        alice = await house.world.user("alice")
        txid = await house.pay(BITCOIN, await house.address(alice, "BTC"), COIN)
        await house.mine(BITCOIN, 3)
        assert house.states() == [CREDITED]
    async with watching(new_store("sqlite", tmp_path), tmp_path / "chains.sqlite", run=False) as house:
        await house.node.reorg("BITCOIN", 3, [txid])
        await house.watchers[BITCOIN].go_round()
        assert (house.states(), house.world.available(alice, BTC)) == ([DROPPED], 0)


async def test_books_beside_another_chain_are_left_alone(tmp_path: Path) -> None:
    """A node that has none of the known blocks stops the watcher: nothing is taken back, and the status tells why."""
    async with watching(new_store("sqlite", tmp_path), tmp_path / "chains.sqlite") as house:
        alice = await house.world.user("alice")
        await house.pay(BITCOIN, await house.address(alice, "BTC"), COIN)
        await house.mine(BITCOIN, 2)
    async with watching(new_store("sqlite", tmp_path), tmp_path / "other.sqlite", run=False) as house:
        await house.node.mine("BITCOIN", 5)
        assert not await house.watchers[BITCOIN].try_round()
        assert "on the node's chain" in house.watchers[BITCOIN].status.error
        assert (house.states(), house.world.available(alice, BTC)) == ([CREDITED], COIN)


async def test_a_deposit_put_into_a_wrong_block_is_not_credited_there(house: Watched) -> None:
    """A block that the chain does not have confirms nothing; the deposit goes back to the block that holds it."""
    alice = await house.world.user("alice")
    await house.pay(BITCOIN, await house.address(alice, "BTC"), COIN)
    await house.mine(BITCOIN)
    [right] = house.deposits()
    await house.context.submit(prepare_placing(right, 1, "no such block"))
    await house.mine(BITCOIN)
    assert house.deposits() == [right]
    assert house.world.available(alice, BTC) == 0
    await house.mine(BITCOIN)
    assert house.world.available(alice, BTC) == COIN


async def test_a_forgotten_transaction_is_dropped_after_a_while_and_credited_if_mined(
    house: Watched,
) -> None:
    """A mempool forgets; only time tells, and what a block holds counts whatever was believed of it."""
    alice = await house.world.user("alice")
    txid = await house.pay(BITCOIN, await house.address(alice, "BTC"), COIN)
    await house.settled()
    house.node._store._run("UPDATE tx SET state = 'void' WHERE txid = ?", txid)
    unknown = TransactionStatus(Fate.UNKNOWN)
    watcher = forgetful(house, unknown)
    await watcher.go_round()
    assert house.states() == [SEEN]
    house.world.clock.at_ms += UNKNOWN_GRACE_MS + 1
    await watcher.go_round()
    assert house.states() == [DROPPED]
    house.node._store._run("UPDATE tx SET state = 'waiting' WHERE txid = ?", txid)
    await house.mine(BITCOIN, 2)
    assert (house.states(), house.world.available(alice, BTC)) == ([CREDITED], COIN)


async def test_a_rival_in_a_block_ends_a_deposit_that_waits(house: Watched) -> None:
    """Nothing is booked of it, and it counts all the same should a block have it after all."""
    alice = await house.world.user("alice")
    txid = await house.pay(BITCOIN, await house.address(alice, "BTC"), COIN)
    await house.settled()
    house.node._store._run("UPDATE tx SET state = 'replaced' WHERE txid = ?", txid)
    await house.mine(BITCOIN)
    watcher = forgetful(house, TransactionStatus(Fate.CONFLICTED, await house.node.chain("BITCOIN").tip()))
    await watcher.go_round()
    assert house.states() == [DROPPED]
    house.node._store._run("UPDATE tx SET state = 'waiting' WHERE txid = ?", txid)
    await house.mine(BITCOIN, 2)
    assert (house.states(), house.world.available(alice, BTC)) == ([CREDITED], COIN)


async def test_a_rival_ends_a_deposit_that_was_booked_only_once_it_is_buried(tmp_path: Path) -> None:
    """A block of a rival that may still be taken back decides nothing about what somebody may owe."""
    async with watching(new_store("memory", tmp_path), tmp_path / "chains.sqlite", run=False) as house:
        alice = await house.world.user("alice")
        txid = await house.pay(BITCOIN, await house.address(alice, "BTC"), COIN)
        await house.node.mine("BITCOIN", 2)
        await house.watcher(BITCOIN).go_round()
        assert house.states() == [CREDITED]
        await house.node.reorg("BITCOIN", 2, [txid])
        watcher = forgetful(house, TransactionStatus(Fate.CONFLICTED, await house.node.chain("BITCOIN").tip()))
        await watcher.go_round()
        assert house.states() == [REVERSED]
        await house.node.mine("BITCOIN")
        await watcher.go_round()
        assert house.states() == [DROPPED]


async def test_what_a_waiting_deposit_spends_is_asked_while_it_waits(house: Watched) -> None:
    """By that the node finds the rival that was mined in its place: asked later it knows nothing of it."""
    alice = await house.world.user("alice")
    txid = await house.pay(BITCOIN, await house.address(alice, "BTC"), COIN)
    await house.settled()
    chain, asked = house.node.chain("BITCOIN"), list[Any]()

    class Coins:
        def __getattr__(self, name: str) -> Any:
            return getattr(chain, name)

        async def inputs_of(self, txid: str) -> list[str]:
            return ["a:0"]

        async def transaction(self, txid: str, spends: Any = ()) -> TransactionStatus:
            asked.append(spends)
            return TransactionStatus(Fate.CONFLICTED, await chain.tip())

    watcher = Watcher(house.context, cast(Chain, Coins()), BITCOIN)
    await watcher.go_round()
    assert (house.states(), asked) == ([SEEN], [])
    house.node._store._run("UPDATE tx SET state = 'void' WHERE txid = ?", txid)
    await watcher.go_round()
    assert (house.states(), asked) == ([DROPPED], [["a:0"]])


def forgetful(house: Watched, status: TransactionStatus) -> Watcher:
    """Return a watcher whose node says `status` of every transaction."""
    chain = house.node.chain("BITCOIN")

    class Forgetful:
        def __getattr__(self, name: str) -> Any:
            return getattr(chain, name)

        async def transaction(self, txid: str, spends: Any = ()) -> TransactionStatus:
            return status

    return Watcher(house.context, cast(Chain, Forgetful()), BITCOIN)


async def test_the_first_start_may_begin_at_the_tip(tmp_path: Path) -> None:
    """On a long chain nothing before the first start is of interest."""
    async with watching(new_store("memory", tmp_path), tmp_path / "chains.sqlite", run=False) as house:
        alice = await house.world.user("alice")
        given = await house.address(alice, "BTC")
        await house.pay(BITCOIN, given, 1)
        await house.node.mine("BITCOIN", 3)
        await house.pay(BITCOIN, given, 2)
        watcher = Watcher(house.context, house.node.chain("BITCOIN"), BITCOIN, start=None)
        await watcher.go_round()
        await house.node.mine("BITCOIN", 2)
        await watcher.go_round()
        assert house.world.available(alice, BTC) == 2
        await house.node.reorg("BITCOIN", 2)
        await watcher.go_round()
        assert house.states() == [CONFIRMING]


async def test_nobody_waits_for_a_round_that_ended_while_the_node_was_asked(
    house: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits for the watcher goes on at once when it has worked through everything before the node answers."""
    watcher, chain = house.watchers[BITCOIN], house.node.chain("BITCOIN")
    asked, answer = asyncio.current_task(), chain.wait_change

    async def slow_answer(seen: int, timeout_s: float) -> int:
        if asyncio.current_task() is asked:
            ended = watcher._round_ended
            _ = await house.node.mine("BITCOIN")
            _ = await ended.wait()
        return await answer(seen, timeout_s)

    monkeypatch.setattr(chain, "wait_change", slow_answer)
    async with asyncio.timeout(60):
        await watcher.settled()
    assert watcher.status.height == chain.newest().height
