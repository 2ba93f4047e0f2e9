"""Balances of a customer: sums of the ledger's accounts, never flags."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from strongroom.engine.port import Reads
from strongroom.ledger.accounts import CUSTOMER_PURPOSES, Account, Purpose

_PARTS: Final = len(CUSTOMER_PURPOSES)
_AVAILABLE: Final = tuple(CUSTOMER_PURPOSES).index(Purpose.AVAILABLE)


class Balance(NamedTuple):
    """What a customer has of an asset, in its units: `total` = available + held + staked."""

    available: int
    total: int


def balance_of(reads: Reads, owner: int, asset: int) -> Balance:
    """Return a customer's committed balance of an asset."""
    return balances_of(reads, owner, [asset])[0]


def balances_of(reads: Reads, owner: int, assets: Iterable[int]) -> list[Balance]:
    """Return a customer's committed balances of assets, all of them as of one moment."""
    accounts = [Account(owner, asset, purpose).pack() for asset in assets for purpose in CUSTOMER_PURPOSES]
    found = [head.after for head in reads.heads(owner, accounts)]
    parts = [found[first : first + _PARTS] for first in range(0, len(found), _PARTS)]
    return [Balance(of_asset[_AVAILABLE], sum(of_asset)) for of_asset in parts]
