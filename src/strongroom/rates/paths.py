"""How to get from one asset to another: a price of the pair itself, or several crossed through common quotes.

The way back uses the very same prices, the other way round. That is what keeps a customer who converts there and back
from gaining, even where two sources disagree.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise, permutations
from typing import Final

import msgspec

from strongroom import errors
from strongroom.rates.prices import Price

MAX_STOPS: Final = 3
"""Most common quotes on the way: BTC -> USDT -> USD -> EUR -> SGD needs three."""

_FIRST_MS: Final = -(1 << 63)
_LAST_MS: Final = 1 << 63


class Path(msgspec.Struct, frozen=True):
    """The exact ratio `num` / `den` of a way through one or more prices, and how its source and age read."""

    num: int
    den: int
    source: str
    as_of_ms: int


class Window:
    """The prices that may be used at `now_ms`; the same ones may be at every moment of [`from_ms`, `until_ms`)."""

    def __init__(self, prices: Iterable[Price], common_quotes: Sequence[str], now_ms: int) -> None:
        self._prices = tuple(prices)
        self._common_quotes = common_quotes
        changes_ms = {price.usable_from_ms for price in self._prices} | {
            price.usable_until_ms for price in self._prices
        }
        self.from_ms = max((at_ms for at_ms in changes_ms if at_ms <= now_ms), default=_FIRST_MS)
        self.until_ms = min((at_ms for at_ms in changes_ms if at_ms > now_ms), default=_LAST_MS)
        usable = [price for price in self._prices if price.usable_from_ms <= now_ms < price.usable_until_ms]
        self._hops = _freshest(usable)

    def path(self, base: str, quote: str) -> Path:
        """Return the shortest way from `base` to `quote`; of several, the freshest, then as the common quotes stand.

        Raises CONVERSION_REFUSED, with a message of its own if there is a way but its prices are too old.
        """
        hops = _way(self._hops, self._common_quotes, base, quote)
        if hops is not None:
            return _crossed(base, hops)
        if _way(_freshest(self._prices), self._common_quotes, base, quote) is not None:
            raise errors.CONVERSION_REFUSED(f"Rate for {base} to {quote} is too old")
        raise errors.CONVERSION_REFUSED(f"No rate for {base} to {quote}")


def _freshest(prices: Iterable[Price]) -> dict[tuple[str, str], Price]:
    """Return the freshest price of each pair, under both directions; of equally fresh ones the first."""
    hops: dict[tuple[str, str], Price] = {}
    for price in prices:
        known = hops.get((price.base, price.quote))
        if known is None or price.as_of_ms > known.as_of_ms:
            hops[price.base, price.quote] = hops[price.quote, price.base] = price
    return hops


def _way(
    hops: Mapping[tuple[str, str], Price], common_quotes: Sequence[str], base: str, quote: str
) -> tuple[Price, ...] | None:
    """Return the prices of the best way in the order of travel; there is none from an asset to itself."""
    if base == quote:
        return None
    # It is searched in one direction for both, so that equally good ways are decided alike there and back.
    start, end = sorted((base, quote))
    stops = [asset for asset in common_quotes if asset not in (base, quote)]
    for count in range(min(MAX_STOPS, len(stops)) + 1):
        ways = [_prices_along(hops, (start, *chosen, end)) for chosen in permutations(stops, count)]
        open_ways = [way for way in ways if way]
        if open_ways:
            best = max(open_ways, key=_oldest_ms)
            return best if start == base else best[::-1]
    return None


def _prices_along(hops: Mapping[tuple[str, str], Price], assets: Sequence[str]) -> tuple[Price, ...] | None:
    found = [hops.get(pair) for pair in pairwise(assets)]
    prices = tuple(price for price in found if price is not None)
    return prices if len(prices) == len(found) else None


def _oldest_ms(way: Iterable[Price]) -> int:
    return min(price.as_of_ms for price in way)


def _crossed(base: str, way: Sequence[Price]) -> Path:
    num, den, asset = 1, 1, base
    for price in way:
        if price.base == asset:
            num, den, asset = num * price.num, den * price.den, price.quote
        else:
            num, den, asset = num * price.den, den * price.num, price.base
    return Path(num, den, ", ".join(f"{price.source} {price.pair}" for price in way), _oldest_ms(way))
