"""A sender that is killed anywhere: whatever the node saw, a restart ends with one payment, or with none and a release.

Every named point of the sender is a place to die at, in two ways: at once, or in the middle of what comes next (a
command that is queued already is carried out, but nobody hears of it). Each with a node whose answer gets lost or not.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from strongroom.crashpoints import reach
from strongroom.custody.sender import CRASH_POINTS, PaymentTerms, Sender
from strongroom.records.withdrawals import OPEN_WITHDRAWALS, Payment, PaymentState, Withdrawal, WithdrawalState
from support.dying import Killed, Killer
from support.paying import COIN, THEIRS, Payouts, paying
from support.world import BITCOIN, BTC, new_store


class Course(NamedTuple):
    """What the world does meanwhile, where on it the points are met, and how it ends."""

    name: str
    end: WithdrawalState
    points: tuple[str, ...]


def course(name: str, end: WithdrawalState, *steps: str) -> Course:
    """Return a course on which the sender dies before and after each of these steps."""
    return Course(name, end, tuple(point for point in CRASH_POINTS if point.partition(" ")[2] in steps))


COURSES: Final = (
    course(
        "paid",
        WithdrawalState.SETTLED,
        "commit reserve",
        "signature",
        "commit sign",
        "broadcast",
        "commit mine",
        "commit finish",
    ),
    course("raised", WithdrawalState.SETTLED, "commit redraft", "signature", "commit sign", "broadcast", "commit mine"),
    course("failing", WithdrawalState.FAILED, "commit void"),
    course("undone", WithdrawalState.FAILED, "commit revert"),
    course("dropped", WithdrawalState.FAILED, "commit unmine", "commit void"),
)
CASES: Final = [(course, point) for course in COURSES for point in course.points]


def test_every_crash_point_is_met() -> None:
    """No point of the sender is left out of the matrix."""
    assert {point for _, point in CASES} == set(CRASH_POINTS)


async def live_on(payouts: Payouts, sender: Sender, withdrawal: Withdrawal, course: Course) -> None:
    """Let the sender work and the world go its course until the withdrawal is closed."""
    for _ in range(20):
        for _ in range(3 if course.name == "raised" else 1):
            await sender.step()
        now = payouts.row(withdrawal.ref)
        if now.state not in OPEN_WITHDRAWALS:
            return
        if course.name == "dropped" and now.height and not payouts.available(payouts.bob):
            # Bob's coins mark that the reorganisation has been: it comes once, whoever dies meanwhile.
            await payouts.do(lambda: payouts.endow_books(payouts.bob, BTC, BITCOIN, COIN))
            await payouts.node.reorg("BITCOIN", 1, drop=payouts.payment(withdrawal).candidates)
            await payouts.endow_node(BTC, BITCOIN, COIN)
        else:
            await payouts.node.mine("BITCOIN")
    raise AssertionError(f"still open: {sender.status}")


def sender_on(payouts: Payouts, course: Course, killer: Killer | None = None) -> Sender:
    """Return a sender that raises its fees with every look where the course is that."""
    terms = PaymentTerms(redraft_after_s=0) if course.name == "raised" else None
    return payouts.sender(BITCOIN, killer or reach, terms)


async def die(payouts: Payouts, killer: Killer, course: Course, *, lost: bool) -> int:
    """Ask for a withdrawal, let a sender work until it is killed, and return the withdrawal's reference."""
    await payouts.endow(payouts.alice, BTC, BITCOIN, 10 * COIN)
    withdrawal = await payouts.withdraw("1.5")
    if course.name == "failing":
        payouts.node.fail_next("BITCOIN")
    if lost:
        payouts.node.lose_next_answer("BITCOIN")
    if course.name == "undone":
        payouts.node.undo_next("BITCOIN")
    life = asyncio.ensure_future(live_on(payouts, sender_on(payouts, course, killer), withdrawal, course))
    with pytest.raises((Killed, asyncio.CancelledError)):
        await life
    assert killer.struck
    return withdrawal.ref


@pytest.mark.parametrize("lost", [False, True], ids=["answered", "answer-lost"])
@pytest.mark.parametrize("midway", [False, True], ids=["at-once", "midway"])
@pytest.mark.parametrize(("course", "point"), CASES, ids=[f"{course.name}-{point}" for course, point in CASES])
async def test_a_killed_sender_pays_once_or_releases(
    tmp_path: Path, course: Course, point: str, midway: bool, lost: bool
) -> None:
    """After a restart from the disk there is exactly one payment, and the books and the node agree."""
    async with paying(new_store("sqlite", tmp_path), tmp_path) as payouts:
        ref = await die(payouts, Killer(point, midway=midway), course, lost=lost)
    async with paying(new_store("sqlite", tmp_path), tmp_path) as payouts:
        payouts.agree()
        await live_on(payouts, sender_on(payouts, course), payouts.row(ref), course)
        assert payouts.row(ref).state == course.end
        [payment] = payouts.reads.rows(Payment, {"network": BITCOIN}, 10)
        paid = course.end == WithdrawalState.SETTLED
        assert payment.state == (PaymentState.FINAL if paid else PaymentState.VOIDED)
        assert len(payment.candidates) == 1 or course.name == "raised"
        assert await payouts.paid_on() == ([(*THEIRS[BITCOIN], 149_999_500)] if paid else [])
        assert payouts.available(payouts.alice) == (850_000_000 if paid else 10 * COIN)
        assert await payouts.agrees_with_node(BITCOIN, BTC)
        payouts.agree()
