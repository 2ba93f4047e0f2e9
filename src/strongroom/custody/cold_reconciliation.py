"""Cold money: what the books say has gone to the cold addresses, held against what the chains say lies there.

The account of cold money is one for an asset, whichever networks it lies on: so it is compared in the ledger's units,
over all of them. On a chain of coins the outputs that the watcher has noted are looked at, on one of accounts the
address is asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, cast

from strongroom.custody.chain import Chain, Fate
from strongroom.custody.keeper import Sweepable
from strongroom.custody.reconciliation import MAX_COINS, MAX_OPEN, Difference, Reconciliation
from strongroom.ledger.accounts import Purpose, house
from strongroom.records.heads import Head
from strongroom.records.settings import OfferSettings
from strongroom.records.withdrawals import PaymentPurpose
from strongroom.wallet.cold import cold_coins
from strongroom.wallet.context import Context
from strongroom.wallet.holdings import ledger_units
from strongroom.wallet.payments import open_payments

COLD: Final = "cold"
"""What stands for the network in the comparison."""

LESS: Final = "less lies there: book what was spent of it with `cold returned`, or find out who has spent it"
MORE: Final = "more lies there than was sent: somebody else has paid to the cold address"


async def reconcile_cold(context: Context, cold: Mapping[int, tuple[Chain, str]]) -> list[Reconciliation]:
    """Return a comparison for each asset that is offered on a network with a cold address, in the ledger's units.

    `cold` has chain and cold address by the network's number. Raises `Unreachable`.
    """
    offers: dict[int, list[OfferSettings]] = {}
    for offer in context.catalogue.snapshot.offers:
        if offer.network in cold:
            offers.setdefault(offer.asset, []).append(offer)
    return [await _reconcile(context, cold, asset, found) for asset, found in offers.items()]


async def _reconcile(
    context: Context, cold: Mapping[int, tuple[Chain, str]], number: int, offers: list[OfferSettings]
) -> Reconciliation:
    asset, lies = context.catalogue.assets[number], 0
    differences: list[Difference] = []
    first = await cold[offers[0].network][0].tip()
    for offer in offers:
        chain, address = cold[offer.network]
        lies += ledger_units(await _lies_there(context, chain, address, offer), offer, asset)
        for payment in open_payments(context.reads, offer.network, MAX_OPEN):
            if (payment.purpose, payment.asset) == (PaymentPurpose.COLD, number):
                statuses = [await chain.transaction(txid, payment.spends) for txid in payment.candidates]
                if any(status.fate is Fate.MINED for status in statuses):
                    units = ledger_units(int(payment.units), offer, asset)
                    differences.append(Difference(units, f"payment {payment.ref} is not final yet", explained=True))
    books = -context.reads.row(Head, house(Purpose.COLD, number).pack()).after
    if rest := lies - books - sum(difference.units for difference in differences):
        differences.append(Difference(rest, LESS if rest < 0 else MORE, explained=False))
    return Reconciliation(COLD, asset.code, first.height, first.hash, books, lies, tuple(differences))


async def _lies_there(context: Context, chain: Chain, address: str, offer: OfferSettings) -> int:
    """Return what a cold address has of an asset, in the chain's unit."""
    if not chain.spends_coins:
        return await cast(Sweepable, chain).lies_at(address, offer.token)
    coins = cold_coins(context.reads, offer.network, MAX_COINS)
    unspent = await chain.unspent([coin.outpoint for coin in coins])
    return sum(coin.units for coin in coins if coin.outpoint in unspent)
