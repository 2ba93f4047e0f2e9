"""Recount: every account's balance worked out again from its postings."""

from __future__ import annotations

from typing import Final, NamedTuple

from strongroom.engine.port import Reads, StoredItem
from strongroom.ledger.accounts import NEVER_NEGATIVE, NEVER_POSITIVE, Account, Purpose, is_packable, unpack

MAX_FINDINGS: Final = 20
"""After so many, more would tell no more."""


class Findings:
    """What is wrong: (item, text), at most 20 of them."""

    def __init__(self) -> None:
        self.found: list[tuple[int, str]] = []

    def add(self, item: int, what: str) -> None:
        """Note what is wrong with an item, 0 for none."""
        if len(self.found) < MAX_FINDINGS:
            self.found.append((item, what))


class Counted(NamedTuple):
    """An account's balance, its number of postings, and the item of the newest one."""

    after: int = 0
    postings: int = 0
    item: int = 0


_NEVER_POSTED: Final = Counted()


class Accounts:
    """Every account as its postings leave it: `heads` and the unpacked `accounts` are by the packed one."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self.heads: dict[int, Counted] = {}
        self.accounts: dict[int, Account] = {}
        self.postings = 0

    def book(self, item: StoredItem) -> None:
        """Check an item's postings: they sum to zero, follow the ones before, and leave every account in bounds."""
        number, heads, accounts = item.number, self.heads, self.accounts
        sums: dict[int, int] = {}
        for posting in item.postings:
            account, amount, after, nth = posting.account, posting.amount, posting.after, posting.nth
            before = heads.get(account)
            if before is None:
                before = self._first_of(number, account)
            if after != before.after + amount or nth != before.postings + 1:
                self._findings.add(number, f"a posting to {name_of(account)} does not follow from the one before it")
            heads[account] = Counted(after, nth, number)
            asset = accounts[account].asset
            sums[asset] = sums.get(asset, 0) + amount
        self.postings += len(item.postings)
        for asset, total in sums.items():
            if total:
                self._findings.add(number, f"its postings of asset {asset} sum to {total}, not to 0")
        for account in {posting.account for posting in item.postings}:
            self._check_bounds(number, account)

    def compare(self, reads: Reads) -> None:
        """Check that the kept balances are those that were counted, and that they sum to zero per asset."""
        sums: dict[int, int] = {}
        missing = set(self.heads)
        for account, after, count in reads.balances():
            counted = self.heads.get(account, _NEVER_POSTED)
            if (after, count) != counted[:2]:
                what = f"the kept balance of {name_of(account)} is {after} after {count} postings"
                self._findings.add(counted.item, f"{what}, not {counted.after} after {counted.postings}")
            missing.discard(account)
            asset = unpack(account).asset
            sums[asset] = sums.get(asset, 0) + after
        for account in sorted(missing):
            self._findings.add(self.heads[account].item, f"the kept balance of {name_of(account)} is missing")
        for asset, total in sums.items():
            if total:
                self._findings.add(0, f"all balances of asset {asset} sum to {total}, not to 0")

    def _first_of(self, number: int, account: int) -> Counted:
        self.accounts[account] = unpack(account)
        if not is_packable(self.accounts[account]):
            self._findings.add(number, f"account {account} is none that the ledger knows")
        return _NEVER_POSTED

    def _check_bounds(self, number: int, account: int) -> None:
        after, purpose = self.heads[account].after, self.accounts[account].purpose
        if after < 0 and purpose in NEVER_NEGATIVE:
            self._findings.add(number, f"{name_of(account)} falls below 0, to {after}")
        if after > 0 and purpose in NEVER_POSITIVE:
            self._findings.add(number, f"{name_of(account)} rises above 0, to {after}")


def name_of(packed: int) -> str:
    """Return how an account reads: its purpose, owner (the network's number for the house's) and asset."""
    account = unpack(packed)
    known = account.purpose in set(Purpose)
    purpose = Purpose(account.purpose).name if known else f"purpose {account.purpose}"
    return f"{purpose} of owner {account.owner}, asset {account.asset}"
