"""Balances: every account worked out again from its postings."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final, TypeAlias

from strongroom.engine.port import Reads
from strongroom.ledger.accounts import NEVER_NEGATIVE, NEVER_POSITIVE, Purpose, is_packable, purpose_of, unpack
from strongroom.wallet.audit.effects import COUNT_BITS, BookedFields, Effects
from strongroom.wallet.audit.findings import Findings

_COUNT: Final = (1 << COUNT_BITS) - 1
_ASSET: Final = 0xFFFF << 6
_PURPOSE: Final = 0x3F
_AFTER: Final = 2 * COUNT_BITS

BalancesParcel: TypeAlias = list[tuple[int, int, int, int]]
"""Accounts with the balance and count of postings that a stretch found them at, and the head that it left."""


class Balances:
    """Every account's head by its packed account: balance, item of the newest posting, number of postings.

    The three are one integer, balance << 80 | item << 40 | number, since there may be millions. A stretch that does not
    start at the first item takes what an account's first posting says was before for granted, and remembers it.
    """

    def __init__(self, findings: Findings, *, from_nothing: bool) -> None:
        self._findings = findings
        self._from_nothing = from_nothing
        self._heads: dict[int, int] = {}
        self._found_at: array[int] = array("q")
        self.postings = 0

    @property
    def accounts(self) -> int:
        """How many accounts have postings."""
        return len(self._heads)

    def head(self, account: int) -> tuple[int, int, int]:
        """Return an account's balance, its number of postings and the item of the newest; zeros if there is none."""
        head = self._heads.get(account, 0)
        return head >> _AFTER, head & _COUNT, head >> COUNT_BITS & _COUNT

    def of_purpose(self, purpose: Purpose) -> Iterator[int]:
        """Yield every account of a purpose."""
        return (account for account in self._heads if purpose_of(account) == purpose)

    def book(self, items: Iterable[Effects]) -> None:
        """Check the items' postings: they sum to zero, follow the ones before, and leave every account in bounds."""
        heads = self._heads
        head_of = heads.get
        for item in items:
            number, postings = item.number, item.postings
            stamp = number << COUNT_BITS
            total = assets = one = 0
            is_beyond = False
            for account, amount, after, nth in postings:
                head = head_of(account)
                if head is None:
                    head = self._begin(number, account, after - amount, nth - 1)
                if head >> _AFTER != after - amount or head & _COUNT != nth - 1:
                    what = f"a posting to {name_of(account)} does not follow from the one before it"
                    self._findings.add(number, what)
                heads[account] = (after << _AFTER) + stamp + nth
                total += amount
                assets |= account ^ (one or account)
                one = account
                if after > 0:
                    is_beyond |= account & _PURPOSE in NEVER_POSITIVE
                elif after < 0:
                    is_beyond |= account & _PURPOSE in NEVER_NEGATIVE
            self.postings += len(postings)
            if total or assets & _ASSET:
                self._check_sums(number, postings)
            if is_beyond:
                self._check_bounds(number, {posting[0] for posting in postings})

    def compare(self, reads: Reads) -> None:
        """Check that the kept balances are those that were counted, and that they sum to zero per asset."""
        sums: dict[int, int] = {}
        missing = set(self._heads)
        for account, after, count in reads.balances():
            counted, postings, item = self.head(account)
            if (after, count) != (counted, postings):
                what = f"the kept balance of {name_of(account)} is {after} after {count} postings"
                self._findings.add(item, f"{what}, not {counted} after {postings}")
            missing.discard(account)
            asset = account >> 6 & 0xFFFF
            sums[asset] = sums.get(asset, 0) + after
        for account in sorted(missing):
            self._findings.add(self.head(account)[2], f"the kept balance of {name_of(account)} is missing")
        for asset, total in sums.items():
            if total:
                self._findings.add(0, f"all balances of asset {asset} sum to {total}, not to 0")

    def parcels(self, size: int) -> Iterator[BalancesParcel]:
        """Yield what a stretch has found out, so many accounts at a time."""
        heads, found_at = iter(self._heads.items()), iter(self._found_at)
        while parcel := [(account, next(found_at), next(found_at), head) for account, head in islice(heads, size)]:
            yield parcel

    def take_over(self, parcel: BalancesParcel) -> None:
        """Continue with what the stretch that follows this one has found out."""
        heads = self._heads
        for account, after, count, head in parcel:
            known = heads.get(account, 0)
            if known >> _AFTER != after or known & _COUNT != count:
                where = known >> COUNT_BITS & _COUNT
                self._findings.add(where, f"the next posting to {name_of(account)} does not follow from this one")
            heads[account] = head

    def _begin(self, item: int, account: int, before: int, count: int) -> int:
        """Return the head that an account has before its first posting in this stretch."""
        if not is_packable(unpack(account)):
            self._findings.add(item, f"account {account} is none that the ledger knows")
        if self._from_nothing:
            return 0
        self._found_at.extend((before, count))
        return (before << _AFTER) + count

    def _check_sums(self, item: int, postings: Iterable[BookedFields]) -> None:
        sums: dict[int, int] = {}
        for account, amount, _, _ in postings:
            asset = account >> 6 & 0xFFFF
            sums[asset] = sums.get(asset, 0) + amount
        for asset, total in sums.items():
            if total:
                self._findings.add(item, f"its postings of asset {asset} sum to {total}, not to 0")

    def _check_bounds(self, item: int, accounts: Iterable[int]) -> None:
        """Check where accounts end; in between, an entry may go through any balance."""
        for account in accounts:
            after, purpose = self._heads[account] >> _AFTER, purpose_of(account)
            if after < 0 and purpose in NEVER_NEGATIVE:
                self._findings.add(item, f"{name_of(account)} falls below 0, to {after}")
            if after > 0 and purpose in NEVER_POSITIVE:
                self._findings.add(item, f"{name_of(account)} rises above 0, to {after}")


def name_of(packed: int) -> str:
    """Return how an account reads: its purpose, owner (the network's number for the house's) and asset."""
    account = unpack(packed)
    known = account.purpose in set(Purpose)
    purpose = Purpose(account.purpose).name if known else f"purpose {account.purpose}"
    return f"{purpose} of owner {account.owner}, asset {account.asset}"
