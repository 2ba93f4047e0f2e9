"""Moves: payments of the house to itself, which bring its money from one of its addresses to another.

A sweep empties a deposit address into the hot wallet, gas goes to such an address so that it can pay for that, a
consolidation makes one coin of many, and what goes to the cold address leaves what the server's keys can spend. They
take the same way as payments of withdrawals do; what differs is what is booked at its end, which is the chain's fee,
and for the cold address what has left the chain's holdings for the house's account of cold money.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import msgspec

from strongroom.engine.command import NOBODY, Command, Decision, View
from strongroom.errors import PARAMETER_INVALID, check
from strongroom.ledger.accounts import Purpose, house
from strongroom.ledger.entries import Posting
from strongroom.records.coins import Coin, Pot, Sent
from strongroom.records.heads import Head, head_of
from strongroom.records.kept import Kept, Key
from strongroom.records.settings import SETTINGS_KEY, Settings
from strongroom.records.withdrawals import Payment, PaymentPurpose, PaymentState
from strongroom.wallet.catalogue import Catalogue, catalogue_of
from strongroom.wallet.context import Context
from strongroom.wallet.epochs import check_open, hold_needs
from strongroom.wallet.holdings import holding_needs, ledger_units
from strongroom.wallet.payments import Draft, in_state, offered_on, reservation, reservation_needs, signed_rows
from strongroom.wallet.pots import SWEEP_WORTH, pot_change
from strongroom.wallet.settlements import (
    Change,
    chain_fee,
    check_buried,
    check_placed,
    coins_back,
    fee_asset_of,
    leave,
    losers_of,
)
from strongroom.wallet.tips import passed_needs


class Move(msgspec.Struct, frozen=True):
    """A drafted move: `units` go to `address`, which is ours at position `target`, from the one at `source`."""

    draft: Draft
    units: int
    address: str
    source: int = 0
    target: int = 0


class ReserveMove(Command, frozen=True):
    """Make a payment that moves the house's own money, and reserve what it spends: `coins`, or else a nonce.

    `units` of the asset, in the chain's unit, reach `address`: ours at position `target`, or the cold one. With `txid`
    and `blob` it comes signed: so a nonce is never held for a signature that may not come. With `txid` alone it is away
    to be signed, and the transaction's name is known before: whoever sends it, it is this payment. One that is
    `filling` was given up while it was away: its draft moves nothing, and only takes the nonce that the other would
    spend.
    """

    payment: int
    purpose: PaymentPurpose
    network: int
    asset: int
    source: int
    target: int
    address: str
    units: str
    draft: Draft
    coins: bool
    txid: str = ""
    blob: bytes = b""
    filling: bool = False

    def needs(self) -> list[Key]:
        """The new payment, what it spends, the pot that it empties, and its transaction's own row."""
        reserved = reservation_needs(self.payment, self.network, self.draft.spends, coins=self.coins)
        pot = [Pot.at(self.network, self.source, self.asset)] if self.source else []
        sent = [Sent.at(self.network, self.txid)] if self.txid else []
        return [*reserved, *pot, *sent, *hold_needs(self.network)]

    def decide(self, view: View, now_ms: int) -> Decision:
        """Reserve it, unless what it spends is taken or gone, or the network waits after a restore."""
        check_open(view, self.network)
        check(bool(self.draft.spends), "a payment spends something")
        check(self.purpose != PaymentPurpose.WITHDRAWALS and int(self.units) > 0, "a move moves something of ours")
        check(self.purpose == PaymentPurpose.SWEEP or not self.source, "only a sweep is paid by a deposit address")
        check(self.purpose == PaymentPurpose.COLD or not self.filling, "only what is signed elsewhere is given up")
        pots = self._pots(view)
        payment = Payment(
            ref=self.payment,
            network=self.network,
            asset=self.asset,
            spends=self.draft.spends,
            state=PaymentState.RESERVED,
            body=self.draft.body,
            chain_fee_units=str(self.draft.fee_units),
            created_ms=now_ms,
            purpose=self.purpose,
            source=self.source,
            target=self.target,
            address=self.address,
            units=self.units,
            filling=self.filling,
        )
        reserved = reservation(view, payment, coins=self.coins)
        if not self.blob:
            known = msgspec.structs.replace(payment, candidates=(self.txid,)) if self.txid else payment
            sent = [Sent(self.network, self.txid, self.payment)] if self.txid else []
            return Decision(rows=[known, *pots, *reserved, *sent])
        signed, sent = signed_rows(payment, self.txid, self.blob, now_ms)
        return Decision(rows=[signed, *pots, *reserved, sent])

    def _pots(self, view: View) -> list[Kept]:
        """Return the pot that a sweep empties, which waits no longer. Raises `Refused` for more than is in it."""
        if not self.source:
            return []
        pot = pot_change(view, self.network, self.source, self.asset, 0, due=False)
        if int(pot.chain_units) < int(self.units):
            raise PARAMETER_INVALID("the address has less than is to be swept")
        return [pot]


class FinishMove(Command, frozen=True):
    """Book a move whose transaction is buried: the chain's newest block was `tip` when it was seen.

    `spends` are the coins it spent, none on a chain of accounts, and `change` is what of them came back. Where the
    chain has undone it (`undone_at` is the block's height then) the fee is all that is booked, and the move is void.
    `height` is that of the block it is in, and `block` the one that has undone it. For `losers` see `FinishPayment`.
    """

    payment: int
    network: int
    asset: int
    fee_asset: int
    source: int
    target: int
    tip: int
    spends: tuple[str, ...] = ()
    change: tuple[Change, ...] = ()
    undone_at: int = 0
    fee_units: str = "0"
    height: int = 0
    block: str = ""
    losers: tuple[int, ...] = ()

    def needs(self) -> list[Key]:
        """The settings, the payment, its coins or pots, and what the house owns, in the chain's own coin too."""
        positions = [position for position in (self.source, self.target) if position and not self.spends]
        assets = dict.fromkeys((self.asset, self.fee_asset))
        return [
            SETTINGS_KEY,
            *map(Payment.at, (self.payment, *self.losers)),
            *passed_needs(self.network, self.height),
            *(Coin.at(self.network, outpoint) for outpoint in self.spends),
            *(Coin.at(self.network, change.outpoint) for change in self.change),
            *(Pot.at(self.network, position, asset) for position in positions for asset in assets),
            *(key for asset in assets for key in holding_needs(self.network, asset)),
            head_of(house(Purpose.CHAIN_FEE, self.fee_asset)),
            head_of(house(Purpose.COLD, self.asset)),
        ]

    def decide(self, view: View, now_ms: int) -> Decision:
        """Book what the chain took, what has left for the cold address, and what lies elsewhere now."""
        payment = self._payment(view)
        catalogue = catalogue_of(view.get(Settings, 0).snapshot)
        check_buried(catalogue, self.network, payment.height, self.tip)
        check_placed(view, payment, self.height)
        moved = 0 if self.undone_at or payment.is_filled else int(payment.units)
        fee = int(payment.chain_fee_units)
        postings: list[Posting] = []
        leaving = chain_fee(catalogue, self.network, self.fee_asset, fee, postings)
        if payment.purpose == PaymentPurpose.COLD and moved:
            asset, offer = offered_on(catalogue, self.asset, self.network)
            postings.append(Posting(house(Purpose.COLD, self.asset), -ledger_units(moved, offer, asset)))
            leaving[self.asset] += moved
        holdings = leave(view, catalogue, self.network, leaving, postings)
        coins = coins_back(view, payment, self.spends, self.change, leaving[self.asset], self.losers)
        pots = [] if self.spends else pots_after(view, payment, self.fee_asset, undone=bool(self.undone_at))
        ended = PaymentState.VOIDED if self.undone_at else PaymentState.FINAL
        return Decision(postings, [msgspec.structs.replace(payment, state=ended), *holdings, *coins, *pots])

    def _payment(self, view: View) -> Payment:
        """Return the payment as the chain left it."""
        if not self.undone_at:
            payment = in_state(view, self.payment, PaymentState.MINED)
        else:
            payment = in_state(view, self.payment, PaymentState.SIGNED, PaymentState.MINED)
            payment = msgspec.structs.replace(
                payment, height=self.undone_at, block=self.block, chain_fee_units=self.fee_units
            )
        check(payment.purpose != PaymentPurpose.WITHDRAWALS, "a move has no withdrawals")
        check((payment.source, payment.target) == (self.source, self.target), "a move is between its own addresses")
        return payment


def pots_after(view: View, payment: Payment, fee_asset: int, *, undone: bool = False, sign: int = 1) -> list[Kept]:
    """Return what lies on deposit addresses after a payment; with `sign` -1, after it was taken back.

    The hot wallet, at position 0, has no pot. Where the chain has `undone` a payment its fee is all that has gone, and
    what it was to sweep waits again. What a sweep that was adopted leaves waits only if it is worth another: no other
    step has told its pot that it was swept.
    """
    moved = 0 if undone else int(payment.units)
    changes: Counter[tuple[int, int]] = Counter()
    changes[payment.source, payment.asset] -= moved
    changes[payment.source, fee_asset] -= int(payment.chain_fee_units)
    changes[payment.target, payment.asset] += moved
    swept = (payment.source, payment.asset)
    pots: list[Kept] = []
    for place, units in changes.items():
        if not place[0] or not (units or (undone and place == swept)):
            continue
        # Void, what it was to sweep is due; on its way again, it is not.
        due = sign > 0 if undone and place == swept else None
        pot = pot_change(view, payment.network, *place, sign * units, due=due)
        worth = SWEEP_WORTH * int(payment.chain_fee_units) if place[1] == fee_asset else 1
        is_left = place == swept and not payment.body and int(pot.chain_units) < worth
        pots.append(msgspec.structs.replace(pot, due=False) if is_left else pot)
    return pots


class ReturnFromCold(Command, frozen=True):
    """Book that money of the cold address came back: it arrived at the house's own address, and was taken for stock.

    `units` arrived, and `fee_units` are what the chain took on the way, both in the ledger's units.
    """

    asset: int
    units: int
    fee_units: int

    def needs(self) -> list[Key]:
        """The house's accounts."""
        purposes = (Purpose.COLD, Purpose.INVENTORY, Purpose.CHAIN_FEE)
        return [head_of(house(purpose, self.asset)) for purpose in purposes]

    def decide(self, view: View, now_ms: int) -> Decision:
        """Book it. Raises `Refused` PARAMETER_INVALID for more than is there or has arrived."""
        if self.units <= 0 or self.fee_units < 0:
            raise PARAMETER_INVALID("an amount is positive, and a fee not below zero")
        if self.units + self.fee_units > -_balance(view, Purpose.COLD, self.asset):
            raise PARAMETER_INVALID("the cold address has less than that")
        if self.units > _balance(view, Purpose.INVENTORY, self.asset):
            raise PARAMETER_INVALID("less than that has arrived at the house's own address")
        return Decision(
            [
                Posting(house(Purpose.INVENTORY, self.asset), -self.units),
                Posting(house(Purpose.CHAIN_FEE, self.asset), -self.fee_units),
                Posting(house(Purpose.COLD, self.asset), self.units + self.fee_units),
            ]
        )


def _balance(view: View, purpose: Purpose, asset: int) -> int:
    return view.get(Head, house(purpose, asset).pack()).after


def prepare_move(
    context: Context,
    purpose: PaymentPurpose,
    network: int,
    asset: int,
    move: Move,
    *,
    coins: bool = False,
    txid: str = "",
) -> ReserveMove:
    """Return the command that makes a payment of a move that was drafted.

    `txid` is what its transaction will be called, where it is signed elsewhere and that is known before.
    """
    places = (network, asset, move.source, move.target, move.address)
    return ReserveMove(NOBODY, context.ids.ref(), purpose, *places, str(move.units), move.draft, coins, txid)


def prepare_move_finish(
    context: Context, payment: Payment, tip: int, change: Sequence[Change] | None = None
) -> FinishMove:
    """Return the command that books a mined move, the chain's newest block being `tip`.

    `change` is what came back of the coins that it spent; None on a chain of accounts.
    """
    spends = () if change is None else payment.spends
    losers = losers_of(context.reads, payment) if spends else ()
    finish = _finish(context.catalogue, payment, tip, payment.height)
    return msgspec.structs.replace(finish, spends=spends, change=tuple(change or ()), losers=losers)


def prepare_move_revert(
    context: Context, payment: Payment, height: int, fee_units: int, tip: int, block: str = ""
) -> FinishMove:
    """Return the command that gives up a move that the chain has undone in the `block` at `height`, for its fee."""
    finish = _finish(context.catalogue, payment, tip, height)
    return msgspec.structs.replace(finish, undone_at=height, fee_units=str(fee_units), block=block)


def _finish(catalogue: Catalogue, payment: Payment, tip: int, height: int) -> FinishMove:
    """Return what both ends of a move have in common, by a block at a height."""
    fee_asset = fee_asset_of(catalogue, catalogue.network(payment.network))
    places = (payment.ref, payment.network, payment.asset, fee_asset, payment.source, payment.target)
    return FinishMove(NOBODY, *places, tip, height=height)
