"""The catalogue: assets, networks and offers of the settings, found by the names that clients write."""

from __future__ import annotations

from typing import Final

from strongroom.errors import INVALID_CURRENCY, INVALID_NETWORK
from strongroom.records.settings import AssetSettings, NetworkSettings, OfferSettings, Snapshot

CONVERT: Final = "CONVERT"
WITHDRAW: Final = "WITHDRAW"
SEND: Final = "SEND"
ACTIONS: Final = (CONVERT, WITHDRAW, SEND)


class Catalogue:
    """Look-ups over one snapshot of the settings; names match without case (the contract's section 5)."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.assets = {asset.number: asset for asset in snapshot.assets}
        self.networks = {network.number: network for network in snapshot.networks}
        self._offers = {(offer.asset, offer.network): offer for offer in snapshot.offers}
        self._by_code = {asset.code.upper(): asset for asset in snapshot.assets}
        self._by_name = {
            name.upper(): network for network in snapshot.networks for name in (network.short_name, network.code)
        }

    def asset(self, name: str, action: str | None = None) -> AssetSettings:
        """Return the enabled asset of this name. Raises `Refused` INVALID_CURRENCY, also where it lacks the action."""
        found = self._by_code.get(name.upper())
        if found is None or not found.enabled or (action is not None and not self.offers_action(found, action)):
            raise INVALID_CURRENCY(name)
        return found

    def crypto(self, name: str) -> AssetSettings:
        """Return the enabled asset of this name that lives on a chain. Raises `Refused` INVALID_CURRENCY."""
        found = self.asset(name)
        if not self.offers_of(found.number):
            raise INVALID_CURRENCY(name)
        return found

    def offers_action(self, asset: AssetSettings, action: str) -> bool:
        """Say whether an asset is offered for an action; only what is on a network can be withdrawn."""
        on_chain = action != WITHDRAW or bool(self.offers_of(asset.number))
        return asset.enabled and action in asset.actions and on_chain

    def offers_of(self, asset: int) -> list[OfferSettings]:
        """Return an asset's networks, the default one first."""
        found = [offer for offer in self.snapshot.offers if offer.asset == asset]
        return sorted(found, key=lambda offer: not offer.default)

    def offer(self, asset: AssetSettings, network: str | None) -> OfferSettings:
        """Return the offer of an asset on a network by its id or short name; without one, on its default network.

        Raises `Refused` INVALID_NETWORK.
        """
        if network is None:
            return self.offers_of(asset.number)[0]
        found = self._by_name.get(network.upper())
        if found is None or (asset.number, found.number) not in self._offers:
            raise INVALID_NETWORK()
        return self._offers[asset.number, found.number]

    def offer_at(self, asset: int, network: int) -> OfferSettings | None:
        """Return the offer of an asset on a network by their numbers."""
        return self._offers.get((asset, network))

    def network(self, number: int) -> NetworkSettings:
        """Return a network by its number."""
        return self.networks[number]

    def network_named(self, name: str) -> NetworkSettings:
        """Return a network by its id or short name. Raises `Refused` INVALID_NETWORK."""
        found = self._by_name.get(name.upper())
        if found is None:
            raise INVALID_NETWORK()
        return found


class _Newest:
    """The catalogue of the newest snapshot asked for: settings change seldom, look-ups happen with every request."""

    catalogue = Catalogue(Snapshot())


def catalogue_of(snapshot: Snapshot) -> Catalogue:
    """Return the catalogue of a snapshot; the newest one is kept."""
    if _Newest.catalogue.snapshot is not snapshot:
        _Newest.catalogue = Catalogue(snapshot)
    return _Newest.catalogue
