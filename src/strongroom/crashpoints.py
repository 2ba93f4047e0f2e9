"""Crash points: the named places between two effects where a test can kill, fail or delay the program.

Nothing is armed in production, where `reach` does nothing at all. The places are a closed set, so that a test can show
that it was at every one of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

BATCH_POINTS: Final = (
    "batch taken",
    "batch decided",
    "transaction begun",
    "transaction written",
    "transaction committed",
    "batch folded",
    "batch answered",
)
"""On the way of a batch: out of the queue, over the state, into the books, to its callers."""

SENDER_COMMITS: Final = ("reserve", "redraft", "sign", "mine", "unmine", "finish", "revert", "void")
"""The steps of a payment, each a commit of its own."""


def around(*steps: str) -> tuple[str, ...]:
    """Return the points before and after each of these steps."""
    return tuple(f"{side} {step}" for step in steps for side in ("before", "after"))


def around_commits(*commits: str) -> tuple[str, ...]:
    """Return the points before and after each of these commits."""
    return around(*(f"commit {commit}" for commit in commits))


SENDER_POINTS: Final = (*around_commits(*SENDER_COMMITS), *around("signature", "broadcast"))
"""On the way of a payment: before and after each of its commits, its signature and its broadcast."""

KEEPER_POINTS: Final = around_commits("move")
"""On the way of a move of the house's own money: before and after it is reserved; then it is the sender's."""

WATCHER_POINTS: Final = around_commits("note", "tip", "credit", "take back", "reopen", "drop")
"""On the way of a block: what it brings is noted, the tip goes on or back, what is deep enough is credited; a deposit
or a payment's end is taken back with its block, and a deposit that is gone is dropped."""

RESTORED_POINTS: Final = around_commits("stock", "adopt", "end")
"""On the way back of a restored house: addresses are stocked (a new house does that too), the payments of the chain
that the books do not know are adopted, and the network's waiting ends."""

RARE_POINTS: Final = around_commits("prove", "rival", "cold", "cold coin")
"""What few houses do: prove before a broadcast that what another process has signed is in the books, take a payment
whose signature never came back from the chain, take one back that was signed elsewhere or give it up, and note what
lies on the cold address."""

POINTS: Final = (
    *BATCH_POINTS,
    *SENDER_POINTS,
    *KEEPER_POINTS,
    *WATCHER_POINTS,
    *RESTORED_POINTS,
    *RARE_POINTS,
)
"""All there are."""

_armed: Callable[[str], None] | None = None


def reach(point: str) -> None:
    """Tell whoever armed the crash points that one is reached; what that raises goes on from here."""
    if _armed is not None:
        _armed(point)


def arm(hook: Callable[[str], None] | None) -> None:
    """Let `hook` be called at every crash point from now on; None disarms. For tests only."""
    global _armed  # noqa: PLW0603 - one process, one program under test
    _armed = hook
