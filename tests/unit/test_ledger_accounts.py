"""Accounts: one sortable integer each, and which of them may fall below zero or rise above it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.ledger.accounts import (
    CUSTOMER_PURPOSES,
    NEVER_NEGATIVE,
    NEVER_POSITIVE,
    Account,
    Purpose,
    available,
    held,
    house,
    is_packable,
    omnibus,
    owed,
    owner_of,
    purpose_of,
    staked,
    unpack,
)

accounts = st.builds(Account, st.integers(0, 2**40 - 1), st.integers(1, 2**16 - 1), st.sampled_from(Purpose))

NUMBERS = {
    "AVAILABLE": 1,
    "HELD": 2,
    "STAKED": 3,
    "OWED": 4,
    "OMNIBUS": 16,
    "BANK": 17,
    "FEES": 18,
    "SPREAD": 19,
    "SUSPENSE": 20,
    "INVENTORY": 21,
    "DUST": 22,
    "CHAIN_FEE": 23,
    "EQUITY": 24,
    "COLD": 25,
}


def test_the_numbers_of_the_purposes_stay_as_they_are() -> None:
    """They stand in every posting on disk, so that another number would make other accounts of all that is kept."""
    assert {purpose.name: purpose.value for purpose in Purpose} == NUMBERS


def test_what_is_owed_to_somebody_has_a_floor_and_what_the_house_owns_a_ceiling() -> None:
    """Customers' money, fees, spread and suspense stay above; coins, cold or not, bank money and debts below."""
    floors = {"AVAILABLE", "HELD", "STAKED", "FEES", "SPREAD", "SUSPENSE"}
    assert {Purpose(purpose).name for purpose in NEVER_NEGATIVE} == floors
    assert {Purpose(purpose).name for purpose in NEVER_POSITIVE} == {"OWED", "OMNIBUS", "BANK", "COLD"}
    assert [purpose.name for purpose in CUSTOMER_PURPOSES] == ["AVAILABLE", "HELD", "STAKED"]


@given(accounts)
def test_a_packed_account_is_the_account_again(account: Account) -> None:
    """Nothing is lost in the integer, which is a positive int64."""
    assert is_packable(account)
    assert unpack(account.pack()) == account
    assert (owner_of(account.pack()), purpose_of(account.pack())) == (account.owner, account.purpose)
    assert 0 < account.pack() < 2**63


@given(accounts, accounts)
def test_packed_accounts_sort_by_owner_asset_and_purpose(one: Account, other: Account) -> None:
    """All accounts of an owner lie together, and among them those of an asset."""
    parts = [(account.owner, account.asset, account.purpose) for account in (one, other)]
    assert (one.pack() < other.pack()) == (parts[0] < parts[1])


def test_the_layout_of_a_packed_account_is_that_of_the_files() -> None:
    """An auditor takes the integer apart with shifts: 6 bits of purpose, 16 of asset, 40 of owner."""
    assert Account(1, 0, 0).pack() == 1 << 22
    assert Account(0, 1, 0).pack() == 1 << 6
    assert Account(0, 0, 1).pack() == 1


@pytest.mark.parametrize(
    ("account", "fits"),
    [
        (Account(0, 1, 1), True),
        (Account(2**40 - 1, 1, 1), True),
        (Account(2**40, 1, 1), False),
        (Account(-1, 1, 1), False),
        (Account(1, 0, 1), False),
        (Account(1, -1, 1), False),
        (Account(1, 2**16 - 1, 1), True),
        (Account(1, 2**16, 1), False),
        (Account(1, 1, 0), False),
        (Account(1, 1, 5), False),
        (Account(1, 1, 26), False),
        (Account(1, 1, 25), True),
    ],
)
def test_an_account_out_of_range_is_none(account: Account, fits: bool) -> None:
    """Owner, asset and purpose each have a range that the integer can hold."""
    assert is_packable(account) is fits


def test_each_kind_of_account_is_made_by_name() -> None:
    """A customer's are by customer, the omnibus by network, and the house's others belong to nobody."""
    assert available(7, 3) == Account(7, 3, Purpose.AVAILABLE)
    assert held(7, 3) == Account(7, 3, Purpose.HELD)
    assert staked(7, 3) == Account(7, 3, Purpose.STAKED)
    assert owed(7, 3) == Account(7, 3, Purpose.OWED)
    assert omnibus(2, 3) == Account(2, 3, Purpose.OMNIBUS)
    assert house(Purpose.FEES, 3) == Account(0, 3, Purpose.FEES)
