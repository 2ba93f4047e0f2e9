"""A restored house on every store: what it finds on its chain, what it refuses meanwhile, and when it pays again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from strongroom.clock import DAY_MS
from strongroom.custody.chain import Payee
from strongroom.custody.sender import PaymentTerms
from strongroom.engine.command import NOBODY
from strongroom.errors import PARAMETER_INVALID, Refused
from strongroom.ledger.accounts import Purpose, house, owed
from strongroom.ledger.entries import Posting
from strongroom.records.addresses import Address, branch_of
from strongroom.records.deposits import Deposit, DepositState
from strongroom.records.epochs import Epoch, Reconciled
from strongroom.records.withdrawals import Payment, PaymentState, Spent, WithdrawalState
from strongroom.wallet import addresses
from strongroom.wallet.approvals import expire_due, prepare_cancellation, prepare_rejection
from strongroom.wallet.assignments import prepare_deposit_assignment, prepare_withdrawal_assignment
from strongroom.wallet.epochs import prepare_end, prepare_epoch, waits
from strongroom.wallet.reopenings import prepare_reopening
from strongroom.wallet.verification import verify
from support.paying import COIN, OURS, RIPPLE, THEIRS, Payouts, book, paying
from support.restored import AHEAD, House, paid, restored
from support.world import BITCOIN, BTC, STORES, new_store

AWAITING, APPROVED, PAYING, SETTLED, *_, FAILED = WithdrawalState
FEE = 500


@pytest.fixture(params=STORES)
def kind(request: pytest.FixtureRequest) -> str:
    """Each kind of store in turn."""
    return request.param


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have fewer addresses of before the restore derived."""
    monkeypatch.setattr(addresses, "AHEAD", AHEAD)


async def nothing(payouts: Payouts) -> None:
    """Do nothing."""


def states(payouts: Payouts) -> list[WithdrawalState]:
    """Return the states of all withdrawals, oldest first."""
    return [WithdrawalState(it.state) for it in payouts.withdrawals()]


def is_whole(payouts: Payouts) -> None:
    """See that the books are whole."""
    assert verify(payouts.reads).findings == []
    payouts.agree()
    assert payouts.world.events.failures == []


async def refused(payouts: Payouts, prepare: Any) -> str:
    """Carry out what is refused, which changes nothing, and return why."""
    before = payouts.balances(), payouts.withdrawals()
    with pytest.raises(Refused) as caught:
        await payouts.do(prepare)
    assert caught.value.error is PARAMETER_INVALID
    assert (payouts.balances(), payouts.withdrawals()) == before
    return caught.value.message


async def test_a_withdrawal_of_the_backup_that_was_paid_since_is_settled_and_not_paid_again(
    kind: str, tmp_path: Path
) -> None:
    """The transaction becomes its payment, the customer is charged once, and then payments go on by themselves."""

    async def ask(payouts: Payouts) -> None:
        _ = await payouts.withdraw("1.5")

    async def pay(payouts: Payouts) -> None:
        await paid(payouts, *payouts.withdrawals())

    async with restored(kind, tmp_path, ask, pay) as payouts:
        home = House(payouts)
        assert await home.sender.step()
        assert home.sender.status.trouble == "network waits to be reconciled after a restore"
        assert states(payouts) == [APPROVED]
        await home.stock()
        await home.work()
        assert (states(payouts), home.reason) == ([SETTLED], "")
        assert await payouts.paid_on() == [(*THEIRS[BITCOIN], 150_000_000 - FEE)]
        assert payouts.available(payouts.alice) == 850_000_000
        another = await payouts.withdraw("0.5")
        await payouts.pay(home.sender, another, follow=home.follow)
        assert len(await payouts.paid_on()) == 2
        assert await payouts.agrees_with_node(BITCOIN, BTC)
        is_whole(payouts)


async def test_a_payment_that_nobody_asked_for_in_the_backup_is_the_houses_until_somebody_is_named(
    kind: str, tmp_path: Path
) -> None:
    """It is the house's loss, payments wait, and named it is charged to the customer, who may owe the rest."""

    async def pay(payouts: Payouts) -> None:
        await paid(payouts, await payouts.withdraw("9.5"))

    async with restored(kind, tmp_path, nothing, pay) as payouts:
        home = House(payouts)
        await home.stock()
        await home.work()
        [found] = payouts.withdrawals()
        assert (found.owner, found.state, found.to_address) == (0, SETTLED, 950_000_000 - FEE)
        assert home.reason == "1 payments were found that nobody is named for"
        assert payouts.balance(house(Purpose.EQUITY, BTC)) == -found.to_address
        assert await payouts.agrees_with_node(BITCOIN, BTC)
        is_whole(payouts)
        await payouts.do(lambda: book(*_move(payouts, 9 * COIN)))
        context = payouts.world.context
        assert "user is unknown" in await refused(
            payouts, lambda: prepare_withdrawal_assignment(context, NOBODY, found.ref, 77)
        )
        await payouts.do(lambda: prepare_withdrawal_assignment(context, NOBODY, found.ref, payouts.alice))
        assert "nobody is named" in await refused(
            payouts, lambda: prepare_withdrawal_assignment(context, NOBODY, found.ref, payouts.alice)
        )
        assert payouts.balance(house(Purpose.EQUITY, BTC)) == 0
        assert payouts.available(payouts.alice) == 0
        assert payouts.balance(owed(payouts.alice, BTC)) == -(850_000_000 - FEE)
        await home.follow()
        assert not waits(payouts.reads, BITCOIN)
        assert not payouts.reads.row(Reconciled, BITCOIN).by_hand
        is_whole(payouts)


async def test_two_parts_of_a_payment_may_be_the_same_customers(kind: str, tmp_path: Path) -> None:
    """Named for both, a customer is charged, refunded and charged again for their sum, whatever was owed meanwhile."""

    async def share(payouts: Payouts) -> None:
        await payouts.do(lambda: book(*_move(payouts, 4 * COIN)))

    async def pay(payouts: Payouts) -> None:
        both = await payouts.withdraw("5"), await payouts.withdraw("3", owner=payouts.bob)
        house = House(payouts, terms=PaymentTerms(batch=2))
        await payouts.pay(house.sender, *both, follow=house.follow)
        await house.follow()

    async with restored(kind, tmp_path, share, pay) as payouts:
        home, alice, context = House(payouts), payouts.alice, payouts.world.context
        await home.stock()
        await home.work()
        await payouts.do(lambda: book(*_move(payouts, 5 * COIN)))
        for found in payouts.withdrawals():
            await payouts.do(lambda ref=found.ref: prepare_withdrawal_assignment(context, NOBODY, ref, alice))
        owing = 8 * COIN - 2 * FEE - COIN
        assert (payouts.available(alice), payouts.balance(owed(alice, BTC))) == (0, -owing)
        [payment] = payouts.reads.rows(Payment, {}, 2)
        depth = (await payouts.chain().tip()).height - payment.height + 1
        await payouts.node.reorg("BITCOIN", depth, drop=payment.candidates)
        await home.work(2)
        assert states(payouts) == [FAILED, FAILED]
        assert (payouts.available(alice), payouts.balance(owed(alice, BTC))) == (COIN, 0)
        is_whole(payouts)
        await payouts.do(lambda: prepare_reopening(context, payouts.reads.row(Payment, payment.ref)))
        assert states(payouts) == [PAYING, PAYING]
        assert (payouts.available(alice), payouts.held(alice)) == (0, 8 * COIN - 2 * FEE)
        assert payouts.balance(owed(alice, BTC)) == -owing
        assert sum(it.amount for it in payouts.reads.rows(Spent, {"owner": alice}, 10)) == 8 * COIN - 2 * FEE
        is_whole(payouts)


def _move(payouts: Payouts, amount: int) -> tuple[Posting, Posting]:
    from strongroom.ledger.accounts import available

    return Posting(available(payouts.alice, BTC), -amount), Posting(available(payouts.bob, BTC), amount)


async def test_one_transaction_for_known_and_unknown_withdrawals_is_shared_out(kind: str, tmp_path: Path) -> None:
    """Those of the backup are paid by it, the rest is nobody's, and nobody gets anything twice."""

    async def ask(payouts: Payouts) -> None:
        await payouts.do(lambda: book(*_move(payouts, COIN)))
        _ = await payouts.withdraw("1.5")

    async def pay(payouts: Payouts) -> None:
        _ = await payouts.withdraw("0.25", owner=payouts.bob)
        sender = payouts.sender(terms=PaymentTerms(batch=10))
        for _ in range(4):
            assert await sender.step()
            _ = await payouts.node.mine("BITCOIN")

    async with restored(kind, tmp_path, ask, pay) as payouts:
        home = House(payouts)
        await home.stock()
        await home.work()
        known, unknown = payouts.withdrawals()
        assert [(it.owner, it.state) for it in (known, unknown)] == [(payouts.alice, SETTLED), (0, SETTLED)]
        assert unknown.to_address == 25_000_000 - FEE
        assert len(await payouts.paid_on()) == 2
        assert payouts.reads.row(Reconciled, BITCOIN).unknown == 1
        is_whole(payouts)


class Striking(Exception):
    """The first house is lost here."""


def striking(point: str) -> Any:
    """Return crash points that end a sender at one of them."""

    def reach(reached: str) -> None:
        if reached == point:
            raise Striking

    return reach


async def test_a_payment_that_was_reserved_in_the_backup_is_found_signed(kind: str, tmp_path: Path) -> None:
    """What spends its nonce is its candidate: it is neither signed again nor given up."""

    async def reserve(payouts: Payouts) -> None:
        _ = await payouts.withdraw("1.5")
        with pytest.raises(Striking):
            _ = await payouts.sender(crash_points=striking("before signature")).step()

    async def pay(payouts: Payouts) -> None:
        await paid(payouts, *payouts.withdrawals())

    async with restored(kind, tmp_path, reserve, pay) as payouts:
        home = House(payouts)
        await home.stock()
        await home.work()
        [payment] = payouts.reads.rows(Payment, {}, 10)
        assert (payment.state, len(payment.candidates), payment.blob) == (PaymentState.FINAL, 1, b"")
        assert (states(payouts), home.reason) == ([SETTLED], "")
        assert len(await payouts.paid_on()) == 1
        is_whole(payouts)


async def test_a_payment_that_was_raised_after_the_backup_is_not_given_up(kind: str, tmp_path: Path) -> None:
    """The candidate that the backup knows lost for good, to one that it does not know: the customer was paid."""

    async def sign(payouts: Payouts) -> None:
        _ = await payouts.withdraw("1.5")
        assert await payouts.sender().step()

    async def raise_fee(payouts: Payouts) -> None:
        assert await payouts.sender(terms=PaymentTerms(redraft_after_s=0)).step()
        _ = await payouts.node.mine("BITCOIN", 4)

    async with restored(kind, tmp_path, sign, raise_fee) as payouts:
        home = House(payouts)
        for _ in range(3):
            assert await home.sender.step()
        assert states(payouts) == [PAYING]
        await home.stock()
        await home.work()
        [payment] = payouts.reads.rows(Payment, {}, 10)
        assert (payment.state, len(payment.candidates)) == (PaymentState.FINAL, 2)
        assert (states(payouts), home.reason) == ([SETTLED], "")
        assert await payouts.agrees_with_node(BITCOIN, BTC)
        is_whole(payouts)


async def fail(payouts: Payouts) -> None:
    """Have the payment of every withdrawal undone by its block."""
    payouts.node.undo_next("BITCOIN")
    await paid(payouts, *payouts.withdrawals())


async def test_a_withdrawal_of_the_backup_whose_payment_was_undone_since_has_failed(kind: str, tmp_path: Path) -> None:
    """So its customer was told; and if another branch carries its transaction out after all, it is paid by that one."""

    async def ask(payouts: Payouts) -> None:
        _ = await payouts.withdraw("1.5")

    async with restored(kind, tmp_path, ask, fail) as payouts:
        home = House(payouts)
        await home.stock()
        await home.work(2)
        assert (states(payouts), home.reason) == ([FAILED], "")
        assert payouts.available(payouts.alice) == 10 * COIN
        assert payouts.balance(house(Purpose.CHAIN_FEE, BTC)) < 0
        is_whole(payouts)
        [undone] = payouts.reads.rows(Payment, {"network": BITCOIN}, 10)
        tip = await payouts.chain().tip()
        await payouts.node.reorg("BITCOIN", tip.height - undone.height + 1, mend=undone.candidates)
        await home.work(2)
        assert states(payouts) == [SETTLED]
        assert await payouts.paid_on() == [(*THEIRS[BITCOIN], 150_000_000 - FEE)]
        assert await payouts.agrees_with_node(BITCOIN, BTC)
        is_whole(payouts)


async def test_an_unknown_payment_that_its_block_undid_costs_its_fee_only(kind: str, tmp_path: Path) -> None:
    """Nobody was paid, nobody is to be named, and payments go on by themselves."""

    async def ask_and_fail(payouts: Payouts) -> None:
        _ = await payouts.withdraw("1.5")
        await fail(payouts)

    async with restored(kind, tmp_path, nothing, ask_and_fail) as payouts:
        home = House(payouts)
        await home.stock()
        await home.work(2)
        assert (states(payouts), home.reason) == ([], "")
        assert payouts.balance(house(Purpose.CHAIN_FEE, BTC)) < 0
        assert await payouts.agrees_with_node(BITCOIN, BTC)
        is_whole(payouts)


async def test_what_cannot_be_a_payment_of_the_house_is_left_to_the_operator(kind: str, tmp_path: Path) -> None:
    """The hot key used outside shows as unexplained; payments go on when the operator says so, and not before."""

    async def use_the_key(payouts: Payouts) -> None:
        chain = payouts.chain()
        draft = chain.draft_with([Payee(THEIRS[BITCOIN].address, "", "", 5)], 0, 1_000)
        signature = await payouts.signer.sign("BITCOIN", 1, draft.body)
        await chain.broadcast(chain.assemble(draft.body, signature).blob)
        _ = await payouts.node.mine("BITCOIN", 3)

    async def reserve(payouts: Payouts) -> None:
        _ = await payouts.withdraw("1.5")
        with pytest.raises(Striking):
            _ = await payouts.sender(crash_points=striking("before signature")).step()

    async with restored(kind, tmp_path, reserve, use_the_key) as payouts:
        home = House(payouts)
        await home.stock()
        await home.work(2)
        assert states(payouts) == [PAYING]
        assert home.reason == "books and chain differ by 1005 units of BTC without a cause"
        context = payouts.world.context
        await payouts.do(lambda: prepare_end(context, BITCOIN, by_hand=True))
        assert "does not wait" in await refused(payouts, lambda: prepare_end(context, BITCOIN, by_hand=True))
        await home.work(3)
        assert states(payouts) == [FAILED]
        is_whole(payouts)


async def test_nothing_is_given_up_while_a_network_waits(kind: str, tmp_path: Path) -> None:
    """A withdrawal that awaited approval may have been paid since: no rejection, no cancellation, no expiry."""

    async def ask(payouts: Payouts) -> None:
        await payouts.offer(BTC, approve_above=COIN)
        _ = await payouts.withdraw("1.5")

    async with restored(kind, tmp_path, ask, nothing) as payouts:
        context, [row] = payouts.world.context, payouts.withdrawals()
        for prepare in (prepare_rejection, prepare_cancellation):
            why = await refused(payouts, lambda prepare=prepare: prepare(context, NOBODY, row.ref))
            assert "waits to be reconciled" in why
        payouts.world.clock.at_ms += 30 * 86_400_000
        items = payouts.reads.last()
        assert await expire_due(context) == 0
        assert payouts.reads.last() == items
        home = House(payouts)
        await home.stock()
        await home.work()
        assert home.reason == ""
        assert await expire_due(context) == 1
        is_whole(payouts)


async def test_what_arrives_at_an_address_of_after_the_backup_is_withheld_until_it_is_claimed(
    kind: str, tmp_path: Path
) -> None:
    """It is booked, owed to nobody, and credited with its address to the customer that is named."""
    position = 8 + AHEAD - 1

    async def receive(payouts: Payouts) -> None:
        home = House(payouts)
        await home.stock()
        place = home.pools._sources[BITCOIN].branch.address(position)
        await payouts.node.faucet("BITCOIN", place.address, "", "", 5 * COIN)
        _ = await payouts.node.mine("BITCOIN", 3)

    async with restored(kind, tmp_path, nothing, receive) as payouts:
        home = House(payouts)
        assert not await home.watcher.try_round()
        await home.stock()
        await home.work()
        [deposit] = payouts.reads.rows(Deposit, {}, 10)
        assert (deposit.state, deposit.owner, deposit.amount) == (DepositState.WITHHELD, 0, 5 * COIN)
        assert payouts.balance(house(Purpose.SUSPENSE, BTC)) == 5 * COIN
        assert (home.reason, home.watcher.unbooked) == ("", 1)
        await _claim(payouts, deposit)
        place = payouts.reads.row(Address, BITCOIN, deposit.address, "")
        assert (place.owner, place.asset, place.paid, branch_of(place.position)) == (payouts.bob, BTC, True, 0)
        await payouts.node.faucet("BITCOIN", deposit.address, "", "", COIN)
        await home.work(2)
        assert payouts.available(payouts.bob) == 6 * COIN
        assert await payouts.agrees_with_node(BITCOIN, BTC)
        is_whole(payouts)


async def _claim(payouts: Payouts, deposit: Deposit) -> None:
    context = payouts.world.context
    assert "user is unknown" in await refused(
        payouts, lambda: prepare_deposit_assignment(context, NOBODY, deposit.ref, 77)
    )
    await payouts.do(lambda: prepare_deposit_assignment(context, NOBODY, deposit.ref, payouts.bob))
    assert "not withheld" in await refused(
        payouts, lambda: prepare_deposit_assignment(context, NOBODY, deposit.ref, payouts.bob)
    )
    assert payouts.available(payouts.bob) == 5 * COIN
    assert payouts.balance(house(Purpose.SUSPENSE, BTC)) == 0


async def test_a_withheld_deposit_that_the_chain_takes_back_is_owed_to_nobody_any_more(
    kind: str, tmp_path: Path
) -> None:
    """Before and after a reorganisation the suspense account is what the chain has."""

    async def receive(payouts: Payouts) -> None:
        await payouts.node.faucet("BITCOIN", OURS[BITCOIN][5].address, "", "", 5 * COIN)
        _ = await payouts.node.mine("BITCOIN", 3)

    async with restored(kind, tmp_path, nothing, receive) as payouts:
        home = House(payouts)
        await home.stock()
        await home.work()
        [deposit] = payouts.reads.rows(Deposit, {}, 10)
        _ = await payouts.node.reorg("BITCOIN", 4, [deposit.txid])
        await home.follow()
        assert payouts.balance(house(Purpose.SUSPENSE, BTC)) == 0
        [deposit] = payouts.reads.rows(Deposit, {}, 10)
        assert deposit.state in (DepositState.REVERSED, DepositState.DROPPED)
        is_whole(payouts)


@pytest.mark.parametrize("network", [BITCOIN, RIPPLE], ids=["addresses", "tags"])
async def test_each_epoch_gives_out_addresses_of_its_own(kind: str, tmp_path: Path, network: int) -> None:
    """After a second restore too no address and no tag comes again, and those before are known."""
    seen: set[tuple[str, str]] = set()
    async with restored(kind, tmp_path, nothing, nothing) as payouts:
        for epoch in (1, 2):
            home = House(payouts, network)
            await home.stock()
            rows = payouts.reads.rows(Address, {"network": network}, 10_000)
            fresh = {(row.address, row.tag) for row in rows if branch_of(row.position) == epoch}
            taken = [home.pools.take(network) for _ in range(20)]
            assert {(it.address, it.tag) for it in taken if it} <= fresh
            assert not fresh & seen
            seen |= {(row.address, row.tag) for row in rows}
            assert len(rows) == len(seen)
            await payouts.do(lambda: prepare_epoch(payouts.world.context))
        if network != BITCOIN:
            assert len({address for address, _ in seen}) == 1
        is_whole(payouts)


async def test_what_comes_back_from_the_lost_time_is_taken_for_two_weeks(kind: str, tmp_path: Path) -> None:
    """Payments go on long before, and a house that was never restored has nothing to take."""
    async with restored(kind, tmp_path, nothing, nothing) as payouts:
        home, clock = House(payouts), payouts.world.clock
        await home.stock()
        await home.work(2)
        restoration, began_ms = home.watcher.restoration, payouts.reads.row(Epoch, 0).began_ms
        assert (home.reason, restoration.adopts) == ("", True)
        clock.at_ms = began_ms + 14 * DAY_MS - 1
        assert restoration.adopts
        clock.at_ms += 1
        assert not restoration.adopts


async def test_a_house_that_was_never_restored_takes_nothing_for_its_own(kind: str, tmp_path: Path) -> None:
    """Whatever spends its coins without its doing stays unexplained, for the operator to see."""
    async with paying(new_store(kind, tmp_path), tmp_path) as payouts:
        assert not House(payouts).watcher.restoration.adopts
