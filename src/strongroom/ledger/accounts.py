"""Accounts of the double-entry ledger: whose money, which asset, for what purpose, in one sortable integer.

Sign convention: a positive balance is what the house owes the account's owner, a negative one what the house owns.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

import msgspec

_PURPOSE_BITS: Final = 6
_ASSET_BITS: Final = 16
_OWNER_BITS: Final = 40


class Purpose(IntEnum):
    """What an account's money is for; customers' purposes come first, the house's from 16 on."""

    AVAILABLE = 1
    HELD = 2
    STAKED = 3
    OWED = 4
    OMNIBUS = 16
    BANK = 17
    FEES = 18
    SPREAD = 19
    SUSPENSE = 20
    INVENTORY = 21
    DUST = 22
    CHAIN_FEE = 23
    EQUITY = 24
    COLD = 25


NEVER_NEGATIVE: Final = frozenset(
    {Purpose.AVAILABLE, Purpose.HELD, Purpose.STAKED, Purpose.FEES, Purpose.SPREAD, Purpose.SUSPENSE}
)
"""Purposes whose balance has the floor 0: what is owed to somebody."""

NEVER_POSITIVE: Final = frozenset({Purpose.OWED, Purpose.OMNIBUS, Purpose.BANK, Purpose.COLD})
"""Purposes whose balance has the ceiling 0: what the house owns (coins, bank money, a customer's debt)."""

CUSTOMER_PURPOSES: Final = (Purpose.AVAILABLE, Purpose.HELD, Purpose.STAKED)
"""The components of a customer's `total`."""


class Account(msgspec.Struct, frozen=True, gc=False):
    """One account: `owner` is a user id, or for the house's accounts the network's number (0 where there is none)."""

    owner: int
    asset: int
    purpose: int

    def pack(self) -> int:
        """Return the account as an int64 that sorts by owner, asset, purpose."""
        return (self.owner << _ASSET_BITS | self.asset) << _PURPOSE_BITS | self.purpose


def unpack(packed: int) -> Account:
    """Return the account that `Account.pack` packed."""
    owner_asset, purpose = divmod(packed, 1 << _PURPOSE_BITS)
    owner, asset = divmod(owner_asset, 1 << _ASSET_BITS)
    return Account(owner, asset, purpose)


def purpose_of(packed: int) -> int:
    """Return the purpose of a packed account."""
    return packed & (1 << _PURPOSE_BITS) - 1


def owner_of(packed: int) -> int:
    """Return the owner of a packed account."""
    return packed >> _ASSET_BITS + _PURPOSE_BITS


def is_packable(account: Account) -> bool:
    """Say whether every part of the account is in its range: owner 40 bits, asset 16 bits, a known purpose."""
    return 0 <= account.owner < 1 << _OWNER_BITS and 0 < account.asset < 1 << _ASSET_BITS and account.purpose in _KNOWN


_KNOWN: Final = frozenset(int(purpose) for purpose in Purpose)


def available(owner: int, asset: int) -> Account:
    """Return the account of what a customer can spend."""
    return Account(owner, asset, Purpose.AVAILABLE)


def held(owner: int, asset: int) -> Account:
    """Return the account of what a customer's open withdrawals hold."""
    return Account(owner, asset, Purpose.HELD)


def staked(owner: int, asset: int) -> Account:
    """Return the account of what a customer has staked."""
    return Account(owner, asset, Purpose.STAKED)


def owed(owner: int, asset: int) -> Account:
    """Return the account of what a customer owes the house after a reorg took what was spent (never above 0)."""
    return Account(owner, asset, Purpose.OWED)


def omnibus(network: int, asset: int) -> Account:
    """Return the house's account of the coins it owns on a network (never above 0)."""
    return Account(network, asset, Purpose.OMNIBUS)


def house(purpose: Purpose, asset: int) -> Account:
    """Return the house's account for a purpose that belongs to no network."""
    return Account(0, asset, purpose)
