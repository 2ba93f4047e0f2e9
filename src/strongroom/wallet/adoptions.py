"""Adoptions: payments of the house that a restored backup does not know, found on the chain and taken into the books.

    it spends what an open payment has reserved     it is one more candidate of that payment
    it moves the house's own money                  it becomes a move: a sweep, gas, what went to the cold address
    it pays open withdrawals of the backup          it becomes their payment: the customers were paid, once
    it pays somebody else                           a withdrawal is made that nobody is named for; the house pays for it
    it went to the cold address with a nonce        its signer has sent it himself: it becomes a move, and the payment
    that another payment has reserved               that has reserved the nonce fails, once it is buried

The usual steps then follow it to its end: its block, its fee, its change. Each is adopted once, because the transaction
has a row of its own (`sent`) and what it spends is reserved in the same commit.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

import msgspec

from strongroom.engine.command import NOBODY, Command, Decision, Stale, View
from strongroom.engine.port import Reads
from strongroom.errors import check
from strongroom.money import MAX_UNITS
from strongroom.records.coins import Coin, Sent
from strongroom.records.epochs import Reconciled
from strongroom.records.kept import Kept, Key
from strongroom.records.settings import OfferSettings
from strongroom.records.withdrawals import Payment, PaymentPurpose, PaymentState, Reserved, Withdrawal, WithdrawalState
from strongroom.wallet.catalogue import Catalogue
from strongroom.wallet.context import Context
from strongroom.wallet.deposits import asset_of_token, is_bookable
from strongroom.wallet.holdings import ledger_units, unit_of
from strongroom.wallet.payments import offered_on, outgoing, withdrawals_of
from strongroom.wallet.settlements import Change

MAX_PAID: Final = 1_000
"""A transaction that pays more is not adopted."""

_UNPAID: Final = (WithdrawalState.APPROVED, WithdrawalState.AWAITING)
_SPENDABLE: Final = (PaymentState.RESERVED, PaymentState.SIGNED, PaymentState.MINED)
_MOVED: Final = (PaymentPurpose.SWEEP, PaymentPurpose.GAS, PaymentPurpose.COLD)
_MAX_ALIKE: Final = 1_000


class NotAdopted(Exception):
    """A transaction spends what is ours and cannot be a payment of the house; the message says why."""


class Paid(msgspec.Struct, frozen=True, order=True):
    """What a found transaction pays: an address in its normal spelling, the chain's name of the asset, its units."""

    address: str
    tag: str
    token: str
    units: int


class Moved(msgspec.Struct, frozen=True):
    """What a transaction has moved of the house's own money: `units` of what the chain calls `token` came to `address`,
    ours at position `target` unless it is the cold one, from ours at position `source`."""

    purpose: PaymentPurpose
    token: str
    units: int
    address: str
    source: int = 0
    target: int = 0


class Found(msgspec.Struct, frozen=True):
    """A transaction of ours as the chain shows it: what it `spends` as payments name it, whom it has `paid`, and the
    `change` that went to the house's own address; or what it has `moved` between addresses of ours.

    One that its block has `undone` was to do all that, and did nothing of it.
    """

    network: int
    txid: str
    spends: tuple[str, ...]
    paid: tuple[Paid, ...]
    change: tuple[Change, ...] = ()
    moved: Moved | None = None
    undone: bool = False


class AdoptCandidate(Command, frozen=True):
    """Take a transaction as one more candidate of the payment that has reserved what it spends.

    A `filler` moves nothing: the payment was given up after the backup.
    """

    payment: int
    network: int
    txid: str
    filler: bool = False

    def needs(self) -> list[Key]:
        """The payment, and the transaction's own row."""
        return [Payment.at(self.payment), Sent.at(self.network, self.txid)]

    def decide(self, view: View, now_ms: int) -> Decision:
        """Keep it, once; it is followed beside those that are known, and not offered from here."""
        payment = view.get(Payment, self.payment)
        if view.get(Sent, self.network, self.txid).payment or payment.state not in _SPENDABLE:
            raise Stale
        state = max(payment.state, PaymentState.SIGNED)
        candidates = (*payment.candidates, self.txid)
        adopted = msgspec.structs.replace(payment, state=state, candidates=candidates, signed_ms=now_ms)
        if self.filler:
            check(payment.purpose == PaymentPurpose.COLD, "only what is signed elsewhere is given up")
            adopted = msgspec.structs.replace(adopted, fillers=(*payment.fillers, self.txid))
        return Decision(rows=[adopted, Sent(self.network, self.txid, self.payment)])


class AdoptPayment(Command, frozen=True):
    """Take a transaction as a payment that was signed: of open withdrawals, and of `unknown` ones made for it here.

    `coins` says whether it spends coins or a nonce; `change` are the coins that come back once it is final. What pays
    nobody is a move, for which the other fields are as in its payment. `beaten` is the payment that has reserved the
    same nonce, and keeps it: it is never mined, unless the chain gives this one up.
    """

    payment: int
    network: int
    asset: int
    txid: str
    spends: tuple[str, ...]
    coins: bool
    withdrawals: tuple[int, ...]
    unknown: tuple[Withdrawal, ...]
    change: tuple[Change, ...]
    purpose: PaymentPurpose = PaymentPurpose.WITHDRAWALS
    source: int = 0
    target: int = 0
    address: str = ""
    units: str = "0"
    beaten: int = 0

    def needs(self) -> list[Key]:
        """The new payment, its withdrawals, all that it spends and brings back, and the count of unknown ones."""
        refs = (*self.withdrawals, *(it.ref for it in self.unknown))
        outpoints = (*self.spends, *(it.outpoint for it in self.change)) if self.coins else ()
        return [
            Payment.at(self.payment),
            Sent.at(self.network, self.txid),
            Reconciled.at(self.network),
            *map(Withdrawal.at, refs),
            *(Reserved.at(self.network, spends) for spends in self.spends),
            *(Coin.at(self.network, outpoint) for outpoint in dict.fromkeys(outpoints)),
        ]

    def decide(self, view: View, now_ms: int) -> Decision:
        """Adopt it, once, while its withdrawals are unpaid and nothing has reserved what it spends."""
        withdrawals = [view.get(Withdrawal, ref) for ref in self.withdrawals]
        holders = [view.get(Reserved, self.network, spends).payment for spends in self.spends]
        taken = any(holder != self.beaten for holder in holders)
        known = any(view.get(Withdrawal, it.ref).state for it in self.unknown)
        if view.get(Sent, self.network, self.txid).payment or view.get(Payment, self.payment).state or taken or known:
            raise Stale
        if any(it.state not in _UNPAID for it in withdrawals):
            raise Stale
        refs = (*self.withdrawals, *(it.ref for it in self.unknown))
        check(bool(refs) == (self.purpose == PaymentPurpose.WITHDRAWALS), "what pays nobody is a move")
        payment = Payment(
            ref=self.payment,
            network=self.network,
            asset=self.asset,
            withdrawals=refs,
            spends=self.spends,
            state=PaymentState.SIGNED,
            candidates=(self.txid,),
            created_ms=now_ms,
            signed_ms=now_ms,
            purpose=self.purpose,
            source=self.source,
            target=self.target,
            address=self.address,
            units=self.units,
        )
        paying = [
            *(msgspec.structs.replace(it, state=WithdrawalState.PAYING, payment=self.payment) for it in withdrawals),
            *(msgspec.structs.replace(it, payment=self.payment, requested_ms=now_ms) for it in self.unknown),
        ]
        reserved = [] if self.beaten else [Reserved(self.network, it, self.payment) for it in self.spends]
        rows = [payment, Sent(self.network, self.txid, self.payment), *paying, *reserved, *self._coins(view)]
        return Decision(rows=[*rows, *self._count(view)])

    def _coins(self, view: View) -> list[Kept]:
        """Return the coins that it spends, those too that are credited later, and those that are still to come back."""
        if not self.coins:
            return []
        spent = [view.get(Coin, self.network, outpoint) for outpoint in self.spends]
        back = [(it, view.get(Coin, self.network, it.outpoint)) for it in self.change]
        return [
            *(msgspec.structs.replace(coin, payment=self.payment) for coin in spent),
            *(msgspec.structs.replace(coin, units=it.units) for it, coin in back),
        ]

    def _count(self, view: View) -> list[Kept]:
        """Return the count of what nobody is named for, where that grows."""
        reconciled = view.get(Reconciled, self.network)
        more = len(self.unknown)
        return [msgspec.structs.replace(reconciled, unknown=reconciled.unknown + more)] if more else []


def prepare_adoption(
    context: Context, found: Found, *, coins: bool, cold: str = ""
) -> AdoptCandidate | AdoptPayment | None:
    """Return the command that takes a transaction into the books; None where they know it.

    `cold` is the network's cold address: what was paid there and is no open withdrawal went to the house itself. Raises
    `NotAdopted` for one that no payment of the house can be.
    """
    reads = context.reads
    if reads.row(Sent, found.network, found.txid).payment:
        return None
    holders = {reads.row(Reserved, found.network, spends).payment for spends in found.spends}
    if holders == {0}:
        return _payment(context, found, coins=coins, cold=cold)
    [holder, *others] = holders
    payment = reads.row(Payment, holder)
    if others or set(payment.spends) != set(found.spends):
        raise NotAdopted("it spends what other payments have reserved")
    filler = payment.purpose == PaymentPurpose.COLD and not coins and not found.paid and bool(found.change)
    try:
        _check_payees(context, payment, found, pays_nobody=filler)
    except NotAdopted:
        if coins or not _is_sent_to(cold, found):
            raise
        return msgspec.structs.replace(_payment(context, found, coins=coins, cold=cold), beaten=holder)
    return AdoptCandidate(NOBODY, payment.ref, found.network, found.txid, filler)


def _is_sent_to(cold: str, found: Found) -> bool:
    """Say whether a transaction has paid the cold address, and nobody else."""
    return bool(cold) and [paid.address for paid in found.paid] == [cold] and not found.undone


def _check_payees(context: Context, payment: Payment, found: Found, *, pays_nobody: bool) -> None:
    """Raise `NotAdopted` unless a transaction pays whom the payment is to pay.

    One that pays nobody, and was not undone, would settle withdrawals that were never paid.
    """
    wanted: list[Paid] = []
    for it in withdrawals_of(context, payment):
        token, units = outgoing(context.catalogue, it)
        wanted.append(Paid(it.address, it.tag, token, units))
    if payment.purpose in _MOVED:
        _, offer = offered_on(context.catalogue, payment.asset, payment.network)
        wanted.append(Paid(payment.address, "", offer.token, int(payment.units)))
    paid = list(found.paid)
    if found.moved and found.moved.units:
        paid.append(Paid(found.moved.address, "", found.moved.token, found.moved.units))
    untold = not paid and (pays_nobody or found.undone)
    if payment.state not in _SPENDABLE or not (untold or sorted(paid) == sorted(wanted)):
        raise NotAdopted("it pays others than the payment that has reserved what it spends")


def _payment(context: Context, found: Found, *, coins: bool, cold: str) -> AdoptPayment:
    asset, offer = _asset(context.catalogue, found)
    if len(found.paid) > MAX_PAID:
        raise NotAdopted("it pays too many")
    if found.moved is not None:
        return _move(context, found, asset, found.moved, coins=coins)
    alike = Matches(context.reads, context.catalogue, found.network, asset)
    withdrawals: list[int] = []
    unknown: list[Withdrawal] = []
    for paid in found.paid:
        ref = alike.take(paid)
        if ref:
            withdrawals.append(ref)
        elif len(found.paid) == 1 and paid.address == cold:
            moved = Moved(PaymentPurpose.COLD, paid.token, paid.units, cold)
            return _move(context, found, asset, moved, coins=coins)
        elif not found.undone:
            unknown.append(_unknown(context, found.network, asset, offer, paid))
    return AdoptPayment(
        NOBODY,
        payment=context.ids.ref(),
        network=found.network,
        asset=asset,
        txid=found.txid,
        spends=found.spends,
        coins=coins,
        withdrawals=tuple(withdrawals),
        unknown=tuple(unknown),
        change=found.change,
        # What pays nobody brought our own coins together, or was undone.
        purpose=PaymentPurpose.WITHDRAWALS if withdrawals or unknown else PaymentPurpose.CONSOLIDATION,
    )


def _move(context: Context, found: Found, asset: int, moved: Moved, *, coins: bool) -> AdoptPayment:
    """Return what takes a transaction as a move of the house's own money. Raises `NotAdopted`."""
    if not is_bookable(context.catalogue, found.network, asset, moved.units):
        raise NotAdopted("it moves an amount that the ledger cannot tell")
    return AdoptPayment(
        NOBODY,
        payment=context.ids.ref(),
        network=found.network,
        asset=asset,
        txid=found.txid,
        spends=found.spends,
        coins=coins,
        withdrawals=(),
        unknown=(),
        change=found.change,
        purpose=moved.purpose,
        source=moved.source,
        target=moved.target,
        address=moved.address,
        units=str(moved.units),
    )


def _asset(catalogue: Catalogue, found: Found) -> tuple[int, OfferSettings]:
    """Return the one asset that a transaction pays, the chain's own coin where it pays nobody. Raises `NotAdopted`."""
    tokens = {paid.token for paid in found.paid} or {found.moved.token if found.moved else ""}
    asset = asset_of_token(catalogue, found.network, tokens.pop())
    offer = None if asset is None else catalogue.offer_at(asset, found.network)
    if asset is None or offer is None or tokens:
        raise NotAdopted("it pays what the house does not offer, or several assets")
    return asset, offer


class Matches:
    """The unpaid withdrawals that a found transaction may have paid, each taken once."""

    def __init__(self, reads: Reads, catalogue: Catalogue, network: int, asset: int) -> None:
        self._reads = reads
        self._catalogue = catalogue
        self._equal = {"network": network, "asset": asset}
        self._taken: Counter[int] = Counter()

    def take(self, paid: Paid) -> int:
        """Return the reference of the oldest unpaid withdrawal to that address of that amount, 0 if there is none."""
        for state in _UNPAID:
            equal = {"state": state, **self._equal, "address": paid.address, "tag": paid.tag}
            for it in self._reads.rows(Withdrawal, equal, _MAX_ALIKE):
                token, units = outgoing(self._catalogue, it)
                if (token, units) == (paid.token, paid.units) and not it.deposit and not self._taken[it.ref]:
                    self._taken[it.ref] += 1
                    return it.ref
        return 0


def _unknown(context: Context, network: int, asset: int, offer: OfferSettings, paid: Paid) -> Withdrawal:
    """Return a withdrawal of nobody that is being paid. Raises `NotAdopted` where the ledger cannot tell its amount."""
    settings = context.catalogue.assets[asset]
    units = ledger_units(paid.units, offer, settings)
    finest = 10 ** max(0, offer.decimals - settings.scale)
    if paid.units % finest or units % unit_of(offer, settings) or not 0 < units < MAX_UNITS:
        raise NotAdopted("it pays an amount that the ledger cannot tell")
    return Withdrawal(
        ref=context.ids.ref(),
        asset=asset,
        network=network,
        address=paid.address,
        tag=paid.tag,
        asked=units,
        to_address=units,
        state=WithdrawalState.PAYING,
        uuid=context.ids.uuid(),
    )
