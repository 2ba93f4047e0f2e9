"""The head of an account: its balance after its latest posting."""

from __future__ import annotations

from typing import ClassVar

from strongroom.ledger.accounts import Account
from strongroom.records.kept import Kept, Key


class Head(Kept, frozen=True, gc=False):
    """Balance `after` (units) and number of postings `count` of a packed account."""

    SEALED: ClassVar[bool] = False
    TRAILING: ClassVar[bool] = True

    account: int
    after: int = 0
    count: int = 0


def head_of(account: Account) -> Key:
    """Return the address of an account's head."""
    return (Head, account.pack())
