"""Markets: what clients load before they use the wallet. Conversion pairs stand for markets; nothing is traded."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Final

import msgspec

from strongroom.api.calls import Call
from strongroom.api.dialects.v3.common import paths
from strongroom.api.operations import Access, Dialect, Operation
from strongroom.api.parameters import Text
from strongroom.api.replies import Decimal, Envelope, Number, encode, envelope, raw_number
from strongroom.errors import Refused
from strongroom.records.settings import AssetSettings
from strongroom.wallet.catalogue import CONVERT, Catalogue
from strongroom.wallet.conversions import exchange_rate

_PREFERRED_QUOTES: Final = ("USDT", "USD", "EUR")
_SIZE_PRECISION: Final = 8
_MAX_SIZE: Final = "1000000000"


class MarketItem(msgspec.Struct, frozen=True, rename="camel"):
    """A conversion pair in the shape of a spot market."""

    symbol: str
    type: str
    category: str
    trade_currency: str
    base_currency: str
    quote_currency: str
    display_name: str
    active: bool
    min_order_price: Decimal
    min_price_increment: Decimal
    price_precision: int
    min_order_size: Decimal
    max_order_size: Decimal
    min_size_increment: Decimal
    size_precision: int


class Symbols(msgspec.Struct, frozen=True):
    """All pairs."""

    symbols: list[MarketItem]


def pairs_of(catalogue: Catalogue) -> list[tuple[AssetSettings, AssetSettings]]:
    """Return conversion pairs (base, quote) in which every asset appears: each against the preferred quotes.

    A pair stands in one direction only: the quotes among themselves are quoted in the more preferred one.
    """
    assets = {asset.code: asset for asset in catalogue.snapshot.assets if catalogue.offers_action(asset, CONVERT)}
    quotes = [assets[code] for code in _PREFERRED_QUOTES if code in assets] or list(assets.values())[:1]
    return [
        (base, quote)
        for base in assets.values()
        for place, quote in enumerate(quotes)
        if base not in quotes[: place + 1]
    ]


def answer_markets(call: Call) -> bytes:
    """Return one row per conversion pair."""
    symbols = [_market(base, quote) for base, quote in pairs_of(call.context.catalogue)]
    return envelope(Symbols(symbols), call.context.clock.now_ms())


def _market(base: AssetSettings, quote: AssetSettings) -> MarketItem:
    increment = _increment(quote.scale)
    size = min(base.scale, _SIZE_PRECISION)
    return MarketItem(
        symbol=f"{base.code}-{quote.code}",
        type="Spot",
        category="FIAT" if base.fiat else "CRYPTO",
        trade_currency=base.code,
        base_currency=base.code,
        quote_currency=quote.code,
        display_name=base.name,
        active=True,
        min_order_price=increment,
        min_price_increment=increment,
        price_precision=quote.scale,
        min_order_size=_increment(size),
        max_order_size=_MAX_SIZE,
        min_size_increment=_increment(size),
        size_precision=size,
    )


def _increment(decimals: int) -> str:
    return f"0.{'0' * (decimals - 1)}1" if decimals else "1"


class SummaryRequest(msgspec.Struct, frozen=True):
    """Of which pair."""

    symbol: Annotated[str | None, Text(64, "Pair; absent: all", "BTC-USDT")] = None


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


class SummaryItem(msgspec.Struct, frozen=True, rename=_camel):
    """A pair and the rates at which it is converted now; 0 where there is no rate, and for what is not traded."""

    symbol: str
    base: str
    quote: str
    active: bool
    last: Number
    lowest_ask: Number
    highest_bid: Number
    volume: Number
    high24_hr: Number
    low24_hr: Number
    percentage_change: Number
    size: Number
    min_valid_price: Number
    min_price_increment: Number
    min_order_size: Number
    max_order_size: Number
    min_size_increment: Number


def answer_summary(call: Call) -> bytes:
    """Return the pairs with their rates."""
    symbol = call.read(SummaryRequest).symbol
    pairs = pairs_of(call.context.catalogue)
    rows = [_summary(call, base, quote) for base, quote in pairs]
    return encode([row for row in rows if symbol is None or row.symbol == symbol.upper()])


def _summary(call: Call, base: AssetSettings, quote: AssetSettings) -> SummaryItem:
    market, zero = _market(base, quote), raw_number("0")
    bid = _rate(call, base, quote)
    return SummaryItem(
        symbol=market.symbol,
        base=base.code,
        quote=quote.code,
        active=True,
        last=bid,
        lowest_ask=bid,
        highest_bid=bid,
        volume=zero,
        high24_hr=bid,
        low24_hr=bid,
        percentage_change=zero,
        size=zero,
        min_valid_price=raw_number(market.min_order_price),
        min_price_increment=raw_number(market.min_price_increment),
        min_order_size=raw_number(market.min_order_size),
        max_order_size=raw_number(market.max_order_size),
        min_size_increment=raw_number(market.min_size_increment),
    )


def _rate(call: Call, base: AssetSettings, quote: AssetSettings) -> msgspec.Raw:
    try:
        return raw_number(exchange_rate(call.context, base.code, quote.code).text())
    except Refused:
        return raw_number("0")


class TimeItem(msgspec.Struct, frozen=True):
    """The server's time, as ISO 8601 and in Unix seconds."""

    iso: str
    epoch: int


def answer_time(call: Call) -> bytes:
    """Return the server's time."""
    now_ms = call.context.clock.now_ms()
    moment = datetime.fromtimestamp(now_ms // 1000, UTC)
    return encode(TimeItem(f"{moment:%Y-%m-%dT%H:%M:%S}.{now_ms % 1000:03d}Z", now_ms // 1000))


OPERATIONS: Final = [
    Operation(
        name="markets",
        summary="List the conversion pairs in the shape of markets",
        dialect=Dialect.MARKETS,
        method="GET",
        paths=("/public-api/market/v1/markets",),
        access=Access.OPEN,
        reply=Envelope[Symbols],
        answer=answer_markets,
    ),
    Operation(
        name="market_summary",
        summary="List the conversion pairs with their rates",
        dialect=Dialect.V3,
        method="GET",
        paths=paths("market_summary", "v3.1"),
        access=Access.OPEN,
        request=SummaryRequest,
        reply=list[SummaryItem],
        answer=answer_summary,
    ),
    Operation(
        name="time",
        summary="Query the server's time",
        dialect=Dialect.V3,
        method="GET",
        paths=paths("time", "v3.1"),
        access=Access.OPEN,
        reply=TimeItem,
        answer=answer_time,
    ),
]
