"""Amounts as integers: text to integer once, integer to text once, and the two formulas (rate and fee) between.

An amount is an integer count of the asset's unit (10^-scale). No float comes near it.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import Final

import msgspec

MAX_DECIMALS: Final = 8
"""Most decimals the wire accepts after trailing zeros are dropped (the contract's section 5)."""

MAX_UNITS: Final = 1 << 62
"""Every amount and balance is smaller than this in absolute value, so that sums of two stay inside an int64."""

_PLAIN: Final = re.compile(r"[0-9]+(\.[0-9]+)?", re.ASCII)
_NUMBER: Final = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?", re.ASCII)
_MAX_TEXT: Final = 256
_MAX_DIGITS: Final = 40


class JsonNumber(str):
    """The exact text of a number token in a JSON body, so that no digit is lost before it is read as an amount."""

    __slots__ = ()


class AmountProblem(Enum):
    """Why a text is not an amount; which error a client is told depends on the operation."""

    MALFORMED = "is not a decimal number"
    NOT_POSITIVE = "must be greater than 0"
    TOO_FINE = "has too many decimals"
    TOO_LARGE = "is too large"


class AmountError(ValueError):
    """A text is not a positive amount of this scale; `problem` says why."""

    def __init__(self, problem: AmountProblem) -> None:
        super().__init__(problem.value)
        self.problem = problem


def parse_amount(text: str, scale: int) -> int:
    """Return the positive amount that `text` spells, in units of 10^-scale.

    A plain text is digits with an optional fraction; a `JsonNumber` may have a sign and an exponent as well.
    Decimals count after trailing zeros are dropped: at most 8, and at most `scale`. Raises `AmountError`.
    """
    pattern = _NUMBER if isinstance(text, JsonNumber) else _PLAIN
    if len(text) > _MAX_TEXT or not pattern.fullmatch(text):
        raise AmountError(AmountProblem.MALFORMED)
    sign, digits, exponent = _digits(text)
    if not digits or sign:
        raise AmountError(AmountProblem.NOT_POSITIVE)
    if exponent < -min(scale, MAX_DECIMALS):
        raise AmountError(AmountProblem.TOO_FINE)
    if len(digits) + exponent + scale > _MAX_DIGITS:
        raise AmountError(AmountProblem.TOO_LARGE)
    units = int(digits) * 10 ** (exponent + scale)
    if units >= MAX_UNITS:
        raise AmountError(AmountProblem.TOO_LARGE)
    return units


def _digits(text: str) -> tuple[bool, str, int]:
    """Return whether it is negative, the digits without outer zeros, and the power of ten of the last; none for zero.

    Done on the text: a number token may have an exponent far beyond what a `Decimal` can hold.
    """
    mantissa, power = text, ""
    if isinstance(text, JsonNumber):
        mantissa, _, power = text.lower().partition("e")
    whole, _, fraction = mantissa.removeprefix("-").partition(".")
    digits = (whole + fraction).lstrip("0")
    stripped = digits.rstrip("0")
    exponent = int(power or "0") - len(fraction) + len(digits) - len(stripped)
    return mantissa.startswith("-"), stripped, exponent


def format_amount(units: int, scale: int) -> str:
    """Return the plain decimal text of `units`: no exponent, no padding zeros, `0` for zero."""
    sign = "-" if units < 0 else ""
    if not scale:
        return f"{sign}{abs(units)}"
    whole, fraction = divmod(abs(units), 10**scale)
    if not fraction:
        return f"{sign}{whole}"
    return f"{sign}{whole}.{fraction:0{scale}d}".rstrip("0")


class Rate(msgspec.Struct, frozen=True):
    """A price as an exact decimal, `units` / 10^`decimals`: target for one of the source, with its origin.

    `as_of_ms` is when the oldest price behind it was observed, in Unix milliseconds.
    """

    units: int
    decimals: int
    source: str
    as_of_ms: int

    def text(self) -> str:
        """Return the published decimal text."""
        return format_amount(self.units, self.decimals)


def convert(amount: int, from_scale: int, to_scale: int, rate: Rate) -> int:
    """Return floor(amount * rate) in the target's units: a settlement never rounds up against the house."""
    return amount * rate.units * 10**to_scale // (10**rate.decimals * 10**from_scale)


class FeeFormula(msgspec.Struct, frozen=True):
    """A network's fee: max(minimum, amount*rate) + extra + extra_rate*amount (the contract's section 6, item 10).

    `minimum` and `extra` are in the asset's units; `rate` and `extra_rate` in parts of 10^8.
    """

    minimum: int = 0
    rate_e8: int = 0
    extra: int = 0
    extra_rate_e8: int = 0

    def fee(self, amount: int, unit: int = 1) -> int:
        """Return the fee for `amount`, rounded up once at the end to a multiple of `unit`, in favour of the house."""
        e8 = 10**8
        exact_e8 = max(self.minimum * e8, amount * self.rate_e8) + self.extra * e8 + self.extra_rate_e8 * amount
        return -(-exact_e8 // (e8 * unit)) * unit
