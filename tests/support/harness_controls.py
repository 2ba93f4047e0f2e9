"""Servers with a mistake in them, to see that the crash tests find it.

`python -m support.harness_controls MISTAKE PLAN demo ...` runs one under a plan.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from copy import copy
from pathlib import Path
from typing import Any, Final

from strongroom.custody.chain import Funds
from strongroom.custody.sender import Sender
from strongroom.engine import writer
from strongroom.ledger import entries
from strongroom.records.addresses import Address, AddressBook
from strongroom.records.withdrawals import Withdrawal
from strongroom.store.sqlite import batches, store
from support.harness_strikes import serve

_LATE_S: Final = 0.02


def answer_early() -> None:
    """Answer what was settled, and commit it a moment later."""

    right = writer.Writer._commit

    async def commit(self: Any, lane: Any, decided: Any) -> None:
        for waiting, outcome in zip(decided.batch, decided.outcomes, strict=True):
            waiting.answer(outcome)
        await asyncio.sleep(_LATE_S)
        await right(self, lane, decided)

    writer.Writer._commit = commit  # pyright: ignore[reportAttributeAccessIssue]


def forget_signatures() -> None:
    """Remember used signatures in memory only."""
    store.nonce_statements = lambda rows: []  # pyright: ignore[reportPrivateImportUsage]


def forget_replies() -> None:
    """Remember the replies to Idempotency-Keys in memory only."""
    right = batches.insertions

    def insertions(verb: str, table: str, *rest: Any) -> Any:
        return [] if table == "reply" else right(verb, table, *rest)

    batches.insertions = insertions  # pyright: ignore[reportPrivateImportUsage]


def recover_nothing() -> None:
    """Take the balances as the sweeper left them, without what the journal has after them."""
    store.unswept = lambda connection: {}  # pyright: ignore[reportPrivateImportUsage]


def doubt_nothing() -> None:
    """Answer "not done" as soon as a commit fails, whatever the failed commit left in the log."""

    async def at_once(self: Any, lane: Any, trouble: str) -> bool:
        return False

    writer.Writer._until_known = at_once  # pyright: ignore[reportAttributeAccessIssue]


def pay_twice() -> None:
    """Build a second payment for each withdrawal, as after a restart that forgot the first."""
    right = Sender._broadcast

    async def broadcast(self: Any, payment: Any) -> None:
        await right(self, payment)
        withdrawal = self._context.reads.row(Withdrawal, payment.withdrawals[0])
        body = (await self._chain.draft([self._payee(withdrawal)], Funds(nonce=self._funds().nonce + 1_000))).body
        signature = await self._signer.sign(self._chain.network, 0, body)
        await self._chain.broadcast(self._chain.assemble(body, signature).blob)

    Sender._broadcast = broadcast


def forget_addresses() -> None:
    """Remember whose an address is in memory only."""
    right = batches.row_statements

    def row_statements(state: Any) -> Any:
        kept = copy(state)
        kept.rows = {
            key: row for key, row in state.rows.items() if not (isinstance(row, Address | AddressBook) and row.owner)
        }
        return right(kept)

    store.row_statements = row_statements  # pyright: ignore[reportPrivateImportUsage]


def show_half_a_batch() -> None:
    """Let readers see one half of a batch while it is made durable, and the other half after that."""
    right_commit, right_head = store.SqliteStore.commit, store.SqliteStore.head
    early: dict[int, Any] = {}

    async def commit(self: Any, state: Any) -> None:
        early.update(list(state.heads.items())[::2])
        for listener in self._listeners:
            listener(state)
        await asyncio.sleep(_LATE_S)
        try:
            await right_commit(self, state)
        finally:
            early.clear()

    store.SqliteStore.commit = commit
    store.SqliteStore.head = lambda self, account: early.get(account) or right_head(self, account)


def allow_overdrafts() -> None:
    """Let a balance fall below zero."""
    entries._check_bounds = lambda packed, after: None


MISTAKES: Final[dict[str, Callable[[], None]]] = {
    "answers-before-the-commit": answer_early,
    "forgets-signatures": forget_signatures,
    "forgets-replies": forget_replies,
    "recovers-nothing": recover_nothing,
    "doubts-nothing": doubt_nothing,
    "forgets-addresses": forget_addresses,
    "pays-twice": pay_twice,
    "shows-half-a-batch": show_half_a_batch,
    "allows-overdrafts": allow_overdrafts,
}


def program(mistake: str, plan: Path) -> tuple[str, ...]:
    """Return the program that makes a mistake and follows a plan."""
    return (sys.executable, "-m", "support.harness_controls", mistake, str(plan))


if __name__ == "__main__":
    MISTAKES[sys.argv.pop(1)]()
    serve(Path(sys.argv.pop(1)))
