"""Whatever customers, the operator, the chain and the node's moods do: holds are the open withdrawals, coins agree."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Final

from hypothesis import given, settings
from hypothesis import strategies as st

from strongroom.clock import DAY_MS
from strongroom.engine.command import NOBODY
from strongroom.money import FeeFormula, format_amount
from strongroom.records.settings import OfferSettings
from strongroom.records.withdrawals import WithdrawalState
from strongroom.store.memory import MemoryStore
from strongroom.wallet.approvals import awaiting_approval, expire_due, prepare_cancellation, prepare_rejection
from strongroom.wallet.withdrawals import terms_of
from support.paying import COIN, OURS, THEIRS, Payouts, paying
from support.world import BITCOIN, BTC, SNAPSHOT

APPROVE_ABOVE: Final = 2 * COIN
OWN: Final = {"alice": OURS[BITCOIN][1].address, "bob": OURS[BITCOIN][2].address, "nobody": THEIRS[BITCOIN].address}

asked = st.tuples(
    st.just("ask"),
    st.sampled_from(["alice", "bob"]),
    st.sampled_from(sorted(OWN)),
    st.integers(1, 4 * COIN),
    st.booleans(),
)
deeds = st.sampled_from(
    [
        "approve",
        "reject",
        "cancel",
        "expire",
        "step",
        "step",
        "mine",
        "mine",
        "fail",
        "lose",
        "pause",
        "resume",
        "restart",
    ]
)
courses = st.lists(st.one_of(asked, deeds), max_size=30)


async def answer(payouts: Payouts, deed: str) -> None:
    """Let the operator say something to the oldest withdrawal that waits for it."""
    waiting = awaiting_approval(payouts.world.context, 1)
    if not waiting:
        return
    if deed == "approve":
        await payouts.approve(waiting[0])
        return
    prepare = prepare_rejection if deed == "reject" else prepare_cancellation
    await payouts.do(lambda: prepare(payouts.world.context, NOBODY, waiting[0].ref))


def tell_node(payouts: Payouts, deed: str) -> None:
    """Put the node into a mood."""
    node = payouts.node
    {"fail": node.fail_next, "lose": node.lose_next_answer, "pause": node.pause, "resume": node.resume}[deed]("BITCOIN")


async def live(folder: Path, course: list[tuple[str, str, str, int, bool] | str]) -> None:
    """Go a course from beginning to end, look at the books after each step, and pay what is still to be paid."""
    async with paying(MemoryStore(), folder) as payouts:
        await payouts.offer(BTC, approve_above=APPROVE_ABOVE)
        for position, uid in enumerate((payouts.alice, payouts.bob), 1):
            await payouts.give(uid, BTC, BITCOIN, position)
            await payouts.endow(uid, BTC, BITCOIN, 5 * COIN)
        sender = payouts.sender()
        for deed in course:
            if isinstance(deed, tuple):
                _, who, to, amount, include_fee = deed
                owner = payouts.alice if who == "alice" else payouts.bob
                await payouts.ask(format_amount(amount, 8), OWN[to], owner=owner, include_fee=include_fee)
            elif deed == "step":
                await sender.step()
            elif deed == "mine":
                await payouts.node.mine("BITCOIN")
            elif deed == "restart":
                sender = payouts.sender()
            elif deed == "expire":
                payouts.world.clock.at_ms += DAY_MS
                await expire_due(payouts.world.context)
            elif deed in ("approve", "reject", "cancel"):
                await answer(payouts, deed)
            else:
                tell_node(payouts, deed)
            payouts.agree()
        await end(payouts)


async def end(payouts: Payouts) -> None:
    """Let everything that is under way come to its end, and compare the books with the node."""
    tell_node(payouts, "resume")
    for withdrawal in awaiting_approval(payouts.world.context):
        await payouts.do(lambda ref=withdrawal.ref: prepare_rejection(payouts.world.context, NOBODY, ref))
    withdrawals = payouts.withdrawals()
    await payouts.pay(payouts.sender(), *withdrawals)
    payouts.agree()
    assert await payouts.agrees_with_node(BITCOIN, BTC)
    assert (payouts.held(payouts.alice), payouts.held(payouts.bob)) == (0, 0)
    settled = [w for w in payouts.withdrawals() if w.state == WithdrawalState.SETTLED and not w.deposit]
    assert sorted(await payouts.paid_on()) == sorted((w.address, w.tag, w.to_address) for w in settled)


@settings(max_examples=40)
@given(courses)
def test_holds_are_the_open_withdrawals_whatever_happens(course: list[tuple[str, str, str, int, bool] | str]) -> None:
    """After any course of requests, answers, blocks and failures each withdrawal is paid once or released."""
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(live(Path(folder), course))


fees = st.builds(
    FeeFormula,
    minimum=st.integers(0, COIN),
    rate_e8=st.integers(0, COIN),
    extra=st.integers(0, COIN),
    extra_rate_e8=st.integers(0, COIN),
)


@given(fees, st.integers(1, 10**10), st.integers(0, 18), st.booleans())
def test_terms_add_up_and_fit_the_chain(fee: FeeFormula, amount: int, decimals: int, include_fee: bool) -> None:
    """What is accepted charges the formula's fee, takes or adds it as asked, and leaves the chain no odd unit."""
    unit = 10 ** max(0, 8 - decimals)
    offer = OfferSettings(BTC, BITCOIN, decimals, withdraw_fee=fee)
    whole = amount * unit
    charged = fee.fee(whole, unit)
    if include_fee and charged >= whole:
        return
    terms = terms_of(SNAPSHOT.assets[0], offer, whole, include_fee=include_fee)
    assert terms.fee == charged
    assert terms.to_address == (whole - charged if include_fee else whole)
    assert terms.to_address % unit == terms.fee % unit == 0
