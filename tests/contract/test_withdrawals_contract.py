"""What a customer's request to withdraw leads to: holds, fees, refusals, approvals, and payments inside the house."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from strongroom.clock import DAY_MS
from strongroom.engine.command import NOBODY
from strongroom.engine.settle import Outcome
from strongroom.errors import Refused
from strongroom.ledger.accounts import Purpose, house, owed
from strongroom.ledger.entries import Posting
from strongroom.records.deposits import Deposit
from strongroom.records.history import Line, LineType, Note, Thread
from strongroom.records.settings import Settings
from strongroom.records.withdrawals import Spent, Withdrawal, WithdrawalState
from strongroom.wallet.approvals import awaiting_approval, expire_due, prepare_cancellation, prepare_rejection
from strongroom.wallet.balances import balance_of
from strongroom.wallet.withdrawals import WithdrawalRequested, split_currency, withdrawal_confirmations
from support.paying import COIN, OURS, RIPPLE, THEIRS, TODAY, XRP, Payouts, book, paying
from support.world import BITCOIN, BTC, ERC20, ETH, STORES, USDT, new_store


@pytest.fixture(params=STORES)
async def payouts(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Payouts]:
    """A house on each store in turn, where alice has ten bitcoin."""
    async with paying(new_store(request.param, tmp_path), tmp_path) as payouts:
        await payouts.endow(payouts.alice, BTC, BITCOIN, 10 * COIN)
        yield payouts


def lines_of(payouts: Payouts, owner: int, asset: int, type_: LineType) -> list[Line]:
    """Return a user's history lines of an asset and type, newest first."""
    found, line = [], payouts.reads.line(payouts.reads.row(Thread, owner, asset, type_).newest)
    while line.number:
        found.append(line)
        line = payouts.reads.line(line.kind_before)
    return found


async def refused(
    payouts: Payouts, code: int, message: str, amount: str, address: str | None = None, **more: Any
) -> None:
    """Ask for a withdrawal; check the refusal's code and message, and that the books are as they were."""
    before = payouts.balances(), payouts.reads.rows(Withdrawal, {}, 10), payouts.reads.rows(Spent, {}, 10)
    outcome: Outcome = await payouts.ask(amount, address, **more)
    assert outcome.refusal is not None
    assert (outcome.refusal.error.code, outcome.refusal.message) == (code, f"BADREQUEST: {message}")
    assert before == (payouts.balances(), payouts.reads.rows(Withdrawal, {}, 10), payouts.reads.rows(Spent, {}, 10))
    payouts.agree()


async def test_a_withdrawal_holds_amount_and_fee_at_once(payouts: Payouts) -> None:
    """With the fee included the receiver gets less, and the total stays until the chain has paid."""
    withdrawal = await payouts.withdraw("1.5")
    assert (withdrawal.to_address, withdrawal.fee, withdrawal.asked) == (149_999_500, 500, 150_000_000)
    assert withdrawal.state == WithdrawalState.APPROVED
    assert balance_of(payouts.reads, payouts.alice, BTC) == (850_000_000, 10 * COIN)
    assert payouts.held(payouts.alice) == 150_000_000
    [line] = lines_of(payouts, payouts.alice, BTC, LineType.WITHDRAW)
    assert (line.ref, line.amount, line.net, line.fees) == (withdrawal.ref, 150_000_000, -150_000_000, 500)
    payouts.agree()


async def test_a_fee_on_top_is_debited_beside_the_amount(payouts: Payouts) -> None:
    """Without the fee included the receiver gets what was asked, and the account is held for amount and fee."""
    withdrawal = await payouts.withdraw("1.5", include_fee=False)
    assert (withdrawal.to_address, withdrawal.fee, withdrawal.held) == (150_000_000, 500, 150_000_500)
    [line] = lines_of(payouts, payouts.alice, BTC, LineType.WITHDRAW)
    assert (line.amount, line.net, line.fees) == (150_000_000, -150_000_500, 500)
    assert payouts.available(payouts.alice) == 10 * COIN - 150_000_500


async def test_the_answer_names_what_was_accepted(payouts: Payouts) -> None:
    """The result has both references, the amounts, and the address in its normal spelling."""
    outcome = await payouts.ask("0.1", THEIRS[BITCOIN].address.upper(), network="bitcoin")
    result = msgspec.json.decode(outcome.result, type=WithdrawalRequested)
    assert (result.to_address, result.fee) == (9_999_500, 500)
    assert (result.address, result.tag) == (THEIRS[BITCOIN].address, "")
    assert payouts.row(result.ref).uuid == result.uuid


async def test_the_currency_text_names_asset_and_network() -> None:
    """`BTC-Bitcoin` is both, a bare code leaves the network to the default."""
    assert split_currency("BTC-Bitcoin") == ("BTC", "Bitcoin")
    assert split_currency("USDT-ERC20") == ("USDT", "ERC20")
    assert split_currency("BTC") == ("BTC", None)
    assert split_currency("BTC-") == ("BTC", "")


@pytest.mark.parametrize("asset", ["XYZ", "USD", "", "BTC "])
async def test_an_asset_that_cannot_be_withdrawn_is_refused(payouts: Payouts, asset: str) -> None:
    """Unknown assets and those on no chain are an invalid currency."""
    await refused(payouts, 11, f"Invalid currency {asset}", "1", asset=asset)


async def test_an_unknown_or_suspended_network_is_refused(payouts: Payouts) -> None:
    """A network the asset is not on, none at all, and one that is switched off are an invalid protocol."""
    for network in ("ERC20", "Tron", ""):
        await refused(payouts, 3505, "Invalid protocol", "1", network=network)
    await payouts.offer(BTC, withdrawals=False)
    await refused(payouts, 3505, "Invalid protocol", "1")


@pytest.mark.parametrize("amount", ["0", "0.000009", "0.000000001", "0.00000999"])
async def test_an_amount_that_is_no_withdrawal_is_refused(payouts: Payouts, amount: str) -> None:
    """Zero, what is below the minimum and what has too many decimals are invalid amounts."""
    await refused(payouts, 3506, "Invalid withdraw amount", amount)


async def test_a_malformed_amount_is_a_bad_parameter(payouts: Payouts) -> None:
    """What is no number, or beyond the ledger's range, is not an amount at all."""
    await refused(payouts, -2, "amount is not a decimal number", "1,5")
    await refused(payouts, -2, "amount is too large", "9" * 19)
    await refused(payouts, -2, "amount is too large", "46116860184.27387903", include_fee=False)


async def test_an_amount_that_does_not_cover_its_fee_is_refused(payouts: Payouts) -> None:
    """With the fee included something must be left for the receiver."""
    await payouts.endow(payouts.alice, USDT, ERC20, 20 * COIN)
    stranger = THEIRS[ERC20].address
    await refused(payouts, 3506, "Invalid withdraw amount", "5", stranger, asset="USDT")
    withdrawal = await payouts.withdraw("5", stranger, asset="USDT", include_fee=False)
    assert (withdrawal.to_address, withdrawal.fee) == (5 * COIN, 5 * COIN)


async def test_an_amount_finer_than_its_chain_is_refused(payouts: Payouts) -> None:
    """USDT has six decimals on its chain; what leaves must fit them, and fees round up to them."""
    await payouts.endow(payouts.alice, USDT, ERC20, 100 * COIN)
    await payouts.endow(payouts.alice, XRP, RIPPLE, 100 * COIN)
    stranger = THEIRS[ERC20].address
    await refused(payouts, 3506, "Invalid withdraw amount", "10.0000001", stranger, asset="USDT")
    assert (await payouts.withdraw("10.000001", stranger, asset="USDT")).to_address == 5_00000100
    ripple = await payouts.withdraw("1", ":".join(THEIRS[RIPPLE]), asset="XRP")
    assert (ripple.fee, ripple.to_address) == (25_000_100, 74_999_900)


@pytest.mark.parametrize("address", ["", "nowhere", "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", "{}:5", "{}x"])
async def test_an_address_that_is_none_is_refused(payouts: Payouts, address: str) -> None:
    """Wrong checksums, other networks' addresses and unwanted tags are invalid addresses."""
    await refused(payouts, 3507, "Invalid withdraw address", "1", address.format(THEIRS[BITCOIN].address))
    await refused(payouts, 3507, "Invalid withdraw address", "1", tag="5")


async def test_tags_are_wanted_where_the_network_has_them(payouts: Payouts) -> None:
    """A tag stands by itself or behind the address, and is whole, plain and there."""
    await payouts.endow(payouts.alice, XRP, RIPPLE, 100 * COIN)
    address, tag = THEIRS[RIPPLE]
    for bad in (None, "", "07", "-1", "4294967296", "x"):
        await refused(payouts, 3507, "Invalid withdraw address", "5", address, asset="XRP", tag=bad)
    await refused(payouts, 3507, "Invalid withdraw address", "5", f"{address}:{tag}", asset="XRP", tag="7")
    apart = await payouts.withdraw("5", address, asset="XRP", tag=tag)
    for empty in (None, ""):
        joined = await payouts.withdraw("5", f"{address}:{tag}", asset="XRP", tag=empty)
        assert (joined.address, joined.tag) == (apart.address, apart.tag) == (address, tag)


async def test_policy_comes_before_the_balance(payouts: Payouts) -> None:
    """A frozen or inactive account withdraws nothing, whatever it has."""
    for marks in ({"frozen": True}, {"active": False}):
        await payouts.mark(payouts.alice, **marks)
        await refused(payouts, 3508, "Withdraw failed: Account is frozen", "1000")
    await payouts.mark(payouts.alice)
    assert (await payouts.ask("1")).refusal is None


async def test_who_owes_anything_withdraws_nothing(payouts: Payouts) -> None:
    """A debt in one asset stops withdrawals of every asset, until it is repaid."""
    debt = owed(payouts.alice, ETH), house(Purpose.EQUITY, ETH)
    await payouts.do(lambda: book(Posting(debt[0], -7), Posting(debt[1], 7)))
    await refused(payouts, 3508, "Withdraw failed: Balance is owed", "1")
    await payouts.do(lambda: book(Posting(debt[0], 7), Posting(debt[1], -7)))
    assert (await payouts.ask("1")).refusal is None


async def test_the_daily_limit_counts_a_day_and_gives_refunds_back(payouts: Payouts) -> None:
    """What comes to nothing does not count, and the next day is a new one."""
    await payouts.offer(BTC, daily_limit=3 * COIN, approve_above=2 * COIN)
    big = await payouts.withdraw("2.5")
    await refused(payouts, 3508, "Withdraw failed: Daily limit exceeded", "0.50000001")
    await payouts.do(lambda: prepare_rejection(payouts.world.context, NOBODY, big.ref))
    assert payouts.reads.row(Spent, payouts.alice, BTC, TODAY).amount == 0
    await payouts.withdraw("1.5")
    await payouts.withdraw("1.5")
    await refused(payouts, 3508, "Withdraw failed: Daily limit exceeded", "0.1")
    payouts.world.clock.at_ms += DAY_MS
    await payouts.withdraw("1.5")


@pytest.mark.parametrize("include_fee", [True, False])
async def test_more_than_the_balance_is_refused(payouts: Payouts, include_fee: bool) -> None:
    """The fee on top counts too, and what is held cannot be withdrawn twice."""
    await refused(payouts, 51523, "Insufficient wallet balance", "10.00000001")
    if not include_fee:
        await refused(payouts, 51523, "Insufficient wallet balance", "10", include_fee=False)
        await payouts.withdraw("9.999995", include_fee=False)
    else:
        await payouts.withdraw("10")
    await refused(payouts, 51523, "Insufficient wallet balance", "0.1")


async def test_the_order_of_refusals_is_the_contracts(payouts: Payouts) -> None:
    """Asset, network, amount, address, policy, balance: mending the first shows the next."""
    await payouts.mark(payouts.alice, frozen=True)
    wrong: dict[str, Any] = {"asset": "XYZ", "network": "Tron"}
    await refused(payouts, 11, "Invalid currency XYZ", "0", "nowhere", **wrong)
    await refused(payouts, 3505, "Invalid protocol", "0", "nowhere", network="Tron")
    await refused(payouts, 3506, "Invalid withdraw amount", "0", "nowhere")
    await refused(payouts, 3507, "Invalid withdraw address", "99", "nowhere")
    await refused(payouts, 3508, "Withdraw failed: Account is frozen", "99")
    await payouts.mark(payouts.alice)
    await refused(payouts, 51523, "Insufficient wallet balance", "99")


async def test_what_is_prepared_is_decided_by_the_settings_of_the_moment(payouts: Payouts) -> None:
    """A fee or switch that changes between preparation and decision counts as it is then."""
    context, guard = payouts.world.context, payouts.world.guard(payouts.alice)
    command = payouts.prepared(guard, "1")
    await payouts.offer(BTC, withdraw_fee=msgspec.structs.replace(payouts.fee(BTC), minimum=900))
    outcome = await context.submit(command)
    assert msgspec.json.decode(outcome.result, type=WithdrawalRequested).fee == 900
    command = payouts.prepared(payouts.world.guard(payouts.alice), "1")
    await payouts.offer(BTC, withdrawals=False)
    suspended = await context.submit(command)
    assert suspended.refusal is not None
    assert suspended.refusal.error.code == 3505
    command = msgspec.structs.replace(command, guard=payouts.world.guard(payouts.alice))
    now = payouts.reads.row(Settings, 0).snapshot
    off = tuple(msgspec.structs.replace(a, enabled=a.number != BTC) for a in now.assets)
    await payouts.settings(msgspec.structs.replace(now, assets=off))
    disabled = await context.submit(command)
    assert disabled.refusal is not None
    assert disabled.refusal.error.code == 11


async def test_a_large_withdrawal_awaits_approval(payouts: Payouts) -> None:
    """Above the offer's bound the money is held, and nothing is paid before the operator has said yes, once."""
    await payouts.offer(BTC, approve_above=COIN)
    assert (await payouts.withdraw("1")).state == WithdrawalState.APPROVED
    large = await payouts.withdraw("1.00000001")
    assert large.state == WithdrawalState.AWAITING
    assert awaiting_approval(payouts.world.context) == [large]
    assert payouts.held(payouts.alice) == 2 * COIN + 1
    await payouts.approve(large)
    assert payouts.row(large.ref).state == WithdrawalState.APPROVED
    with pytest.raises(Refused, match="withdrawal is not awaiting approval"):
        await payouts.approve(large)
    payouts.agree()


@pytest.mark.parametrize(
    ("prepare", "end"),
    [(prepare_rejection, WithdrawalState.REJECTED), (prepare_cancellation, WithdrawalState.CANCELLED)],
)
async def test_a_no_gives_the_money_back(payouts: Payouts, prepare: Any, end: WithdrawalState) -> None:
    """A rejected or cancelled withdrawal is released in full, once."""
    await payouts.offer(BTC, approve_above=1)
    withdrawal = await payouts.withdraw("4", include_fee=False)
    await payouts.do(lambda: prepare(payouts.world.context, NOBODY, withdrawal.ref))
    assert payouts.row(withdrawal.ref).state == end
    assert balance_of(payouts.reads, payouts.alice, BTC) == (10 * COIN, 10 * COIN)
    with pytest.raises(Refused, match="withdrawal is not awaiting approval"):
        prepare(payouts.world.context, NOBODY, withdrawal.ref)
    payouts.agree()


async def test_two_answers_to_one_withdrawal_in_one_batch_are_one(payouts: Payouts) -> None:
    """Whoever decides second is told that there is nothing to decide any more."""
    await payouts.offer(BTC, approve_above=1)
    withdrawal = await payouts.withdraw("4")
    command = prepare_rejection(payouts.world.context, NOBODY, withdrawal.ref)
    await payouts.approve(withdrawal)
    outcome = await payouts.world.context.submit(command)
    assert outcome.refusal is not None
    assert payouts.row(withdrawal.ref).state == WithdrawalState.APPROVED


async def test_a_release_repays_a_debt_first(payouts: Payouts) -> None:
    """What a reorganisation took meanwhile is taken from the money that comes back."""
    await payouts.offer(BTC, approve_above=1)
    withdrawal = await payouts.withdraw("4")
    await payouts.do(lambda: book(Posting(owed(payouts.alice, BTC), -COIN), Posting(house(Purpose.EQUITY, BTC), COIN)))
    await payouts.do(lambda: prepare_rejection(payouts.world.context, NOBODY, withdrawal.ref))
    assert payouts.available(payouts.alice) == 9 * COIN
    assert payouts.balance(owed(payouts.alice, BTC)) == 0


async def owe(payouts: Payouts) -> None:
    """Let a reorganisation have taken a bitcoin that alice had spent."""
    await payouts.do(lambda: book(Posting(owed(payouts.alice, BTC), -COIN), Posting(house(Purpose.EQUITY, BTC), COIN)))


async def freeze(payouts: Payouts) -> None:
    """Freeze alice."""
    await payouts.mark(payouts.alice, frozen=True)


@pytest.mark.parametrize(("bar", "reason"), [(owe, "Balance is owed"), (freeze, "Account is frozen")])
@pytest.mark.parametrize("inside", [False, True])
async def test_what_waited_is_not_paid_to_who_owes_or_is_frozen_by_now(
    payouts: Payouts, bar: Callable[[Payouts], Awaitable[None]], reason: str, inside: bool
) -> None:
    """A withdrawal is paid by what its customer is when it is paid, not by what that was when it was asked for."""
    await payouts.offer(BTC, approve_above=1)
    place = await payouts.give(payouts.bob, BTC, BITCOIN, 3)
    withdrawal = await payouts.withdraw("4", place.address if inside else None)
    await bar(payouts)
    with pytest.raises(Refused, match=reason):
        await payouts.approve(withdrawal)
    assert (payouts.held(payouts.alice), payouts.available(payouts.bob)) == (4 * COIN, 0)
    await payouts.do(lambda: prepare_rejection(payouts.world.context, NOBODY, withdrawal.ref))
    payouts.agree()


@pytest.mark.parametrize("bar", [owe, freeze])
async def test_what_was_approved_awaits_a_word_again_when_its_customer_owes_or_is_frozen(
    payouts: Payouts, bar: Callable[[Payouts], Awaitable[None]]
) -> None:
    """The node was away after the yes; what comes between stops the payment, and no other withdrawal."""
    await payouts.endow(payouts.bob, BTC, BITCOIN, COIN)
    withdrawal, other = await payouts.withdraw("4"), await payouts.withdraw("0.5", owner=payouts.bob)
    await bar(payouts)
    sender = payouts.sender()
    await payouts.pay(sender, other)
    assert payouts.row(other.ref).state == WithdrawalState.SETTLED
    assert payouts.row(withdrawal.ref).state == WithdrawalState.AWAITING
    assert payouts.held(payouts.alice) == 4 * COIN
    await payouts.do(lambda: prepare_rejection(payouts.world.context, NOBODY, withdrawal.ref))
    assert payouts.held(payouts.alice) == 0
    payouts.agree()


async def test_a_reference_that_is_taken_is_not_given_again(tmp_path: Path) -> None:
    """After a restart with a clock that went back, every withdrawal and deposit still has a row of its own."""
    async with paying(new_store("sqlite", tmp_path), tmp_path) as payouts:
        await payouts.endow(payouts.alice, BTC, BITCOIN, 10 * COIN)
        payouts.world.clock.at_ms += 1000
        place = await payouts.give(payouts.bob, BTC, BITCOIN, 3)
        await payouts.withdraw("1")
        await payouts.withdraw("2", place.address)
    async with paying(new_store("sqlite", tmp_path), tmp_path) as payouts:
        payouts.world.guard(payouts.alice)
        payouts.world.guard(payouts.alice)
        await payouts.withdraw("1")
        await payouts.withdraw("2", place.address)
        assert len(payouts.withdrawals()) == 4
        payouts.agree()
        row = payouts.withdrawals()[0]
        guard = payouts.world.guard(payouts.alice)
        twin = msgspec.structs.replace(payouts.prepared(guard, "0.5"), ref=row.ref)
        assert (await payouts.world.context.submit(twin)).stale
        assert payouts.withdrawals()[0] == row


async def test_what_nobody_approves_expires(payouts: Payouts) -> None:
    """After the settings' time the money is free again, not a moment before."""
    await payouts.offer(BTC, approve_above=1)
    first = await payouts.withdraw("1")
    payouts.world.clock.at_ms += 3 * DAY_MS - 1
    second = await payouts.withdraw("2")
    assert await expire_due(payouts.world.context) == 0
    payouts.world.clock.at_ms += 1
    assert await expire_due(payouts.world.context) == 1
    assert payouts.row(first.ref).state == WithdrawalState.EXPIRED
    assert payouts.row(second.ref).state == WithdrawalState.AWAITING
    assert payouts.held(payouts.alice) == 2 * COIN
    assert await expire_due(payouts.world.context) == 0
    payouts.agree()


async def test_an_address_of_another_customer_is_paid_inside_the_house(payouts: Payouts) -> None:
    """The receiver has it at once without a deposit's fee, the withdrawal's is charged, and no name is named."""
    place = await payouts.give(payouts.bob, BTC, BITCOIN, 3)
    await payouts.offer(BTC, deposit_minimum=5 * COIN)
    withdrawal = await payouts.withdraw("2", place.address)
    assert (withdrawal.state, withdrawal.txid) == (WithdrawalState.SETTLED, "")
    assert payouts.available(payouts.alice) == 8 * COIN
    assert payouts.available(payouts.bob) == 2 * COIN - 500
    assert payouts.balance(house(Purpose.FEES, BTC)) == 500
    [out] = lines_of(payouts, payouts.alice, BTC, LineType.WITHDRAW)
    [into] = lines_of(payouts, payouts.bob, BTC, LineType.DEPOSIT)
    assert (out.note, out.other, out.net, out.fees) == (Note.INTERNAL, 0, -2 * COIN, 500)
    assert (into.note, into.other, into.net, into.fees) == (Note.INTERNAL, 0, 2 * COIN - 500, 0)
    assert payouts.reads.row(Deposit, withdrawal.deposit).internal
    assert into.ref == withdrawal.deposit
    assert withdrawal_confirmations(payouts.reads, withdrawal) == (0, 0)
    payouts.agree()


async def test_ones_own_deposit_address_costs_the_fee_only(payouts: Payouts) -> None:
    """Money that goes round is there again at once, less the fee, but only money that was there."""
    place = await payouts.give(payouts.alice, BTC, BITCOIN, 2)
    await refused(payouts, 51523, "Insufficient wallet balance", "10.1", place.address)
    await payouts.withdraw("10", place.address)
    assert balance_of(payouts.reads, payouts.alice, BTC) == (10 * COIN - 500, 10 * COIN - 500)
    payouts.agree()


async def test_approval_comes_first_inside_the_house_too(payouts: Payouts) -> None:
    """The receiver gets it when the operator says yes, and the sender has it again when the operator says no."""
    place = await payouts.give(payouts.bob, BTC, BITCOIN, 3)
    await payouts.offer(BTC, approve_above=COIN)
    yes, no = await payouts.withdraw("2", place.address), await payouts.withdraw("3", place.address)
    assert (payouts.available(payouts.bob), payouts.held(payouts.alice)) == (0, 5 * COIN)
    await payouts.approve(yes)
    await payouts.do(lambda: prepare_rejection(payouts.world.context, NOBODY, no.ref))
    assert payouts.row(yes.ref).state == WithdrawalState.SETTLED
    assert payouts.available(payouts.bob) == 2 * COIN - 500
    assert balance_of(payouts.reads, payouts.alice, BTC) == (8 * COIN, 8 * COIN)
    payouts.agree()


async def test_addresses_of_ours_that_no_customer_has_are_refused(payouts: Payouts) -> None:
    """The house's own address, one never given out, and a tag that means nobody lead nowhere."""
    await payouts.endow(payouts.alice, XRP, RIPPLE, 100 * COIN)
    for position in (0, 5):
        await refused(payouts, 3507, "Invalid withdraw address", "1", OURS[BITCOIN][position].address)
        address, tag = OURS[RIPPLE][position]
        await refused(payouts, 3507, "Invalid withdraw address", "5", address, asset="XRP", tag=tag)
    await refused(payouts, 3507, "Invalid withdraw address", "5", address, asset="XRP", tag="7")
    await payouts.give(payouts.bob, XRP, RIPPLE, 5)
    await payouts.withdraw("5", address, asset="XRP", tag=tag)
    assert payouts.available(payouts.bob, XRP) == 5_00000000 - 25_000_100


async def test_an_address_given_out_meanwhile_is_paid_inside_the_house(payouts: Payouts) -> None:
    """What an address is to us is looked at again when the request is decided."""
    await payouts.give(payouts.bob, BTC, BITCOIN, 3)
    command = payouts.prepared(payouts.world.guard(payouts.alice), "1", OURS[BITCOIN][3].address)
    stranger = msgspec.structs.replace(command.to, owner=0, asset=0)
    outcome = await payouts.world.context.submit(msgspec.structs.replace(command, to=stranger, in_ref=0))
    assert outcome.stale
    assert payouts.available(payouts.alice) == 10 * COIN
