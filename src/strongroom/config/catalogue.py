"""The first settings snapshot of the books: assets, networks and offers as the operator's file declares them."""

from __future__ import annotations

from typing import Final

from strongroom.config.settings import Config, ConfigError, Fee, Offer
from strongroom.money import MAX_DECIMALS, AmountError, FeeFormula, parse_amount
from strongroom.records.settings import AssetSettings, NetworkSettings, OfferSettings, Snapshot

ACTIONS: Final = ("CONVERT", "WITHDRAW", "SEND")


def snapshot_of(config: Config) -> Snapshot:
    """Return the declared snapshot. Raises `ConfigError` for amounts, names and numbers that cannot be."""
    return _Declaring(config).snapshot()


class _Declaring:
    """Turns declared texts into ledger units, and notes every mistake on the way."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._problems: list[str] = []

    def snapshot(self) -> Snapshot:
        self._check_names()
        assets = tuple(
            AssetSettings(asset.number, code, asset.name, asset.fiat, asset.scale, asset.enabled, asset.actions)
            for code, asset in self._config.assets.items()
        )
        networks = tuple(
            NetworkSettings(
                network.number,
                code,
                network.short_name,
                network.name or network.short_name,
                network.family,
                network.confirmations,
                network.extension,
                self._number_of(f"networks.{code}.fee_asset", network.fee_asset),
            )
            for code, network in self._config.networks.items()
        )
        offers = tuple(
            self._offer(code, on, offer)
            for code, by_network in self._config.offers.items()
            for on, offer in by_network.items()
        )
        if self._problems:
            raise ConfigError(self._problems)
        return Snapshot(assets, networks, offers, self._config.approval_expires_s * 1000)

    def _check_names(self) -> None:
        for what, found in (("assets", self._config.assets), ("networks", self._config.networks)):
            numbers: dict[int, str] = {}
            for name, declared in found.items():
                other = numbers.setdefault(declared.number, name)
                if other != name:
                    self._problems.append(f"setting '{what}.{name}.number' is {other}'s number too")
        for code, asset in self._config.assets.items():
            if unknown := set(asset.actions) - set(ACTIONS):
                self._problems.append(
                    f"setting 'assets.{code}.actions' has {', '.join(sorted(unknown))}, which is none"
                )
        for code, by_network in self._config.offers.items():
            defaults = sum(offer.default for offer in by_network.values())
            if defaults != 1:
                self._problems.append(f"'offers.{code}' must have one default network, not {defaults}")

    def _number_of(self, setting: str, code: str) -> int:
        asset = self._config.assets.get(code.upper())
        if asset is None:
            self._problems.append(f"setting '{setting}' names {code!r}, which is not among the assets")
            return 0
        return asset.number

    def _offer(self, code: str, on: str, offer: Offer) -> OfferSettings:
        at = f"offers.{code}.{on}"
        network = self._config.networks.get(on)
        if network is None:
            self._problems.append(f"'{at}': {on!r} is not among the networks")
        asset = self._config.assets.get(code)
        scale = asset.scale if asset else MAX_DECIMALS

        def units(name: str, text: str) -> int:
            return self._units(f"{at}.{name}", text, scale)

        return OfferSettings(
            asset=self._number_of(at, code),
            network=network.number if network else 0,
            decimals=offer.decimals,
            token=offer.token,
            default=offer.default,
            deposits=offer.deposits,
            withdrawals=offer.withdrawals,
            deposit_minimum=units("deposit_minimum", offer.deposit_minimum),
            deposit_fee=self._fee(f"{at}.deposit_fee", offer.deposit_fee, scale),
            withdraw_minimum=units("withdraw_minimum", offer.withdraw_minimum),
            withdraw_fee=self._fee(f"{at}.withdraw_fee", offer.withdraw_fee, scale),
            approve_above=units("approve_above", offer.approve_above),
            daily_limit=units("daily_limit", offer.daily_limit),
        )

    def _fee(self, at: str, fee: Fee, scale: int) -> FeeFormula:
        return FeeFormula(
            self._units(f"{at}.minimum", fee.minimum, scale),
            self._units(f"{at}.rate", fee.rate, MAX_DECIMALS),
            self._units(f"{at}.extra", fee.extra, scale),
            self._units(f"{at}.extra_rate", fee.extra_rate, MAX_DECIMALS),
        )

    def _units(self, setting: str, text: str, scale: int) -> int:
        """Return a declared amount in units; zero, which no client may ask for, is a setting's way to say none."""
        if not text.strip("0."):
            return 0
        try:
            return parse_amount(text, scale)
        except AmountError as error:
            self._problems.append(f"setting '{setting}' is {text!r}: it {error}")
            return 0


def merged(kept: Snapshot, declared: Snapshot) -> Snapshot:
    """Return the kept snapshot with what the file declares and the books do not know yet at its end.

    What the books know stays as it is there: the file only supplies first values.
    """
    assets = {asset.number for asset in kept.assets}
    networks = {network.number for network in kept.networks}
    offers = {(offer.asset, offer.network) for offer in kept.offers}
    return Snapshot(
        kept.assets + tuple(asset for asset in declared.assets if asset.number not in assets),
        kept.networks + tuple(network for network in declared.networks if network.number not in networks),
        kept.offers + tuple(offer for offer in declared.offers if (offer.asset, offer.network) not in offers),
        kept.approval_expires_ms,
    )
