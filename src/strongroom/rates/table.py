"""Prices that the operator declares: the settings' table, and what replaces it at run time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from strongroom.clock import DAY_MS
from strongroom.rates.prices import Price, parse_pair, parse_ratio

TABLE: Final = "table"
"""The `source` of every price of the operator's table."""


class TableSource:
    """The operator's prices (`{"BTC/USDT": "66680.5"}`: one BTC costs 66680.5 USDT), declared at `as_of_ms`.

    They are too old `max_age_ms` after that, a day unless the operator says otherwise. Raises ValueError naming the
    pair for an entry that is malformed or that prices a pair a second time, the other way round included.
    """

    def __init__(self, entries: Mapping[str, object], as_of_ms: int, max_age_ms: int = DAY_MS) -> None:
        priced: dict[frozenset[str], Price] = {}
        for name, value in entries.items():
            price = _price(name, value, as_of_ms, max_age_ms)
            other = priced.setdefault(frozenset((price.base, price.quote)), price)
            if other is not price:
                raise ValueError(f"{name} has a price already, given as {other.pair}")
        self._prices = tuple(priced.values())

    def prices(self) -> tuple[Price, ...]:
        """Return the declared prices in the table's order."""
        return self._prices


def _price(name: str, value: object, as_of_ms: int, max_age_ms: int) -> Price:
    base, quote = parse_pair(name)
    # A number of the settings file has been a binary float on its way here; only a text still has all its digits.
    ratio = parse_ratio(value) if isinstance(value, str) else None
    if ratio is None:
        raise ValueError(f"the price of {name} must be a text such as '66680.5', greater than 0, not {value!r}")
    return Price(base, quote, *ratio, TABLE, as_of_ms, max_age_ms)
