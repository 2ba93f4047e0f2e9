"""Bugs that are planted on purpose: for each invariant of the ledger one that the property test must find."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest

from strongroom.engine import settle as settling
from strongroom.engine.command import Command, Decision, Guard, View
from strongroom.engine.settle import Outcome
from strongroom.engine.state import Effects, State
from strongroom.errors import Refused
from strongroom.ledger import entries
from strongroom.ledger.accounts import Purpose, purpose_of
from strongroom.ledger.entries import Booked, Posting
from strongroom.records.kept import Kept
from strongroom.records.withdrawals import Spent, Withdrawal, WithdrawalState
from strongroom.store.sqlite import batches
from strongroom.store.sqlite import store as sqlite_store
from strongroom.wallet import approvals
from strongroom.wallet.transfers import Transfer
from strongroom.wallet.withdrawals import RequestWithdrawal
from support.ledger_machine import ANSWERED, ONCE, SAME, WHOLE, Ledger, LedgerOnDisk, find_bug

Plant = Callable[[pytest.MonkeyPatch], None]

book_entry, check_bounds = entries.book_entry, entries._check_bounds


def lose_the_last_posting(patch: pytest.MonkeyPatch) -> None:
    """An entry is checked whole, and then one of its postings is forgotten."""

    def booked(postings: Sequence[Posting], head: Any) -> list[Booked]:
        return book_entry(postings, head)[:-1]

    patch.setattr(settling, "book_entry", booked)


def forget_the_floors(patch: pytest.MonkeyPatch) -> None:
    """No account has a floor any more."""
    patch.setattr(entries, "NEVER_NEGATIVE", frozenset[int]())


def mix_up_two_balances(patch: pytest.MonkeyPatch) -> None:
    """After a transfer, sender and receiver are left with each other's balance."""

    def booked(postings: Sequence[Posting], head: Any) -> list[Booked]:
        found = book_entry(postings, head)
        if [purpose_of(posting.account) for posting in found] != [Purpose.AVAILABLE] * 2:
            return found
        one, other = found
        return [msgspec.structs.replace(one, after=other.after), msgspec.structs.replace(other, after=one.after)]

    patch.setattr(settling, "book_entry", booked)


def judge_by_what_was_committed(patch: pytest.MonkeyPatch) -> None:
    """Whether there is enough is judged by what was there before the batch: each of its commands may take it all."""

    def booked(postings: Sequence[Posting], head: Any) -> list[Booked]:
        found = book_entry(postings, head)
        changes = Counter[int]()
        for posting in found:
            changes[posting.account] += posting.amount
        for account, change in changes.items():
            check_bounds(account, head.__self__.committed.head(account).after + change)
        return found

    patch.setattr(entries, "_check_bounds", lambda account, after: None)
    patch.setattr(settling, "book_entry", booked)


def close_without_release(patch: pytest.MonkeyPatch) -> None:
    """A withdrawal that comes to nothing is closed, and its money stays held."""

    def release(
        view: View, withdrawals: Sequence[Withdrawal], state: WithdrawalState
    ) -> tuple[list[Posting], list[Kept]]:
        return [], [msgspec.structs.replace(it, state=state) for it in withdrawals]

    patch.setattr(approvals, "release", release)


def count_what_is_refused(patch: pytest.MonkeyPatch) -> None:
    """A withdrawal that is refused counts for the day's limit all the same."""
    refuse = settling._refuse

    def refuse_and_count(command: Command, state: State, now_ms: int, refusal: Refused) -> Outcome:
        if isinstance(command, RequestWithdrawal):
            spent = state.get(Spent, command.owner, command.asset, command.day)
            state.apply(Effects(rows=[msgspec.structs.replace(spent, amount=spent.amount + command.amount)]))
        return refuse(command, state, now_ms, refusal)

    patch.setattr(settling, "_refuse", refuse_and_count)


def answer_no_and_do_it(patch: pytest.MonkeyPatch) -> None:
    """A transfer is carried out, and its sender is told that there was not enough."""
    fold = settling._fold

    def fold_and_refuse(
        command: Command, state: State, now_ms: int, decision: Decision, booked: list[Booked]
    ) -> Outcome:
        outcome = fold(command, state, now_ms, decision, booked)
        if isinstance(command, Transfer):
            return msgspec.structs.replace(outcome, refusal=entries.INSUFFICIENT_BALANCE(), result=b"")
        return outcome

    patch.setattr(settling, "_fold", fold_and_refuse)


def forget_replies(patch: pytest.MonkeyPatch) -> None:
    """No reply is remembered."""

    def none(guard: Guard, state: State, now_ms: int) -> None:
        return None

    patch.setattr(settling, "_earlier_reply", none)


def forget_signatures(patch: pytest.MonkeyPatch) -> None:
    """A signature is good for any number of requests."""

    def never(guard: Guard, state: State, now_ms: int) -> bool:
        return False

    patch.setattr(settling, "_is_replayed", never)


@pytest.mark.parametrize(
    ("plant", "rule"),
    [
        (lose_the_last_posting, "conservation"),
        (forget_the_floors, "no customer below zero"),
        (mix_up_two_balances, "balances are the postings"),
        (judge_by_what_was_committed, "no overdraft"),
        (close_without_release, "holds are the open withdrawals"),
        (count_what_is_refused, f"{SAME}|{WHOLE}"),
        (answer_no_and_do_it, f"{SAME}|{ANSWERED}"),
        (forget_replies, ONCE),
        (forget_signatures, ONCE),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_planted_bug_is_found(plant: Plant, rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the bug in the ledger the property test fails, and says which invariant the bug breaks."""
    plant(monkeypatch)
    with pytest.raises(AssertionError, match=rule):
        find_bug(Ledger)


def test_what_only_the_file_has_of_a_refusal_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refusal that touches a row of the file, and none in memory, is seen in the file."""
    statements_of = batches.row_statements

    def row_statements(state: State) -> batches.Statements:
        refused = bool(state.items) and all(item.refusal for item in state.items)
        return [*statements_of(state), *([("UPDATE spent SET amount = amount + 1", [])] if refused else [])]

    monkeypatch.setattr(sqlite_store, "row_statements", row_statements)
    with pytest.raises(AssertionError, match=SAME):
        find_bug(LedgerOnDisk)
