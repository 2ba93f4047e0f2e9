"""Wallet v1: assets, networks, rates and balances."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from strongroom.api.calls import Call
from strongroom.api.dialects import refusals
from strongroom.api.operations import Access, Dialect, Operation
from strongroom.api.parameters import AmountText, Text
from strongroom.api.replies import Decimal, Envelope, encode, envelope
from strongroom.money import FeeFormula, format_amount
from strongroom.records.keys import Permission
from strongroom.records.settings import AssetSettings, OfferSettings
from strongroom.records.users import User
from strongroom.wallet.balances import Balance, balances_of
from strongroom.wallet.catalogue import CONVERT, SEND, WITHDRAW, Catalogue
from strongroom.wallet.context import Context
from strongroom.wallet.conversions import exchange_rate

ROOT: Final = "/public-api/wallet/v1/"
_RATE_SCALE: Final = 8


class NetworksRequest(msgspec.Struct, frozen=True):
    """Of which asset."""

    crypto: Annotated[str, Text(32, "Asset whose networks are listed", "BTC")]


class NetworkItem(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A network of an asset with its minima and fees (the reference's CryptoNetworkItem)."""

    network: str
    name: str
    deposit_enable: bool
    withdraw_enable: bool
    confirmation_time: int
    deposit_amt_min: Decimal
    deposit_fee_min: Decimal
    deposit_fee_rate: Decimal
    deposit_ext_fees: Decimal
    deposit_ext_fee_rate: Decimal
    need_address_extension: bool
    withdraw_amt_min: Decimal
    withdraw_fee_min: Decimal
    withdraw_fee_rate: Decimal
    withdraw_ext_fees: Decimal
    withdraw_ext_fee_rate: Decimal
    address_extension_type_name: str | None = None


def answer_networks(call: Call) -> bytes:
    """Return an asset's networks; to a caller with Read permission with the switches of that account."""
    catalogue = call.context.catalogue
    asset = catalogue.crypto(call.read(NetworksRequest).crypto)
    user = _known_user(call)
    items = [_network_item(call.context, asset, offer, user) for offer in catalogue.offers_of(asset.number)]
    return envelope(items, call.context.clock.now_ms())


def _known_user(call: Call) -> User | None:
    """Return the caller whose key may read; a valid key without Read gets the public answer."""
    caller = call.caller
    return caller.user if caller is not None and caller.key.permissions & Permission.READ else None


def _network_item(context: Context, asset: AssetSettings, offer: OfferSettings, user: User | None) -> NetworkItem:
    catalogue = context.catalogue
    network = catalogue.network(offer.network)
    deposit, withdraw = _fees(offer.deposit_fee, asset), _fees(offer.withdraw_fee, asset)
    may_withdraw = offer.withdrawals and catalogue.offers_action(asset, WITHDRAW)
    return NetworkItem(
        network=network.code,
        name=network.name,
        deposit_enable=context.suspensions.takes_deposits(offer),
        withdraw_enable=may_withdraw and not (user is not None and user.frozen),
        confirmation_time=network.confirmations,
        deposit_amt_min=format_amount(offer.deposit_minimum, asset.scale),
        deposit_fee_min=deposit[0],
        deposit_fee_rate=deposit[1],
        deposit_ext_fees=deposit[2],
        deposit_ext_fee_rate=deposit[3],
        need_address_extension=bool(network.extension),
        withdraw_amt_min=format_amount(offer.withdraw_minimum, asset.scale),
        withdraw_fee_min=withdraw[0],
        withdraw_fee_rate=withdraw[1],
        withdraw_ext_fees=withdraw[2],
        withdraw_ext_fee_rate=withdraw[3],
        address_extension_type_name=network.extension or None,
    )


def _fees(formula: FeeFormula, asset: AssetSettings) -> tuple[str, str, str, str]:
    """Return a formula's minimum, rate, extra and extra rate as texts."""
    return (
        format_amount(formula.minimum, asset.scale),
        format_amount(formula.rate_e8, _RATE_SCALE),
        format_amount(formula.extra, asset.scale),
        format_amount(formula.extra_rate_e8, _RATE_SCALE),
    )


class AssetItem(msgspec.Struct, frozen=True):
    """An asset."""

    asset: str
    name: str
    type: str
    decimals: int
    networks: list[str]


def _asset_items(catalogue: Catalogue, *, crypto_only: bool) -> list[AssetItem]:
    return [
        AssetItem(asset.code, asset.name, kind_of(asset), asset.scale, networks)
        for asset in catalogue.snapshot.assets
        if asset.enabled and not (crypto_only and asset.fiat)
        for networks in [[catalogue.network(offer.network).code for offer in catalogue.offers_of(asset.number)]]
    ]


def kind_of(asset: AssetSettings) -> str:
    """Return CRYPTO or FIAT."""
    return "FIAT" if asset.fiat else "CRYPTO"


def answer_crypto_list(call: Call) -> bytes:
    """Return the crypto assets."""
    return envelope(_asset_items(call.context.catalogue, crypto_only=True), call.context.clock.now_ms())


def answer_assets(call: Call) -> bytes:
    """Return all assets."""
    return envelope(_asset_items(call.context.catalogue, crypto_only=False), call.context.clock.now_ms())


class RateRequest(msgspec.Struct, frozen=True, rename="camel"):
    """From which asset to which, and for how much."""

    base_currency: Annotated[str, Text(32, "Base asset", "BTC")]
    amount: Annotated[str, AmountText("Quantity of the base asset", "2")]
    quote_currency: Annotated[str, Text(32, "Quote asset", "USDT")]


class RateItem(msgspec.Struct, frozen=True):
    """A rate."""

    rate: Decimal


def answer_rate(call: Call) -> bytes:
    """Return the rate at which a conversion of that amount would be settled now."""
    request = call.read(RateRequest)
    rate = exchange_rate(call.context, request.base_currency, request.quote_currency, request.amount)
    return envelope(RateItem(rate.text()), call.context.clock.now_ms())


class NetworkNames(msgspec.Struct, frozen=True, rename="camel"):
    """The ids of the networks that are open."""

    deposit_networks: list[str]
    withdrawal_networks: list[str]


class UserAsset(msgspec.Struct, frozen=True, rename="camel"):
    """A balance, and what the user can do with it."""

    asset: str
    type: str
    total_amount: Decimal
    available_amount: Decimal
    available_actions: list[str]
    crypto_network: NetworkNames


def answer_user_assets(call: Call) -> bytes:
    """Return one row per asset, zero rows included, in the catalogue's order."""
    rows = call.services.wallets.body(call.owner, "wallet_v1", lambda: _user_assets(call))
    return envelope(msgspec.Raw(rows), call.context.clock.now_ms())


def _user_assets(call: Call) -> bytes:
    catalogue = call.context.catalogue
    user = call.context.reads.row(User, call.owner)
    assets = catalogue.snapshot.assets
    balances = balances_of(call.context.reads, user.uid, [asset.number for asset in assets])
    rows = zip(assets, balances, strict=True)
    return encode([_user_asset(call, catalogue, asset, balance, user) for asset, balance in rows])


def _user_asset(call: Call, catalogue: Catalogue, asset: AssetSettings, balance: Balance, user: User) -> UserAsset:
    offers = catalogue.offers_of(asset.number) if asset.enabled else []
    suspensions = call.context.suspensions
    deposits = [catalogue.network(offer.network).code for offer in offers if suspensions.takes_deposits(offer)]
    withdrawals = [catalogue.network(offer.network).code for offer in offers if offer.withdrawals]
    spends = not user.frozen
    actions = {
        "CONVERT": spends and catalogue.offers_action(asset, CONVERT),
        "TRANSFER": spends and catalogue.offers_action(asset, SEND),
        "WITHDRAW": spends and bool(withdrawals) and catalogue.offers_action(asset, WITHDRAW),
        "DEPOSIT": bool(deposits),
        "SEND_TO": spends and catalogue.offers_action(asset, SEND),
    }
    return UserAsset(
        asset=asset.code,
        type=kind_of(asset),
        total_amount=format_amount(balance.total, asset.scale),
        available_amount=format_amount(balance.available, asset.scale),
        available_actions=[action for action, offered in actions.items() if offered],
        crypto_network=NetworkNames(deposits, withdrawals),
    )


OPERATIONS: Final = [
    Operation(
        name="crypto_networks",
        summary="Query the networks of a crypto asset",
        dialect=Dialect.WALLET_V1,
        method="GET",
        paths=(ROOT + "crypto/networks",),
        access=Access.PUBLIC,
        request=NetworksRequest,
        reply=Envelope[list[NetworkItem]],
        answer=answer_networks,
        errors=("invalid_currency",),
    ),
    Operation(
        name="crypto_list",
        summary="List the crypto assets",
        dialect=Dialect.WALLET_V1,
        method="GET",
        paths=(ROOT + "crypto/list",),
        access=Access.PUBLIC,
        reply=Envelope[list[AssetItem]],
        answer=answer_crypto_list,
    ),
    Operation(
        name="assets",
        summary="List all assets",
        dialect=Dialect.WALLET_V1,
        method="GET",
        paths=(ROOT + "assets",),
        access=Access.PUBLIC,
        reply=Envelope[list[AssetItem]],
        answer=answer_assets,
    ),
    Operation(
        name="exchange_rate",
        summary="Query the exchange rate of a pair",
        dialect=Dialect.WALLET_V1,
        method="GET",
        paths=(ROOT + "assets/exchangeRate",),
        access=Access.PUBLIC,
        request=RateRequest,
        reply=Envelope[RateItem],
        answer=answer_rate,
        errors=refusals.RATE,
    ),
    Operation(
        name="wallet",
        summary="Query the user's assets",
        dialect=Dialect.WALLET_V1,
        method="GET",
        paths=(ROOT + "user/assets",),
        access=Access.READ,
        permission=Permission.READ,
        reply=Envelope[list[UserAsset]],
        answer=answer_user_assets,
    ),
]
