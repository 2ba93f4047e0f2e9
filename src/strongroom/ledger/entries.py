"""Entries: the postings of one command, which sum to zero per asset and keep every account within its bounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from strongroom.errors import INSUFFICIENT_BALANCE, PARAMETER_INVALID, check
from strongroom.ledger.accounts import NEVER_NEGATIVE, NEVER_POSITIVE, Account, Purpose, is_packable
from strongroom.money import MAX_UNITS


class Posting(NamedTuple):
    """A change of one account by `amount` units: + the house owes it more, - it owes it less (or owns more)."""

    account: Account
    amount: int


class Booked(NamedTuple):
    """A posting in its place: the account's balance after it, and the how manieth of the account it is."""

    account: int
    amount: int
    after: int
    nth: int


def move(source: Account, target: Account, amount: int) -> tuple[Posting, Posting]:
    """Return the two postings that move `amount` from one account to another of the same asset."""
    return Posting(source, -amount), Posting(target, amount)


def book_entry(postings: Sequence[Posting], balances: Mapping[int, tuple[int, int]]) -> list[Booked]:
    """Return the postings with the balances they lead to; `balances` holds (balance, count) by packed account.

    Postings of 0 are left out. Raises `Refused` INSUFFICIENT_BALANCE when a customer's available balance would fall
    below zero, PARAMETER_INVALID beyond the ledger's range, and `InvariantBroken` for an entry that must not exist.
    """
    _check_sums(postings)
    latest: dict[int, tuple[int, int]] = {}
    booked: list[Booked] = []
    for account, amount in postings:
        if amount:
            packed = account.pack()
            before, count = latest[packed] if packed in latest else balances[packed]
            after = before + amount
            _check_range(amount, after)
            latest[packed] = (after, count + 1)
            booked.append(Booked(packed, amount, after, count + 1))
    for account, _ in postings:
        if (ended := latest.get(account.pack())) is not None:
            _check_bounds(account, ended[0])
    return booked


def _check_sums(postings: Sequence[Posting]) -> None:
    sums: dict[int, int] = {}
    for account, amount in postings:
        check(is_packable(account), "an entry names accounts in range")
        sums[account.asset] = sums.get(account.asset, 0) + amount
    check(not any(sums.values()), "an entry sums to zero per asset")


def _check_range(amount: int, after: int) -> None:
    if not (-MAX_UNITS < amount < MAX_UNITS and -MAX_UNITS < after < MAX_UNITS):
        raise PARAMETER_INVALID("amount is beyond the ledger's range")


def _check_bounds(account: Account, after: int) -> None:
    if after < 0 and account.purpose in NEVER_NEGATIVE:
        check(account.purpose == Purpose.AVAILABLE, f"{Purpose(account.purpose).name} never falls below zero")
        raise INSUFFICIENT_BALANCE()
    check(after <= 0 or account.purpose not in NEVER_POSITIVE, f"{Purpose(account.purpose).name} never rises above 0")
