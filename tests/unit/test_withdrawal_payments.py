"""Payments: candidates that replace each other, coins and their change, batches, and what the chain undoes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from strongroom.engine.command import NOBODY, Command
from strongroom.errors import InvariantBroken
from strongroom.ledger.accounts import Purpose, available, held, house
from strongroom.ledger.entries import move
from strongroom.records.chains import Holding
from strongroom.records.coins import Coin
from strongroom.records.withdrawals import Payment, Withdrawal
from strongroom.store.memory import MemoryStore
from strongroom.wallet.payments import (
    Draft,
    RedraftPayment,
    ReservePayment,
    VoidPayment,
    free_coins,
    nonce_text,
    prepare_reservation,
)
from strongroom.wallet.settlements import Change, FinishPayment, prepare_finish, prepare_revert
from support.paying import COIN, Payouts, book, paying
from support.payment_rows import (
    APPROVED,
    ASKED,
    ASSETS,
    AWAITING,
    BODY,
    FAILED,
    FEE,
    FINAL,
    MINED,
    NONCE,
    PAYING,
    PAYMENT,
    REF,
    RESERVED,
    SETTLED,
    SIGNED,
    VOIDED,
    everything,
    keep,
    payment_of,
    revert,
    told,
    withdrawal_of,
)
from support.world import BITCOIN, BTC, ERC20, ETH, USDT


@pytest.fixture
async def payouts(tmp_path: Path) -> AsyncIterator[Payouts]:
    """A house where alice has ten bitcoin, two of them held."""
    async with paying(MemoryStore(), tmp_path) as payouts:
        await payouts.endow(payouts.alice, BTC, BITCOIN, 10 * COIN)
        await payouts.do(lambda: book(*move(available(payouts.alice, BTC), held(payouts.alice, BTC), ASKED)))
        yield payouts


@pytest.mark.parametrize(("tip", "done"), [(3, False), (4, True)])
async def test_a_payment_that_the_chain_undid_costs_its_fee_and_frees_the_money(
    payouts: Payouts, tip: int, done: bool
) -> None:
    """Once the block that paid nobody is buried, the withdrawal has failed; the fee it took is the house's."""
    await keep(payouts, withdrawal_of(payouts, PAYING), payment_of(SIGNED))
    outcome = await told(payouts, revert(payouts, tip))
    if not done:
        assert outcome.refusal is not None
        assert outcome.refusal.message == "BADREQUEST: payment is not confirmed"
        return
    assert payouts.row(REF).state == FAILED
    assert (payouts.held(payouts.alice), payouts.available(payouts.alice)) == (0, 10 * COIN)
    assert payouts.balance(house(Purpose.CHAIN_FEE, BTC)) == -1100
    assert payouts.reads.row(Holding, BITCOIN, BTC).chain_units == str(10 * COIN - 1100)
    ended = msgspec.structs.replace(payment_of(SIGNED), state=VOIDED, height=3, chain_fee_units="1100")
    assert payouts.reads.row(Payment, PAYMENT) == ended


async def test_a_redraft_spends_the_same_and_pays_more(payouts: Payouts) -> None:
    """It keeps every candidate; one that another sender drafted meanwhile is not replaced unseen."""
    await keep(payouts, withdrawal_of(payouts, PAYING), payment_of(SIGNED))
    draft = Draft((nonce_text(NONCE),), b"dearer", 1001)
    assert (await told(payouts, RedraftPayment(NOBODY, PAYMENT, b"another", draft))).stale
    for wrong, rule in (
        (msgspec.structs.replace(draft, spends=("other",)), "all candidates of a payment spend the same"),
        (msgspec.structs.replace(draft, fee_units=1000), "a candidate that replaces another pays more"),
    ):
        with pytest.raises(InvariantBroken, match=rule):
            await payouts.world.context.submit(RedraftPayment(NOBODY, PAYMENT, BODY, wrong))
    await told(payouts, RedraftPayment(NOBODY, PAYMENT, BODY, draft))
    again = msgspec.structs.replace(payment_of(SIGNED), state=RESERVED, body=b"dearer", chain_fee_units="1001")
    assert payouts.reads.row(Payment, PAYMENT) == again


def coin(outpoint: str, units: int, payment: int = 0, height: int = 2) -> Coin:
    """Return a coin of the house."""
    return Coin(BITCOIN, outpoint, 3, units, height, payment)


def reserve_coins(withdrawal: Withdrawal, *outpoints: str) -> Command:
    """Return the beginning of a payment that spends coins."""
    draft = Draft(outpoints, BODY, 1000)
    return ReservePayment(NOBODY, PAYMENT, (REF,), (withdrawal.owner,), BITCOIN, BTC, draft, coins=True, assets=ASSETS)


async def test_a_payment_takes_its_coins_for_itself(payouts: Payouts) -> None:
    """A coin that is reserved, that a reorganisation took, or that nobody has seen, pays nothing."""
    withdrawal = withdrawal_of(payouts, APPROVED)
    await keep(payouts, withdrawal, coin("a:0", COIN), coin("b:1", COIN), coin("c:2", 5, 99), coin("d:3", 5, height=0))
    for taken in ("c:2", "d:3", "never:0"):
        assert (await told(payouts, reserve_coins(withdrawal, "a:0", taken))).stale
    await told(payouts, reserve_coins(withdrawal, "a:0", "b:1"))
    assert payouts.reads.row(Payment, PAYMENT).spends == ("a:0", "b:1")
    assert payouts.reads.row(Coin, BITCOIN, "a:0") == coin("a:0", COIN, PAYMENT)
    assert payouts.reads.row(Coin, BITCOIN, "b:1") == coin("b:1", COIN, PAYMENT)


async def spent(payouts: Payouts) -> Payment:
    """Keep a mined payment of two coins that come to what it pays, its fee and 700 more."""
    payment = msgspec.structs.replace(payment_of(MINED), spends=("a:0", "b:1"))
    paid = ASKED - FEE + 1000 + 700
    await keep(payouts, withdrawal_of(payouts, PAYING), payment, coin("a:0", COIN, PAYMENT))
    await keep(payouts, coin("b:1", paid - COIN, PAYMENT))
    return payment


def finish_coins(payouts: Payouts, *change: Change) -> FinishPayment:
    """Return the settlement of the payment of coins."""
    spends = ("a:0", "b:1")
    return FinishPayment(NOBODY, PAYMENT, (REF,), (payouts.alice,), BTC, BITCOIN, BTC, 4, spends, change, 3)


async def test_change_comes_back_as_a_coin_of_the_house(payouts: Payouts) -> None:
    """When the payment is final its change can be spent; what it spent stays its own for ever."""
    await spent(payouts)
    await told(payouts, finish_coins(payouts, Change("tx:1", 700)))
    assert payouts.reads.row(Payment, PAYMENT).state == FINAL
    assert payouts.reads.row(Coin, BITCOIN, "tx:1") == Coin(BITCOIN, "tx:1", 0, 700, 3)
    assert payouts.reads.row(Coin, BITCOIN, "a:0").payment == PAYMENT


@pytest.mark.parametrize("change", [(), (Change("tx:1", 699),), (Change("tx:1", 700), Change("tx:2", 1))])
async def test_coins_that_do_not_come_to_what_was_paid_settle_nothing(
    payouts: Payouts, change: tuple[Change, ...]
) -> None:
    """One unit more or less than went out and came back is our mistake, and the books stay as they are."""
    await spent(payouts)
    before = everything(payouts)
    with pytest.raises(InvariantBroken, match="what a payment spends is paid, taken as fee or back"):
        await payouts.world.context.submit(finish_coins(payouts, *change))
    assert everything(payouts) == before


async def test_a_batch_with_a_frozen_customer_is_not_paid(payouts: Payouts) -> None:
    """Only the frozen customer's withdrawal waits for the operator; the others are paid with the next transaction."""
    bobs = msgspec.structs.replace(withdrawal_of(payouts, APPROVED), ref=REF + 1, owner=payouts.bob)
    await keep(payouts, withdrawal_of(payouts, APPROVED), bobs)
    await payouts.mark(payouts.bob, frozen=True)
    draft = Draft((nonce_text(NONCE),), BODY, 1000)
    both = ((REF, REF + 1), (payouts.alice, payouts.bob))
    await told(payouts, ReservePayment(NOBODY, PAYMENT, *both, BITCOIN, BTC, draft, coins=False, assets=ASSETS))
    assert [payouts.row(ref).state for ref in (REF, REF + 1)] == [APPROVED, AWAITING]
    assert payouts.reads.row(Payment, PAYMENT).state == 0


async def test_a_batch_is_settled_or_fails_as_a_whole(payouts: Payouts) -> None:
    """Both customers' holds are gone with one transaction and one fee of the chain, or both have their money again."""
    await payouts.endow(payouts.bob, BTC, BITCOIN, 5 * COIN)
    await payouts.do(lambda: book(*move(available(payouts.bob, BTC), held(payouts.bob, BTC), ASKED)))
    bobs = msgspec.structs.replace(withdrawal_of(payouts, PAYING), ref=REF + 1, owner=payouts.bob)
    payment = msgspec.structs.replace(payment_of(MINED), withdrawals=(REF, REF + 1))
    await keep(payouts, withdrawal_of(payouts, PAYING), bobs, payment)
    owners = (payouts.alice, payouts.bob)
    await told(payouts, FinishPayment(NOBODY, PAYMENT, (REF, REF + 1), owners, BTC, BITCOIN, BTC, 4, (), (), 3))
    assert [payouts.row(ref).state for ref in (REF, REF + 1)] == [SETTLED, SETTLED]
    assert (payouts.held(payouts.alice), payouts.held(payouts.bob)) == (0, 0)
    assert payouts.balance(house(Purpose.FEES, BTC)) == 2 * FEE
    assert payouts.balance(house(Purpose.CHAIN_FEE, BTC)) == -1000


async def broken(payouts: Payouts, command: Command, rule: str) -> None:
    """See that a command is a mistake of ours, told by its rule, and changes nothing."""
    before = everything(payouts)
    with pytest.raises(InvariantBroken, match=rule):
        await payouts.world.context.submit(command)
    assert everything(payouts) == before


def batch(payouts: Payouts, *rows: Withdrawal, spends: tuple[str, ...] = ("hot/1",)) -> Command:
    """Return the beginning of a payment of several withdrawals."""
    refs, owners = tuple(row.ref for row in rows), tuple(row.owner for row in rows)
    draft = Draft(spends, BODY, 1000)
    return ReservePayment(NOBODY, PAYMENT, refs, owners, BITCOIN, BTC, draft, coins=False, assets=ASSETS)


async def test_a_payment_pays_somebody_and_spends_something(payouts: Payouts) -> None:
    """One without the other is nothing that a chain could carry out."""
    withdrawal, rule = withdrawal_of(payouts, APPROVED), "a payment pays something and spends something"
    await keep(payouts, withdrawal)
    await broken(payouts, batch(payouts), rule)
    await broken(payouts, batch(payouts, withdrawal, spends=()), rule)


async def test_a_customer_is_in_a_batch_once(payouts: Payouts) -> None:
    """Two withdrawals of one customer share no transaction: released together, a debt would be repaid twice."""
    one = withdrawal_of(payouts, APPROVED)
    two = msgspec.structs.replace(one, ref=REF + 1)
    await keep(payouts, one, two)
    await broken(payouts, batch(payouts, one, two), "a payment pays a customer once")


async def test_a_batch_is_of_approved_withdrawals_only(payouts: Payouts) -> None:
    """One that waits for the operator's word stops the payment, and the others stay approved."""
    one = withdrawal_of(payouts, APPROVED)
    two = msgspec.structs.replace(one, ref=REF + 1, owner=payouts.bob, state=AWAITING)
    await keep(payouts, one, two)
    outcome = await told(payouts, batch(payouts, one, two))
    assert outcome.refusal is not None
    assert outcome.refusal.message == "BADREQUEST: withdrawal is not approved"


async def test_a_payment_fails_with_all_that_it_pays(payouts: Payouts) -> None:
    """Nobody's money is released by a payment that was not theirs."""
    other = msgspec.structs.replace(withdrawal_of(payouts, PAYING), ref=REF + 1)
    await keep(payouts, withdrawal_of(payouts, PAYING), other, payment_of(SIGNED))
    command = VoidPayment(NOBODY, PAYMENT, (other,))
    await broken(payouts, command, "a payment fails with all that it pays")


async def test_a_payment_spends_what_it_has_reserved(payouts: Payouts) -> None:
    """Neither other coins nor those of another payment count for it."""
    payment = await spent(payouts)
    await keep(payouts, coin("c:2", 2 * ASKED))
    command = finish_coins(payouts, Change("tx:1", 700))
    await broken(payouts, msgspec.structs.replace(command, spends=("c:2",)), "a payment spends what it has reserved")
    await keep(payouts, coin("a:0", COIN, payment.ref + 1))
    await broken(payouts, command, "a payment's coins are its own")


async def test_free_coins_are_those_of_the_network_that_are_there(payouts: Payouts) -> None:
    """Those that a payment spends, that a reorganisation took, or that lie elsewhere, are left out."""
    elsewhere = msgspec.structs.replace(coin("z:9", 5), network=ERC20)
    await keep(payouts, coin("a:0", COIN), coin("b:1", 5, PAYMENT), coin("d:3", 5, height=0), elsewhere)
    assert free_coins(payouts.world.context, BITCOIN) == [coin("a:0", COIN)]


async def test_a_payment_has_one_asset(payouts: Payouts) -> None:
    """What is of different assets, or goes to different networks, is never drafted together."""
    one = withdrawal_of(payouts, APPROVED)
    draft = Draft(("hot/1",), BODY, 1000)
    for other in (msgspec.structs.replace(one, asset=ETH), msgspec.structs.replace(one, network=ERC20)):
        with pytest.raises(InvariantBroken, match="a payment has one asset"):
            prepare_reservation(payouts.world.context, [one, other], draft)


async def test_the_command_that_settles_names_what_came_back(payouts: Payouts) -> None:
    """On a chain of coins it has what was spent and all change; on a chain of accounts neither."""
    payment = await spent(payouts)
    change = [Change("tx:1", 700), Change("tx:2", 1)]
    command = prepare_finish(payouts.world.context, payment, 4, change)
    assert (command.spends, command.change) == (("a:0", "b:1"), tuple(change))
    command = prepare_finish(payouts.world.context, payment, 4)
    assert (command.spends, command.change) == ((), ())


async def test_an_undone_payment_of_a_token_costs_the_chains_coin(payouts: Payouts) -> None:
    """The fee is taken from what the house owns of the network's own coin."""
    await payouts.do(lambda: payouts.endow_books(payouts.bob, ETH, ERC20, COIN))
    await payouts.do(lambda: payouts.endow_books(payouts.alice, USDT, ERC20, 5 * COIN))
    await payouts.do(lambda: book(*move(available(payouts.alice, USDT), held(payouts.alice, USDT), ASKED)))
    sent = msgspec.structs.replace(withdrawal_of(payouts, PAYING), asset=USDT, network=ERC20)
    payment = msgspec.structs.replace(payment_of(MINED), asset=USDT, network=ERC20)
    await keep(payouts, sent, payment)
    await payouts.do(lambda: prepare_revert(payouts.world.context, payment, 3, 10**15, 9))
    assert payouts.row(REF).state == FAILED
    assert payouts.balance(house(Purpose.CHAIN_FEE, ETH)) == -100_000
    assert payouts.reads.row(Holding, ERC20, ETH).chain_units == str(10**18 - 10**15)
