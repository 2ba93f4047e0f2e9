"""Credits: what is owed is repaid first, to the last unit, and nothing is taken in the name of giving."""

from __future__ import annotations

from typing import cast

import pytest

from strongroom.engine.command import Row
from strongroom.errors import InvariantBroken
from strongroom.ledger.accounts import available, owed
from strongroom.ledger.entries import Posting
from strongroom.records.heads import Head
from strongroom.wallet.credits import credit, credit_needs, owes
from support.world import BTC

ALICE = 7


class Debt:
    """A view of books in which alice owes so many units of Bitcoin, and nobody anything else."""

    def __init__(self, units: int) -> None:
        self._units = units

    def get(self, kind: type[Row], *key: int | str | bytes) -> Row:
        """Return the head of what is owed; nothing else is looked at."""
        assert (kind, *key) == (Head, owed(ALICE, BTC).pack())
        assert (Head, *key) in credit_needs(ALICE, BTC)
        return cast(Row, Head(owed(ALICE, BTC).pack(), -self._units, 1))


@pytest.mark.parametrize(
    ("debt", "amount", "repaid", "given"), [(0, 0, 0, 0), (0, 5, 0, 5), (1, 5, 1, 4), (5, 5, 5, 0), (9, 5, 5, 0)]
)
def test_a_credit_repays_before_it_gives(debt: int, amount: int, repaid: int, given: int) -> None:
    """Both postings together are what is credited, of which the debt takes all it can."""
    postings = credit(Debt(debt), ALICE, BTC, amount)
    assert postings == (Posting(owed(ALICE, BTC), repaid), Posting(available(ALICE, BTC), given))


def test_no_credit_takes_anything_away() -> None:
    """One unit less than nothing is a mistake of ours, and no entry is made of it."""
    with pytest.raises(InvariantBroken, match="a credit takes nothing away"):
        _ = credit(Debt(0), ALICE, BTC, -1)


@pytest.mark.parametrize(("debt", "is_owed"), [(0, False), (1, True), (2, True)])
def test_the_smallest_debt_is_a_debt(debt: int, is_owed: bool) -> None:
    """Whoever owes one unit owes."""
    assert owes(Debt(debt), ALICE, BTC) is is_owed
