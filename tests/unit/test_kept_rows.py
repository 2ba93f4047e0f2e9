"""Kept rows: what a row says that was never written, and what is worked out from one."""

from __future__ import annotations

from typing import Any

import pytest

from strongroom.records.withdrawals import Withdrawal
from strongroom.store.tables import KINDS


def test_a_withdrawal_holds_what_the_receiver_gets_and_the_fee() -> None:
    """Both come out of the customer's balance."""
    assert Withdrawal(1, to_address=100, fee=7).held == 107


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_row_that_was_never_written_says_nothing(kind: Any) -> None:
    """Beside its key all of its numbers are zero and all of its texts empty, so that no caller takes it for one."""
    row = kind.absent((kind, *range(1, kind.KEY + 1)))
    assert row.key() == (kind, *range(1, kind.KEY + 1))
    beside = {name: getattr(row, name) for name in kind.__struct_fields__[kind.KEY :]}
    nothing = {"spine", "snapshot", "chain_fee_units", "chain_units", "units"}
    assert all(not value for name, value in beside.items() if name not in nothing), beside
    amounts = ("chain_fee_units", "chain_units", "units")
    assert all(int(beside[name]) == 0 for name in amounts if name in beside)
