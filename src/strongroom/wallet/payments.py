"""Payments: how an approved withdrawal is carried out on its chain, each step a commit before its effect.

    reserved -> signed -> mined -> final        the withdrawal is settled
                  |  ^       |
                  |  +-------+                  a reorganisation took it out of its block
                  +-> voided                    no candidate can ever be mined: the withdrawal failed, its money is free

A payment reserves one nonce of the hot wallet, for ever. From the first signature on it may have been broadcast, and
then only the chain's own final word ends it: nothing leads back to a fresh payment for the same withdrawal.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

import msgspec

from strongroom.engine.command import NOBODY, Command, Decision, Stale, View
from strongroom.errors import PARAMETER_INVALID, check
from strongroom.ledger.accounts import Purpose, held, house, omnibus
from strongroom.ledger.entries import Posting
from strongroom.records.heads import head_of
from strongroom.records.kept import Kept, Key
from strongroom.records.settings import SETTINGS_KEY, AssetSettings, NetworkSettings, OfferSettings, Settings
from strongroom.records.withdrawals import Payment, PaymentState, Reserved, Withdrawal, WithdrawalState
from strongroom.wallet.catalogue import Catalogue, catalogue_of
from strongroom.wallet.context import Context
from strongroom.wallet.holdings import chain_units, holding_change, holding_needs, ledger_units
from strongroom.wallet.withdrawals import bar_needs, bar_to_paying, release, release_needs

OPEN_PAYMENTS: Final = (PaymentState.RESERVED, PaymentState.SIGNED, PaymentState.MINED)
"""The states in which a payment has a step before it."""

_HOT_WALLET: Final = "hot"


class ReservePayment(Command, frozen=True):
    """Make a payment of an approved withdrawal, and reserve a nonce of the hot wallet for it.

    If its customer is frozen, or owes some of `assets`, it awaits the operator's word again instead.
    """

    payment: int
    withdrawal: int
    owner: int
    network: int
    asset: int
    nonce: int
    fee_units: str
    assets: tuple[int, ...]

    def needs(self) -> list[Key]:
        """The withdrawal with its customer, the new payment, and the nonce."""
        nonce = Reserved.at(self.network, nonce_text(self.nonce))
        rows = [Withdrawal.at(self.withdrawal), Payment.at(self.payment), nonce]
        return [*rows, *bar_needs(self.owner, self.assets)]

    def decide(self, view: View, now_ms: int) -> Decision:
        """Reserve it, unless the withdrawal is being paid already or the nonce is taken."""
        withdrawal = view.get(Withdrawal, self.withdrawal)
        if withdrawal.state != WithdrawalState.APPROVED:
            raise PARAMETER_INVALID("withdrawal is not approved")
        if bar_to_paying(view, self.owner, self.assets):
            return Decision(rows=[msgspec.structs.replace(withdrawal, state=WithdrawalState.AWAITING)])
        spends = nonce_text(self.nonce)
        if view.get(Reserved, self.network, spends).payment or view.get(Payment, self.payment).state:
            raise Stale
        payment = Payment(
            ref=self.payment,
            network=self.network,
            asset=self.asset,
            withdrawal=self.withdrawal,
            spends=spends,
            state=PaymentState.RESERVED,
            chain_fee_units=self.fee_units,
            created_ms=now_ms,
        )
        paying = msgspec.structs.replace(withdrawal, state=WithdrawalState.PAYING, payment=self.payment)
        return Decision(rows=[paying, payment, Reserved(self.network, spends, self.payment)])


class SignPayment(Command, frozen=True):
    """Keep a signed transaction of a payment, before anybody outside sees it."""

    payment: int
    txid: str
    blob: bytes

    def needs(self) -> list[Key]:
        """The payment."""
        return [Payment.at(self.payment)]

    def decide(self, view: View, now_ms: int) -> Decision:
        """Keep it as the payment's newest candidate."""
        payment = _in_state(view, self.payment, PaymentState.RESERVED, PaymentState.SIGNED)
        others = tuple(txid for txid in payment.candidates if txid != self.txid)
        signed = msgspec.structs.replace(
            payment, state=PaymentState.SIGNED, candidates=(*others, self.txid), blob=self.blob
        )
        return Decision(rows=[signed])


class MinePayment(Command, frozen=True):
    """Note in which block a payment's transaction is, and what the chain took for it."""

    payment: int
    withdrawal: int
    txid: str
    height: int
    fee_units: str

    def needs(self) -> list[Key]:
        """The payment and its withdrawal."""
        return [Payment.at(self.payment), Withdrawal.at(self.withdrawal)]

    def decide(self, view: View, now_ms: int) -> Decision:
        """Note it on both."""
        payment = _in_state(view, self.payment, PaymentState.SIGNED, PaymentState.MINED)
        check(self.txid in payment.candidates, "only a candidate of the payment carries it out")
        mined = msgspec.structs.replace(
            payment, state=PaymentState.MINED, height=self.height, chain_fee_units=self.fee_units
        )
        withdrawal = view.get(Withdrawal, self.withdrawal)
        return Decision(rows=[mined, msgspec.structs.replace(withdrawal, txid=self.txid, height=self.height)])


class UnminePayment(Command, frozen=True):
    """Note that a reorganisation took a payment's transaction out of its block: it waits again."""

    payment: int
    withdrawal: int

    def needs(self) -> list[Key]:
        """The payment and its withdrawal."""
        return [Payment.at(self.payment), Withdrawal.at(self.withdrawal)]

    def decide(self, view: View, now_ms: int) -> Decision:
        """Note it on both."""
        payment = _in_state(view, self.payment, PaymentState.MINED)
        withdrawal = view.get(Withdrawal, self.withdrawal)
        waiting = msgspec.structs.replace(payment, state=PaymentState.SIGNED, height=0)
        return Decision(rows=[waiting, msgspec.structs.replace(withdrawal, txid="", height=0)])


class FinishPayment(Command, frozen=True):
    """Settle a withdrawal whose transaction is buried: the chain's newest block was `tip` when it was seen."""

    payment: int
    withdrawal: int
    owner: int
    asset: int
    network: int
    fee_asset: int
    tip: int

    def needs(self) -> list[Key]:
        """The settings, both rows, what is held, and what the house owns, in the chain's own coin too."""
        return [
            SETTINGS_KEY,
            Payment.at(self.payment),
            Withdrawal.at(self.withdrawal),
            head_of(held(self.owner, self.asset)),
            head_of(house(Purpose.FEES, self.asset)),
            head_of(house(Purpose.CHAIN_FEE, self.fee_asset)),
            *holding_needs(self.network, self.asset),
            *holding_needs(self.network, self.fee_asset),
        ]

    def decide(self, view: View, now_ms: int) -> Decision:
        """Book what left the house, and what the chain took for it."""
        payment = _in_state(view, self.payment, PaymentState.MINED)
        withdrawal = view.get(Withdrawal, self.withdrawal)
        catalogue = catalogue_of(view.get(Settings, 0).snapshot)
        if self.tip - payment.height + 1 < catalogue.network(self.network).confirmations:
            raise PARAMETER_INVALID("payment is not confirmed")
        postings, holdings = _settlement(view, catalogue, withdrawal, payment, self.fee_asset)
        settled = msgspec.structs.replace(withdrawal, state=WithdrawalState.SETTLED)
        final = msgspec.structs.replace(payment, state=PaymentState.FINAL)
        return Decision(postings, [final, settled, *holdings])


class VoidPayment(Command, frozen=True):
    """Give up a payment of which the chain says that no candidate can ever be mined; its withdrawal has failed."""

    payment: int
    withdrawal: Withdrawal

    def needs(self) -> list[Key]:
        """The payment, and what its withdrawal holds."""
        return [Payment.at(self.payment), *release_needs(self.withdrawal)]

    def decide(self, view: View, now_ms: int) -> Decision:
        """Release the customer's money; the nonce stays used up."""
        payment = _in_state(view, self.payment, PaymentState.SIGNED)
        postings, rows = release(view, view.get(Withdrawal, self.withdrawal.ref), WithdrawalState.FAILED)
        return Decision(postings, [msgspec.structs.replace(payment, state=PaymentState.VOIDED), *rows])


class Outgoing(NamedTuple):
    """What a chain has to pay for a withdrawal: its name of the asset, and an amount in its own unit."""

    token: str
    chain_units: int


def nonce_text(nonce: int) -> str:
    """Return a nonce of the hot wallet as what a payment spends; texts sort as the numbers do."""
    return f"{_HOT_WALLET}/{nonce:020d}"


def nonce_of(payment: Payment) -> int:
    """Return the hot wallet's nonce that a payment has reserved."""
    return int(payment.spends.removeprefix(f"{_HOT_WALLET}/"))


def outgoing(catalogue: Catalogue, withdrawal: Withdrawal) -> Outgoing:
    """Return what the chain has to pay for a withdrawal."""
    asset, offer = _offered(catalogue, withdrawal.asset, withdrawal.network)
    return Outgoing(offer.token, chain_units(withdrawal.to_address, offer, asset))


def prepare_reservation(context: Context, withdrawal: Withdrawal, node_nonce: int, fee_units: int) -> ReservePayment:
    """Return the command that reserves the next free nonce: the node's, above all that our payments reserved."""
    newest = context.reads.rows(Reserved, {"network": withdrawal.network}, 1, newest_first=True)
    ours = int(newest[0].spends.removeprefix(f"{_HOT_WALLET}/")) + 1 if newest else 0
    return ReservePayment(
        NOBODY,
        payment=context.ids.ref(),
        withdrawal=withdrawal.ref,
        owner=withdrawal.owner,
        network=withdrawal.network,
        asset=withdrawal.asset,
        nonce=max(node_nonce, ours),
        fee_units=str(fee_units),
        assets=tuple(context.catalogue.assets),
    )


def prepare_finish(context: Context, payment: Payment, tip: int) -> FinishPayment:
    """Return the command that settles the withdrawal of a mined payment, the chain's newest block being `tip`."""
    withdrawal = context.reads.row(Withdrawal, payment.withdrawal)
    network = context.catalogue.network(payment.network)
    return FinishPayment(
        NOBODY,
        payment=payment.ref,
        withdrawal=withdrawal.ref,
        owner=withdrawal.owner,
        asset=withdrawal.asset,
        network=network.number,
        fee_asset=_fee_asset(context.catalogue, network),
        tip=tip,
    )


def _fee_asset(catalogue: Catalogue, network: NetworkSettings) -> int:
    """Return the asset in which a chain takes its fees: the declared one, else the one that is its native coin."""
    if network.fee_asset:
        return network.fee_asset
    native = [o.asset for o in catalogue.snapshot.offers if o.network == network.number and not o.token]
    if not native:
        raise PARAMETER_INVALID("network has no asset for its fees")
    return native[0]


def _in_state(view: View, ref: int, *states: PaymentState) -> Payment:
    """Return a payment. Raises `Refused` PARAMETER_INVALID unless it is in one of the states: somebody was quicker."""
    payment = view.get(Payment, ref)
    if payment.state not in states:
        raise PARAMETER_INVALID(f"payment is not {' or '.join(state.name.lower() for state in states)}")
    return payment


def _offered(catalogue: Catalogue, asset: int, network: int) -> tuple[AssetSettings, OfferSettings]:
    offer = catalogue.offer_at(asset, network)
    if offer is None:
        raise PARAMETER_INVALID("asset is not on the network")
    return catalogue.assets[asset], offer


def _settlement(
    view: View, catalogue: Catalogue, withdrawal: Withdrawal, payment: Payment, fee_asset: int
) -> tuple[list[Posting], list[Kept]]:
    """Return the entry of a payment that is final, and what the house then has on the chain."""
    asset, fee_units = withdrawal.asset, int(payment.chain_fee_units)
    postings = [
        Posting(held(withdrawal.owner, asset), -withdrawal.held),
        Posting(house(Purpose.FEES, asset), withdrawal.fee),
    ]
    leaving = {asset: outgoing(catalogue, withdrawal).chain_units}
    if fee_units:
        found, offer = _offered(catalogue, fee_asset, withdrawal.network)
        leaving[fee_asset] = leaving.get(fee_asset, 0) + fee_units
        postings.append(Posting(house(Purpose.CHAIN_FEE, fee_asset), -ledger_units(fee_units, offer, found)))
    holdings = _leave(view, catalogue, withdrawal.network, leaving, postings)
    return postings, holdings


def _leave(
    view: View, catalogue: Catalogue, network: int, leaving: Mapping[int, int], postings: list[Posting]
) -> list[Kept]:
    """Book what leaves the chain's holdings (chain units by asset), add the odd units to the dust; return the rows."""
    holdings: list[Kept] = []
    for asset, units in leaving.items():
        found, offer = _offered(catalogue, asset, network)
        rows, delta = holding_change(view, offer, found, -units)
        holdings += rows
        postings.append(Posting(omnibus(network, asset), -delta))
        rest = sum(posting.amount for posting in postings if posting.account.asset == asset)
        postings.append(Posting(house(Purpose.DUST, asset), -rest))
    return holdings
