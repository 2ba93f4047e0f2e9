"""What is published of a price: a decimal for the customer, spread taken, and the middle one it was taken from."""

from __future__ import annotations

from typing import Final

import msgspec

from strongroom.money import Rate, convert
from strongroom.rates.paths import Path

MIN_DECIMALS: Final = 8
"""Fewest decimals of a published rate: those of the reference's own (`19026.12846161`)."""

MIN_DIGITS: Final = 8
"""Fewest significant digits of a published rate (the contract's section 5), trailing zeros counted."""

WHOLE_E4: Final = 10_000
"""A spread is given in parts of this: 25 is 0.25 %."""


class QuotedRate(msgspec.Struct, frozen=True):
    """The customer's `rate` and the `mid` before the spread, with equal decimals, so that `mid` is never the lower."""

    rate: Rate
    mid: Rate

    def split(self, amount: int, from_scale: int, to_scale: int) -> tuple[int, int]:
        """Return what the customer gets for `amount` and what the house keeps as spread, both in the target's units.

        Their sum is `amount` at the middle rate; neither is negative.
        """
        settlement = convert(amount, from_scale, to_scale, self.rate)
        return settlement, convert(amount, from_scale, to_scale, self.mid) - settlement


def publish(path: Path, spread_e4: int) -> QuotedRate:
    """Return the path's price rounded down to a decimal, with `spread_e4` / 10^4 of it taken from the customer's."""
    num, den = path.num * (WHOLE_E4 - spread_e4), path.den * WHOLE_E4
    decimals = _decimals(num, den)
    rate = Rate(num * 10**decimals // den, decimals, path.source, path.as_of_ms)
    mid = Rate(path.num * 10**decimals // path.den, decimals, path.source, path.as_of_ms)
    return QuotedRate(rate, mid)


def _decimals(num: int, den: int) -> int:
    """Return the fewest decimals, at least 8, at which `num` / `den` rounded down still has 8 significant digits."""
    # The lengths tell the ratio's size but for a factor of ten, so only two numbers of decimals are possible.
    decimals = max(MIN_DECIMALS, len(str(den)) - len(str(num)) + MIN_DIGITS - 1)
    enough = num * 10**decimals // den >= 10 ** (MIN_DIGITS - 1)
    return decimals if enough else decimals + 1
