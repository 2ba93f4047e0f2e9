"""How approved withdrawals are paid: once each, settled when buried, released when the chain says never."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import msgspec
import pytest

from strongroom.custody.chain import Funds, Payee, Rejected
from strongroom.custody.sender import PaymentTerms
from strongroom.engine.command import NOBODY, Command
from strongroom.errors import Refused
from strongroom.ledger.accounts import Purpose, house, omnibus
from strongroom.records.chains import Holding, Tip
from strongroom.records.withdrawals import Payment, PaymentState, Reserved, Spent, Withdrawal, WithdrawalState
from strongroom.wallet.balances import balance_of
from strongroom.wallet.payments import (
    Draft,
    MinePayment,
    OfferPayment,
    UnminePayment,
    next_nonce,
    outgoing,
    prepare_reservation,
    prepare_signing,
    prepare_void,
)
from strongroom.wallet.settlements import prepare_finish
from strongroom.wallet.withdrawals import withdrawal_confirmations
from support.paying import COIN, RIPPLE, THEIRS, TODAY, XRP, Payouts, note_tip, paying, until
from support.world import BITCOIN, BTC, ERC20, ETH, STORES, USDT, new_store


@pytest.fixture(params=STORES)
async def payouts(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Payouts]:
    """A house on each store in turn, where alice has ten bitcoin."""
    async with paying(new_store(request.param, tmp_path), tmp_path) as payouts:
        await payouts.endow(payouts.alice, BTC, BITCOIN, 10 * COIN)
        yield payouts


async def test_a_withdrawal_is_paid_and_settled_when_it_is_buried(payouts: Payouts) -> None:
    """The receiver gets the amount on the chain, and the total falls only then; the house bears the chain's fee."""
    withdrawal, sender = await payouts.withdraw("1.5"), payouts.sender()
    await sender.step()
    assert payouts.row(withdrawal.ref).state == WithdrawalState.PAYING
    await payouts.node.mine("BITCOIN")
    await sender.step()
    mined = payouts.row(withdrawal.ref)
    assert mined.txid == payouts.payment(withdrawal).candidates[0]
    assert balance_of(payouts.reads, payouts.alice, BTC) == (850_000_000, 10 * COIN)
    await payouts.node.mine("BITCOIN")
    await sender.step()
    assert payouts.row(withdrawal.ref).state == WithdrawalState.SETTLED
    assert balance_of(payouts.reads, payouts.alice, BTC) == (850_000_000, 850_000_000)
    assert await payouts.paid_on() == [(*THEIRS[BITCOIN], 149_999_500)]
    assert payouts.balance(house(Purpose.FEES, BTC)) == 500
    assert payouts.balance(house(Purpose.CHAIN_FEE, BTC)) == -2820
    assert await payouts.agrees_with_node(BITCOIN, BTC)
    payouts.agree()


async def test_a_tokens_chain_fee_is_paid_in_the_chains_own_coin(payouts: Payouts) -> None:
    """USDT leaves in six decimals, the fee in wei; what is finer than the ledger goes to the dust."""
    await payouts.endow(payouts.alice, USDT, ERC20, 100 * COIN)
    await payouts.endow(payouts.bob, ETH, ERC20, COIN)
    withdrawals = [await payouts.withdraw(str(n), THEIRS[ERC20].address, asset="USDT") for n in (10, 20, 30)]
    await payouts.pay(payouts.sender(ERC20), *withdrawals, network=ERC20)
    assert [amount for _, _, amount in await payouts.paid_on(ERC20)] == [5_000_000, 15_000_000, 25_000_000]
    assert payouts.balance(house(Purpose.FEES, USDT)) == 15 * COIN
    assert int(payouts.reads.row(Holding, ERC20, ETH).chain_units) == 10**18 - 3 * 130_000_000_000_000
    assert await payouts.agrees_with_node(ERC20, USDT)
    assert await payouts.agrees_with_node(ERC20, ETH)
    payouts.agree()


async def test_odd_wei_go_to_the_dust(payouts: Payouts) -> None:
    """A chain fee that is no whole number of ledger units leaves the omnibus the floor of what is there."""
    await payouts.endow(payouts.alice, ETH, ERC20, 10 * COIN)
    payouts.chain(ERC20).spec = msgspec.structs.replace(payouts.chain(ERC20).spec, payment_fee=15_000_000_001)
    withdrawals = [await payouts.withdraw("1", THEIRS[ERC20].address, asset="ETH") for _ in range(3)]
    await payouts.pay(payouts.sender(ERC20), *withdrawals, network=ERC20)
    assert payouts.balance(house(Purpose.CHAIN_FEE, ETH)) == -3
    assert payouts.balance(omnibus(ERC20, ETH)) == -(7 * COIN - 5)
    assert payouts.balance(house(Purpose.DUST, ETH)) == -2
    payouts.agree()


async def test_a_tag_reaches_the_chain(payouts: Payouts) -> None:
    """An XRP withdrawal pays the address with its tag, in drops."""
    await payouts.endow(payouts.alice, XRP, RIPPLE, 100 * COIN)
    withdrawal = await payouts.withdraw("10", ":".join(THEIRS[RIPPLE]), asset="XRP")
    await payouts.pay(payouts.sender(RIPPLE), withdrawal, network=RIPPLE)
    assert await payouts.paid_on(RIPPLE) == [(*THEIRS[RIPPLE], 9_749_999)]
    payouts.agree()


async def test_what_the_chain_will_never_mine_is_released(payouts: Payouts) -> None:
    """A payment that failed for good gives the customer amount and fee back, and the day's limit as well."""
    withdrawal, sender = await payouts.withdraw("2", include_fee=False), payouts.sender()
    payouts.node.fail_next("BITCOIN")
    await payouts.pay(sender, withdrawal)
    assert payouts.row(withdrawal.ref).state == WithdrawalState.FAILED
    assert payouts.payment(withdrawal).state == PaymentState.VOIDED
    assert balance_of(payouts.reads, payouts.alice, BTC) == (10 * COIN, 10 * COIN)
    assert payouts.reads.row(Spent, payouts.alice, BTC, TODAY).amount == 0
    assert await payouts.paid_on() == []
    again = await payouts.withdraw("2")
    await payouts.pay(sender, again)
    assert payouts.row(again.ref).state == WithdrawalState.SETTLED
    assert payouts.payment(again).spends > payouts.payment(withdrawal).spends
    payouts.agree()


async def test_a_reorganisation_moves_a_payment_to_another_block(payouts: Payouts) -> None:
    """Confirmations count from the block it is in now, and nothing is paid twice."""
    withdrawal, sender = await payouts.withdraw("2"), payouts.sender()
    await sender.step()
    [block] = await payouts.node.mine("BITCOIN")
    await sender.step()
    assert payouts.row(withdrawal.ref).height == block.height
    await payouts.node.reorg("BITCOIN", 1)
    await sender.step()
    assert payouts.row(withdrawal.ref).height == block.height + 1
    assert payouts.row(withdrawal.ref).state == WithdrawalState.PAYING
    await payouts.pay(sender, withdrawal)
    assert len(await payouts.paid_on()) == 1
    payouts.agree()


async def test_a_reorganisation_that_drops_a_payment_fails_it(payouts: Payouts) -> None:
    """A payment in a block is no payment yet: when the chain takes it back for good, the money is free."""
    withdrawal, sender = await payouts.withdraw("2"), payouts.sender()
    await sender.step()
    await payouts.node.mine("BITCOIN")
    await sender.step()
    await payouts.node.reorg("BITCOIN", 1, drop=payouts.payment(withdrawal).candidates)
    await sender.step()
    assert (payouts.row(withdrawal.ref).txid, payouts.row(withdrawal.ref).height) == ("", 0)
    await sender.step()
    assert payouts.row(withdrawal.ref).state == WithdrawalState.FAILED
    assert payouts.available(payouts.alice) == 10 * COIN
    payouts.agree()


async def test_withdrawals_of_several_customers_share_a_transaction(payouts: Payouts) -> None:
    """Where the operator says so, one transaction pays many, each once; a customer's second one goes with the next."""
    await payouts.endow(payouts.bob, BTC, BITCOIN, 5 * COIN)
    sender = payouts.sender(terms=PaymentTerms(batch=3))
    withdrawals = [
        await payouts.withdraw("1"),
        await payouts.withdraw("2", owner=payouts.bob),
        await payouts.withdraw("3"),
    ]
    await payouts.pay(sender, *withdrawals)
    first, second, third = (payouts.payment(withdrawal) for withdrawal in withdrawals)
    assert first == second
    assert first.withdrawals == (withdrawals[0].ref, withdrawals[1].ref)
    assert third.withdrawals == (withdrawals[2].ref,)
    assert {payouts.row(withdrawal.ref).state for withdrawal in withdrawals} == {WithdrawalState.SETTLED}
    assert payouts.row(withdrawals[0].ref).txid == payouts.row(withdrawals[1].ref).txid != ""
    assert sorted(amount for _, _, amount in await payouts.paid_on()) == [99_999_500, 199_999_500, 299_999_500]
    assert await payouts.agrees_with_node(BITCOIN, BTC)
    payouts.agree()


async def test_one_that_cannot_be_paid_holds_up_no_other_of_its_batch(payouts: Payouts) -> None:
    """What no transaction can pay is told by itself, and the others of its batch are paid all the same."""
    await payouts.endow(payouts.bob, BTC, BITCOIN, 5 * COIN)
    chain, right = payouts.chain(), payouts.chain().draft
    large = await payouts.withdraw("9")

    async def draft(payees: Sequence[Payee], funds: Funds) -> Draft:
        if any(payee.amount > 5 * COIN for payee in payees):
            raise Rejected("too much for one transaction")
        return await right(payees, funds)

    chain.draft = draft  # pyright: ignore[reportAttributeAccessIssue]
    small = await payouts.withdraw("2", owner=payouts.bob)
    sender = payouts.sender(terms=PaymentTerms(batch=3))
    await payouts.pay(sender, small)
    assert payouts.row(small.ref).state == WithdrawalState.SETTLED
    assert payouts.row(large.ref).state == WithdrawalState.APPROVED
    assert sender.status.stuck == {large.ref: "too much for one transaction"}
    payouts.agree()


async def test_a_payment_that_waits_too_long_is_offered_for_a_higher_fee(payouts: Payouts) -> None:
    """Both candidates pay the same once: whichever is mined, its own fee is booked, up to a limit of the chain's."""
    withdrawal, sender = await payouts.withdraw("2"), payouts.sender(terms=PaymentTerms(redraft_after_s=600))
    await sender.step()
    payouts.world.clock.at_ms += 599_999
    await sender.step()
    assert len(payouts.payment(withdrawal).candidates) == 1
    for count in (2, 3, 4, 4, 4):
        payouts.world.clock.at_ms += 600_000
        await sender.step()
        assert len(payouts.payment(withdrawal).candidates) == count
    await payouts.pay(sender, withdrawal)
    assert payouts.row(withdrawal.ref).txid == payouts.payment(withdrawal).candidates[-1]
    assert payouts.balance(house(Purpose.CHAIN_FEE, BTC)) == -8 * 2_820
    assert len(await payouts.paid_on()) == 1
    assert await payouts.agrees_with_node(BITCOIN, BTC)
    payouts.agree()


async def test_an_older_candidate_may_be_the_one_that_is_mined(payouts: Payouts) -> None:
    """A dearer one that was signed and never reached the node changes nothing: the first one settles."""
    withdrawal, sender = await payouts.withdraw("2"), payouts.sender(terms=PaymentTerms(redraft_after_s=600))
    await sender.step()
    payouts.world.clock.at_ms += 600_000
    payouts.node.register("BITCOIN", await payouts.signer.public_key("ERC20"))
    await sender.step()
    first, _ = payouts.payment(withdrawal).candidates
    await payouts.pay(sender, withdrawal)
    assert payouts.row(withdrawal.ref).txid == first
    assert payouts.balance(house(Purpose.CHAIN_FEE, BTC)) == -2_820
    assert len(await payouts.paid_on()) == 1
    payouts.agree()


async def test_a_candidate_that_no_node_ever_took_fails_with_its_rival(payouts: Payouts) -> None:
    """When something else has spent what both spend, neither is ever mined, and the customer has the money again."""
    withdrawal, sender = await payouts.withdraw("2"), payouts.sender(terms=PaymentTerms(redraft_after_s=600))
    await sender.step()
    payouts.world.clock.at_ms += 600_000
    payouts.node.register("BITCOIN", await payouts.signer.public_key("ERC20"))
    await sender.step()
    first, _ = payouts.payment(withdrawal).candidates
    await payouts.node.mine("BITCOIN")
    await payouts.node.reorg("BITCOIN", 1, drop=[first])
    await payouts.pay(sender, withdrawal)
    assert payouts.row(withdrawal.ref).state == WithdrawalState.FAILED
    assert payouts.available(payouts.alice) == 10 * COIN
    assert await payouts.paid_on() == []
    payouts.agree()


async def test_what_the_chain_undoes_is_released_and_its_fee_is_booked(payouts: Payouts) -> None:
    """A block may take a payment's fee and pay nobody: the customer has the money again, once that is buried."""
    withdrawal, sender = await payouts.withdraw("2"), payouts.sender()
    payouts.node.undo_next("BITCOIN")
    await payouts.pay(sender, withdrawal)
    assert payouts.row(withdrawal.ref).state == WithdrawalState.FAILED
    assert balance_of(payouts.reads, payouts.alice, BTC) == (10 * COIN, 10 * COIN)
    assert payouts.balance(house(Purpose.CHAIN_FEE, BTC)) == -2_820
    assert await payouts.paid_on() == []
    assert await payouts.agrees_with_node(BITCOIN, BTC)
    payouts.agree()


async def test_a_payment_waits_for_funds(payouts: Payouts) -> None:
    """While the hot wallet is short, the withdrawal is under way, and the same transaction goes out when coins came."""
    await payouts.do(lambda: payouts.endow_books(payouts.alice, BTC, BITCOIN, 5 * COIN))
    withdrawal, sender = await payouts.withdraw("12"), payouts.sender()
    small = await payouts.withdraw("1")
    await sender.step()
    stuck = payouts.payment(withdrawal)
    assert sender.status.stuck == {stuck.ref: "the hot wallet has too little native coin"}
    assert payouts.row(withdrawal.ref).state == WithdrawalState.PAYING
    await payouts.pay(sender, small)
    await payouts.endow_node(BTC, BITCOIN, 5 * COIN)
    await payouts.pay(sender, withdrawal)
    assert payouts.payment(withdrawal).candidates == stuck.candidates
    assert sender.status.stuck == {}
    assert len(await payouts.paid_on()) == 2
    payouts.agree()


async def test_a_refused_candidate_is_never_replaced_by_another(payouts: Payouts) -> None:
    """The node's no settles nothing: the payment stays as it is, and the operator is told."""
    withdrawal, sender = await payouts.withdraw("1"), payouts.sender()
    right = await payouts.signer.public_key("BITCOIN")
    payouts.node.register("BITCOIN", await payouts.signer.public_key("ERC20"))
    for _ in range(3):
        assert await sender.step()
    signed = payouts.payment(withdrawal)
    assert (signed.state, len(signed.candidates)) == (PaymentState.SIGNED, 1)
    assert sender.status.stuck == {signed.ref: "the signature is not the hot wallet's"}
    payouts.node.register("BITCOIN", right)
    await payouts.pay(sender, withdrawal)
    assert payouts.payment(withdrawal).candidates == signed.candidates


def drafted(payouts: Payouts, withdrawal: Withdrawal, nonce: int = 0) -> Command:
    """Return the command that begins a withdrawal's payment, as a sender that was then killed would have."""
    context, chain = payouts.world.context, payouts.chain(withdrawal.network)
    token, units = outgoing(context.catalogue, withdrawal)
    nonce = max(nonce, next_nonce(context, withdrawal.network))
    draft = chain.draft_with([Payee(withdrawal.address, withdrawal.tag, token, units)], nonce, 100)
    return prepare_reservation(context, [withdrawal], draft)


async def test_each_payment_has_a_nonce_of_its_own(payouts: Payouts) -> None:
    """Payments that the node has not seen yet have their nonces all the same."""
    withdrawals = [await payouts.withdraw("1") for _ in range(5)]
    for withdrawal in withdrawals[:3]:
        await payouts.do(lambda withdrawal=withdrawal: drafted(payouts, withdrawal))
    await payouts.pay(payouts.sender(), *withdrawals)
    spends = [payouts.payment(withdrawal).spends for withdrawal in withdrawals]
    assert len(set(spends)) == 5
    assert len(payouts.reads.rows(Reserved, {"network": BITCOIN}, 10)) == 5
    assert len(await payouts.paid_on()) == 5
    payouts.agree()


async def test_two_senders_pay_each_withdrawal_once(payouts: Payouts) -> None:
    """Leadership saves work only: whoever is second finds that the step is done."""
    withdrawals = [await payouts.withdraw("1") for _ in range(6)]
    senders = [payouts.sender(), payouts.sender()]
    for _ in range(5):
        await asyncio.gather(*(sender.step() for sender in senders))
        await payouts.node.mine("BITCOIN")
    assert {payouts.row(withdrawal.ref).state for withdrawal in withdrawals} == {WithdrawalState.SETTLED}
    assert len(await payouts.paid_on()) == 6
    assert len(payouts.reads.rows(Payment, {"network": BITCOIN}, 10)) == 6
    payouts.agree()


async def test_only_one_payment_is_made_of_a_withdrawal(payouts: Payouts) -> None:
    """A second reservation, a void without a signature, and a settlement that is not confirmed are refused."""
    context, withdrawal = payouts.world.context, await payouts.withdraw("1")
    twin = drafted(payouts, withdrawal, 7)
    await payouts.do(lambda: drafted(payouts, withdrawal))
    payment = payouts.payment(withdrawal)
    with pytest.raises(Refused, match="withdrawal is not approved"):
        await payouts.do(lambda: twin)
    with pytest.raises(Refused, match="payment is not signed"):
        await payouts.do(lambda: prepare_void(context, payment))
    with pytest.raises(Refused, match="payment is not mined"):
        await payouts.do(lambda: UnminePayment(NOBODY, payment.ref, payment.withdrawals))
    sender = payouts.sender()
    await sender.step()
    [block] = await payouts.node.mine("BITCOIN")
    await sender.step()
    with pytest.raises(Refused, match="payment is not confirmed"):
        await payouts.do(lambda: prepare_finish(context, payouts.payment(withdrawal), block.height))
    assert payouts.held(payouts.alice) == COIN


async def test_confirmations_count_with_the_chains_tip(payouts: Payouts) -> None:
    """History shows how deep the payment is, as far as the watcher has read, and never more than is needed."""
    withdrawal, sender = await payouts.withdraw("1"), payouts.sender()
    assert withdrawal_confirmations(payouts.reads, withdrawal) == (0, 2)
    await sender.step()
    [block] = await payouts.node.mine("BITCOIN")
    await sender.step()
    await payouts.do(lambda: note_tip(Tip(BITCOIN, block.height)))
    assert withdrawal_confirmations(payouts.reads, payouts.row(withdrawal.ref)) == (1, 2)
    await payouts.pay(sender, withdrawal)
    assert withdrawal_confirmations(payouts.reads, payouts.row(withdrawal.ref)) == (2, 2)


async def test_an_outage_of_the_node_changes_nothing(payouts: Payouts) -> None:
    """While the node does not answer the sender says so, and takes nothing for granted."""
    withdrawal, sender = await payouts.withdraw("1"), payouts.sender()
    payouts.node.pause("BITCOIN")
    assert not await sender.step()
    assert sender.status.trouble == "BITCOIN does not answer"
    assert payouts.row(withdrawal.ref).state == WithdrawalState.APPROVED
    payouts.node.resume("BITCOIN")
    payouts.node.lose_next_answer("BITCOIN")
    assert not await sender.step()
    assert payouts.payment(withdrawal).state == PaymentState.SIGNED
    await payouts.pay(sender, withdrawal)
    assert sender.status.trouble == ""
    assert len(await payouts.paid_on()) == 1


async def test_the_loop_pays_what_is_asked_for_and_waits_out_an_outage(payouts: Payouts) -> None:
    """Without being told, the running sender notices a withdrawal, a block, and the node's return."""
    sender = payouts.sender()
    running = asyncio.create_task(sender.run())
    try:
        first = await payouts.withdraw("1")
        await payouts.until_waiting(1)
        payouts.node.pause("BITCOIN")
        await payouts.node.mine("BITCOIN", 2)
        second = await payouts.withdraw("2")
        payouts.node.resume("BITCOIN")
        await until(payouts, lambda: payouts.row(first.ref).state == WithdrawalState.SETTLED)
        await payouts.until_waiting(1)
        await payouts.node.mine("BITCOIN", 2)
        await until(payouts, lambda: payouts.row(second.ref).state == WithdrawalState.SETTLED)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert sender.status.stuck == {}
    payouts.agree()


async def test_what_another_process_has_signed_is_offered_as_it_is_now(payouts: Payouts) -> None:
    """The newest candidate of a payment that no block has: anything else has moved on, and is not sent by it."""
    withdrawal = await payouts.withdraw("1.5")
    await payouts.sender().step()
    payment = payouts.payment(withdrawal)
    newer = prepare_signing(payment, "newer", b"newer")
    await payouts.do(lambda: newer)
    before = payouts.payment(withdrawal)
    await payouts.do(lambda: OfferPayment(NOBODY, payment.ref, "newer"))
    late = await payouts.world.context.submit(OfferPayment(NOBODY, payment.ref, payment.candidates[0]))
    assert late.stale
    assert payouts.payment(withdrawal) == before
    command = MinePayment(NOBODY, payment.ref, (withdrawal.ref,), "newer", 5, "500", "five")
    await payouts.do(lambda: command)
    with pytest.raises(Refused, match="payment is not signed"):
        await payouts.do(lambda: OfferPayment(NOBODY, payment.ref, "newer"))
