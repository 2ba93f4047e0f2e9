"""Reopenings: a payment that was at its end, and whose block the chain gave up, is on its way again.

What its end booked is booked back, each line with the other sign, so that its withdrawals hold their customers' money
again. Nothing new is made of it: the same candidates are offered to the chain, whose next word is taken as the first
one was. So a withdrawal whose coins somebody else came to spend fails in the end, and one that is mined again settles
again. A payment that its block had undone is the same: on another branch it may do what it was to do, and until it has
spent its nonce no later one is mined.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

import msgspec

from strongroom.engine.command import NOBODY, Command, Decision, Stale, View
from strongroom.engine.port import Reads
from strongroom.errors import check
from strongroom.ledger.accounts import Purpose, house, omnibus
from strongroom.ledger.entries import Posting
from strongroom.records.coins import Coin, Pot
from strongroom.records.heads import head_of
from strongroom.records.kept import Kept, Key
from strongroom.records.settings import SETTINGS_KEY, Settings
from strongroom.records.withdrawals import Payment, PaymentPurpose, PaymentState, Withdrawal, WithdrawalState
from strongroom.wallet.catalogue import Catalogue, catalogue_of
from strongroom.wallet.context import Context
from strongroom.wallet.holdings import holding_change, holding_needs, ledger_units
from strongroom.wallet.moves import pots_after
from strongroom.wallet.payments import offered_on, outgoing, withdrawals_of
from strongroom.wallet.reversals import from_house
from strongroom.wallet.settlements import fee_asset_of, source_of
from strongroom.wallet.withdrawals import hold_again, release_needs

REOPENED: Final = (PaymentState.FINAL, PaymentState.VOIDED)
"""The ends that a block has brought about; a void payment that is known in no block had another one."""


class ReopenPayment(Command, frozen=True):
    """Take a payment's end back that stood in a block that is no longer on the best chain.

    `owners` are its withdrawals' customers, and `coins` what came back of what it spent: both lose their block.
    `failed` are the withdrawals of one that its block had undone.
    """

    payment: int
    block: str
    network: int
    asset: int
    fee_asset: int
    withdrawals: tuple[int, ...]
    owners: tuple[int, ...]
    source: int
    target: int
    coins: tuple[str, ...]
    failed: tuple[Withdrawal, ...] = ()

    def needs(self) -> list[Key]:
        """The settings, all rows, and every account that the payment's end has changed."""
        assets = dict.fromkeys((self.asset, self.fee_asset))
        positions = [position for position in (self.source, self.target) if position]
        purposes = (Purpose.FEES, Purpose.EQUITY, Purpose.COLD)
        return [
            SETTINGS_KEY,
            Payment.at(self.payment),
            *map(Withdrawal.at, self.withdrawals),
            *(Coin.at(self.network, outpoint) for outpoint in self.coins),
            *(Pot.at(self.network, position, asset) for position in positions for asset in assets),
            *(head_of(source_of(owner, self.asset)) for owner in self.owners),
            *(head_of(house(purpose, self.asset)) for purpose in purposes),
            head_of(house(Purpose.CHAIN_FEE, self.fee_asset)),
            *(key for asset in assets for key in holding_needs(self.network, asset)),
            *(key for it in self.failed for key in release_needs(it)),
        ]

    def decide(self, view: View, now_ms: int) -> Decision:
        """Book it back, while the payment is at its end by that block."""
        payment = view.get(Payment, self.payment)
        if payment.state not in REOPENED or payment.block != self.block or not self.block:
            raise Stale
        undone = payment.state == PaymentState.VOIDED
        catalogue = catalogue_of(view.get(Settings, 0).snapshot)
        withdrawals = [view.get(Withdrawal, ref) for ref in payment.withdrawals]
        if undone:
            postings, rows, back = self._undone(view, withdrawals)
        else:
            postings, back = self._final(view, catalogue, payment, withdrawals)
            rows = [msgspec.structs.replace(it, state=WithdrawalState.PAYING, txid="", height=0) for it in withdrawals]
        self._fee(catalogue, payment, postings, back)
        holdings = self._holdings(view, catalogue, back, postings)
        coins = [msgspec.structs.replace(view.get(Coin, self.network, it), height=0) for it in self.coins]
        pots = pots_after(view, payment, self.fee_asset, undone=undone, sign=-1)
        again = msgspec.structs.replace(payment, state=PaymentState.SIGNED, txid="", block="", height=0)
        return Decision(postings, [again, *rows, *coins, *pots, *holdings])

    def _undone(self, view: View, withdrawals: Sequence[Withdrawal]) -> tuple[list[Posting], list[Kept], Counter[int]]:
        """Return the effects of a payment that was undone, and may carry out its withdrawals after all."""
        check(
            [it.ref for it in self.failed] == [it.ref for it in withdrawals], "a payment is reopened with all it pays"
        )
        postings: list[Posting] = []
        rows: list[Kept] = []
        for withdrawal in withdrawals:
            held_again, changed = hold_again(view, withdrawal)
            postings += held_again
            rows += changed
        return postings, rows, Counter()

    def _final(
        self, view: View, catalogue: Catalogue, payment: Payment, withdrawals: Sequence[Withdrawal]
    ) -> tuple[list[Posting], Counter[int]]:
        """Return the postings that undo the payment's end but for the chain's fee and holdings, and what those get."""
        asset, offer = offered_on(catalogue, self.asset, self.network)
        back = Counter({self.asset: sum(outgoing(catalogue, it).chain_units for it in withdrawals)})
        postings = [Posting(source_of(it.owner, self.asset), it.held) for it in withdrawals]
        postings += from_house(view, Purpose.FEES, self.asset, sum(it.fee for it in withdrawals))
        if payment.purpose == PaymentPurpose.COLD and not payment.is_filled:
            back[self.asset] += int(payment.units)
            postings.append(Posting(house(Purpose.COLD, self.asset), ledger_units(int(payment.units), offer, asset)))
        return postings, back

    def _fee(self, catalogue: Catalogue, payment: Payment, postings: list[Posting], back: Counter[int]) -> None:
        """Add what the chain took for the payment, which it gives back."""
        if fee := int(payment.chain_fee_units):
            asset, offer = offered_on(catalogue, self.fee_asset, self.network)
            back[self.fee_asset] += fee
            postings.append(Posting(house(Purpose.CHAIN_FEE, self.fee_asset), ledger_units(fee, offer, asset)))

    def _holdings(self, view: View, catalogue: Catalogue, back: Counter[int], postings: list[Posting]) -> list[Kept]:
        """Book what the chain's holdings get back, and the odd units to the dust; return the rows."""
        rows: list[Kept] = []
        for number, units in back.items():
            asset, offer = offered_on(catalogue, number, self.network)
            changed, delta = holding_change(view, offer, asset, units)
            rows += changed
            postings.append(Posting(omnibus(self.network, number), -delta))
            rest = sum(posting.amount for posting in postings if posting.account.asset == number)
            postings.append(Posting(house(Purpose.DUST, number), -rest))
        return rows


def prepare_reopening(context: Context, payment: Payment) -> ReopenPayment:
    """Return the command that takes a payment's end back, of the block that it is known to be in."""
    catalogue, undone = context.catalogue, payment.state == PaymentState.VOIDED
    withdrawals = withdrawals_of(context, payment)
    return ReopenPayment(
        NOBODY,
        payment=payment.ref,
        block=payment.block,
        network=payment.network,
        asset=payment.asset,
        fee_asset=fee_asset_of(catalogue, catalogue.network(payment.network)),
        withdrawals=payment.withdrawals,
        owners=tuple(it.owner for it in withdrawals),
        source=payment.source,
        target=payment.target,
        coins=() if undone else _change_of(context.reads, payment),
        failed=tuple(withdrawals) if undone else (),
    )


def _change_of(reads: Reads, payment: Payment) -> tuple[str, ...]:
    """Return the coins that came back: outputs of the payment's transaction to the house's own address."""
    outpoints = [f"{payment.txid}:{index}" for index in range(len(payment.withdrawals) + 2)]
    return tuple(it for it in outpoints if reads.row(Coin, payment.network, it).height)
