"""What the wallet asks: the customer's rate of a pair at a moment, and the middle rate its spread is taken from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from strongroom.money import Rate
from strongroom.rates.paths import Window
from strongroom.rates.prices import Price, PriceSource, parse_pair
from strongroom.rates.quotes import WHOLE_E4, QuotedRate, publish
from strongroom.rates.table import TABLE

COMMON_QUOTES: Final = ("USD", "USDT", "EUR")
"""What prices are crossed through by default, the first choice first."""

MAX_COMMON_QUOTES: Final = 8
"""Most common quotes of a book: the ways to try grow with their third power."""


class RateBook:
    """All prices of all sources, and the rates made of them; it has no clock, so a moment has one answer.

    `spread_e4` is what the customer pays on every conversion, in parts of 10^4 (0 to 9999); `pair_spreads_e4` replaces
    it for a pair (`{"BTC/USDT": 25}`), in both directions unless the other one is named too. A source that comes first
    wins between equally fresh prices. Raises ValueError for settings out of range.
    """

    def __init__(
        self,
        sources: Sequence[PriceSource],
        spread_e4: int = 0,
        pair_spreads_e4: Mapping[str, int] | None = None,
        common_quotes: Sequence[str] = COMMON_QUOTES,
    ) -> None:
        self._spread_e4 = _checked_spread("the default spread", spread_e4)
        self._pair_spreads_e4 = {
            parse_pair(name): _checked_spread(f"the spread of {name}", value)
            for name, value in (pair_spreads_e4 or {}).items()
        }
        self._common_quotes = tuple(dict.fromkeys(common_quotes))
        if len(self._common_quotes) > MAX_COMMON_QUOTES:
            raise ValueError(f"there are more than {MAX_COMMON_QUOTES} common quotes")
        self._prices = tuple(price for source in sources for price in source.prices())
        self._look_at(0)

    @property
    def prices(self) -> tuple[Price, ...]:
        """Return all prices, those that are too old included, for the operator to look at."""
        return self._prices

    def quote(self, base: str, quote: str, now_ms: int) -> Rate:
        """Return the customer's rate: `quote` for one `base`, spread taken. Raises as `quoted`."""
        return self.quoted(base, quote, now_ms).rate

    def mid(self, base: str, quote: str, now_ms: int) -> Rate:
        """Return the rate before the spread. Raises as `quoted`."""
        return self.quoted(base, quote, now_ms).mid

    def quoted(self, base: str, quote: str, now_ms: int) -> QuotedRate:
        """Return both rates of a pair at `now_ms` (Unix milliseconds); names are in capitals.

        Raises CONVERSION_REFUSED if there is no price, or only such as are too old.
        """
        if not self._window.from_ms <= now_ms < self._window.until_ms:
            self._look_at(now_ms)
        known = self._published.get((base, quote))
        if known is None:
            known = publish(self._window.path(base, quote), self._spread(base, quote))
            self._published[base, quote] = known
        return known

    def set_table(self, prices: Iterable[Price]) -> None:
        """Replace all prices of the operator's table by `prices`, which go first from now on; other sources stay.

        Raises ValueError, and changes nothing, if one of them is not of the table.
        """
        table = tuple(prices)
        for price in table:
            if price.source != TABLE:
                raise ValueError(f"the price of {price.pair} is of {price.source}, not of the table")
        self._prices = (*table, *(price for price in self._prices if price.source != TABLE))
        self._look_at(0)

    def _look_at(self, now_ms: int) -> None:
        """Turn to the prices that may be used at `now_ms`, and forget what was published of the others."""
        self._window = Window(self._prices, self._common_quotes, now_ms)
        self._published: dict[tuple[str, str], QuotedRate] = {}

    def _spread(self, base: str, quote: str) -> int:
        reverse_e4 = self._pair_spreads_e4.get((quote, base), self._spread_e4)
        return self._pair_spreads_e4.get((base, quote), reverse_e4)


def _checked_spread(name: str, spread_e4: int) -> int:
    if not 0 <= spread_e4 < WHOLE_E4:
        raise ValueError(f"{name} must be between 0 and {WHOLE_E4 - 1} parts of {WHOLE_E4}, not {spread_e4}")
    return spread_e4
