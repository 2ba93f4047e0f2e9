"""Requests to withdraw at their edges: what is decided by the moment, and bounds to the unit."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from strongroom.clock import DAY_MS
from strongroom.custody.derivation import Branch, account_xpubs
from strongroom.custody.families import NETWORKS
from strongroom.engine.command import NOBODY
from strongroom.engine.settle import Outcome
from strongroom.engine.writer import Writer
from strongroom.errors import UNAVAILABLE, Refused
from strongroom.money import MAX_UNITS, format_amount
from strongroom.records.addresses import Address
from strongroom.records.deposits import Deposit, DepositState
from strongroom.records.history import LineType, Thread
from strongroom.records.settings import AssetSettings, NetworkSettings, OfferSettings, Settings
from strongroom.records.withdrawals import Payment, Spent, Withdrawal, WithdrawalState
from strongroom.store.memory import MemoryStore
from strongroom.wallet.addresses import AddressRule, GiveAddress, prepare_stock
from strongroom.wallet.approvals import expire_due
from strongroom.wallet.context import Context
from strongroom.wallet.payments import next_nonce, outgoing
from strongroom.wallet.settlements import prepare_finish
from strongroom.wallet.withdrawals import RequestWithdrawal
from support.effects import Do
from support.paying import COIN, OURS, RIPPLE, THEIRS, TODAY, XRP, Payouts, paying
from support.world import BITCOIN, BTC, ERC20, ETH, NOW_MS, USDT


@pytest.fixture
async def payouts(tmp_path: Path) -> AsyncIterator[Payouts]:
    """A house in memory where alice has ten bitcoin."""
    async with paying(MemoryStore(), tmp_path) as payouts:
        await payouts.endow(payouts.alice, BTC, BITCOIN, 10 * COIN)
        yield payouts


def told(outcome: Outcome) -> str:
    """Return what a refusal says, empty for none."""
    return outcome.refusal.message.removeprefix("BADREQUEST: ") if outcome.refusal else ""


async def is_stale(payouts: Payouts, command: RequestWithdrawal) -> bool:
    """Submit a request, and say whether it has to be prepared again; then nothing is held."""
    outcome = await payouts.world.context.submit(command)
    assert outcome.stale is (payouts.held(payouts.alice) == 0)
    return outcome.stale


async def test_a_request_belongs_to_the_day_it_is_decided_on(payouts: Payouts) -> None:
    """One that waited over midnight is prepared again, so that it counts for the right day's limit."""
    command = payouts.prepared(payouts.world.guard(payouts.alice), "1")
    payouts.world.clock.at_ms += DAY_MS
    assert await is_stale(payouts, msgspec.structs.replace(command, guard=payouts.world.guard(payouts.alice)))
    assert not await is_stale(payouts, payouts.prepared(payouts.world.guard(payouts.alice), "1"))


async def test_an_address_that_became_a_customers_is_looked_at_again(payouts: Payouts) -> None:
    """What was a stranger's when it was asked for is paid inside the house once it is bob's."""
    branch = Branch(NETWORKS["BITCOIN"], account_xpubs(bytes(range(64)), NETWORKS.values())["BITCOIN"])
    [place] = branch.addresses(8, 1)
    command = payouts.prepared(payouts.world.guard(payouts.alice), "1", place.address)
    assert command.to.owner == 0
    await payouts.do(lambda: prepare_stock(BITCOIN, 8, [place]))
    rule = AddressRule.TEN_UNUSED
    await payouts.do(lambda: GiveAddress(NOBODY, payouts.bob, BTC, BITCOIN, 8, place.address, place.tag, rule))
    assert await is_stale(payouts, command)


async def test_a_tag_of_the_houses_own_address_pays_nobody(payouts: Payouts) -> None:
    """A request that was prepared before the house had the address is turned back when it is decided."""
    await payouts.endow(payouts.alice, XRP, RIPPLE, 10 * COIN)
    guard = payouts.world.guard(payouts.alice)
    command = payouts.prepared(guard, "5", THEIRS[RIPPLE].address, asset="XRP", tag="7")
    ours = Address(RIPPLE, OURS[RIPPLE][0].address, "7")
    assert (await payouts.world.context.submit(msgspec.structs.replace(command, to=ours))).stale
    assert payouts.held(payouts.alice, XRP) == 0


async def test_a_deposits_reference_that_is_taken_is_not_given_again(payouts: Payouts) -> None:
    """A withdrawal inside the house never overwrites an earlier deposit."""
    place = await payouts.give(payouts.bob, BTC, BITCOIN, 3)
    first = await payouts.withdraw("1", place.address)
    kept = payouts.reads.row(Deposit, first.deposit)
    command = payouts.prepared(payouts.world.guard(payouts.alice), "2", place.address)
    assert (await payouts.world.context.submit(msgspec.structs.replace(command, in_ref=first.deposit))).stale
    assert payouts.reads.row(Deposit, first.deposit) == kept


async def test_the_least_that_can_be_withdrawn_is_the_minimum(payouts: Payouts) -> None:
    """The minimum itself is accepted, and a unit that is left after the fee is enough."""
    assert (await payouts.withdraw("0.00001")).to_address == 500
    await payouts.offer(BTC, withdraw_minimum=0)
    assert (await payouts.withdraw("0.00000501")).to_address == 1
    assert told(await payouts.ask("0.000005")) == "Invalid withdraw amount"


async def test_amount_and_fee_together_stay_below_the_ledgers_range(payouts: Payouts) -> None:
    """Up to 2^62 - 1 units it is a matter of the balance, from there on of the range."""
    most = MAX_UNITS - 1 - 500
    assert told(await payouts.ask(format_amount(most, 8), include_fee=False)) == "Insufficient wallet balance"
    assert told(await payouts.ask(format_amount(most + 1, 8), include_fee=False)) == "amount is too large"


async def test_a_limit_of_one_unit_is_a_limit(payouts: Payouts) -> None:
    """Only a limit of zero is none."""
    await payouts.offer(BTC, daily_limit=1)
    assert told(await payouts.ask("1")) == "Withdraw failed: Daily limit exceeded"
    await payouts.offer(BTC, daily_limit=0)
    assert told(await payouts.ask("1")) == ""


@pytest.mark.parametrize(("before", "reason"), [(MAX_UNITS - COIN, "Daily limit exceeded"), (MAX_UNITS - COIN - 1, "")])
async def test_a_days_total_stays_within_the_ledgers_range(payouts: Payouts, before: int, reason: str) -> None:
    """Without any limit of the operator's, a day's total is still an amount."""
    await payouts.do(lambda: Do(NOBODY, kept=(Spent(payouts.alice, BTC, TODAY, before),)))
    assert told(await payouts.ask("1")) == (f"Withdraw failed: {reason}" if reason else "")


async def test_a_request_for_a_chain_the_asset_is_not_on_is_refused_when_it_is_decided(payouts: Payouts) -> None:
    """Whatever was prepared, there is no such offer."""
    command = payouts.prepared(payouts.world.guard(payouts.alice), "1")
    elsewhere = msgspec.structs.replace(command, to=Address(ERC20, THEIRS[ERC20].address, ""))
    assert told(await payouts.world.context.submit(elsewhere)) == "Invalid protocol"


async def test_a_request_to_a_stranger_makes_no_deposit(payouts: Payouts) -> None:
    """It says so by leaving the deposit's reference out, and its history line names the chain."""
    to = Address(BITCOIN, THEIRS[BITCOIN].address, "")
    command = RequestWithdrawal(
        NOBODY, payouts.alice, BTC, to, COIN, include_fee=True, ref=77, uuid="u", day=TODAY, assets=(BTC,)
    )
    assert not await is_stale(payouts, command)
    assert payouts.row(77).deposit == 0
    line = payouts.reads.line(payouts.reads.row(Thread, payouts.alice, BTC, LineType.WITHDRAW).newest)
    assert (line.ref, line.network) == (77, BITCOIN)


async def test_an_approved_withdrawal_inside_the_house_is_a_deposit(payouts: Payouts) -> None:
    """After the operator's yes the receiver finds it among the deposits, credited."""
    await payouts.offer(BTC, approve_above=1)
    place = await payouts.give(payouts.bob, BTC, BITCOIN, 3)
    withdrawal = await payouts.withdraw("2", place.address)
    assert payouts.reads.row(Deposit, withdrawal.deposit).state == 0
    await payouts.approve(withdrawal)
    deposit = payouts.reads.row(Deposit, withdrawal.deposit)
    assert (deposit.owner, deposit.net, deposit.state, deposit.internal) == (
        payouts.bob,
        2 * COIN - 500,
        DepositState.CREDITED,
        True,
    )
    assert payouts.reads.row(Address, BITCOIN, place.address, place.tag).paid


async def test_the_operator_says_how_long_approval_may_take(payouts: Payouts) -> None:
    """With an hour in the settings, what nobody approves is given back after an hour."""
    await payouts.offer(BTC, approve_above=1)
    now = payouts.reads.row(Settings, 0).snapshot
    await payouts.settings(msgspec.structs.replace(now, approval_expires_ms=DAY_MS // 24))
    withdrawal = await payouts.withdraw("1")
    payouts.world.clock.at_ms += DAY_MS // 24 - 1
    items = payouts.reads.last()[0]
    assert await expire_due(payouts.world.context) == 0
    assert payouts.reads.last()[0] == items, "what is not due is left alone"
    payouts.world.clock.at_ms += 1
    assert await expire_due(payouts.world.context) == 1
    assert payouts.row(withdrawal.ref).state == WithdrawalState.EXPIRED


async def test_who_was_quicker_than_the_expiry_does_not_stop_it(payouts: Payouts) -> None:
    """Of two that are due, one is rejected while the pass is under way: the other expires, and one is counted."""
    await payouts.offer(BTC, approve_above=1)
    first, second = await payouts.withdraw("1"), await payouts.withdraw("2")
    payouts.world.clock.at_ms += 3 * DAY_MS
    closed = msgspec.structs.replace(first, state=WithdrawalState.CANCELLED)

    async def submit(command: Any) -> Outcome:
        await payouts.world.writer.submit(Do(NOBODY, kept=(closed,)))
        return await payouts.world.writer.submit(command)

    context = Context(submit, payouts.reads, payouts.world.clock, payouts.world.ids)
    assert await expire_due(context) == 1
    assert payouts.row(second.ref).state == WithdrawalState.EXPIRED


async def test_an_expiry_that_the_books_do_not_accept_is_told(payouts: Payouts) -> None:
    """While nothing is accepted the pass ends, and says so, instead of trying the next one."""
    await payouts.offer(BTC, approve_above=1)
    withdrawals = [await payouts.withdraw("1"), await payouts.withdraw("2")]
    payouts.world.clock.at_ms += 3 * DAY_MS
    closed = Writer(MemoryStore(), payouts.world.clock, payouts.world.events)
    closed.close()
    with pytest.raises(Refused) as caught:
        await expire_due(Context(closed.submit, payouts.reads, payouts.world.clock, payouts.world.ids))
    assert caught.value.error is UNAVAILABLE
    assert [payouts.row(w.ref).state for w in withdrawals] == [WithdrawalState.AWAITING] * 2


async def test_the_first_payment_of_a_wallet_has_the_first_nonce(payouts: Payouts) -> None:
    """A wallet that never paid begins with the chain's own count, and goes on from what is reserved."""
    context, withdrawal = payouts.world.context, await payouts.withdraw("1")
    assert next_nonce(context, withdrawal.network) == 0
    await payouts.do(lambda: payouts.reservation(withdrawal, 7))
    assert next_nonce(context, withdrawal.network) == 8


async def declare(payouts: Payouts, **of_network: Any) -> None:
    """Declare a token and a second coin on Ethereum, and a network that has a token only."""
    now = payouts.reads.row(Settings, 0).snapshot
    networks = tuple(
        msgspec.structs.replace(network, **of_network) if network.number == ERC20 else network
        for network in now.networks
    )
    lone = NetworkSettings(7, "LONE", "Lone", "Lone", "evm", 1)
    assets = tuple(AssetSettings(n, f"A{n}", f"Asset {n}", fiat=False) for n in (8, 9))
    offers = (OfferSettings(8, ERC20, 8, "A8"), OfferSettings(9, ERC20, 18), OfferSettings(8, 7, 8, "A8"))
    await payouts.settings(
        msgspec.structs.replace(
            now, networks=(*networks, lone), assets=(*now.assets, *assets), offers=(*now.offers, *offers)
        )
    )


async def test_a_chain_takes_its_fee_in_the_declared_asset_or_its_first_coin(payouts: Payouts) -> None:
    """What the operator declares counts, then the first offer without a token; a chain with neither pays nothing."""
    await declare(payouts)
    context = payouts.world.context
    assert prepare_finish(context, Payment(1, network=ERC20), 5).fee_asset == ETH
    with pytest.raises(Refused, match="network has no asset for its fees"):
        prepare_finish(context, Payment(1, network=7), 5)
    now = payouts.reads.row(Settings, 0).snapshot
    networks = tuple(msgspec.structs.replace(n, fee_asset=USDT) if n.number == ERC20 else n for n in now.networks)
    await payouts.settings(msgspec.structs.replace(now, networks=networks))
    assert prepare_finish(context, Payment(1, network=ERC20), 5).fee_asset == USDT


async def test_what_is_not_on_a_network_is_not_sent_there(payouts: Payouts) -> None:
    """An asset has no name on a chain it is not offered on."""
    with pytest.raises(Refused, match="asset is not on the network"):
        outgoing(payouts.world.context.catalogue, Withdrawal(1, asset=BTC, network=ERC20, to_address=5))


async def test_a_token_of_any_number_is_settled_beside_its_chains_coin(payouts: Payouts) -> None:
    """The token leaves its own holding and the fee the coin's, whatever numbers assets and networks have."""
    await declare(payouts)
    for asset in (8, ETH):
        await payouts.do(lambda asset=asset: payouts.endow_books(payouts.alice, asset, ERC20, 10 * COIN))
    withdrawal = await payouts.withdraw("2", THEIRS[ERC20].address, asset="A8", network="ERC20")
    assert withdrawal.requested_ms == NOW_MS
    sent = msgspec.structs.replace(withdrawal, state=WithdrawalState.PAYING)
    mined = Payment(
        88, ERC20, 8, (withdrawal.ref,), ("hot/1",), 3, ("t",), chain_fee_units=str(10**15), height=3, created_ms=5
    )
    await payouts.do(lambda: Do(NOBODY, kept=(sent, mined)))
    await payouts.do(lambda: prepare_finish(payouts.world.context, mined, 9))
    assert payouts.row(withdrawal.ref).state == WithdrawalState.SETTLED
    payouts.agree()
