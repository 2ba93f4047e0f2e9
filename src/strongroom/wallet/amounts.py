"""Amounts as clients write them, read for an asset; which error a bad one gives depends on the operation."""

from __future__ import annotations

from strongroom.errors import INVALID_WITHDRAW_AMOUNT, PARAMETER_INVALID
from strongroom.money import AmountError, AmountProblem, parse_amount
from strongroom.records.settings import AssetSettings


def read_amount(text: str, asset: AssetSettings) -> int:
    """Return the positive amount in the asset's units. Raises `Refused` PARAMETER_INVALID."""
    try:
        return parse_amount(text, asset.scale)
    except AmountError as error:
        raise PARAMETER_INVALID(f"amount {error}") from None


def read_withdraw_amount(text: str, asset: AssetSettings) -> int:
    """Return the positive amount to withdraw, in the asset's units.

    Raises `Refused` INVALID_WITHDRAW_AMOUNT for one not positive or too fine, PARAMETER_INVALID for one malformed or
    beyond the ledger's range.
    """
    try:
        return parse_amount(text, asset.scale)
    except AmountError as error:
        if error.problem in (AmountProblem.TOO_FINE, AmountProblem.NOT_POSITIVE):
            raise INVALID_WITHDRAW_AMOUNT() from None
        raise PARAMETER_INVALID(f"amount {error}") from None
