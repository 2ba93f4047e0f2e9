"""Bookings of the house itself: its own money in, fiat that customers pay in, rewards, stakes and vouchers."""

from __future__ import annotations

from typing import Final

import msgspec

from strongroom.engine.command import Command, Decision, Guard, View
from strongroom.errors import PARAMETER_INVALID, check
from strongroom.ledger.accounts import Account, Purpose, available, house, staked
from strongroom.ledger.entries import Posting, move
from strongroom.records.heads import Head, head_of
from strongroom.records.history import Entry, LineType, threads_of
from strongroom.records.kept import Key
from strongroom.records.users import User
from strongroom.wallet.context import Context
from strongroom.wallet.credits import credit, credit_needs

_FROM_EQUITY: Final = frozenset(
    {
        LineType.REFERRAL_EARNING,
        LineType.STRATEGY_INCOME,
        LineType.TOKEN_VOUCHER_IN,
        LineType.SPOT_FEE_REBATE,
        LineType.FUTURES_FEE_REBATE,
        LineType.GENERAL_FEE_REBATE,
        LineType.TRIAL_FUND,
    }
)
"""What the house gives out of its own money."""

_TO_EQUITY: Final = frozenset({LineType.STRATEGY_PAY, LineType.TOKEN_VOUCHER_OUT})
"""What a customer gives to the house."""

_FROM_BANK: Final = frozenset({LineType.DEPOSIT, LineType.EXPRESS_BUY})
"""Fiat that arrived at the bank, or coins bought with a card: the house owns more, and owes it to the customer."""

BOOKABLE: Final = _FROM_EQUITY | _TO_EQUITY | _FROM_BANK | {LineType.STAKE_FREEZE, LineType.STAKE_UNFREEZE}


class Booked(msgspec.Struct, frozen=True):
    """The order reference of a booking."""

    ref: int


class Book(Command, frozen=True):
    """Book `amount` units to or from a customer for a reason that is a history type of its own."""

    owner: int
    asset: int
    type: int
    amount: int
    ref: int

    def needs(self) -> list[Key]:
        """The customer, its accounts and the house's, and the history."""
        accounts = [staked(self.owner, self.asset)]
        accounts += [house(purpose, self.asset) for purpose in (Purpose.EQUITY, Purpose.BANK)]
        return [
            User.at(self.owner),
            *map(head_of, accounts),
            *credit_needs(self.owner, self.asset),
            *threads_of(self.owner, self.asset, self.type),
        ]

    def decide(self, view: View, now_ms: int) -> Decision:
        """Book it, for a user that exists."""
        if not view.get(User, self.owner).created_ms:
            raise PARAMETER_INVALID("user is unknown")
        postings, net = self._postings(view)
        line = Entry(self.owner, self.asset, self.type, self.ref, self.amount, net)
        return Decision(postings=postings, lines=[line], result=Booked(self.ref))

    def _postings(self, view: View) -> tuple[list[Posting], int]:
        """Return the postings, and the change of the customer's available balance."""
        type_, amount, spendable = LineType(self.type), self.amount, available(self.owner, self.asset)
        if type_ == LineType.STAKE_FREEZE:
            return [*move(spendable, staked(self.owner, self.asset), amount)], -amount
        if type_ == LineType.STAKE_UNFREEZE:
            if view.get(Head, staked(self.owner, self.asset).pack()).after < amount:
                raise PARAMETER_INVALID("amount is more than is staked")
            back = credit(view, self.owner, self.asset, amount)
            return [Posting(staked(self.owner, self.asset), -amount), *back], amount
        if type_ in _TO_EQUITY:
            return [*move(spendable, house(Purpose.EQUITY, self.asset), amount)], -amount
        source = Purpose.BANK if type_ in _FROM_BANK else Purpose.EQUITY
        return [Posting(house(source, self.asset), -amount), *credit(view, self.owner, self.asset, amount)], amount


class FundHouse(Command, frozen=True):
    """Book the house's own money: `source` (the bank, say) owns more, inventory or equity is owed more.

    Coins on a chain come in through the chain (`ReceiveForHouse`), where their exact total is kept.
    """

    asset: int
    amount: int
    source: Account
    purpose: int

    def needs(self) -> list[Key]:
        """Both accounts."""
        return [head_of(self.source), head_of(house(Purpose(self.purpose), self.asset))]

    def decide(self, view: View, now_ms: int) -> Decision:
        """Book it."""
        check(self.source.purpose != Purpose.OMNIBUS, "coins of the house come in through the chain")
        return Decision(postings=move(self.source, house(Purpose(self.purpose), self.asset), self.amount))


def prepare_booking(context: Context, guard: Guard, owner: int, asset: int, type_: LineType, amount: int) -> Book:
    """Return the command that books `amount` units. Raises `Refused` PARAMETER_INVALID for another type."""
    if type_ not in BOOKABLE:
        raise PARAMETER_INVALID(f"type {type_.name} is not booked by hand")
    return Book(guard, owner, asset, type_, amount, context.ids.ref())
