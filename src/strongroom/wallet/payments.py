"""Payments: how approved withdrawals are carried out on their chain, each step a commit before its effect.

    reserved -> signed -> mined -> final        the withdrawals are settled
       ^          |  ^       |
       +----------+  +-------+                  a higher fee is to be signed; a reorganisation took it out of its block
                  +-> voided                    no candidate can ever be mined: the withdrawals failed, money is free

A payment reserves coins, or a nonce of the hot wallet, for ever; only where a rival is buried that has spent one of its
coins, the others are free again, which no candidate can spend without that one, and so they are where a person gives up
a move of the house's own money. What is signed elsewhere may be mined while it is reserved. From the first signature on
it may have been broadcast, and then only the chain's own final word ends it: nothing leads back to a fresh payment for
the same withdrawal. Its candidates, however many, spend the same and pay the same: at most one of them is ever mined.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from strongroom.engine.command import NOBODY, Command, Decision, Stale, View
from strongroom.engine.port import Reads
from strongroom.errors import PARAMETER_INVALID, check
from strongroom.ledger.entries import Posting
from strongroom.records.coins import Coin, Pot, Sent
from strongroom.records.kept import Kept, Key
from strongroom.records.settings import AssetSettings, OfferSettings
from strongroom.records.withdrawals import (
    Payment,
    PaymentState,
    Reserved,
    Withdrawal,
    WithdrawalState,
)
from strongroom.wallet.catalogue import Catalogue
from strongroom.wallet.context import Context
from strongroom.wallet.epochs import check_open, hold_needs
from strongroom.wallet.holdings import chain_units
from strongroom.wallet.pots import pot_change
from strongroom.wallet.tips import check_passed, passed_needs
from strongroom.wallet.withdrawals import bar_needs, bar_to_paying, release, release_needs

OPEN_PAYMENTS: Final = (PaymentState.RESERVED, PaymentState.SIGNED, PaymentState.MINED)
"""The states in which a payment has a step before it."""

MAX_COINS: Final = 5_000
"""So many free coins are looked at for one payment."""

_HOT_WALLET: Final = "hot"


class Draft(msgspec.Struct, frozen=True):
    """A transaction that is not signed yet: what it spends (outpoints, or a nonce's text), its bytes and its fee."""

    spends: tuple[str, ...]
    body: bytes
    fee_units: int


class ReservePayment(Command, frozen=True):
    """Make a payment of approved withdrawals, and reserve what it spends: `coins`, or else a nonce.

    `owners` are the withdrawals' customers, in their order. If one of them is frozen, or owes some of `assets`, that
    withdrawal awaits the operator's word again instead, and no payment is made.
    """

    payment: int
    withdrawals: tuple[int, ...]
    owners: tuple[int, ...]
    network: int
    asset: int
    draft: Draft
    coins: bool
    assets: tuple[int, ...]

    def needs(self) -> list[Key]:
        """The withdrawals with their customers, the new payment, and what it spends."""
        reserved = reservation_needs(self.payment, self.network, self.draft.spends, coins=self.coins)
        rows = [*reserved, *map(Withdrawal.at, self.withdrawals)]
        rows += hold_needs(self.network)
        return [*rows, *(key for owner in self.owners for key in bar_needs(owner, self.assets))]

    def decide(self, view: View, now_ms: int) -> Decision:
        """Reserve it, unless one of the withdrawals is being paid already or what it spends is taken."""
        withdrawals = [view.get(Withdrawal, ref) for ref in self.withdrawals]
        check(bool(withdrawals) and bool(self.draft.spends), "a payment pays something and spends something")
        check(len({it.owner for it in withdrawals}) == len(withdrawals), "a payment pays a customer once")
        if any(withdrawal.state != WithdrawalState.APPROVED for withdrawal in withdrawals):
            raise PARAMETER_INVALID("withdrawal is not approved")
        check_open(view, self.network)
        barred = [it for it in withdrawals if bar_to_paying(view, it.owner, self.assets)]
        if barred:
            return Decision(rows=[msgspec.structs.replace(it, state=WithdrawalState.AWAITING) for it in barred])
        payment = Payment(
            ref=self.payment,
            network=self.network,
            asset=self.asset,
            withdrawals=self.withdrawals,
            spends=self.draft.spends,
            state=PaymentState.RESERVED,
            body=self.draft.body,
            chain_fee_units=str(self.draft.fee_units),
            created_ms=now_ms,
        )
        paying = [msgspec.structs.replace(it, state=WithdrawalState.PAYING, payment=self.payment) for it in withdrawals]
        return Decision(rows=[*paying, payment, *reservation(view, payment, coins=self.coins)])


def reservation_needs(payment: int, network: int, spends: Sequence[str], *, coins: bool) -> list[Key]:
    """Return what `reservation` reads and changes."""
    rows = [Payment.at(payment), *(Reserved.at(network, it) for it in spends)]
    return [*rows, *(Coin.at(network, it) for it in spends if coins)]


def reservation(view: View, payment: Payment, *, coins: bool) -> list[Kept]:
    """Return the rows that reserve what a new payment spends. Raises `Stale` where something of it is taken."""
    if view.get(Payment, payment.ref).state:
        raise Stale
    rows: list[Kept] = []
    for spends in payment.spends:
        if view.get(Reserved, payment.network, spends).payment:
            raise Stale
        rows.append(Reserved(payment.network, spends, payment.ref))
        if coins:
            coin = view.get(Coin, payment.network, spends)
            if not coin.height or coin.payment:
                raise Stale
            rows.append(msgspec.structs.replace(coin, payment=payment.ref))
    return rows


class RedraftPayment(Command, frozen=True):
    """Put another transaction in the place of a payment's newest: it spends and pays the same, for a higher fee."""

    payment: int
    before: bytes
    draft: Draft

    def needs(self) -> list[Key]:
        """The payment."""
        return [Payment.at(self.payment)]

    def decide(self, view: View, now_ms: int) -> Decision:
        """Keep it to be signed; every earlier candidate is followed on."""
        payment = in_state(view, self.payment, PaymentState.SIGNED)
        if payment.body != self.before:
            raise Stale
        check(self.draft.fee_units > int(payment.chain_fee_units), "a candidate that replaces another pays more")
        return Decision(rows=[drafted_again(payment, self.draft)])


def drafted_again(payment: Payment, draft: Draft) -> Payment:
    """Return a payment whose newest transaction, to be signed, is another one that spends the same."""
    check(draft.spends == payment.spends, "all candidates of a payment spend the same")
    fee = str(draft.fee_units)
    return msgspec.structs.replace(payment, state=PaymentState.RESERVED, body=draft.body, chain_fee_units=fee)


class SignPayment(Command, frozen=True):
    """Keep a signed transaction of a payment, before anybody outside sees it."""

    payment: int
    network: int
    txid: str
    blob: bytes

    def needs(self) -> list[Key]:
        """The payment, and the transaction's own row."""
        return [Payment.at(self.payment), Sent.at(self.network, self.txid)]

    def decide(self, view: View, now_ms: int) -> Decision:
        """Keep it as the payment's newest candidate."""
        payment = in_state(view, self.payment, PaymentState.RESERVED, PaymentState.SIGNED)
        return Decision(rows=signed_rows(payment, self.txid, self.blob, now_ms))


class OfferPayment(Command, frozen=True):
    """Note that a signed transaction is about to be handed to the network by a process that has not signed it."""

    payment: int
    txid: str

    def needs(self) -> list[Key]:
        """The payment."""
        return [Payment.at(self.payment)]

    def decide(self, view: View, now_ms: int) -> Decision:
        """Change nothing, unless the payment has moved on."""
        payment = in_state(view, self.payment, PaymentState.SIGNED)
        if payment.candidates[-1] != self.txid:
            raise Stale
        return Decision()


def signed_rows(payment: Payment, txid: str, blob: bytes, now_ms: int) -> tuple[Payment, Sent]:
    """Return a payment with its newest candidate, and that transaction's own row."""
    others = tuple(known for known in payment.candidates if known != txid)
    fillers = (*(known for known in payment.fillers if known != txid), txid) if payment.filling else payment.fillers
    signed = msgspec.structs.replace(
        payment,
        state=PaymentState.SIGNED,
        candidates=(*others, txid),
        blob=blob,
        signed_ms=now_ms,
        fillers=fillers,
    )
    return signed, Sent(payment.network, txid, payment.ref)


class MinePayment(Command, frozen=True):
    """Note in which block a payment's transaction is, and what the chain took for it."""

    payment: int
    withdrawals: tuple[int, ...]
    txid: str
    height: int
    fee_units: str
    block: str = ""

    def needs(self) -> list[Key]:
        """The payment and its withdrawals."""
        return [Payment.at(self.payment), *map(Withdrawal.at, self.withdrawals)]

    def decide(self, view: View, now_ms: int) -> Decision:
        """Note it on all of them."""
        payment = in_state(view, self.payment, PaymentState.SIGNED, PaymentState.MINED, *_if_away(view, self.payment))
        check(self.txid in payment.candidates, "only a candidate of the payment carries it out")
        mined = msgspec.structs.replace(
            payment,
            state=PaymentState.MINED,
            txid=self.txid,
            height=self.height,
            block=self.block,
            chain_fee_units=self.fee_units,
        )
        return Decision(rows=[mined, *_located(view, self.withdrawals, self.txid, self.height)])


class UnminePayment(Command, frozen=True):
    """Note that a reorganisation took a payment's transaction out of its block: it waits again."""

    payment: int
    withdrawals: tuple[int, ...]

    def needs(self) -> list[Key]:
        """The payment and its withdrawals."""
        return [Payment.at(self.payment), *map(Withdrawal.at, self.withdrawals)]

    def decide(self, view: View, now_ms: int) -> Decision:
        """Note it on all of them."""
        payment = in_state(view, self.payment, PaymentState.MINED)
        return Decision(rows=[on_its_way_again(payment), *_located(view, self.withdrawals, "", 0)])


def _if_away(view: View, ref: int) -> tuple[PaymentState, ...]:
    """Return the state of a payment that is away to be signed: it may be sent from there, and come to its end."""
    return (PaymentState.RESERVED,) if view.get(Payment, ref).is_away else ()


def on_its_way_again(payment: Payment) -> Payment:
    """Return a payment that no block has any more: it waits for its block, or for its signature if that is away yet."""
    state = PaymentState.RESERVED if payment.is_away else PaymentState.SIGNED
    return msgspec.structs.replace(payment, state=state, txid="", height=0, block="")


def _located(view: View, withdrawals: Sequence[int], txid: str, height: int) -> list[Kept]:
    return [msgspec.structs.replace(view.get(Withdrawal, ref), txid=txid, height=height) for ref in withdrawals]


class VoidPayment(Command, frozen=True):
    """Give up a payment of which the chain says that no candidate can ever be mined; its withdrawals have failed.

    `swept` is the key of the pot that it was to sweep. `block` at `height` is the rival's, which is the chain's word;
    empty where no block has it. `freed` are those of its coins that the rival has not spent: since no candidate can
    spend them any more, they can be spent again. So can those of a move that a person gives up: should it be mined
    after all it has paid nobody, and what has spent its coins meanwhile is void by the chain's word.
    """

    payment: int
    withdrawals: tuple[Withdrawal, ...]
    swept: tuple[int, int, int] | None = None
    network: int = 0
    height: int = 0
    block: str = ""
    freed: tuple[str, ...] = ()

    def needs(self) -> list[Key]:
        """The payment, the coins that it leaves, and what its withdrawals hold, or the pot that it was to sweep."""
        pot = [Pot.at(*self.swept)] if self.swept else []
        rows = [Payment.at(self.payment), *pot, *passed_needs(self.network, self.height)]
        rows += coin_needs(self.network, self.freed)
        return [*rows, *(key for it in self.withdrawals for key in release_needs(it))]

    def decide(self, view: View, now_ms: int) -> Decision:
        """Release the customers' money, or let the pot be swept again; what else the payment spends stays reserved."""
        payment = in_state(view, self.payment, PaymentState.SIGNED, *_if_away(view, self.payment))
        check(bool(payment.candidates), "what is given up has a transaction that is followed on")
        if self.block:
            check_passed(view, self.network, self.height, self.block)
        postings, rows = releases(view, payment, self.withdrawals)
        pots = [pot_change(view, *self.swept, 0, due=True)] if self.swept else []
        voided = msgspec.structs.replace(payment, state=PaymentState.VOIDED, block=self.block)
        return Decision(postings, [voided, *rows, *pots, *self._freed(view, payment)])

    def _freed(self, view: View, payment: Payment) -> list[Kept]:
        """Return the coins that can be spent again."""
        is_sure = bool(self.block) or not payment.withdrawals
        check(not self.freed or is_sure, "coins of withdrawals are freed by a rival's block only")
        check(set(self.freed) <= set(payment.spends), "a payment frees what it has reserved")
        coins = [view.get(Coin, self.network, outpoint) for outpoint in self.freed]
        own = [coin for coin in coins if coin.payment == payment.ref]
        free: list[Kept] = [msgspec.structs.replace(coin, payment=0) for coin in own]
        return [*free, *(Reserved(self.network, coin.outpoint) for coin in own)]


def releases(view: View, payment: Payment, withdrawals: Sequence[Withdrawal]) -> tuple[list[Posting], list[Kept]]:
    """Return the effects of withdrawals that have failed with their payment."""
    check(payment.withdrawals == tuple(it.ref for it in withdrawals), "a payment fails with all that it pays")
    return release(view, [view.get(Withdrawal, it.ref) for it in withdrawals], WithdrawalState.FAILED)


class Outgoing(NamedTuple):
    """What a chain has to pay for a withdrawal: its name of the asset, and an amount in its own unit."""

    token: str
    chain_units: int


def nonce_text(nonce: int, position: int = 0) -> str:
    """Return a nonce of the address at a position as what a payment spends; 0 is the hot wallet's.

    Texts of one address sort as its nonces do, and those of the hot wallet after all others.
    """
    return f"{f'{position:020d}' if position else _HOT_WALLET}/{nonce:020d}"


def nonce_of(spends: str) -> int:
    """Return the nonce that a text names."""
    return int(spends.rpartition("/")[2])


def position_of(spends: str) -> int:
    """Return the position of the address whose nonce a text names."""
    wallet = spends.partition("/")[0]
    return 0 if wallet == _HOT_WALLET else int(wallet)


def next_nonce(context: Context, network: int) -> int:
    """Return the lowest nonce of the hot wallet above all that our payments have reserved."""
    newest = context.reads.rows(Reserved, {"network": network}, 1, newest_first=True)
    return nonce_of(newest[0].spends) + 1 if newest and not position_of(newest[0].spends) else 0


def open_payments(reads: Reads, network: int, limit: int) -> list[Payment]:
    """Return a network's payments that have a step before them, oldest first, at most `limit` for each state."""
    return payments_in(reads, network, OPEN_PAYMENTS, limit)


def payments_in(reads: Reads, network: int, states: Sequence[PaymentState], limit: int) -> list[Payment]:
    """Return a network's payments in one of some states, oldest first, at most `limit` for each state."""
    return reads.rows(Payment, {"network": network, "state": tuple(states)}, limit * len(states))


def free_coins(context: Context, network: int) -> list[Coin]:
    """Return coins that no payment spends, oldest outpoints first, at most 5,000."""
    free = context.reads.rows(Coin, {"network": network, "payment": 0}, MAX_COINS)
    return [coin for coin in free if coin.height]


def has_its_coins(context: Context, payment: Payment) -> bool:
    """Say whether all coins that a payment spends are there: of one that was adopted some may be credited yet."""
    coins = [context.reads.row(Coin, payment.network, outpoint) for outpoint in payment.spends]
    return all(coin.height for coin in coins)


def has_spent_change(reads: Reads, payment: Payment) -> bool:
    """Say whether another payment is to spend what one brings back: after a reorganisation both are on their way."""
    indexes = range(len(payment.withdrawals) + 2)
    outpoints = [f"{txid}:{index}" for txid in payment.candidates for index in indexes]
    return any(reads.row(Coin, payment.network, outpoint).payment > 0 for outpoint in outpoints)


def reserved_coins(reads: Reads, payment: Payment) -> int:
    """Return how many coins that are there a payment has reserved, none on a chain of accounts."""
    coins = [reads.row(Coin, payment.network, outpoint) for outpoint in payment.spends]
    return sum(coin.payment == payment.ref and bool(coin.height) for coin in coins)


def has_its_pot(context: Context, payment: Payment) -> bool:
    """Say whether what a payment swept is in its pot: the deposits of one that was adopted may be credited yet."""
    pot = context.reads.row(Pot, payment.network, payment.source, payment.asset)
    return not payment.source or int(pot.chain_units) >= int(payment.units)


def outgoing(catalogue: Catalogue, withdrawal: Withdrawal) -> Outgoing:
    """Return what the chain has to pay for a withdrawal."""
    asset, offer = offered_on(catalogue, withdrawal.asset, withdrawal.network)
    return Outgoing(offer.token, chain_units(withdrawal.to_address, offer, asset))


def prepare_reservation(
    context: Context, withdrawals: Sequence[Withdrawal], draft: Draft, *, coins: bool = False
) -> ReservePayment:
    """Return the command that makes a payment of withdrawals of one asset on one network, as it was drafted."""
    first = withdrawals[0]
    check(all((it.network, it.asset) == (first.network, first.asset) for it in withdrawals), "a payment has one asset")
    return ReservePayment(
        NOBODY,
        payment=context.ids.ref(),
        withdrawals=tuple(it.ref for it in withdrawals),
        owners=tuple(it.owner for it in withdrawals),
        network=first.network,
        asset=first.asset,
        draft=draft,
        coins=coins,
        assets=tuple(context.catalogue.assets),
    )


def prepare_signing(payment: Payment, txid: str, blob: bytes) -> SignPayment:
    """Return the command that keeps a signed transaction of a payment."""
    return SignPayment(NOBODY, payment.ref, payment.network, txid, blob)


def coin_needs(network: int, outpoints: Sequence[str]) -> list[Key]:
    """Return the rows of coins, and what reserves each of them."""
    coins = [Coin.at(network, outpoint) for outpoint in outpoints]
    return [*coins, *(Reserved.at(network, outpoint) for outpoint in outpoints)]


def prepare_void(
    context: Context, payment: Payment, height: int = 0, block: str = "", freed: Sequence[str] = ()
) -> VoidPayment:
    """Return the command that gives up a payment that is never mined, because of a rival in the `block` at `height`.

    `freed` are the coins that the rival has not spent, or that a move leaves which a person gives up.
    """
    swept = (payment.network, payment.source, payment.asset) if payment.source else None
    withdrawals = tuple(withdrawals_of(context, payment))
    return VoidPayment(NOBODY, payment.ref, withdrawals, swept, payment.network, height, block, tuple(freed))


def withdrawals_of(context: Context, payment: Payment) -> list[Withdrawal]:
    """Return the withdrawals that a payment carries out."""
    return [context.reads.row(Withdrawal, ref) for ref in payment.withdrawals]


def in_state(view: View, ref: int, *states: PaymentState) -> Payment:
    """Return a payment. Raises `Refused` PARAMETER_INVALID unless it is in one of the states: somebody was quicker."""
    payment = view.get(Payment, ref)
    if payment.state not in states:
        raise PARAMETER_INVALID(f"payment is not {' or '.join(state.name.lower() for state in states)}")
    return payment


def offered_on(catalogue: Catalogue, asset: int, network: int) -> tuple[AssetSettings, OfferSettings]:
    """Return an asset and its offer on a network. Raises `Refused` PARAMETER_INVALID where it has none."""
    offer = catalogue.offer_at(asset, network)
    if offer is None:
        raise PARAMETER_INVALID("asset is not on the network")
    return catalogue.assets[asset], offer
