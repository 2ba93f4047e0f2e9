"""Holdings: what the house owns on a chain, exact in the chain's units, and its floor in the ledger's.

An event moves the omnibus account by the difference of the floors before and after it, so that the account is always
the floor of the exact total, however many events there were. What an event's own floor differs by goes to the dust.

A deep reorganisation may take back more than is left, because it also took back payments that were settled: then the
exact total is below zero for a while, the omnibus account is 0, and the dust carries what is missing until it is there
again.
"""

from __future__ import annotations

from strongroom.engine.command import View
from strongroom.errors import check
from strongroom.ledger.accounts import Purpose, house, omnibus
from strongroom.records.chains import Holding
from strongroom.records.heads import head_of
from strongroom.records.kept import Kept, Key
from strongroom.records.settings import AssetSettings, OfferSettings


def ledger_units(chain_units: int, offer: OfferSettings, asset: AssetSettings) -> int:
    """Return the floor of an amount of chain units (wei, satoshi) in the asset's ledger units."""
    if offer.decimals <= asset.scale:
        return chain_units * 10 ** (asset.scale - offer.decimals)
    return chain_units // 10 ** (offer.decimals - asset.scale)


def chain_units(units: int, offer: OfferSettings, asset: AssetSettings) -> int:
    """Return an amount of ledger units in chain units; one finer than the chain's precision is a mistake of ours."""
    if offer.decimals >= asset.scale:
        return units * 10 ** (offer.decimals - asset.scale)
    whole, rest = divmod(units, unit_of(offer, asset))
    check(not rest, "what goes to a chain fits its precision")
    return whole


def unit_of(offer: OfferSettings, asset: AssetSettings) -> int:
    """Return the smallest amount, in ledger units, that the chain can move and the ledger can tell."""
    return 10 ** max(0, asset.scale - offer.decimals)


def owned_units(chain_units: int, offer: OfferSettings, asset: AssetSettings) -> int:
    """Return what a holding comes to in ledger units: what its omnibus account owns, never less than nothing."""
    return max(0, ledger_units(chain_units, offer, asset))


def holding_needs(network: int, asset: int) -> tuple[Key, ...]:
    """Return what a change of a holding reads and changes: the exact total, the omnibus account and the dust."""
    return (
        Holding.at(network, asset),
        head_of(omnibus(network, asset)),
        head_of(house(Purpose.DUST, asset)),
    )


def holding_change(
    view: View, offer: OfferSettings, asset: AssetSettings, chain_units_delta: int, *, taken_back: bool = False
) -> tuple[list[Kept], int]:
    """Return the rows of a holding that grows by a number of chain units (or shrinks), and by how many ledger units
    the house then owns more: post minus that to the omnibus account, and the rest of the entry's sum to the dust.

    One entry may change a holding once. Raises `InvariantBroken` if something that leaves is more than is there; only
    what a reorganisation has `taken_back` may be.
    """
    before = int(view.get(Holding, offer.network, offer.asset).chain_units)
    after = before + chain_units_delta
    check(after >= 0 or after > before or taken_back, "the house never owns less than nothing on a chain")
    delta = owned_units(after, offer, asset) - owned_units(before, offer, asset)
    return [Holding(offer.network, offer.asset, str(after))], delta
