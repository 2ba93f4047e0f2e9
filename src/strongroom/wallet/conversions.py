"""Conversions: one asset for another out of the house's inventory, at the published rate of that moment."""

from __future__ import annotations

from typing import Final

import msgspec

from strongroom.engine.command import Command, Decision, Guard, Stale, View
from strongroom.errors import CONVERSION_REFUSED, INVALID_CURRENCY, PARAMETER_INVALID, check
from strongroom.ledger.accounts import Purpose, available, house
from strongroom.ledger.entries import Posting
from strongroom.money import MAX_UNITS, Rate
from strongroom.rates.quotes import QuotedRate
from strongroom.records.heads import Head, head_of
from strongroom.records.history import Entry, LineType, threads_of
from strongroom.records.kept import Key
from strongroom.records.settings import SETTINGS_KEY, AssetSettings, Settings
from strongroom.records.users import User
from strongroom.wallet.amounts import read_amount
from strongroom.wallet.catalogue import CONVERT, catalogue_of
from strongroom.wallet.context import Context
from strongroom.wallet.credits import credit, credit_needs

RATE_STANDS_MS: Final = 5_000
"""How long a prepared conversion may wait for its decision; after that its rate is asked for again."""


class Converted(msgspec.Struct, frozen=True):
    """Both order references and assets, what was given and what was got (in each one's units), and the rate's text."""

    from_ref: int
    from_asset: int
    amount: int
    to_ref: int
    to_asset: int
    settlement: int
    rate: str


class CarriedRate(msgspec.Struct, frozen=True):
    """A quoted rate as the journal keeps it: both prices in parts of 10^`decimals`, as text, for they are unbounded."""

    units: str
    mid_units: str
    decimals: int
    source: str
    as_of_ms: int

    def quoted(self) -> QuotedRate:
        """Return the rate that was quoted."""
        rate = Rate(int(self.units), self.decimals, self.source, self.as_of_ms)
        return QuotedRate(rate, msgspec.structs.replace(rate, units=int(self.mid_units)))


class Convert(Command, frozen=True):
    """Take `amount` of one asset from a customer, and give `settlement` of another.

    The inventory pays `settlement` + `spread`; the spread stays with the house. The rate stands until
    `valid_until_ms` (Unix milliseconds).
    """

    owner: int
    from_asset: int
    to_asset: int
    amount: int
    settlement: int
    spread: int
    rate: CarriedRate
    valid_until_ms: int
    from_ref: int
    to_ref: int

    def needs(self) -> list[Key]:
        """The customer, its accounts and histories of both assets, the inventory of both, and the settings."""
        accounts = [available(self.owner, self.from_asset), house(Purpose.SPREAD, self.to_asset)]
        accounts += [house(Purpose.INVENTORY, asset) for asset in (self.from_asset, self.to_asset)]
        return [
            SETTINGS_KEY,
            User.at(self.owner),
            *map(head_of, accounts),
            *credit_needs(self.owner, self.to_asset),
            *threads_of(self.owner, self.from_asset, LineType.CONVERT),
            *threads_of(self.owner, self.to_asset, LineType.CONVERT),
        ]

    def decide(self, view: View, now_ms: int) -> Decision:
        """Convert at the carried rate, unless it is too old, the account is frozen or the inventory is short."""
        if now_ms > self.valid_until_ms:
            raise Stale
        quoted = self.rate.quoted()
        self._check_settlement(view, quoted)
        user = view.get(User, self.owner)
        if user.frozen or not user.active:
            raise CONVERSION_REFUSED("Account is frozen")
        inventory = view.get(Head, house(Purpose.INVENTORY, self.to_asset).pack())
        if inventory.after < self.settlement + self.spread:
            raise CONVERSION_REFUSED("Inventory is short")
        rate = quoted.rate.text()
        given, got = (self.from_ref, self.from_asset, self.amount), (self.to_ref, self.to_asset, self.settlement)
        return Decision(postings=self._postings(view), lines=self._lines(rate), result=Converted(*given, *got, rate))

    def _check_settlement(self, view: View, quoted: QuotedRate) -> None:
        """Recheck that both assets are still offered, and that the settlement is what the rate makes of the amount."""
        catalogue = catalogue_of(view.get(Settings, 0).snapshot)
        source, target = catalogue.assets[self.from_asset], catalogue.assets[self.to_asset]
        for asset in (source, target):
            if not catalogue.offers_action(asset, CONVERT):
                raise INVALID_CURRENCY(asset.code)
        split = quoted.split(self.amount, source.scale, target.scale)
        check(split == (self.settlement, self.spread), "a settlement follows from the rate it carries")

    def _postings(self, view: View) -> list[Posting]:
        return [
            Posting(available(self.owner, self.from_asset), -self.amount),
            Posting(house(Purpose.INVENTORY, self.from_asset), self.amount),
            Posting(house(Purpose.INVENTORY, self.to_asset), -(self.settlement + self.spread)),
            *credit(view, self.owner, self.to_asset, self.settlement),
            Posting(house(Purpose.SPREAD, self.to_asset), self.spread),
        ]

    def _lines(self, rate: str) -> list[Entry]:
        given, got = (self.from_asset, self.amount), (self.to_asset, self.settlement)
        return [
            Entry(
                self.owner,
                asset,
                LineType.CONVERT,
                ref,
                amount,
                net,
                other_asset=other[0],
                other_amount=other[1],
                rate=rate,
            )
            for (asset, amount), net, ref, other in (
                (given, -self.amount, self.from_ref, got),
                (got, self.settlement, self.to_ref, given),
            )
        ]


def prepare_conversion(context: Context, guard: Guard, from_asset: str, to_asset: str, amount: str) -> Convert:
    """Return the command that converts `amount` (as text) of an asset into another, at the rate of this moment.

    Raises `Refused` in the contract's order: assets, equal assets, amount, rate, a settlement of 0.
    """
    source, target, units = _read(context, from_asset, to_asset, amount)
    now_ms = context.clock.now_ms()
    quoted = _quoted(context, source, target, now_ms)
    settlement, spread = quoted.split(units, source.scale, target.scale)
    if not settlement:
        raise PARAMETER_INVALID("amount is too small: the settlement rounds to 0")
    if settlement + spread >= MAX_UNITS:
        raise PARAMETER_INVALID("amount is beyond the ledger's range")
    rate = quoted.rate
    return Convert(
        guard,
        guard.owner,
        source.number,
        target.number,
        units,
        settlement,
        spread,
        CarriedRate(str(rate.units), str(quoted.mid.units), rate.decimals, rate.source, rate.as_of_ms),
        now_ms + RATE_STANDS_MS,
        context.ids.ref(),
        context.ids.ref(),
    )


def exchange_rate(context: Context, base: str, quote: str, amount: str | None = None) -> Rate:
    """Return the rate at which a conversion of `base` into `quote` is settled at this moment, spread taken.

    It is the same for every amount; one that is given must be an amount of `base`. Raises `Refused` as
    `prepare_conversion` does, but for the settlement.
    """
    source, target, _ = _read(context, base, quote, amount)
    return _quoted(context, source, target, context.clock.now_ms()).rate


def _read(context: Context, base: str, quote: str, amount: str | None) -> tuple[AssetSettings, AssetSettings, int]:
    """Return both assets and the amount in units of the first, 0 without one."""
    source, target = context.catalogue.asset(base, CONVERT), context.catalogue.asset(quote, CONVERT)
    if source.number == target.number:
        raise PARAMETER_INVALID("an asset is not converted into itself")
    return source, target, 0 if amount is None else read_amount(amount, source)


def _quoted(context: Context, source: AssetSettings, target: AssetSettings, now_ms: int) -> QuotedRate:
    return context.rates.quoted(source.code.upper(), target.code.upper(), now_ms)
