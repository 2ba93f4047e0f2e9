"""Reversals: a booked deposit whose block the chain gave up is taken back, from its owner's debt if need be.

It becomes a deposit that waits again: once it is in another block and deep enough there, it is credited again.
"""

from __future__ import annotations

import msgspec

from strongroom.engine.command import NOBODY, Command, Decision, Stale, View
from strongroom.errors import check
from strongroom.ledger.accounts import Account, Purpose, available, house, omnibus, owed
from strongroom.ledger.entries import Posting
from strongroom.records.coins import Coin
from strongroom.records.deposits import Deposit, DepositState
from strongroom.records.heads import Head
from strongroom.records.kept import Key
from strongroom.records.settings import SETTINGS_KEY, Settings
from strongroom.wallet.catalogue import catalogue_of
from strongroom.wallet.deposits import CREDITED, booking_needs, lying_needs, offered, outpoint_of
from strongroom.wallet.holdings import holding_change
from strongroom.wallet.pots import pot_change


class ReverseDeposit(Command, frozen=True):
    """Take back a booked deposit of a block that is no longer on the best chain."""

    ref: int
    owner: int
    asset: int
    network: int
    block: str
    outpoint: str = ""
    position: int = 0

    def needs(self) -> list[Key]:
        """The settings, the deposit, its coin or pot, and all accounts it may have been booked to."""
        lies = lying_needs(self.network, self.asset, self.outpoint, self.position)
        return [SETTINGS_KEY, Deposit.at(self.ref), *lies, *booking_needs(self.network, self.asset, self.owner)]

    def decide(self, view: View, now_ms: int) -> Decision:
        """Take it back, while it is booked by that block."""
        deposit = view.get(Deposit, self.ref)
        if deposit.state not in CREDITED or deposit.block != self.block or not self.block:
            raise Stale
        offer, asset = offered(catalogue_of(view.get(Settings, 0).snapshot), self.network, self.asset)
        rows, delta = holding_change(view, offer, asset, -int(deposit.chain_units), taken_back=True)
        postings = [
            Posting(omnibus(self.network, self.asset), -delta),
            Posting(house(Purpose.DUST, self.asset), delta + deposit.amount),
            *_takings(view, deposit),
        ]
        reversed_ = msgspec.structs.replace(deposit, state=DepositState.REVERSED, height=0, block="")
        if self.outpoint:
            check(self.outpoint == outpoint_of(deposit), "a deposit is the coin of its own output")
            rows.append(msgspec.structs.replace(view.get(Coin, self.network, self.outpoint), height=0))
        elif self.position:
            rows.append(pot_change(view, self.network, self.position, self.asset, -int(deposit.chain_units)))
        return Decision(postings=postings, rows=[*rows, reversed_])


def _takings(view: View, deposit: Deposit) -> list[Posting]:
    """Return from whom a deposit's amount is taken back."""
    asset, amount = deposit.asset, deposit.amount
    if not deposit.net:
        return from_house(view, Purpose.SUSPENSE, asset, amount)
    if not deposit.owner:
        return [Posting(house(Purpose.INVENTORY, asset), -amount)]
    spendable = available(deposit.owner, asset)
    taken = min(_balance(view, spendable), deposit.net)
    return [
        Posting(spendable, -taken),
        Posting(owed(deposit.owner, asset), taken - deposit.net),
        *from_house(view, Purpose.FEES, asset, deposit.fee),
    ]


def from_house(view: View, purpose: Purpose, asset: int, amount: int) -> list[Posting]:
    """Return what takes from a house account what is there; what was moved on since is the house's own loss."""
    taken = min(_balance(view, house(purpose, asset)), amount)
    return [Posting(house(purpose, asset), -taken), Posting(house(Purpose.EQUITY, asset), taken - amount)]


def _balance(view: View, account: Account) -> int:
    return view.get(Head, account.pack()).after


def prepare_reversal(deposit: Deposit, position: int = 0, *, coin: bool = False) -> ReverseDeposit:
    """Return the command that takes back a booked deposit of the block it is known to be in.

    `position` is that of its address: its coin, or what it put into the address's pot, goes with it.
    """
    booked = (deposit.ref, deposit.owner, deposit.asset, deposit.network, deposit.block)
    return ReverseDeposit(NOBODY, *booked, outpoint_of(deposit) if coin else "", position)
