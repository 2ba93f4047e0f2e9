"""Credits: money that reaches a customer first repays what the customer owes after a reorg."""

from __future__ import annotations

from strongroom.engine.command import View
from strongroom.errors import check
from strongroom.ledger.accounts import available, owed
from strongroom.ledger.entries import Posting
from strongroom.records.heads import Head, head_of
from strongroom.records.kept import Key


def credit_needs(owner: int, asset: int) -> tuple[Key, Key]:
    """Return what `credit` reads and changes."""
    return head_of(available(owner, asset)), head_of(owed(owner, asset))


def credit(view: View, owner: int, asset: int, amount: int) -> tuple[Posting, Posting]:
    """Return the postings that give a customer `amount` units: to the debt (a balance below 0) first."""
    check(amount >= 0, "a credit takes nothing away")
    debt = view.get(Head, owed(owner, asset).pack()).after
    repaid = min(-debt, amount)
    return Posting(owed(owner, asset), repaid), Posting(available(owner, asset), amount - repaid)


def owes(view: View, owner: int, asset: int) -> bool:
    """Say whether a customer owes the house some of an asset."""
    return view.get(Head, owed(owner, asset).pack()).after < 0
