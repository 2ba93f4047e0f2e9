"""From settings to parts: the rate book, the tiers of limits and the networks, each refusing what cannot be."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final

import msgspec

from strongroom.api.client_address import Network, read_networks
from strongroom.api.limits import TierLimits
from strongroom.config.catalogue import merged
from strongroom.config.settings import Config, ConfigError
from strongroom.config.settings import Rates as RateSettings
from strongroom.errors import Refused
from strongroom.money import AmountError, parse_amount
from strongroom.rates.book import RateBook
from strongroom.rates.ecb import EcbSource
from strongroom.rates.prices import PriceSource
from strongroom.rates.table import TableSource
from strongroom.records.settings import Snapshot
from strongroom.wallet.settings import check_identity

_SPREAD_DECIMALS: Final = 4


def tiers_of(config: Config) -> dict[str, TierLimits]:
    """Return the tiers of rate limits."""
    return {name: TierLimits(**msgspec.structs.asdict(tier)) for name, tier in config.rate_limits.items()}


def networks_of(setting: str, texts: Iterable[str]) -> tuple[Network, ...]:
    """Return the IP networks that a setting lists. Raises `ConfigError`."""
    try:
        return read_networks(texts)
    except ValueError as error:
        raise ConfigError([f"setting '{setting}': {error}"]) from None


def rate_book_of(settings: RateSettings) -> RateBook:
    """Return the book of all configured prices. Raises `ConfigError`."""
    sources: list[PriceSource] = []
    try:
        if settings.table:
            as_of_ms = _unix_ms(settings.table_as_of)
            sources.append(TableSource(settings.table, as_of_ms, settings.table_max_age_s * 1000))
        if settings.ecb:
            sources.append(EcbSource(settings.ecb_max_age_s * 1000))
        spreads_e4 = {pair: _spread_e4(pair, text) for pair, text in settings.pair_spreads.items()}
        return RateBook(sources, _spread_e4("rates.spread", settings.spread), spreads_e4, settings.common_quotes)
    except ValueError as error:
        raise ConfigError([f"rates: {error}"]) from None


def _unix_ms(text: str) -> int:
    moment = datetime.fromisoformat(text) if text else datetime.now(UTC)
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()) * 1000


def _spread_e4(name: str, text: str) -> int:
    if not text.strip("0."):
        return 0
    try:
        return parse_amount(text, _SPREAD_DECIMALS)
    except AmountError as error:
        raise ValueError(f"the spread {text!r} of {name} {error}") from None


def next_snapshot(kept: Snapshot, declared: Snapshot) -> Snapshot:
    """Return what the books' settings are once the file's new assets, networks and offers are added.

    Raises `ConfigError` if the file gives something the books know another identity, or a known name another number.
    """
    numbers = {asset.number for asset in declared.assets}, {network.number for network in declared.networks}
    offered = {(offer.asset, offer.network) for offer in declared.offers}
    shared = msgspec.structs.replace(
        kept,
        assets=tuple(asset for asset in kept.assets if asset.number in numbers[0]),
        networks=tuple(network for network in kept.networks if network.number in numbers[1]),
        offers=tuple(offer for offer in kept.offers if (offer.asset, offer.network) in offered),
    )
    try:
        check_identity(shared, declared)
    except Refused as refusal:
        raise ConfigError([f"the books of this data folder say otherwise: {refusal.message}"]) from None
    snapshot = merged(kept, declared)
    problems = [
        f"{what} {code} is in the books of this data folder under another number"
        for what, codes in (
            ("asset", [asset.code for asset in snapshot.assets]),
            ("network", [network.code for network in snapshot.networks]),
        )
        for code in dict.fromkeys(codes)
        if codes.count(code) > 1
    ]
    if problems:
        raise ConfigError(problems)
    return snapshot
