"""Servers with a mistake in them, to see that the crash tests find it: `python harness_controls.py MISTAKE demo`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any, Final

from strongroom.cli.main import main
from strongroom.engine import writer
from strongroom.store.sqlite import batches, store

_LATE_S: Final = 0.02


def answer_early() -> None:
    """Answer what was settled, and commit it a moment later."""

    async def commit(self: Any, batch: Any) -> None:
        state = await self._store.begin([waiting.command for waiting in batch])
        now_ms = max(self._clock.now_ms(), state.last_ms)
        for waiting in batch:
            waiting.answer(self._settle(waiting, state, now_ms))
        await asyncio.sleep(_LATE_S)
        await self._store.commit(state)

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
    store.unswept_folios = lambda connection: {}  # pyright: ignore[reportPrivateImportUsage]


MISTAKES: Final[dict[str, Callable[[], None]]] = {
    "answers-before-the-commit": answer_early,
    "forgets-signatures": forget_signatures,
    "forgets-replies": forget_replies,
    "recovers-nothing": recover_nothing,
}

if __name__ == "__main__":
    MISTAKES[sys.argv.pop(1)]()
    main()
