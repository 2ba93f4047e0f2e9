"""v3: what can be done with which asset, on which networks, at which rate; two of them deprecated by the reference."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from strongroom.api.calls import Call
from strongroom.api.dialects import refusals
from strongroom.api.dialects.v3.common import paths
from strongroom.api.operations import Access, Dialect, Operation
from strongroom.api.parameters import Choice, Text
from strongroom.api.replies import Envelope, Number, encode, envelope, raw_number
from strongroom.wallet.catalogue import ACTIONS
from strongroom.wallet.conversions import exchange_rate


def _deprecated(successor: str) -> tuple[tuple[str, str], ...]:
    """Return the headers of a deprecated endpoint: RFC 9745 (since 10 July 2025), RFC 8594, and where to go."""
    return (
        ("Deprecation", "@1752105600"),
        ("Sunset", "Wed, 30 Jul 2025 00:00:00 GMT"),
        ("Link", f'<{successor}>; rel="successor-version"'),
    )


class NetworksRequest(msgspec.Struct, frozen=True):
    """Of which asset."""

    currency: Annotated[str, Text(32, "Asset whose networks are listed", "BTC")]


def answer_networks(call: Call) -> bytes:
    """Return the short names of an asset's networks."""
    catalogue = call.context.catalogue
    asset = catalogue.crypto(call.read(NetworksRequest).currency)
    return encode([catalogue.network(offer.network).short_name for offer in catalogue.offers_of(asset.number)])


class CurrenciesRequest(msgspec.Struct, frozen=True):
    """For which action."""

    action: Annotated[str, Choice(ACTIONS, "What the assets are to be used for", "CONVERT")]


def answer_currencies(call: Call) -> bytes:
    """Return the codes of the assets that are offered for an action."""
    catalogue, action = call.context.catalogue, call.read(CurrenciesRequest).action
    return encode([asset.code for asset in catalogue.snapshot.assets if catalogue.offers_action(asset, action)])


class RateRequest(msgspec.Struct, frozen=True, rename="camel"):
    """From which asset to which."""

    src_currency: Annotated[str, Text(32, "Source asset", "BTC")]
    target_currency: Annotated[str, Text(32, "Target asset", "USD")]


def answer_rate(call: Call) -> bytes:
    """Return the rate at which a conversion would be settled now."""
    request = call.read(RateRequest)
    rate = exchange_rate(call.context, request.src_currency, request.target_currency)
    return envelope(raw_number(rate.text()), call.context.clock.now_ms())


OPERATIONS: Final = [
    Operation(
        name="available_currency_networks",
        summary="List an asset's networks (deprecated)",
        dialect=Dialect.V3,
        method="GET",
        paths=paths("availableCurrencyNetworks"),
        access=Access.PUBLIC,
        request=NetworksRequest,
        reply=list[str],
        answer=answer_networks,
        errors=("invalid_currency",),
        headers=_deprecated("/public-api/wallet/v1/crypto/networks"),
    ),
    Operation(
        name="available_currencies",
        summary="List the assets that are offered for an action",
        dialect=Dialect.V3,
        method="GET",
        paths=paths("availableCurrencies"),
        access=Access.PUBLIC,
        request=CurrenciesRequest,
        reply=list[str],
        answer=answer_currencies,
    ),
    Operation(
        name="exchange_rate",
        summary="Query the exchange rate between assets (deprecated)",
        dialect=Dialect.V3,
        method="GET",
        paths=paths("exchangeRate"),
        access=Access.PUBLIC,
        request=RateRequest,
        reply=Envelope[Number],
        answer=answer_rate,
        errors=refusals.RATE,
        headers=_deprecated("/public-api/wallet/v1/assets/exchangeRate"),
    ),
]
