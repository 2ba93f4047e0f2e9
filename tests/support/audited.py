"""What an auditor is fed: items made by hand, a store of made-up rows, and what it has to say of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import msgspec

from strongroom.ledger.accounts import Account
from strongroom.records.kept import Kept
from strongroom.store.memory import MemoryStore
from strongroom.wallet.audit.effects import Effects, read_effects
from strongroom.wallet.audit.findings import Findings

Told: TypeAlias = list[tuple[int, str]]
"""Findings as an auditor reads them: the item, 0 for none, and what is wrong."""

Post: TypeAlias = tuple[Account, int, int, int]
"""A posting: the account, the amount, the balance after it, and the how manieth of its account it is."""


class KeptStore(MemoryStore):
    """A store that has these rows, wherever they came from."""

    def __init__(self, *rows: Kept) -> None:
        super().__init__()
        self._kept = {row.key(): row for row in rows}


def item(number: int, *postings: Post, rows: Sequence[Kept] = ()) -> Effects:
    """Return an item that books these postings and writes these rows, read from its text."""
    text = {
        "number": number,
        "at_ms": 1,
        "command": {},
        "postings": [(account.pack(), *rest) for account, *rest in postings],
        "rows": [(type(row).__name__, row) for row in rows],
    }
    return read_effects(msgspec.json.encode(text))


def told(findings: Findings) -> Told:
    """Return what was found, in the order in which an auditor reads it."""
    findings.settle(by_item=False)
    return findings.found
