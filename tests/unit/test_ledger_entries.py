"""Entries: whatever is booked sums to zero per asset, stays in range, and leaves every account within its bounds."""

from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.errors import INSUFFICIENT_BALANCE, PARAMETER_INVALID, InvariantBroken, Refused
from strongroom.ledger.accounts import (
    NEVER_NEGATIVE,
    NEVER_POSITIVE,
    Account,
    Purpose,
    available,
    held,
    house,
    purpose_of,
    staked,
)
from strongroom.ledger.entries import Booked, Posting, book_entry, move
from strongroom.money import MAX_UNITS
from strongroom.records.heads import Head

ALICE, BOB, EQUITY = available(1, 1), available(2, 1), house(Purpose.EQUITY, 1)


class Balances:
    """What is known of accounts, by their packed numbers."""

    def __init__(self, *known: tuple[Account, int, int]) -> None:
        self._heads = {account.pack(): Head(account.pack(), after, count) for account, after, count in known}

    def __call__(self, packed: int) -> Head:
        """Return an account's head."""
        return self._heads.get(packed) or Head(packed)


def test_each_posting_is_booked_with_the_balance_it_leads_to() -> None:
    """Balance and count go on from what is known, posting by posting, and what moves nothing is left out."""
    postings = [Posting(ALICE, -30), Posting(EQUITY, 0), Posting(BOB, 20), Posting(ALICE, -5), Posting(BOB, 15)]
    assert book_entry(postings, Balances((ALICE, 100, 7), (BOB, 5, 2))) == [
        Booked(ALICE.pack(), -30, 70, 8),
        Booked(BOB.pack(), 20, 25, 3),
        Booked(ALICE.pack(), -5, 65, 9),
        Booked(BOB.pack(), 15, 40, 4),
    ]


def test_a_move_takes_from_one_account_what_it_gives_to_the_other() -> None:
    """The source comes first and the sum is zero."""
    assert move(ALICE, BOB, 7) == (Posting(ALICE, -7), Posting(BOB, 7))


def test_no_posting_at_all_is_an_entry() -> None:
    """A command that moves nothing books nothing."""
    assert book_entry([], Balances()) == book_entry([Posting(ALICE, 0)], Balances()) == []


@pytest.mark.parametrize(
    "postings",
    [
        [Posting(EQUITY, 1)],
        [Posting(EQUITY, -1), Posting(BOB, 2)],
        [Posting(EQUITY, -1), Posting(available(2, 2), 1)],
        [Posting(EQUITY, -1), Posting(BOB, 1), Posting(house(Purpose.EQUITY, 2), 3)],
        [Posting(EQUITY, 1), Posting(EQUITY, 1)],
    ],
)
def test_an_entry_that_makes_money_is_a_mistake(postings: list[Posting]) -> None:
    """What does not sum to zero in each asset is never booked, also where all assets together would."""
    with pytest.raises(InvariantBroken, match="an entry sums to zero per asset"):
        book_entry(postings, Balances((ALICE, 100, 1)))


@pytest.mark.parametrize("account", [Account(1, 0, 1), Account(1, 1, 5), Account(2**40, 1, 1)])
@pytest.mark.parametrize("amount", [0, 1])
def test_an_account_that_is_none_is_a_mistake(account: Account, amount: int) -> None:
    """An entry names accounts that the integer can hold, even where it would leave them alone."""
    with pytest.raises(InvariantBroken, match="an entry names accounts in range"):
        book_entry([Posting(account, amount), Posting(account, -amount)], Balances())


def ended(purpose: Purpose, change: int, before: int = 0) -> int:
    """Book a change of an account against equity, and return the balance it ends with."""
    account = Account(1, 1, purpose)
    other = EQUITY if purpose != Purpose.EQUITY else house(Purpose.DUST, 1)
    return book_entry([Posting(account, change), Posting(other, -change)], Balances((account, before, 1)))[0].after


@pytest.mark.parametrize("purpose", sorted(NEVER_NEGATIVE - {Purpose.AVAILABLE}))
def test_what_is_owed_to_somebody_never_falls_below_zero(purpose: Purpose) -> None:
    """Held, staked and what the house keeps for others end at zero at least; less is a mistake of ours, by name."""
    assert (ended(purpose, -7, 7), ended(purpose, 1)) == (0, 1)
    with pytest.raises(InvariantBroken, match=f"{purpose.name} never falls below zero"):
        ended(purpose, -8, 7)


def test_a_customer_cannot_spend_what_is_not_available() -> None:
    """The whole balance can be spent, and one unit more is refused as the customer's own error."""
    assert ended(Purpose.AVAILABLE, -7, 7) == 0
    with pytest.raises(Refused) as caught:
        ended(Purpose.AVAILABLE, -8, 7)
    assert caught.value.error is INSUFFICIENT_BALANCE


@pytest.mark.parametrize("purpose", sorted(NEVER_POSITIVE))
def test_what_the_house_owns_never_rises_above_zero(purpose: Purpose) -> None:
    """Coins, bank money and debts end at zero at most; more is a mistake of ours, by name."""
    assert (ended(purpose, 7, -7), ended(purpose, -1)) == (0, -1)
    for change in (8, 9):
        with pytest.raises(InvariantBroken, match=f"{purpose.name} never rises above 0"):
            ended(purpose, change, -7)


@pytest.mark.parametrize("purpose", sorted(set(Purpose) - NEVER_NEGATIVE - NEVER_POSITIVE))
def test_the_houses_own_accounts_may_be_on_either_side(purpose: Purpose) -> None:
    """Inventory, dust, chain fees and equity have limits by policy only."""
    assert (ended(purpose, -5), ended(purpose, 5)) == (-5, 5)


def test_an_entry_may_pass_through_any_balance_on_its_way() -> None:
    """Bounds are judged where an account ends, whatever the order of the postings."""
    booked = book_entry([Posting(ALICE, -10), Posting(EQUITY, 3), Posting(ALICE, 7)], Balances((ALICE, 3, 1)))
    assert [posting.after for posting in booked] == [-7, 3, 0]


@pytest.mark.parametrize("account", [held(1, 1), staked(1, 1)])
def test_a_second_account_of_an_entry_is_judged_as_well(account: Account) -> None:
    """Every account that is touched must end within its bounds, not the first alone."""
    with pytest.raises(InvariantBroken):
        book_entry([Posting(EQUITY, -1), Posting(account, -1), Posting(ALICE, 2)], Balances())


@pytest.mark.parametrize("sign", [1, -1])
def test_amounts_and_balances_stay_below_the_ledgers_range(sign: int) -> None:
    """2^62 - 1 units are booked and kept on either side; one more is refused, in the amount or in the balance."""
    dust = house(Purpose.DUST, 1)
    most = sign * (MAX_UNITS - 1)
    assert book_entry(move(dust, EQUITY, most), Balances())[1].after == most
    assert book_entry(move(dust, EQUITY, sign), Balances((EQUITY, most - sign, 1)))[1].after == most
    beyond = [
        (most + sign, Balances()),
        (most + sign, Balances((EQUITY, -most, 1), (dust, most, 1))),
        (sign, Balances((EQUITY, most, 1))),
        (sign, Balances((dust, -most, 1))),
    ]
    for amount, balances in beyond:
        with pytest.raises(Refused, match="amount is beyond the ledger's range") as caught:
            book_entry(move(dust, EQUITY, amount), balances)
        assert caught.value.error is PARAMETER_INVALID


@pytest.mark.parametrize("sign", [1, -1])
def test_one_amount_beyond_the_range_is_refused_whatever_it_is_made_up_of(sign: int) -> None:
    """Halves within the range do not carry a whole that is not, even where every balance stays within it."""
    dust, half = house(Purpose.DUST, 1), sign * (MAX_UNITS >> 1)
    entry = [Posting(dust, -2 * half), Posting(EQUITY, half), Posting(house(Purpose.INVENTORY, 1), half)]
    with pytest.raises(Refused, match="amount is beyond the ledger's range"):
        book_entry(entry, Balances((dust, half, 1)))


accounts = st.sampled_from([ALICE, BOB, EQUITY, available(1, 2), house(Purpose.DUST, 2), held(1, 1)])


@given(st.lists(st.tuples(accounts, accounts, st.integers(-50, 50)), max_size=8))
def test_any_moves_are_booked_as_their_sums_or_not_at_all(moves: list[tuple[Account, Account, int]]) -> None:
    """An account ends at what it had and all that was moved; where that is out of bounds, nothing is booked."""
    postings = [posting for source, target, amount in moves for posting in move(source, target, amount)]
    known = Balances((ALICE, 40, 1), (BOB, 40, 1))
    ends: dict[int, int] = defaultdict(int, {ALICE.pack(): 40, BOB.pack(): 40})
    sums: dict[int, int] = defaultdict(int)
    for posting in postings:
        ends[posting.account.pack()] += posting.amount
        sums[posting.account.asset] += posting.amount
    below = [packed for packed, after in ends.items() if after < 0 and purpose_of(packed) in NEVER_NEGATIVE]
    if any(sums.values()) or below:
        with pytest.raises((Refused, InvariantBroken)):
            book_entry(postings, known)
    else:
        latest = {booked.account: booked.after for booked in book_entry(postings, known)}
        assert all(ends[packed] == after for packed, after in latest.items())
