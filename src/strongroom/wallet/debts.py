"""Debts: what customers owe the house, after a reorganisation took back what they had spent already."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from strongroom.engine.port import Reads
from strongroom.ledger.accounts import Purpose, unpack


class Debt(NamedTuple):
    """How many units of an asset a customer owes; credits repay it first, and while it stands nothing is withdrawn."""

    owner: int
    asset: int
    units: int


def debts(reads: Reads) -> Iterator[Debt]:
    """Yield every debt, in the order of the accounts. It reads all accounts there are: not for every minute."""
    for packed, balance, _ in reads.balances():
        account = unpack(packed)
        if account.purpose == Purpose.OWED and balance:
            yield Debt(account.owner, account.asset, -balance)
