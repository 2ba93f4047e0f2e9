"""Entries: the postings of one command, which sum to zero per asset and keep every account within its bounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from strongroom.errors import INSUFFICIENT_BALANCE, PARAMETER_INVALID, check
from strongroom.ledger.accounts import NEVER_NEGATIVE, NEVER_POSITIVE, Account, Purpose, is_packable, purpose_of
from strongroom.money import MAX_UNITS


class Posting(msgspec.Struct, frozen=True, gc=False):
    """A change of one account by `amount` units: + the house owes it more, - it owes it less (or owns more)."""

    account: Account
    amount: int


class Booked(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A posting in its place: the account's balance after it, and the how manieth of the account it is."""

    account: int
    amount: int
    after: int
    nth: int


def move(source: Account, target: Account, amount: int) -> tuple[Posting, Posting]:
    """Return the two postings that move `amount` from one account to another of the same asset."""
    return Posting(source, -amount), Posting(target, amount)


class HasBalance(Protocol):
    """What is known of an account: its balance, and how many postings led to it."""

    @property
    def after(self) -> int:
        """The balance in units."""
        ...

    @property
    def count(self) -> int:
        """The number of postings."""
        ...


def book_entry(postings: Sequence[Posting], head: Callable[[int], HasBalance]) -> list[Booked]:
    """Return the postings with the balances they lead to; `head` tells what is known of a packed account.

    Postings of 0 are left out. Raises `Refused` INSUFFICIENT_BALANCE when a customer's available balance would fall
    below zero, PARAMETER_INVALID beyond the ledger's range, and `InvariantBroken` for an entry that must not exist.
    """
    sums: dict[int, int] = {}
    latest: dict[int, tuple[int, int]] = {}
    booked: list[Booked] = []
    for posting in postings:
        account, amount = posting.account, posting.amount
        check(is_packable(account), "an entry names accounts in range")
        sums[account.asset] = sums.get(account.asset, 0) + amount
        if amount:
            packed = account.pack()
            before, count = latest.get(packed) or _known(head(packed))
            after = before + amount
            _check_range(amount, after)
            latest[packed] = (after, count + 1)
            booked.append(Booked(packed, amount, after, count + 1))
    check(not any(sums.values()), "an entry sums to zero per asset")
    for packed, (after, _) in latest.items():
        _check_bounds(packed, after)
    return booked


def _known(head: HasBalance) -> tuple[int, int]:
    return head.after, head.count


def _check_range(amount: int, after: int) -> None:
    if not (-MAX_UNITS < amount < MAX_UNITS and -MAX_UNITS < after < MAX_UNITS):
        raise PARAMETER_INVALID("amount is beyond the ledger's range")


def _check_bounds(packed: int, after: int) -> None:
    """Check that an account ends within its bounds; in between, an entry may go through any balance."""
    purpose = purpose_of(packed)
    if after < 0 and purpose in NEVER_NEGATIVE:
        check(purpose == Purpose.AVAILABLE, f"{Purpose(purpose).name} never falls below zero")
        raise INSUFFICIENT_BALANCE()
    if after > 0 and purpose in NEVER_POSITIVE:
        check(holds=False, rule=f"{Purpose(purpose).name} never rises above 0")
