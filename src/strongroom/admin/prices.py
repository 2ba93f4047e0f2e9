"""The operator's prices: what was declared beside a running server, kept in the data folder for the next one."""

from __future__ import annotations

from typing import Final

import msgspec

from strongroom.admin.protocol import AdminError
from strongroom.application import Application
from strongroom.files import write_over
from strongroom.rates.prices import Price, parse_pair, parse_ratio
from strongroom.rates.table import TABLE

PRICES_FILE: Final = "prices.json"

_PRICES: Final = msgspec.json.Decoder(list[Price])


def apply_kept_prices(application: Application) -> None:
    """Put the prices of the data folder's file before those of the settings. Raises `AdminError` for a broken file."""
    path = application.config.folder / PRICES_FILE
    try:
        kept = _PRICES.decode(path.read_bytes())
    except FileNotFoundError:
        return
    except (msgspec.MsgspecError, OSError, ValueError) as error:
        raise AdminError(f"cannot read {path}: {error}") from None
    _lay_over(application, kept)


def set_price(application: Application, pair: str, text: str) -> Price:
    """Declare a price as of now, and keep it. Raises `AdminError` for what is no pair of ours or no price."""
    try:
        base, quote = parse_pair(pair.replace("-", "/"))
        ratio = parse_ratio(text)
        if ratio is None:
            raise ValueError(f"{text!r} is not a price such as 66680.5")
        max_age_ms = application.config.rates.table_max_age_s * 1000
        price = Price(base, quote, *ratio, TABLE, application.clock.now_ms(), max_age_ms)
    except ValueError as error:
        raise AdminError(str(error)) from None
    for code in (base, quote):
        _ = application.context.catalogue.asset(code)
    path = application.config.folder / PRICES_FILE
    kept = _PRICES.decode(path.read_bytes()) if path.exists() else []
    prices = [price, *(other for other in kept if _pair_of(other) != _pair_of(price))]
    write_over(path, msgspec.json.format(msgspec.json.encode(prices)))
    _lay_over(application, [price])
    return price


def _lay_over(application: Application, prices: list[Price]) -> None:
    replaced = {_pair_of(price) for price in prices}
    book = application.context.rates
    others = [price for price in book.prices if price.source == TABLE and _pair_of(price) not in replaced]
    book.set_table([*prices, *others])


def _pair_of(price: Price) -> frozenset[str]:
    """Return the pair, the same for both ways round."""
    return frozenset((price.base, price.quote))
