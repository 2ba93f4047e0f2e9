"""What the operator is shown: each kind of row with names for numbers, and amounts as texts."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from strongroom.custody.keeper import Keeper, Marks
from strongroom.custody.reconciliation import Reconciliation
from strongroom.engine.port import Reads
from strongroom.money import format_amount
from strongroom.rates.prices import Price
from strongroom.records.chains import Tip
from strongroom.records.epochs import Reconciled
from strongroom.records.keys import ApiKey, Permission
from strongroom.records.settings import NetworkSettings
from strongroom.records.users import Profile, User
from strongroom.records.withdrawals import Payment, PaymentPurpose, PaymentState, Withdrawal, WithdrawalState
from strongroom.wallet.catalogue import Catalogue
from strongroom.wallet.epochs import epoch_of


class UserView(msgspec.Struct, frozen=True):
    """A user; `parent` is the parent's username."""

    uid: str
    username: str
    email: str
    parent: str | None
    state: str
    created: str


class UserDetails(msgspec.Struct, frozen=True):
    """A user with the names of its sub-accounts and the number of its keys that work."""

    uid: str
    username: str
    email: str
    parent: str | None
    state: str
    created: str
    subaccounts: list[str]
    working_keys: int


class KeyView(msgspec.Struct, frozen=True):
    """An API key, without its secret."""

    key: str
    label: str
    permissions: list[str]
    networks: list[str]
    tier: str
    state: str
    expires: str | None
    created: str


class NewKey(msgspec.Struct, frozen=True):
    """A key as it is shown once, with its secret."""

    user: str
    key: str
    secret: str
    permissions: list[str]
    networks: list[str]
    expires: str | None


class BalanceView(msgspec.Struct, frozen=True):
    """What a user has of an asset."""

    asset: str
    available: str
    total: str


class WithdrawalView(msgspec.Struct, frozen=True):
    """A withdrawal; `amount` is what was asked."""

    ref: str
    user: str
    asset: str
    network: str
    amount: str
    fee: str
    address: str
    tag: str
    state: str
    requested: str
    txid: str


class DepositView(msgspec.Struct, frozen=True):
    """A withheld deposit; it is nobody's until `user` is named."""

    ref: str
    user: str
    asset: str
    network: str
    amount: str
    address: str
    tag: str
    state: str
    seen: str
    txid: str


class NetworkView(msgspec.Struct, frozen=True):
    """A network after a restore: the epoch in which its payments go on, and why they wait in the newest one."""

    network: str
    height: int
    epoch: int
    reconciled_in: int
    by_hand: bool
    unknown_payments: int
    waits: str


class RateView(msgspec.Struct, frozen=True):
    """A price, when it was observed, and whether it is too old to be used."""

    pair: str
    price: str
    source: str
    observed: str
    usable: bool


class FaucetView(msgspec.Struct, frozen=True):
    """What the faucet paid; without a transaction where it went to the bank."""

    user: str
    asset: str
    amount: str
    network: str
    address: str
    tag: str
    txid: str
    credited: bool


class BlockView(msgspec.Struct, frozen=True):
    """A block that was mined."""

    network: str
    height: int
    hash: str


class Done(msgspec.Struct, frozen=True):
    """That something was done, in a word or two."""

    done: str


def moment(at_ms: int) -> str:
    """Return a moment in Unix milliseconds as ISO 8601 in UTC."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def user_view(reads: Reads, user: User) -> UserView:
    """Return a user as it is shown."""
    profile = reads.row(Profile, user.uid)
    parent = reads.row(Profile, user.parent).username if user.parent else None
    state = "frozen" if user.frozen else "active" if user.active else "inactive"
    return UserView(str(user.uid), profile.username, profile.mail, parent, state, moment(user.created_ms))


def permission_names(permissions: int) -> list[str]:
    """Return the contract's names of permissions."""
    return [str(permission.name).capitalize() for permission in Permission if permission & permissions]


def key_view(key: ApiKey, now_ms: int) -> KeyView:
    """Return a key as it is shown at a moment."""
    expired = 0 < key.expires_ms <= now_ms
    state = "revoked" if key.revoked_ms else "expired" if expired else "works"
    expires = moment(key.expires_ms) if key.expires_ms else None
    permissions, networks = permission_names(key.permissions), list(key.networks)
    return KeyView(key.text, key.label, permissions, networks, key.tier, state, expires, moment(key.created_ms))


def withdrawal_view(reads: Reads, catalogue: Catalogue, withdrawal: Withdrawal) -> WithdrawalView:
    """Return a withdrawal as it is shown."""
    asset = catalogue.assets[withdrawal.asset]
    return WithdrawalView(
        str(withdrawal.ref),
        reads.row(Profile, withdrawal.owner).username,
        asset.code,
        catalogue.network(withdrawal.network).code,
        format_amount(withdrawal.asked, asset.scale),
        format_amount(withdrawal.fee, asset.scale),
        withdrawal.address,
        withdrawal.tag,
        WithdrawalState(withdrawal.state).name.lower(),
        moment(withdrawal.requested_ms),
        withdrawal.txid,
    )


class PaymentView(msgspec.Struct, frozen=True):
    """A payment; `fee` is what it takes at most, in the chain's smallest unit, and `waits` why it does not go on.

    The purpose of one that was given up, and whose nonce was spent on nothing, is `filled`.
    """

    ref: str
    network: str
    asset: str
    purpose: str
    state: str
    withdrawals: int
    fee: str
    candidates: int
    txid: str
    created: str
    waits: str


def payment_view(catalogue: Catalogue, payment: Payment, waits: str) -> PaymentView:
    """Return a payment as it is shown."""
    return PaymentView(
        str(payment.ref),
        catalogue.network(payment.network).code,
        catalogue.assets[payment.asset].code,
        "filled" if payment.is_filled else PaymentPurpose(payment.purpose).name.lower(),
        PaymentState(payment.state).name.lower(),
        len(payment.withdrawals),
        payment.chain_fee_units,
        len(payment.candidates),
        payment.txid or (payment.candidates[-1] if payment.candidates else ""),
        moment(payment.created_ms),
        waits,
    )


class HotWalletView(msgspec.Struct, frozen=True):
    """What a hot wallet can spend of an asset, beside its marks, and how that is: ok, low or high."""

    network: str
    asset: str
    hot: str
    low: str
    keep: str
    high: str
    state: str


def hot_wallet_view(catalogue: Catalogue, keeper: Keeper, asset: int, marks: Marks) -> HotWalletView:
    """Return a hot wallet as it is shown."""
    network = catalogue.network_named(keeper.chain.network)
    offer = catalogue.offer_at(asset, network.number)
    decimals = 0 if offer is None else offer.decimals
    state = "low" if asset in keeper.status.low else "high" if asset in keeper.status.high else "ok"
    return HotWalletView(
        network.code,
        catalogue.assets[asset].code,
        hot=format_amount(keeper.status.hot[asset], decimals),
        low=format_amount(marks.low, decimals),
        keep=format_amount(marks.keep, decimals),
        high=format_amount(marks.high, decimals),
        state=state,
    )


class UnsignedView(msgspec.Struct, frozen=True):
    """A payment that is to be signed elsewhere; `file` is the content of the file that travels."""

    ref: str
    network: str
    file: str


def network_view(reads: Reads, network: NetworkSettings, waits: str) -> NetworkView:
    """Return a network as it is shown; `waits` says why its payments do not go on."""
    known = reads.row(Reconciled, network.number)
    height = reads.row(Tip, network.number).height
    return NetworkView(network.code, height, epoch_of(reads), known.epoch, known.by_hand, known.unknown, waits)


class ReconciliationView(msgspec.Struct, frozen=True):
    """Books and chain of an asset on a network, in the chain's smallest unit; `differences` are chain less books."""

    network: str
    asset: str
    height: int
    books: str
    chain: str
    unexplained: str
    differences: list[str]


def reconciliation_view(found: Reconciliation) -> ReconciliationView:
    """Return a reconciliation as it is shown."""
    return ReconciliationView(
        found.network,
        found.asset,
        found.height,
        str(found.books_units),
        str(found.chain_units),
        str(found.unexplained_units),
        [f"{it.units:+}: {it.cause}{'' if it.explained else ' (UNEXPLAINED)'}" for it in found.differences],
    )


def rate_view(price: Price, now_ms: int) -> RateView:
    """Return a price as it is shown at a moment, with 12 significant digits."""
    usable = price.usable_from_ms <= now_ms < price.usable_until_ms
    return RateView(price.pair, _decimal(price.num, price.den), price.source, moment(price.as_of_ms), usable)


def _decimal(num: int, den: int) -> str:
    decimals = max(0, 12 + len(str(den)) - len(str(num)))
    return format_amount(num * 10**decimals // den, decimals)
