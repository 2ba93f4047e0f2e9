"""One price as a ratio of two integers, with where it comes from, when it was observed and how long it may be used."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, Protocol

import msgspec

MAX_TERM: Final = 10**80
"""Numerator and denominator of a price are smaller than this, so that the product of a few stays small work."""

_PAIR: Final = re.compile(r"([A-Z0-9]{1,20})/([A-Z0-9]{1,20})", re.ASCII)
_VALUE: Final = re.compile(r"([0-9]{1,40})(?:\.([0-9]{1,40}))?", re.ASCII)


class Price(msgspec.Struct, frozen=True):
    """One `base` costs exactly `num` / `den` of `quote`, as `source` saw it at `as_of_ms` (Unix milliseconds).

    It may be used within `max_age_ms` of that moment. Raises ValueError, naming the pair, for a price that is none.
    """

    base: str
    quote: str
    num: int
    den: int
    source: str
    as_of_ms: int
    max_age_ms: int

    def __post_init__(self) -> None:
        if not (0 < self.num < MAX_TERM and 0 < self.den < MAX_TERM):
            raise ValueError(f"the price of {self.pair} must be greater than 0 and have at most 80 digits")
        if self.base == self.quote:
            raise ValueError(f"{self.pair} is a price of an asset in itself")
        if self.max_age_ms < 0:
            raise ValueError(f"the maximum age of {self.pair} must not be negative")

    @property
    def pair(self) -> str:
        """Return the pair as it is written in settings: `BTC/USDT`."""
        return f"{self.base}/{self.quote}"

    @property
    def usable_from_ms(self) -> int:
        """Return the first moment of use: a price dated further ahead tells of a wrong clock, not of freshness."""
        return self.as_of_ms - self.max_age_ms

    @property
    def usable_until_ms(self) -> int:
        """Return the first moment at which the price is too old."""
        return self.as_of_ms + self.max_age_ms + 1


class PriceSource(Protocol):
    """Where prices come from: they are loaded already, so that asking costs nothing."""

    def prices(self) -> Iterable[Price]:
        """Return all prices of this source."""
        ...


def parse_pair(text: str) -> tuple[str, str]:
    """Return base and quote, in capitals, of a text such as `BTC/USDT`; raises ValueError naming the text."""
    match = _PAIR.fullmatch(text.upper())
    if match is None:
        raise ValueError(f"{text!r} is not a pair such as 'BTC/USDT'")
    return match[1], match[2]


def parse_ratio(text: str) -> tuple[int, int] | None:
    """Return the exact ratio that a plain decimal such as `66680.5` spells, or None if it spells none above 0."""
    match = _VALUE.fullmatch(text)
    if match is None:
        return None
    fraction = match[2] or ""
    num = int(match[1] + fraction)
    return (num, 10 ** len(fraction)) if num else None
