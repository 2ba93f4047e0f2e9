"""A command that does what it is told: for tests that need certain effects in the journal."""

from __future__ import annotations

from strongroom.engine.command import Command, Decision, View
from strongroom.ledger.entries import Posting
from strongroom.records.heads import head_of
from strongroom.records.history import Entry, threads_of
from strongroom.records.kept import Kept, Key


class Do(Command, frozen=True):
    """Book these postings, keep these rows and write these history lines."""

    postings: tuple[Posting, ...] = ()
    kept: tuple[Kept, ...] = ()
    entries: tuple[Entry, ...] = ()

    def needs(self) -> list[Key]:
        """Everything that is named."""
        threads = [key for entry in self.entries for key in threads_of(entry.owner, entry.asset, entry.type)]
        heads = [head_of(posting.account) for posting in self.postings]
        return [*heads, *threads, *(row.key() for row in self.kept)]

    def decide(self, view: View, now_ms: int) -> Decision:
        """Do it."""
        return Decision(self.postings, self.kept, self.entries)
