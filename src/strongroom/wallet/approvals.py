"""Approvals: what the operator says to withdrawals that await a word, and what becomes of those that get none."""

from __future__ import annotations

from typing import ClassVar, Final

import msgspec

from strongroom.engine.command import NOBODY, Command, Decision, Guard, View
from strongroom.errors import PARAMETER_INVALID, Refused
from strongroom.ledger.accounts import held
from strongroom.records.addresses import Address
from strongroom.records.heads import head_of
from strongroom.records.kept import Key
from strongroom.records.settings import SETTINGS_KEY, Settings
from strongroom.records.withdrawals import Withdrawal, WithdrawalState
from strongroom.wallet.context import Context, perform_own
from strongroom.wallet.epochs import check_open, hold_needs, waits
from strongroom.wallet.withdrawals import bar_needs, bar_to_paying, payout, payout_needs, release, release_needs

_MAX_EXPIRED_AT_ONCE: Final = 1_000


class Approve(Command, frozen=True):
    """Let a withdrawal be paid; one to a customer's deposit address, as our rows have it in `to`, is paid at once.

    `assets` are all in which the customer may owe something.
    """

    withdrawal: Withdrawal
    to: Address
    assets: tuple[int, ...]

    def needs(self) -> list[Key]:
        """The withdrawal, its customer, and where it stays inside the house what that reads and changes."""
        withdrawal = self.withdrawal
        keys = [withdrawal.key(), self.to.key(), *bar_needs(withdrawal.owner, self.assets)]
        if withdrawal.deposit:
            keys.append(head_of(held(withdrawal.owner, withdrawal.asset)))
            keys += payout_needs(self.to, withdrawal.asset, withdrawal.deposit)
        return keys

    def decide(self, view: View, now_ms: int) -> Decision:
        """Approve it, once, unless its customer is frozen or owes the house something by now."""
        withdrawal = _awaiting(view.get(Withdrawal, self.withdrawal.ref))
        if reason := bar_to_paying(view, withdrawal.owner, self.assets):
            raise PARAMETER_INVALID(reason)
        if not withdrawal.deposit:
            return Decision(rows=[msgspec.structs.replace(withdrawal, state=WithdrawalState.APPROVED)])
        source = held(withdrawal.owner, withdrawal.asset)
        postings, rows, lines = payout(view, withdrawal, source, now_ms)
        settled = msgspec.structs.replace(withdrawal, state=WithdrawalState.SETTLED)
        return Decision(postings, [settled, *rows], lines)


class _Close(Command, frozen=True):
    """Give the customer the money of a withdrawal that awaits approval back."""

    END: ClassVar[WithdrawalState]

    withdrawal: Withdrawal

    def needs(self) -> list[Key]:
        """The settings, the withdrawal, what it held, and whether its network waits."""
        return [SETTINGS_KEY, *release_needs(self.withdrawal), *hold_needs(self.withdrawal.network)]

    def decide(self, view: View, now_ms: int) -> Decision:
        """Release it, once; not while its network waits, where it may be found to have been paid."""
        withdrawal = _awaiting(view.get(Withdrawal, self.withdrawal.ref))
        check_open(view, withdrawal.network)
        postings, rows = release(view, [withdrawal], self.END)
        return Decision(postings, rows)


class Reject(_Close, frozen=True):
    """Turn down a withdrawal that awaits approval: the operator's no."""

    END = WithdrawalState.REJECTED


class CancelWithdrawal(_Close, frozen=True):
    """Take back a withdrawal that awaits approval, because its customer does not want it any more."""

    END = WithdrawalState.CANCELLED


class ExpireWithdrawal(_Close, frozen=True):
    """Give up a withdrawal that got no approval in time."""

    END = WithdrawalState.EXPIRED

    def decide(self, view: View, now_ms: int) -> Decision:
        """Release it, if its time is over by the settings as they are now."""
        due_ms = self.withdrawal.requested_ms + view.get(Settings, 0).snapshot.approval_expires_ms
        if now_ms < due_ms:
            raise PARAMETER_INVALID("withdrawal has not expired")
        return _Close.decide(self, view, now_ms)


def _awaiting(withdrawal: Withdrawal) -> Withdrawal:
    """Return the withdrawal. Raises `Refused` PARAMETER_INVALID unless it awaits approval."""
    if withdrawal.state != WithdrawalState.AWAITING:
        raise PARAMETER_INVALID("withdrawal is not awaiting approval")
    return withdrawal


def prepare_approval(context: Context, guard: Guard, ref: int) -> Approve:
    """Return the command that approves a withdrawal. Raises `Refused` PARAMETER_INVALID unless it awaits approval.

    So does the command, while its customer is frozen or owes something.
    """
    withdrawal = _awaiting(context.reads.row(Withdrawal, ref))
    row = context.reads.row(Address, withdrawal.network, withdrawal.address, withdrawal.tag)
    return Approve(guard, withdrawal, row, tuple(context.catalogue.assets))


def prepare_rejection(context: Context, guard: Guard, ref: int) -> Reject:
    """Return the command that rejects a withdrawal. Raises `Refused` PARAMETER_INVALID unless it awaits approval.

    So does the command, while its network waits to be reconciled.
    """
    return Reject(guard, _awaiting(context.reads.row(Withdrawal, ref)))


def prepare_cancellation(context: Context, guard: Guard, ref: int) -> CancelWithdrawal:
    """Return the command that cancels a withdrawal. Raises `Refused` PARAMETER_INVALID unless it awaits approval."""
    return CancelWithdrawal(guard, _awaiting(context.reads.row(Withdrawal, ref)))


def awaiting_approval(context: Context, limit: int = _MAX_EXPIRED_AT_ONCE) -> list[Withdrawal]:
    """Return withdrawals that await approval, oldest first, at most `limit`."""
    return context.reads.rows(Withdrawal, {"state": WithdrawalState.AWAITING}, limit)


async def expire_due(context: Context) -> int:
    """Expire the withdrawals that have awaited approval for too long, and return how many; to be called now and then.

    Raises `Refused` UNAVAILABLE while the books accept nothing.
    """
    kept_ms = context.reads.row(Settings, 0).snapshot.approval_expires_ms
    now_ms = context.clock.now_ms()
    due = [it for it in awaiting_approval(context) if it.requested_ms + kept_ms <= now_ms]
    due = [it for it in due if not waits(context.reads, it.network)]
    expired = 0
    for withdrawal in due:
        command = ExpireWithdrawal(NOBODY, withdrawal)
        try:
            _ = await perform_own(context, lambda command=command: command)
        except Refused as refusal:
            # Somebody else was quicker; whatever is no answer about this withdrawal ends the pass.
            if refusal.error is not PARAMETER_INVALID:
                raise
        else:
            expired += 1
    return expired
