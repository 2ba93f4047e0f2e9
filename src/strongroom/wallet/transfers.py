"""Transfers: money from one user to another, or between a user and its sub-accounts, inside the house."""

from __future__ import annotations

from typing import Final

import msgspec

from strongroom.engine.command import Command, Decision, Guard, View
from strongroom.errors import INVALID_CURRENCY, RECEIVER_NOT_FOUND, TRANSFER_REFUSED
from strongroom.ledger.accounts import available
from strongroom.ledger.entries import Posting
from strongroom.records.heads import head_of
from strongroom.records.history import Entry, LineType, threads_of
from strongroom.records.kept import Key
from strongroom.records.settings import SETTINGS_KEY, AssetSettings, Settings
from strongroom.records.users import User
from strongroom.wallet.amounts import read_amount
from strongroom.wallet.catalogue import SEND, catalogue_of
from strongroom.wallet.context import Context
from strongroom.wallet.credits import credit, credit_needs
from strongroom.wallet.users import find_receiver


class Transferred(msgspec.Struct, frozen=True):
    """The sender's order reference, and the asset and amount (units) that were moved."""

    ref: int
    asset: int
    amount: int


decode_transferred: Final = msgspec.json.Decoder(Transferred).decode
"""Return the result of a transfer as it was kept."""


class Transfer(Command, frozen=True):
    """Move `amount` units from `sender` to `receiver`; `within` one family of parent and sub-accounts or not."""

    sender: int
    receiver: int
    asset: int
    amount: int
    out_ref: int
    in_ref: int
    within: bool

    @property
    def out_type(self) -> LineType:
        """The type of the sender's history line."""
        return LineType.SUB_ACCOUNT_OUT if self.within else LineType.TRANSFER_OUT

    @property
    def in_type(self) -> LineType:
        """The type of the receiver's history line."""
        return LineType.SUB_ACCOUNT_IN if self.within else LineType.TRANSFER_IN

    def needs(self) -> list[Key]:
        """Both users, their accounts and histories, and the settings."""
        return [
            SETTINGS_KEY,
            User.at(self.sender),
            User.at(self.receiver),
            head_of(available(self.sender, self.asset)),
            *credit_needs(self.receiver, self.asset),
            *threads_of(self.sender, self.asset, self.out_type),
            *threads_of(self.receiver, self.asset, self.in_type),
        ]

    def decide(self, view: View, now_ms: int) -> Decision:
        """Move the money, unless the asset or one of the users may not."""
        _check_asset(view, self.asset)
        sender, receiver = view.get(User, self.sender), view.get(User, self.receiver)
        if not receiver.active:
            raise RECEIVER_NOT_FOUND()
        if sender.uid == receiver.uid:
            raise TRANSFER_REFUSED("Receiver is the sender")
        if sender.frozen or not sender.active:
            raise TRANSFER_REFUSED("Account is frozen")
        postings = [
            Posting(available(self.sender, self.asset), -self.amount),
            *credit(view, self.receiver, self.asset, self.amount),
        ]
        result = Transferred(self.out_ref, self.asset, self.amount)
        return Decision(postings=postings, lines=self._lines(), result=result)

    def _lines(self) -> list[Entry]:
        amount = self.amount
        return [
            Entry(self.sender, self.asset, self.out_type, self.out_ref, amount, -amount, other=self.receiver),
            Entry(self.receiver, self.asset, self.in_type, self.in_ref, amount, amount, other=self.sender),
        ]


def _check_asset(view: View, asset: int) -> None:
    catalogue = catalogue_of(view.get(Settings, 0).snapshot)
    if not catalogue.offers_action(catalogue.assets[asset], SEND):
        raise INVALID_CURRENCY(catalogue.assets[asset].code)


def is_family(one: User, other: User) -> bool:
    """Say whether two different users are a parent and its sub-account, or sub-accounts of one parent."""
    return (one.parent or one.uid) == (other.parent or other.uid)


def prepare_transfer(
    context: Context,
    guard: Guard,
    asset: str,
    amount: str,
    username: str | None,
    *,
    mail: str | None = None,
    uid: str | None = None,
) -> Transfer:
    """Return the command that sends `amount` (as text) of an asset to the user that all given names agree on.

    Raises `Refused` in the contract's order: asset, amount, receiver.
    """
    found: AssetSettings = context.catalogue.asset(asset, SEND)
    units = read_amount(amount, found)
    receiver = find_receiver(context.reads, username, mail=mail, uid=uid)
    sender = context.reads.row(User, guard.owner)
    return Transfer(
        guard,
        sender.uid,
        receiver.uid,
        found.number,
        units,
        context.ids.ref(),
        context.ids.ref(),
        is_family(sender, receiver),
    )
