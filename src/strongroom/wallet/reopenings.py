"""Reopenings: a payment whose end went by a block that the chain gave up is on its way again.

What its end booked is booked back, each line with the other sign, so that its withdrawals hold their customers' money
again: where it had been given up, and the money released and spent, the customer owes the rest. So is a payment that
was given up and of which a block has a transaction after all. Nothing new is made of it: the same candidates are
offered to the chain, whose next word is taken as the first one was. So a withdrawal whose coins somebody else came to
spend fails in the end, and one that is mined again settles again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import msgspec

from strongroom.clock import DAY_MS
from strongroom.engine.command import NOBODY, Command, Decision, Stale, View
from strongroom.engine.port import Reads
from strongroom.ledger.accounts import Purpose, house, omnibus
from strongroom.ledger.entries import Posting
from strongroom.records.coins import Coin, Pot
from strongroom.records.heads import head_of
from strongroom.records.kept import Kept, Key
from strongroom.records.settings import SETTINGS_KEY, Settings
from strongroom.records.withdrawals import (
    Payment,
    PaymentPurpose,
    PaymentState,
    Reserved,
    Spent,
    Withdrawal,
    WithdrawalState,
)
from strongroom.wallet.catalogue import Catalogue, catalogue_of
from strongroom.wallet.context import Context
from strongroom.wallet.credits import credit_needs
from strongroom.wallet.holdings import holding_change, holding_needs, ledger_units
from strongroom.wallet.moves import pots_after
from strongroom.wallet.payments import coin_needs, offered_on, on_its_way_again, outgoing, withdrawals_of
from strongroom.wallet.pots import pot_change
from strongroom.wallet.reversals import from_house
from strongroom.wallet.settlements import fee_asset_of, source_of
from strongroom.wallet.withdrawals import hold_again


class ReopenPayment(Command, frozen=True):
    """Take a payment's end back that went by a `block` that is no longer on the best chain.

    It was final, or given up: `voided`, for a rival or an undoing in that block, by the operator's word without one.
    `owners` are its withdrawals' customers, asked for on `days`, and `coins` what came back of what it spent: both lose
    their block. `spends` are the coins of one that had been given up: those that were freed are its own again, unless
    another payment has them.
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
    voided: bool = False
    days: tuple[int, ...] = ()
    spends: tuple[str, ...] = ()

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
            *coin_needs(self.network, self.spends),
            *(Pot.at(self.network, position, asset) for position in positions for asset in assets),
            *(head_of(source_of(owner, self.asset)) for owner in self.owners),
            *(key for owner, day in zip(self.owners, self.days, strict=False) for key in self._held_again(owner, day)),
            *(head_of(house(purpose, self.asset)) for purpose in purposes),
            head_of(house(Purpose.CHAIN_FEE, self.fee_asset)),
            *(key for asset in assets for key in holding_needs(self.network, asset)),
        ]

    def _held_again(self, owner: int, day: int) -> list[Key]:
        """Return what holding a customer's money again reads and changes."""
        return [Spent.at(owner, self.asset, day), *credit_needs(owner, self.asset)] if self.voided and owner else []

    def decide(self, view: View, now_ms: int) -> Decision:
        """Book it back, while the payment has ended by that block."""
        payment = view.get(Payment, self.payment)
        ended = PaymentState.VOIDED if self.voided else PaymentState.FINAL
        if (payment.state, payment.block) != (ended, self.block) or not (self.block or self.voided):
            raise Stale
        catalogue = catalogue_of(view.get(Settings, 0).snapshot)
        withdrawals = [view.get(Withdrawal, ref) for ref in payment.withdrawals]
        if self.voided:
            return self._revived(view, catalogue, payment, withdrawals)
        postings, back = self._back(view, catalogue, payment, withdrawals)
        holdings = self._holdings(view, catalogue, back, postings)
        waiting = [msgspec.structs.replace(it, state=WithdrawalState.PAYING, txid="", height=0) for it in withdrawals]
        coins = [msgspec.structs.replace(view.get(Coin, self.network, it), height=0) for it in self.coins]
        pots = pots_after(view, payment, self.fee_asset, sign=-1)
        return Decision(postings, [on_its_way_again(payment), *waiting, *coins, *pots, *holdings])

    def _revived(
        self, view: View, catalogue: Catalogue, payment: Payment, withdrawals: Sequence[Withdrawal]
    ) -> Decision:
        """Hold what was released, and book the fee back that a block took which had undone the payment."""
        postings, spent = hold_again(view, withdrawals)
        waiting = [msgspec.structs.replace(it, state=WithdrawalState.PAYING, txid="", height=0) for it in withdrawals]
        rows: list[Kept] = [on_its_way_again(payment), *waiting, *spent]
        if payment.height:
            back = self._fee_back(catalogue, payment, postings)
            rows += self._holdings(view, catalogue, back, postings)
            rows += pots_after(view, payment, self.fee_asset, undone=True, sign=-1)
        elif payment.source:
            rows.append(pot_change(view, payment.network, payment.source, payment.asset, 0, due=False))
        for outpoint in self.spends:
            coin = view.get(Coin, self.network, outpoint)
            if not coin.payment:
                rows += [
                    msgspec.structs.replace(coin, payment=payment.ref),
                    Reserved(self.network, outpoint, payment.ref),
                ]
        return Decision(postings, rows)

    def _back(
        self, view: View, catalogue: Catalogue, payment: Payment, withdrawals: Sequence[Withdrawal]
    ) -> tuple[list[Posting], Counter[int]]:
        """Return the postings that undo the payment's end but for the chain's holdings, and what those get back."""
        asset, offer = offered_on(catalogue, self.asset, self.network)
        back = Counter({self.asset: sum(outgoing(catalogue, it).chain_units for it in withdrawals)})
        postings = [Posting(source_of(it.owner, self.asset), it.held) for it in withdrawals]
        postings += from_house(view, Purpose.FEES, self.asset, sum(it.fee for it in withdrawals))
        if payment.purpose == PaymentPurpose.COLD and not payment.is_filled:
            back[self.asset] += int(payment.units)
            postings.append(Posting(house(Purpose.COLD, self.asset), ledger_units(int(payment.units), offer, asset)))
        return postings, back + self._fee_back(catalogue, payment, postings)

    def _fee_back(self, catalogue: Catalogue, payment: Payment, postings: list[Posting]) -> Counter[int]:
        """Add to an entry's postings what the chain had taken, and return it by its asset in chain units."""
        fee = int(payment.chain_fee_units)
        if not fee:
            return Counter()
        asset, offer = offered_on(catalogue, self.fee_asset, self.network)
        postings.append(Posting(house(Purpose.CHAIN_FEE, self.fee_asset), ledger_units(fee, offer, asset)))
        return Counter({self.fee_asset: fee})

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
    """Return the command that takes a payment's end back, which went by the block that its row says."""
    catalogue, withdrawals = context.catalogue, withdrawals_of(context, payment)
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
        coins=_change_of(context.reads, payment),
        voided=payment.state == PaymentState.VOIDED,
        days=tuple(it.requested_ms // DAY_MS for it in withdrawals),
        spends=_freed_of(context.reads, payment),
    )


def _freed_of(reads: Reads, payment: Payment) -> tuple[str, ...]:
    """Return what a payment that was given up spends, on a chain of coins."""
    coins = [reads.row(Coin, payment.network, outpoint) for outpoint in payment.spends]
    given_up = payment.state == PaymentState.VOIDED
    return tuple(coin.outpoint for coin in coins if given_up and coin.units)


def _change_of(reads: Reads, payment: Payment) -> tuple[str, ...]:
    """Return the coins that came back: outputs of the payment's transaction to the house's own address."""
    if payment.state != PaymentState.FINAL:
        return ()
    outpoints = [f"{payment.txid}:{index}" for index in range(len(payment.withdrawals) + 2)]
    return tuple(it for it in outpoints if reads.row(Coin, payment.network, it).height)
