"""Assignments: the operator says whose it was what a restored backup did not know, and the books follow.

A payment that nobody was named for was the house's loss, a withheld deposit is owed to nobody known. Named, they are
the customer's, with a line in the history, as they were before the backup had to be restored.
"""

from __future__ import annotations

import msgspec

from strongroom.engine.command import Command, Decision, Guard, View
from strongroom.errors import PARAMETER_INVALID
from strongroom.ledger.accounts import Purpose, available, house, owed
from strongroom.ledger.entries import Posting
from strongroom.records.addresses import Address, AddressBook
from strongroom.records.deposits import Deposit, DepositState
from strongroom.records.epochs import Reconciled
from strongroom.records.heads import Head, head_of
from strongroom.records.history import LineType, threads_of
from strongroom.records.kept import Kept, Key
from strongroom.records.users import User
from strongroom.records.withdrawals import Withdrawal, WithdrawalState
from strongroom.wallet.context import Context
from strongroom.wallet.credits import credit, credit_needs
from strongroom.wallet.deposits import lines_of
from strongroom.wallet.withdrawals import line_of


class AssignWithdrawal(Command, frozen=True):
    """Name the customer for whom the house has paid: it comes out of the balance, and what is not there is owed."""

    withdrawal: Withdrawal
    owner: int

    def needs(self) -> list[Key]:
        """The withdrawal, the customer with accounts and history, the house's loss, and the count of unknown ones."""
        asset = self.withdrawal.asset
        return [
            self.withdrawal.key(),
            User.at(self.owner),
            Reconciled.at(self.withdrawal.network),
            *map(head_of, (available(self.owner, asset), owed(self.owner, asset), house(Purpose.EQUITY, asset))),
            *threads_of(self.owner, asset, LineType.WITHDRAW),
        ]

    def decide(self, view: View, now_ms: int) -> Decision:
        """Book it, once, when the payment is final."""
        withdrawal = _unnamed(view.get(Withdrawal, self.withdrawal.ref))
        _check_user(view, self.owner)
        asset, amount = withdrawal.asset, withdrawal.held
        taken = min(view.get(Head, available(self.owner, asset).pack()).after, amount)
        postings = [
            Posting(available(self.owner, asset), -taken),
            Posting(owed(self.owner, asset), taken - amount),
            Posting(house(Purpose.EQUITY, asset), amount),
        ]
        named = msgspec.structs.replace(withdrawal, owner=self.owner)
        reconciled = view.get(Reconciled, withdrawal.network)
        fewer = msgspec.structs.replace(reconciled, unknown=reconciled.unknown - 1)
        return Decision(postings, [named, fewer], [line_of(named)])


class AssignDeposit(Command, frozen=True):
    """Name the customer that a withheld deposit is for: it is credited, and the address is the customer's for ever."""

    deposit: Deposit
    owner: int

    def needs(self) -> list[Key]:
        """The deposit, its address, the customer with accounts, addresses and history, and what is owed to nobody."""
        deposit = self.deposit
        return [
            deposit.key(),
            Address.at(deposit.network, deposit.address, deposit.tag),
            AddressBook.at(self.owner, deposit.asset, deposit.network),
            User.at(self.owner),
            head_of(house(Purpose.SUSPENSE, deposit.asset)),
            *credit_needs(self.owner, deposit.asset),
            *threads_of(self.owner, deposit.asset, LineType.DEPOSIT),
        ]

    def decide(self, view: View, now_ms: int) -> Decision:
        """Credit it, once, unless its address has become somebody else's."""
        deposit = _withheld(view.get(Deposit, self.deposit.ref))
        _check_user(view, self.owner)
        credited = msgspec.structs.replace(deposit, owner=self.owner, net=deposit.amount, state=DepositState.CREDITED)
        postings = [
            Posting(house(Purpose.SUSPENSE, deposit.asset), -deposit.amount),
            *credit(view, self.owner, deposit.asset, deposit.amount),
        ]
        return Decision(postings, [credited, *self._address(view, deposit, now_ms)], lines_of(credited))

    def _address(self, view: View, deposit: Deposit, now_ms: int) -> list[Kept]:
        """Return the rows that give the address to the customer; none where it is the customer's already."""
        address = view.get(Address, deposit.network, deposit.address, deposit.tag)
        if address.owner not in (0, self.owner):
            raise PARAMETER_INVALID("address belongs to somebody else")
        if address.owner:
            return []
        book = view.get(AddressBook, self.owner, deposit.asset, deposit.network)
        given = msgspec.structs.replace(address, owner=self.owner, asset=deposit.asset, given_ms=now_ms, paid=True)
        return [given, msgspec.structs.replace(book, listed=(*book.listed, address.position))]


def prepare_withdrawal_assignment(context: Context, guard: Guard, ref: int, owner: int) -> AssignWithdrawal:
    """Return the command that names a customer for a withdrawal. Raises `Refused` PARAMETER_INVALID, as it does."""
    return AssignWithdrawal(guard, _unnamed(context.reads.row(Withdrawal, ref)), owner)


def prepare_deposit_assignment(context: Context, guard: Guard, ref: int, owner: int) -> AssignDeposit:
    """Return the command that names a customer for a deposit. Raises `Refused` PARAMETER_INVALID, as it does."""
    return AssignDeposit(guard, _withheld(context.reads.row(Deposit, ref)), owner)


def _unnamed(withdrawal: Withdrawal) -> Withdrawal:
    """Return a withdrawal that is paid and nobody's. Raises `Refused`."""
    if withdrawal.owner or not withdrawal.state:
        raise PARAMETER_INVALID("withdrawal is not one that nobody is named for")
    if withdrawal.state != WithdrawalState.SETTLED:
        raise PARAMETER_INVALID("withdrawal is not final yet")
    return withdrawal


def _withheld(deposit: Deposit) -> Deposit:
    """Return a deposit that is withheld. Raises `Refused`."""
    if deposit.state != DepositState.WITHHELD:
        raise PARAMETER_INVALID("deposit is not withheld")
    return deposit


def _check_user(view: View, uid: int) -> None:
    if not view.get(User, uid).created_ms:
        raise PARAMETER_INVALID("user is unknown")
