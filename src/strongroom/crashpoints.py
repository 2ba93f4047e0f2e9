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
"""On the way of a batch: out of the queue, over the state, into the file (in the store's thread), to its callers."""

SENDER_COMMITS: Final = ("reserve", "redraft", "sign", "mine", "unmine", "finish", "revert", "void")
"""The steps of a payment, each a commit of its own."""

SENDER_POINTS: Final = tuple(
    f"{side} {step}"
    for step in (*(f"commit {commit}" for commit in SENDER_COMMITS), "signature", "broadcast")
    for side in ("before", "after")
)
"""On the way of a payment: before and after each of its commits, its signature and its broadcast."""

KEEPER_POINTS: Final = ("before commit move", "after commit move")
"""On the way of a move of the house's own money: before and after it is reserved; then it is the sender's."""

POINTS: Final = (*BATCH_POINTS, *SENDER_POINTS, *KEEPER_POINTS)
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
