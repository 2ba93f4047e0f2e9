"""The audit of balances: one forged posting, joint or kept balance at a time, and exactly what is said of it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from strongroom.ledger.accounts import Account, Purpose, available, house, staked
from strongroom.money import MAX_UNITS
from strongroom.records.heads import Head
from strongroom.wallet.audit.balances import Balances
from strongroom.wallet.audit.effects import COUNT_BITS, Effects
from strongroom.wallet.audit.findings import Findings
from support.audited import KeptStore, Post, Told, item, told
from support.world import BTC, USDT

ALICE = available(7, BTC)
BOB = available(8, BTC)
STRANGER = staked(9, BTC)
EQUITY = house(Purpose.EQUITY, BTC)
ALICE_USDT = available(7, USDT)
EQUITY_USDT = house(Purpose.EQUITY, USDT)

FLOORED = ("AVAILABLE", "HELD", "STAKED", "FEES", "SPREAD", "SUSPENSE")
CEILED = ("OWED", "OMNIBUS", "BANK", "COLD")

BOOKED = (
    item(1, (ALICE, 10, 10, 1), (EQUITY, -10, -10, 1)),
    item(4, (ALICE_USDT, 3, 3, 1), (EQUITY_USDT, -3, -3, 1)),
    item(5, (ALICE, -4, 6, 2), (BOB, 4, 4, 1)),
)
"""Three items that fit."""

LATER = (
    item(6, (EQUITY, -2, -12, 2), (ALICE, 2, 8, 3)),
    item(8, (ALICE, -1, 7, 4), (BOB, 1, 5, 2)),
)
"""Two more that follow from them."""

HEADS = {ALICE: (6, 2), BOB: (4, 1), EQUITY: (-10, 1), ALICE_USDT: (3, 1), EQUITY_USDT: (-3, 1)}
"""The balance and the count of postings that the three items come to."""


def read(items: Sequence[Effects], *, from_nothing: bool = True) -> tuple[Balances, Findings]:
    """Return what a stretch of items comes to, and what it is to be reproached with."""
    findings = Findings()
    balances = Balances(findings, from_nothing=from_nothing)
    balances.book(items)
    return balances, findings


def booked(*items: Effects, from_nothing: bool = True) -> Told:
    """Return what is said of items."""
    return told(read(items, from_nothing=from_nothing)[1])


def kept(heads: dict[Account, tuple[int, int]]) -> KeptStore:
    """Return a store with these balances and counts."""
    return KeptStore(*(Head(account.pack(), after, count) for account, (after, count) in heads.items()))


def test_postings_that_follow_each_other_are_right_and_are_counted() -> None:
    """Nothing is said of right postings, and each account is known by its balance, its count and its newest item."""
    balances, findings = read(BOOKED)
    assert told(findings) == []
    assert (balances.accounts, balances.postings) == (5, 6)
    assert balances.head(ALICE.pack()) == (6, 2, 5)
    assert balances.head(EQUITY_USDT.pack()) == (-3, 1, 4)
    assert balances.head(STRANGER.pack()) == (0, 0, 0)
    assert list(balances.of_purpose(Purpose.EQUITY)) == [EQUITY.pack(), EQUITY_USDT.pack()]


@pytest.mark.parametrize("after", [MAX_UNITS - 1, 1 - MAX_UNITS])
def test_the_largest_numbers_do_not_run_into_each_other(after: int) -> None:
    """The largest balance, item number and count of postings that books can have are told as they are."""
    most = (1 << COUNT_BITS) - 1
    change = -1 if after < 0 else 1
    other = house(Purpose.DUST, BTC)
    last = item(most, (EQUITY, change, after, most), (other, -change, -after, most))
    balances, findings = read([last], from_nothing=False)
    assert told(findings) == []
    assert balances.head(EQUITY.pack()) == (after, most, most)


@pytest.mark.parametrize(
    ("postings", "sums"),
    [
        pytest.param([(EQUITY, -5, -5, 1), (ALICE, 6, 6, 1)], {BTC: 1}, id="one too much"),
        pytest.param([(EQUITY, -5, -5, 1), (ALICE, 4, 4, 1)], {BTC: -1}, id="one too little"),
        pytest.param([(EQUITY, -5, -5, 1)], {BTC: -5}, id="one posting only"),
        pytest.param([(EQUITY, -9, -9, 1), (ALICE, 2, 2, 1), (BOB, 3, 3, 1)], {BTC: -4}, id="three postings"),
        pytest.param([(EQUITY, -5, -5, 1), (ALICE_USDT, 5, 5, 1)], {BTC: -5, USDT: 5}, id="two assets, total zero"),
        pytest.param(
            [(EQUITY, -5, -5, 1), (ALICE, 5, 5, 1), (ALICE_USDT, 1, 1, 1)], {USDT: 1}, id="the second asset only"
        ),
        pytest.param(
            [(EQUITY, -5, -5, 1), (ALICE, 4, 4, 1), (ALICE_USDT, 3, 3, 1), (EQUITY_USDT, -2, -2, 1)],
            {BTC: -1, USDT: 1},
            id="one asset lacks what another has too much",
        ),
    ],
)
def test_an_entry_sums_to_zero_for_each_asset(postings: list[Post], sums: dict[int, int]) -> None:
    """Money that an entry makes or destroys is told for every asset it does so in, and for no other."""
    assert booked(item(3, *postings)) == [
        (3, f"its postings of asset {asset} sum to {total}, not to 0") for asset, total in sums.items()
    ]


@pytest.mark.parametrize("bit", range(16))
def test_one_asset_is_not_exchanged_for_another_whatever_their_numbers(bit: int) -> None:
    """Two assets are told apart by any bit of their numbers, though all else of the accounts is the same."""
    one, other = 3, 3 ^ 1 << bit
    assert booked(item(2, (house(Purpose.EQUITY, one), 5, 5, 1), (house(Purpose.EQUITY, other), -5, -5, 1))) == [
        (2, f"its postings of asset {one} sum to 5, not to 0"),
        (2, f"its postings of asset {other} sum to -5, not to 0"),
    ]


def test_the_same_asset_of_two_owners_is_one_asset() -> None:
    """A sum goes over all owners, however far apart their numbers are."""
    assert booked(item(2, (Account(1, 65535, 24), -5, -5, 1), (available((1 << 40) - 1, 65535), 5, 5, 1))) == []


@pytest.mark.parametrize(
    "account", [Account(7, BTC, purpose) for purpose in (0, 5, 15, 26, 32 + Purpose.AVAILABLE, 63)], ids=str
)
def test_an_account_for_no_known_purpose_is_told_once(account: Account) -> None:
    """A number that is no account of the ledger is told with the first item that posts to it."""
    first = item(3, (account, 5, 5, 1), (EQUITY, -5, -5, 1))
    second = item(4, (account, -1, 4, 2), (EQUITY, 1, -4, 2))
    assert booked(first, second) == [(3, f"account {account.pack()} is none that the ledger knows")]


@pytest.mark.parametrize("amount", [1, -1])
def test_an_account_without_an_asset_is_told_and_still_has_to_sum_to_zero(amount: int) -> None:
    """A number without an asset is no account, and hides no money that comes from nowhere."""
    account = Account(0, 0, Purpose.EQUITY)
    unknown = (3, f"account {account.pack()} is none that the ledger knows")
    assert booked(item(3, (account, amount, amount, 1))) == [
        unknown,
        (3, f"its postings of asset 0 sum to {amount}, not to 0"),
    ]
    assert booked(item(3, (account, amount, amount, 1), (EQUITY, -amount, -amount, 1))) == [
        unknown,
        (3, f"its postings of asset 0 sum to {amount}, not to 0"),
        (3, f"its postings of asset {BTC} sum to {-amount}, not to 0"),
    ]


@pytest.mark.parametrize("purpose", Purpose, ids=lambda purpose: purpose.name)
def test_every_purpose_has_accounts_that_the_ledger_knows(purpose: Purpose) -> None:
    """No account of a known purpose is taken for a stranger, at either end of the numbers."""
    lowest, highest = Account(0, 1, purpose), Account((1 << 40) - 1, 65535, purpose)
    assert booked(item(1, (lowest, 0, 0, 1), (highest, 0, 0, 1))) == []


@pytest.mark.parametrize(
    ("after", "nth"),
    [
        pytest.param(12, 2, id="one more"),
        pytest.param(10, 2, id="one less"),
        pytest.param(11, 3, id="a posting in between is gone"),
        pytest.param(11, 1, id="counted as the first one"),
        pytest.param(12, 3, id="neither follows"),
    ],
)
def test_a_posting_follows_from_the_one_before_it(after: int, nth: int) -> None:
    """A balance or a count that does not go on from the one before is told once: what comes next goes on from it."""
    forged = item(2, (ALICE, 1, after, nth), (EQUITY, -1, -11, 2))
    onward = item(3, (ALICE, 5, after + 5, nth + 1), (EQUITY, -5, -16, 3))
    assert booked(BOOKED[0], forged, onward) == [
        (2, f"a posting to AVAILABLE of owner 7, asset {BTC} does not follow from the one before it")
    ]


@pytest.mark.parametrize(("after", "nth"), [(6, 1), (4, 1), (5, 2)])
def test_the_books_begin_with_nothing(after: int, nth: int) -> None:
    """An account's first posting that goes on from a balance, or from other postings, is told."""
    assert booked(item(1, (ALICE, 5, after, nth), (EQUITY, -5, -5, 1))) == [
        (1, f"a posting to AVAILABLE of owner 7, asset {BTC} does not follow from the one before it")
    ]


@pytest.mark.parametrize("after", [-2, -1, 0, 1, 2])
@pytest.mark.parametrize("purpose", Purpose, ids=lambda purpose: purpose.name)
def test_an_account_stays_within_the_bounds_of_its_purpose(purpose: Purpose, after: int) -> None:
    """What is owed to somebody never falls below zero, what the house owns never rises above it, the rest is free."""
    entry = item(9, (Account(7, BTC, purpose), 3, after, 4), (EQUITY, -3, 0, 5))
    expected: Told = []
    if purpose.name in FLOORED and after < 0:
        expected = [(9, f"{purpose.name} of owner 7, asset {BTC} falls below 0, to {after}")]
    elif purpose.name in CEILED and after > 0:
        expected = [(9, f"{purpose.name} of owner 7, asset {BTC} rises above 0, to {after}")]
    assert booked(entry, from_nothing=False) == expected


@pytest.mark.parametrize(
    ("purpose", "after", "what"),
    [
        (Purpose.HELD, -1, "HELD of owner 1, asset 1 falls below 0, to -1"),
        (Purpose.OMNIBUS, 1, "OMNIBUS of owner 1, asset 1 rises above 0, to 1"),
    ],
)
def test_only_the_account_out_of_its_bounds_is_told(purpose: Purpose, after: int, what: str) -> None:
    """Where an entry drives one account out of its bounds nothing is said of the others, which stay within theirs."""
    within = [
        *((name, balance) for name in FLOORED for balance in (0, 1, 2)),
        *((name, balance) for name in CEILED for balance in (0, -1, -2)),
        *((name, balance) for name in ("EQUITY", "INVENTORY", "DUST", "CHAIN_FEE") for balance in (-1, 0, 1)),
    ]
    others = [(Account(2 + nth, BTC, Purpose[name]), 1, balance, 9) for nth, (name, balance) in enumerate(within)]
    entry = item(6, (Account(1, BTC, purpose), -len(others), after, 2), *others)
    assert booked(entry, from_nothing=False) == [(6, what)]


def test_within_an_entry_a_balance_may_go_anywhere() -> None:
    """Only where an entry leaves an account is held against its bounds, not what it goes through on the way."""
    omnibus = Account(1, BTC, Purpose.OMNIBUS)
    assert booked(item(1, (ALICE, -5, -5, 1), (omnibus, 5, 5, 1), (omnibus, -5, 0, 2), (ALICE, 5, 0, 2))) == []


KEPT_CASES = [
    pytest.param({}, [], id="as they were counted"),
    pytest.param(
        {ALICE: (7, 2)},
        [
            (5, "the kept balance of AVAILABLE of owner 7, asset 1 is 7 after 2 postings, not 6 after 2"),
            (0, "all balances of asset 1 sum to 1, not to 0"),
        ],
        id="one too much",
    ),
    pytest.param(
        {ALICE: (6, 3)},
        [(5, "the kept balance of AVAILABLE of owner 7, asset 1 is 6 after 3 postings, not 6 after 2")],
        id="another count",
    ),
    pytest.param(
        {ALICE: (5, 2), BOB: (5, 1)},
        [
            (5, "the kept balance of AVAILABLE of owner 7, asset 1 is 5 after 2 postings, not 6 after 2"),
            (5, "the kept balance of AVAILABLE of owner 8, asset 1 is 5 after 1 postings, not 4 after 1"),
        ],
        id="moved to somebody else",
    ),
    pytest.param(
        {EQUITY: (-9, 1), EQUITY_USDT: (-4, 1)},
        [
            (1, "the kept balance of EQUITY of owner 0, asset 1 is -9 after 1 postings, not -10 after 1"),
            (4, "the kept balance of EQUITY of owner 0, asset 2 is -4 after 1 postings, not -3 after 1"),
            (0, "all balances of asset 1 sum to 1, not to 0"),
            (0, "all balances of asset 2 sum to -1, not to 0"),
        ],
        id="moved to another asset",
    ),
    pytest.param(
        {STRANGER: (5, 1)},
        [
            (0, "the kept balance of STAKED of owner 9, asset 1 is 5 after 1 postings, not 0 after 0"),
            (0, "all balances of asset 1 sum to 5, not to 0"),
        ],
        id="made up",
    ),
    pytest.param(
        {Account(7, BTC, 5): (0, 2)},
        [(0, "the kept balance of purpose 5 of owner 7, asset 1 is 0 after 2 postings, not 0 after 0")],
        id="made up for no known purpose",
    ),
    pytest.param(
        {Account(9, 65535, Purpose.FEES): (2, 2), Account(9, 65534, Purpose.FEES): (-2, 2)},
        [
            (0, "the kept balance of FEES of owner 9, asset 65535 is 2 after 2 postings, not 0 after 0"),
            (0, "the kept balance of FEES of owner 9, asset 65534 is -2 after 2 postings, not 0 after 0"),
            (0, "all balances of asset 65535 sum to 2, not to 0"),
            (0, "all balances of asset 65534 sum to -2, not to 0"),
        ],
        id="made up in two assets",
    ),
]


@pytest.mark.parametrize(("changed", "expected"), KEPT_CASES)
def test_kept_balances_are_those_that_were_counted(changed: dict[Account, tuple[int, int]], expected: Told) -> None:
    """A kept balance or count that no posting leads to is told with the newest item of its account."""
    balances, findings = read(BOOKED)
    balances.compare(kept({**HEADS, **changed}))
    assert told(findings) == expected


def test_a_kept_balance_that_is_gone_is_told() -> None:
    """Accounts that lost their kept balances are told in the order of their numbers, with their newest items."""
    balances, findings = read(BOOKED)
    balances.compare(kept({account: head for account, head in HEADS.items() if account not in {BOB, ALICE}}))
    assert told(findings) == [
        (5, "the kept balance of AVAILABLE of owner 7, asset 1 is missing"),
        (5, "the kept balance of AVAILABLE of owner 8, asset 1 is missing"),
        (0, "all balances of asset 1 sum to -10, not to 0"),
    ]


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_two_stretches_that_fit_come_to_what_one_reading_comes_to(size: int) -> None:
    """Where the journal is divided, and in what portions it is joined again, makes no difference."""
    whole, _ = read([*BOOKED, *LATER])
    one, findings = read(BOOKED)
    other, others = read(LATER, from_nothing=False)
    assert told(others) == []
    parcels = list(other.parcels(size))
    assert [len(parcel) for parcel in parcels[:-1]] == [size] * (len(parcels) - 1)
    for parcel in parcels:
        one.take_over(parcel)
    heads = {account: whole.head(account.pack()) for account in HEADS}
    assert {account: one.head(account.pack()) for account in HEADS} == heads
    one.compare(kept({account: (after, count) for account, (after, count, _) in heads.items()}))
    assert told(findings) == []


@pytest.mark.parametrize(
    ("posting", "expected"),
    [
        pytest.param((ALICE, 2, 8, 3), [], id="fits"),
        pytest.param((ALICE, 2, 9, 3), [(5, "AVAILABLE", 7)], id="one more before it"),
        pytest.param((ALICE, 2, 7, 3), [(5, "AVAILABLE", 7)], id="one less before it"),
        pytest.param((ALICE, 2, 8, 4), [(5, "AVAILABLE", 7)], id="one posting more before it"),
        pytest.param((ALICE, 2, 8, 2), [(5, "AVAILABLE", 7)], id="one posting less before it"),
        pytest.param((ALICE, 2, 9, 4), [(5, "AVAILABLE", 7)], id="neither fits"),
        pytest.param((STRANGER, 2, 2, 1), [], id="a new account"),
        pytest.param((STRANGER, 2, 3, 1), [(0, "STAKED", 9)], id="a new account with a balance"),
        pytest.param((STRANGER, 2, 2, 2), [(0, "STAKED", 9)], id="a new account with postings"),
    ],
)
def test_a_stretch_goes_on_from_where_the_one_before_it_ends(
    posting: Post, expected: list[tuple[int, str, int]]
) -> None:
    """A balance or a count that a stretch takes for granted and the one before does not leave is told at the joint."""
    one, findings = read(BOOKED)
    other, others = read([item(6, (EQUITY, -2, -12, 2), posting)], from_nothing=False)
    assert told(others) == []
    for parcel in other.parcels(1):
        one.take_over(parcel)
    assert told(findings) == [
        (where, f"the next posting to {name} of owner {owner}, asset 1 does not follow from this one")
        for where, name, owner in expected
    ]
