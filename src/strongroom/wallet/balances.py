"""Balances of a customer: sums of the ledger's accounts, never flags."""

from __future__ import annotations

from typing import NamedTuple

from strongroom.engine.port import Reads
from strongroom.ledger.accounts import CUSTOMER_PURPOSES, Account, Purpose
from strongroom.records.heads import Head


class Balance(NamedTuple):
    """What a customer has of an asset, in its units: `total` = available + held + staked."""

    available: int
    total: int


def balance_of(reads: Reads, owner: int, asset: int) -> Balance:
    """Return a customer's committed balance of an asset."""
    parts = {purpose: reads.row(Head, Account(owner, asset, purpose).pack()).after for purpose in CUSTOMER_PURPOSES}
    return Balance(parts[Purpose.AVAILABLE], sum(parts.values()))
