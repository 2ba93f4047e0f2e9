"""Deposits on every store, from a simulated chain: seen early, credited once, taken back if the chain takes them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from strongroom.custody.chain import Payee
from strongroom.custody.families import NETWORKS
from strongroom.custody.networks.simulated_store import KnownTransaction, State
from strongroom.custody.signer import LocalSigner
from strongroom.engine.command import NOBODY, Command, Decision, View
from strongroom.ledger.accounts import Purpose
from strongroom.ledger.accounts import house as account_of
from strongroom.ledger.entries import Posting
from strongroom.money import FeeFormula
from strongroom.records.addresses import Address, AddressBook
from strongroom.records.deposits import DepositState
from strongroom.records.heads import head_of
from strongroom.records.history import Note
from strongroom.records.kept import Key
from strongroom.wallet.addresses import GivenAddress, house_address, prepare_deletion
from strongroom.wallet.context import perform, perform_own
from strongroom.wallet.deposits import (
    deposit_confirmations,
    internal_deposit,
    internal_needs,
)
from strongroom.wallet.users import MarkUser
from support.watching import COIN, RIPPLE, XRP, Watched, watching
from support.world import BITCOIN, BTC, ERC20, ETH, STORES, USDT, new_store

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


async def test_a_deposit_is_seen_counted_and_credited_once(house: Watched) -> None:
    """It shows at once, its confirmations count up with each block, and after the last one the money is there."""
    alice = await house.world.user("alice")
    await house.pay(BITCOIN, await house.address(alice, "BTC"), 150_000_000)
    await house.settled()
    [deposit] = house.deposits()
    assert (deposit.owner, deposit.amount, deposit.net, deposit.state) == (alice, 150_000_000, 150_000_000, SEEN)
    assert deposit_confirmations(house.context.reads, deposit) == (0, 2)
    assert house.world.available(alice, BTC) == 0
    await house.mine(BITCOIN)
    [deposit] = house.deposits()
    assert (deposit.state, deposit_confirmations(house.context.reads, deposit)) == (CONFIRMING, (1, 2))
    assert house.world.available(alice, BTC) == 0
    await house.mine(BITCOIN)
    [deposit] = house.deposits()
    assert (deposit.state, deposit_confirmations(house.context.reads, deposit)) == (CREDITED, (2, 2))
    assert house.world.available(alice, BTC) == 150_000_000
    await house.mine(BITCOIN, 5)
    assert house.world.available(alice, BTC) == house.owned(BITCOIN, BTC) == 150_000_000
    [line] = house.deposit_lines(alice, BTC)
    assert (line.ref, line.amount, line.net, line.fees, line.network) == (
        deposit.ref,
        150_000_000,
        150_000_000,
        0,
        BITCOIN,
    )


async def test_a_deposit_that_was_never_seen_waiting_is_credited_as_well(house: Watched) -> None:
    """Blocks that were mined while nobody looked are caught up with, many at a time."""
    alice = await house.world.user("alice")
    given = await house.address(alice, "BTC")
    house.node.pause("BITCOIN")
    for _ in range(3):
        await house.pay(BITCOIN, given, 7)
        await house.node.mine("BITCOIN", 60)
    house.node.resume("BITCOIN")
    await house.settled()
    assert house.states() == [CREDITED] * 3
    assert house.world.available(alice, BTC) == 21


async def test_each_payment_to_an_address_is_a_deposit_of_its_own(house: Watched) -> None:
    """Two equal payments to one address are two credits, and each its owner's."""
    alice, bob = await house.world.user("alice"), await house.world.user("bob")
    to_alice, to_bob = await house.address(alice, "XRP"), await house.address(bob, "XRP")
    for to in (to_alice, to_alice, to_bob):
        await house.pay(RIPPLE, to, 5_000_000)
    await house.settled()
    await house.mine(RIPPLE)
    assert house.world.available(alice, XRP) == 10 * COIN
    assert house.world.available(bob, XRP) == 5 * COIN


async def test_two_outputs_of_one_transaction_are_two_deposits(house: Watched) -> None:
    """What names a deposit is the output, not the transaction."""
    alice = await house.world.user("alice")
    first, second = await house.address(alice, "BTC"), await house.address(alice, "BTC")
    payees = [Payee(first.address, "", "", 3), Payee(second.address, "", "", 4), Payee(first.address, "", "", 5)]
    house.node._store.add_transaction("BITCOIN", KnownTransaction("ab" * 32, None, 1, State.WAITING, None), payees)
    await house.mine(BITCOIN, 2)
    assert [(deposit.position, deposit.amount) for deposit in house.deposits()] == [(0, 3), (1, 4), (2, 5)]
    assert house.world.available(alice, BTC) == 12


async def test_what_our_own_keys_pay_is_never_a_deposit(house: Watched) -> None:
    """A payment of the hot wallet to an address of a customer was booked where it was decided."""
    alice = await house.world.user("alice")
    given = await house.address(alice, "BTC")
    await house.pay(BITCOIN, given, 10 * COIN)
    await house.mine(BITCOIN, 2)
    signer, chain = LocalSigner(bytes(range(64)), NETWORKS.values()), house.node.chain("BITCOIN")
    house.node.register("BITCOIN", await signer.public_key("BITCOIN"))
    body = chain.draft_with([Payee(given.address, "", "", COIN)], 0, 1000).body
    await chain.broadcast(chain.assemble(body, await signer.sign("BITCOIN", 0, body)).blob)
    await house.settled()
    await house.mine(BITCOIN, 3)
    assert house.states() == [CREDITED]
    assert house.told == []


async def test_fee_and_minimum_are_those_of_the_first_sight(house: Watched) -> None:
    """The formula's fee is charged, and a change of the settings meanwhile does not touch what was seen."""
    await house.change_offer(BTC, deposit_fee=FeeFormula(extra=300, extra_rate_e8=1_000_000), deposit_minimum=5_000)
    alice = await house.world.user("alice")
    await house.pay(BITCOIN, await house.address(alice, "BTC"), 10_001)
    await house.settled()
    await house.change_offer(BTC, deposit_fee=FeeFormula(extra=9_000), deposit_minimum=50_000)
    await house.mine(BITCOIN, 2)
    fee = 300 + 101
    assert house.world.available(alice, BTC) == 10_001 - fee
    assert house.of_house(Purpose.FEES, BTC) == fee
    [line] = house.deposit_lines(alice, BTC)
    assert (line.amount, line.net, line.fees) == (10_001, 10_001 - fee, fee)


@pytest.mark.parametrize("amount", [4_999, 5_000])
async def test_too_small_a_deposit_credits_nobody_and_is_not_lost(house: Watched, amount: int) -> None:
    """Below the minimum, or eaten up by its fee: the coins are in suspense, and the user has no part of them."""
    await house.change_offer(BTC, deposit_minimum=5_000, deposit_fee=FeeFormula(minimum=5_000))
    alice = await house.world.user("alice")
    await house.pay(BITCOIN, await house.address(alice, "BTC"), amount)
    await house.settled()
    await house.mine(BITCOIN, 2)
    assert house.states() == [TOO_SMALL]
    assert house.world.available(alice, BTC) == 0
    assert house.of_house(Purpose.SUSPENSE, BTC) == house.owned(BITCOIN, BTC) == amount
    await house.reorg(BITCOIN, 2)
    assert house.states() == [CONFIRMING]
    assert house.of_house(Purpose.SUSPENSE, BTC) == house.owned(BITCOIN, BTC) == 0
    await house.mine(BITCOIN)
    assert house.of_house(Purpose.SUSPENSE, BTC) == amount


async def test_the_odd_wei_are_the_houses_dust(house: Watched) -> None:
    """Each deposit is credited by its floor; the omnibus is the floor of all of them, and dust is the difference."""
    alice = await house.world.user("alice")
    given = await house.address(alice, "ETH")
    for _ in range(3):
        await house.pay(ERC20, given, ETHER + 9_999_999_999)
    await house.settled()
    await house.mine(ERC20, 3)
    assert house.held(ERC20, ETH) == 3 * ETHER + 29_999_999_997
    assert house.world.available(alice, ETH) == 3 * COIN
    assert house.owned(ERC20, ETH) == 3 * COIN + 2
    assert house.of_house(Purpose.DUST, ETH) == 2


async def test_less_than_a_unit_of_the_ledger_leaves_no_line(house: Watched) -> None:
    """Five wei cannot be told in the history; they are counted all the same."""
    alice = await house.world.user("alice")
    await house.pay(ERC20, await house.address(alice, "ETH"), 5)
    await house.settled()
    await house.mine(ERC20, 3)
    assert (house.states(), house.held(ERC20, ETH), house.deposit_lines(alice, ETH)) == ([TOO_SMALL], 5, [])


async def test_another_asset_of_the_network_is_credited_in_that_asset(house: Watched) -> None:
    """A token sent to an ether address is the owner's token; the address counts as paid for what it was given for."""
    alice = await house.world.user("alice")
    given = await house.address(alice, "ETH")
    await house.pay(ERC20, given, 2_500_000, "USDT")
    await house.settled()
    await house.mine(ERC20, 3)
    assert (house.world.available(alice, USDT), house.world.available(alice, ETH)) == (250_000_000, 0)
    assert house.context.reads.row(AddressBook, alice, ETH, ERC20).unpaid == ()


async def test_a_deleted_address_of_a_frozen_or_inactive_owner_still_credits(house: Watched) -> None:
    """Money that arrives is its owner's, whatever has become of the address or the account."""
    alice = await house.world.user("alice")
    given = await house.address(alice, "BTC")
    guard = house.world.guard(alice)
    deletion = prepare_deletion(house.context, guard, "BTC", None, given.address)
    assert (await perform(house.context, guard, lambda: deletion)).refusal is None
    await perform_own(house.context, lambda: MarkUser(NOBODY, alice, frozen=True, active=False))
    await house.change_offer(BTC, deposits=False)
    await house.pay(BITCOIN, given, COIN)
    await house.settled()
    await house.mine(BITCOIN, 2)
    assert house.world.available(alice, BTC) == COIN


async def test_what_reaches_the_houses_own_address_is_inventory(house: Watched) -> None:
    """It waits for its confirmations as any deposit does, and is in nobody's history."""
    own = house_address(house.context.reads, ERC20)
    await house.pay(ERC20, GivenAddress(own.address, own.tag, 0), 5 * ETHER)
    await house.settled()
    await house.mine(ERC20, 2)
    assert house.of_house(Purpose.INVENTORY, ETH) == 0
    await house.mine(ERC20)
    assert house.of_house(Purpose.INVENTORY, ETH) == house.owned(ERC20, ETH) == 5 * COIN
    assert house.deposit_lines(0, ETH) == []
    await house.reorg(ERC20, 3)
    assert house.of_house(Purpose.INVENTORY, ETH) == 0
    await house.mine(ERC20, 3)
    assert house.of_house(Purpose.INVENTORY, ETH) == 5 * COIN


async def test_what_belongs_to_nobody_is_told_once_and_booked_to_nobody(house: Watched) -> None:
    """An address of the pool, a tag that nobody has, a token that is not offered: reported, not dropped in silence."""
    alice = await house.world.user("alice")
    pooled = house.pools.take(BITCOIN)
    assert pooled
    given, tagged = await house.address(alice, "ETH"), await house.address(alice, "XRP")
    await house.pay(BITCOIN, GivenAddress(pooled.address, "", 0), COIN)
    await house.pay(RIPPLE, GivenAddress(tagged.address, "77", 0), COIN)
    await house.pay(ERC20, given, COIN, "USDC")
    await house.pay(ERC20, given, ETHER * 10**12)
    for network in (BITCOIN, RIPPLE, ERC20):
        await house.mine(network, 4)
    assert sorted(why for why, _ in house.told) == [
        "the address is given to nobody",
        "the amount is beyond the ledger's range",
        "the tag is nobody's",
        "the token is unknown",
    ]
    assert {number: watcher.unbooked for number, watcher in house.watchers.items()} == {
        BITCOIN: 1,
        RIPPLE: 1,
        ERC20: 2,
    }
    assert house.deposits() == []


class Receive(Command, frozen=True):
    """Let money of the house reach a customer's address inside the house, as a withdrawal to it does."""

    to: Address
    asset: int
    amount: int
    ref: int

    def needs(self) -> list[Key]:
        """The deposit's needs, and where the money comes from."""
        return [*internal_needs(self.to, self.asset, self.ref), head_of(account_of(Purpose.EQUITY, self.asset))]

    def decide(self, view: View, now_ms: int) -> Decision:
        """Move the money."""
        postings, rows, line = internal_deposit(view, self.to, self.asset, self.amount, self.ref, now_ms)
        postings.append(Posting(account_of(Purpose.EQUITY, self.asset), -self.amount))
        return Decision(postings=postings, rows=rows, lines=[line])


async def test_an_internal_deposit_is_credited_at_once_without_fee_or_minimum(house: Watched) -> None:
    """It repays a debt as any credit does, marks the address as paid, and its line says internal."""
    await house.change_offer(BTC, deposit_minimum=COIN, deposit_fee=FeeFormula(extra=1_000))
    alice = await house.world.user("alice")
    given = await house.address(alice, "BTC")
    to = house.context.reads.row(Address, BITCOIN, given.address, given.tag)
    await perform_own(house.context, lambda: Receive(NOBODY, to, BTC, 70, house.context.ids.ref()))
    assert house.world.available(alice, BTC) == 70
    [deposit] = house.deposits()
    assert (deposit.state, deposit.net, deposit.fee, deposit.internal) == (CREDITED, 70, 0, True)
    assert deposit_confirmations(house.context.reads, deposit) == (2, 2)
    [line] = house.deposit_lines(alice, BTC)
    assert (line.amount, line.net, line.fees, line.note) == (70, 70, 0, Note.INTERNAL)
    assert house.context.reads.row(AddressBook, alice, BTC, BITCOIN).unpaid == ()
    await house.mine(BITCOIN, 3)
    assert house.deposits() == [deposit]
