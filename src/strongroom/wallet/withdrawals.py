"""Withdrawals: the request. Terms, address, policy and hold; what is ours and somebody's is settled inside the house.

A withdrawal is not a transaction: `approvals` says yes or no to it, `payments` carry it out on the chain.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from strongroom.clock import DAY_MS
from strongroom.engine.command import Command, Decision, Guard, Stale, View
from strongroom.engine.port import ReadsRows
from strongroom.errors import (
    INSUFFICIENT_BALANCE,
    INVALID_CURRENCY,
    INVALID_NETWORK,
    INVALID_WITHDRAW_ADDRESS,
    INVALID_WITHDRAW_AMOUNT,
    PARAMETER_INVALID,
    WITHDRAW_REFUSED,
)
from strongroom.ledger.accounts import Account, Purpose, available, held, house, owed
from strongroom.ledger.entries import Posting, move
from strongroom.money import MAX_UNITS
from strongroom.records.addresses import Address, Placed
from strongroom.records.deposits import Deposit
from strongroom.records.heads import Head, head_of
from strongroom.records.history import Entry, LineType, Note, threads_of
from strongroom.records.kept import Kept, Key
from strongroom.records.settings import SETTINGS_KEY, AssetSettings, NetworkSettings, OfferSettings, Settings
from strongroom.records.users import User
from strongroom.records.withdrawals import Spent, Withdrawal, WithdrawalState
from strongroom.wallet.addresses import split_address
from strongroom.wallet.amounts import read_withdraw_amount
from strongroom.wallet.catalogue import WITHDRAW, Catalogue, catalogue_of
from strongroom.wallet.confirmations import Confirmations, confirmations_of
from strongroom.wallet.context import Context
from strongroom.wallet.credits import credit, credit_needs, owes
from strongroom.wallet.deposits import internal_deposit, internal_needs
from strongroom.wallet.holdings import unit_of


class WithdrawalRequested(msgspec.Struct, frozen=True):
    """What was accepted: its references, what the receiver gets and what is charged (units), and where it goes."""

    ref: int
    uuid: str
    to_address: int
    fee: int
    address: str
    tag: str
    asset: int
    network: int


class Terms(NamedTuple):
    """What the receiver gets and what the customer is charged, in the asset's units."""

    to_address: int
    fee: int


class RequestWithdrawal(Command, frozen=True):
    """Hold `amount` units (and the fee) of `owner`'s for an address outside, or pay the customer whose address it is.

    `to` is the address as our rows have it, absent for a stranger's; `day` the day it is asked on; `assets` all in
    which the customer may owe something. `in_ref` is the reference of the deposit that is made inside the house.
    """

    owner: int
    asset: int
    to: Address
    amount: int
    include_fee: bool
    ref: int
    uuid: str
    day: int
    assets: tuple[int, ...]
    in_ref: int = 0

    def needs(self) -> list[Key]:
        """The customer with accounts, debts, limits and history, what the address is to us, and the settings."""
        keys = [
            SETTINGS_KEY,
            self.to.key(),
            Placed.at(self.to.network, self.to.position),
            Withdrawal.at(self.ref),
            Spent.at(self.owner, self.asset, self.day),
            head_of(available(self.owner, self.asset)),
            head_of(held(self.owner, self.asset)),
            *bar_needs(self.owner, self.assets),
            *threads_of(self.owner, self.asset, LineType.WITHDRAW),
        ]
        return keys + payout_needs(self.to, self.asset, self.in_ref) if self.in_ref else keys

    def decide(self, view: View, now_ms: int) -> Decision:
        """Refuse in the contract's order, by the settings as they are now; else hold the money or hand it over."""
        catalogue = catalogue_of(view.get(Settings, 0).snapshot)
        asset, offer = _open_offer(catalogue, self.asset, self.to.network)
        terms = terms_of(asset, offer, self.amount, include_fee=self.include_fee)
        self._recheck(view, now_ms)
        spent = _check_policy(view, self, offer)
        if view.get(Head, available(self.owner, self.asset).pack()).after < sum(terms):
            raise INSUFFICIENT_BALANCE()
        withdrawal = self._withdrawal(terms, offer, now_ms)
        postings, rows, lines = self._effects(view, withdrawal, now_ms)
        result = WithdrawalRequested(
            self.ref, self.uuid, *terms, self.to.address, self.to.tag, self.asset, self.to.network
        )
        return Decision(postings, [withdrawal, spent, *rows], [line_of(withdrawal), *lines], result)

    def _recheck(self, view: View, now_ms: int) -> None:
        """Raise `Stale` where the day, or what the address is to us, are not what the preparation found, or a
        reference is taken."""
        row = view.get(Address, *self.to.key()[1:])
        moved = (row.owner, row.asset, row.position) != (self.to.owner, self.to.asset, self.to.position)
        placed = view.get(Placed, row.network, self.to.position)
        taken = view.get(Withdrawal, self.ref).state or (self.in_ref and view.get(Deposit, self.in_ref).state)
        if moved or taken or now_ms // DAY_MS != self.day or _is_nobodys(self.to, placed):
            raise Stale

    def _withdrawal(self, terms: Terms, offer: OfferSettings, now_ms: int) -> Withdrawal:
        state = WithdrawalState.SETTLED if self.in_ref else WithdrawalState.APPROVED
        if self.amount > offer.approve_above > 0:
            state = WithdrawalState.AWAITING
        return Withdrawal(
            ref=self.ref,
            owner=self.owner,
            asset=self.asset,
            network=self.to.network,
            address=self.to.address,
            tag=self.to.tag,
            asked=self.amount,
            to_address=terms.to_address,
            fee=terms.fee,
            state=state,
            requested_ms=now_ms,
            deposit=self.in_ref,
            uuid=self.uuid,
        )

    def _effects(
        self, view: View, withdrawal: Withdrawal, now_ms: int
    ) -> tuple[list[Posting], Sequence[Kept], Sequence[Entry]]:
        spendable = available(self.owner, self.asset)
        if withdrawal.state == WithdrawalState.SETTLED:
            return payout(view, withdrawal, spendable, now_ms)
        return [*move(spendable, held(self.owner, self.asset), withdrawal.held)], (), ()


def terms_of(asset: AssetSettings, offer: OfferSettings, amount: int, *, include_fee: bool) -> Terms:
    """Return what an amount comes to. Raises `Refused` INVALID_WITHDRAW_AMOUNT for one that is finer than the chain,
    below the minimum or not above its fee, PARAMETER_INVALID beyond the ledger's range.

    Fee and minimum go by the request's amount, whoever bears the fee (the contract's section 6, item 6).
    """
    unit = unit_of(offer, asset)
    if amount % unit or amount < offer.withdraw_minimum:
        raise INVALID_WITHDRAW_AMOUNT()
    fee = offer.withdraw_fee.fee(amount, unit)
    to_address = amount - fee if include_fee else amount
    if to_address <= 0:
        raise INVALID_WITHDRAW_AMOUNT()
    if to_address + fee >= MAX_UNITS:
        raise PARAMETER_INVALID("amount is too large")
    return Terms(to_address, fee)


def _open_offer(catalogue: Catalogue, asset: int, network: int) -> tuple[AssetSettings, OfferSettings]:
    """Return an asset and its offer on a network, both open for withdrawals now. Raises `Refused`."""
    found, offer = catalogue.assets[asset], catalogue.offer_at(asset, network)
    if not catalogue.offers_action(found, WITHDRAW):
        raise INVALID_CURRENCY(found.code)
    if offer is None or not offer.withdrawals:
        raise INVALID_NETWORK()
    return found, offer


def _check_policy(view: View, request: RequestWithdrawal, offer: OfferSettings) -> Spent:
    """Return what the customer will have withdrawn this day. Raises `Refused` WITHDRAW_REFUSED with the reason."""
    if reason := bar_to_paying(view, request.owner, request.assets):
        raise WITHDRAW_REFUSED(reason)
    spent = view.get(Spent, request.owner, request.asset, request.day)
    amount = spent.amount + request.amount
    if amount > offer.daily_limit > 0 or amount >= MAX_UNITS:
        raise WITHDRAW_REFUSED("Daily limit exceeded")
    return msgspec.structs.replace(spent, amount=amount)


def bar_needs(owner: int, assets: Sequence[int]) -> list[Key]:
    """Return what `bar_to_paying` reads."""
    return [User.at(owner), *(head_of(owed(owner, asset)) for asset in assets)]


def bar_to_paying(view: View, owner: int, assets: Sequence[int]) -> str:
    """Return why a customer's money may not leave the house now, empty if it may: frozen, or owing any of `assets`.

    Asked at the request, and again before a withdrawal that had to wait is paid: in between a reorganisation may have
    taken back what it is paid from.
    """
    user = view.get(User, owner)
    if user.frozen or not user.active:
        return "Account is frozen"
    return "Balance is owed" if any(owes(view, owner, asset) for asset in assets) else ""


def line_of(withdrawal: Withdrawal) -> Entry:
    """Return the customer's history line."""
    return Entry(
        withdrawal.owner,
        withdrawal.asset,
        LineType.WITHDRAW,
        withdrawal.ref,
        withdrawal.asked,
        -withdrawal.held,
        fees=withdrawal.fee,
        network=withdrawal.network,
        note=Note.INTERNAL if withdrawal.deposit else Note.NONE,
    )


def prepare_withdrawal(  # noqa: PLR0913 - the request's own parameters, one each
    context: Context,
    guard: Guard,
    asset: str,
    network: str | None,
    address: str,
    tag: str | None,
    amount: str,
    *,
    include_fee: bool,
    uuid: str,
) -> RequestWithdrawal:
    """Return the command that withdraws `amount` (as text) of an asset to an address; `network` None is the default.

    Raises `Refused` in the contract's order: asset, network, amount, address; the command goes on with policy, balance.
    """
    catalogue = context.catalogue
    found = catalogue.asset(asset, WITHDRAW)
    offer = catalogue.offer(found, network)
    _ = _open_offer(catalogue, found.number, offer.network)
    units = read_withdraw_amount(amount, found)
    _ = terms_of(found, offer, units, include_fee=include_fee)
    to = find_destination(context, catalogue.network(offer.network), address, tag)
    return RequestWithdrawal(
        guard,
        owner=guard.owner,
        asset=found.number,
        to=to,
        amount=units,
        include_fee=include_fee,
        ref=context.ids.ref(),
        uuid=uuid,
        day=context.clock.now_ms() // DAY_MS,
        assets=tuple(catalogue.assets),
        in_ref=context.ids.ref() if to.owner else 0,
    )


def split_currency(currency: str) -> tuple[str, str | None]:
    """Return asset and network of v3's `BTC-Bitcoin`; no network for a bare `BTC`: no asset's code has a dash."""
    asset, dash, network = currency.partition("-")
    return asset, network if dash else None


def find_destination(context: Context, network: NetworkSettings, address: str, tag: str | None) -> Address:
    """Return an address in normal spelling, with its owner if it is a customer's; the absent row for a stranger's.

    `address:tag` is taken where the tag is empty. Raises `Refused` INVALID_WITHDRAW_ADDRESS for what the network cannot
    pay, and for one of ours that no customer has: never given out, the house's own, or with a tag that means nobody.
    """
    form = context.formats[network.code]
    text, extension = split_address(network, address, tag)
    try:
        text, extension = form.normalise(text), form.normalise_tag(extension)
    except ValueError:
        raise INVALID_WITHDRAW_ADDRESS() from None
    row = context.reads.row(Address, network.number, text, extension)
    if _is_nobodys(row, context.reads.row(Placed, network.number, row.position)):
        raise INVALID_WITHDRAW_ADDRESS()
    return row


def _is_nobodys(row: Address, placed: Placed) -> bool:
    """Say whether an address is ours but no customer's; `placed` is the one at its position.

    An absent row's position is 0, the house's own place: on a network with tags all addresses are that one.
    """
    return not row.owner and placed.address == row.address


def payout_needs(to: Address, asset: int, ref: int) -> list[Key]:
    """Return what `payout` to a customer's address reads and changes, beside the account that pays."""
    return [head_of(house(Purpose.FEES, asset)), to.key(), *internal_needs(to, asset, ref)]


def payout(
    view: View, withdrawal: Withdrawal, source: Account, now_ms: int
) -> tuple[list[Posting], Sequence[Kept], Sequence[Entry]]:
    """Return the effects of a withdrawal to a customer's deposit address: `source` pays the receiver and the fee."""
    asset = withdrawal.asset
    to = view.get(Address, withdrawal.network, withdrawal.address, withdrawal.tag)
    credited, rows, line = internal_deposit(view, to, asset, withdrawal.to_address, withdrawal.deposit, now_ms)
    fee = Posting(house(Purpose.FEES, asset), withdrawal.fee)
    return [Posting(source, -withdrawal.held), fee, *credited], rows, [line]


def release_needs(withdrawal: Withdrawal) -> list[Key]:
    """Return what `release` reads and changes."""
    if not withdrawal.owner:
        return [Withdrawal.at(withdrawal.ref)]
    return [
        Withdrawal.at(withdrawal.ref),
        Spent.at(withdrawal.owner, withdrawal.asset, withdrawal.requested_ms // DAY_MS),
        head_of(held(withdrawal.owner, withdrawal.asset)),
        *credit_needs(withdrawal.owner, withdrawal.asset),
    ]


def release(view: View, withdrawals: Sequence[Withdrawal], state: WithdrawalState) -> tuple[list[Posting], list[Kept]]:
    """Return the effects of withdrawals that come to nothing: the customers have the money again, a debt first.

    For one that nobody is named for nothing was held. Several may be the same customer's: what that one owes is repaid
    from their sum.
    """
    postings: list[Posting] = []
    for (owner, asset), amount in _held_by(withdrawals).items():
        postings += [Posting(held(owner, asset), -amount), *credit(view, owner, asset, amount)]
    ended = [msgspec.structs.replace(it, state=state) for it in withdrawals]
    return postings, [*ended, *_spent_by(view, withdrawals, -1)]


def hold_again(view: View, withdrawals: Sequence[Withdrawal]) -> tuple[list[Posting], list[Kept]]:
    """Return what undoes the release of withdrawals that are on their way after all: what was spent since is owed."""
    postings: list[Posting] = []
    for (owner, asset), amount in _held_by(withdrawals).items():
        taken = min(view.get(Head, available(owner, asset).pack()).after, amount)
        postings += [
            Posting(available(owner, asset), -taken),
            Posting(owed(owner, asset), taken - amount),
            Posting(held(owner, asset), amount),
        ]
    return postings, _spent_by(view, withdrawals, 1)


def _held_by(withdrawals: Sequence[Withdrawal]) -> Counter[tuple[int, int]]:
    """Return what withdrawals hold by customer and asset; nothing is held for nobody."""
    sums: Counter[tuple[int, int]] = Counter()
    for it in withdrawals:
        if it.owner:
            sums[it.owner, it.asset] += it.held
    return sums


def _spent_by(view: View, withdrawals: Sequence[Withdrawal], sign: int) -> list[Kept]:
    """Return what customers have withdrawn on each day with these withdrawals more, or with `sign` -1 less."""
    sums: Counter[tuple[int, int, int]] = Counter()
    for it in withdrawals:
        if it.owner:
            sums[it.owner, it.asset, it.requested_ms // DAY_MS] += it.asked
    spent = [(view.get(Spent, *key), sign * asked) for key, asked in sums.items()]
    return [msgspec.structs.replace(row, amount=max(0, row.amount + more)) for row, more in spent]


def withdrawal_confirmations(reads: ReadsRows, withdrawal: Withdrawal) -> Confirmations:
    """Return the confirmations of a withdrawal's transaction; none are needed inside the house."""
    if withdrawal.deposit:
        return Confirmations(0, 0)
    network = catalogue_of(reads.row(Settings, 0).snapshot).network(withdrawal.network)
    settled = withdrawal.state == WithdrawalState.SETTLED
    return confirmations_of(reads, network, withdrawal.height, ended=settled)
