"""Copies: folios that this node has in memory, as they stand after all commits that it has heard of.

Each commit notes whose folios it has written. A node reads those notes under the journal's lock, with every batch,
before it relies on a copy; and at the commit the database compares the edition that the batch was decided over with the
one that it has (`tables.FolioTable`): a copy that is out of date can hold a batch up, and cannot get into the books.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from strongroom.store.folio import Folio

MAX_ROWS: Final = 1_000_000
"""Most heads and threads in all copies together, some 200 bytes each; those that were not used for longest go first."""


class Copy(NamedTuple):
    """A folio, and how many times it was written until then: 0 where there is none yet. Nobody changes it."""

    edition: int
    folio: Folio


class Commit(NamedTuple):
    """A commit as its note tells of it: its number, what it has changed that is announced, its id, and whose folios."""

    number: int
    changed: str
    id: str
    owners: list[int]


class Copies:
    """The copies of a node, and what it is about to commit. For the event loop."""

    def __init__(self, max_rows: int = MAX_ROWS) -> None:
        self._max_rows = max_rows
        self._copies: dict[int, Copy] = {}
        self._rows = 0
        self._heard = 0
        self._on_their_way: dict[str, Mapping[int, Copy]] = {}

    def find(self, owner: int) -> Copy | None:
        """Return an owner's copy, if there is one."""
        copy = self._copies.pop(owner, None)
        if copy is not None:
            self._copies[owner] = copy
        return copy

    def keep(self, owner: int, copy: Copy) -> None:
        """Keep a copy, unless there is a newer one."""
        known = self._copies.get(owner)
        if known is not None and known.edition >= copy.edition:
            return
        self._forget(owner)
        self._copies[owner] = copy
        self._rows += copy.folio.rows
        while self._rows > self._max_rows:
            self._forget(next(iter(self._copies)))

    def forget_all(self) -> None:
        """Forget every copy: there were commits of which nothing is known."""
        self._copies.clear()
        self._rows = 0

    def hear(self, commits: Iterable[Commit], heard: int) -> None:
        """Hear of commits, every one up to the number `heard`; copies that others have made old are forgotten."""
        for commit in commits:
            if commit.number > self._heard:
                self._hear(commit)
        self._heard = max(self._heard, heard)

    def _hear(self, commit: Commit) -> None:
        own = self._on_their_way.get(commit.id, {})
        for owner in commit.owners:
            if owner in own:
                self.keep(owner, own[owner])
            else:
                self._forget(owner)

    def send(self, batch_id: str, copies: Mapping[int, Copy]) -> None:
        """Note what a batch is about to commit: another lane may hear that it has, before its own knows."""
        self._on_their_way[batch_id] = copies

    def settle(self, batch_id: str, number: int, *, is_kept: bool) -> None:
        """Note what has become of it, which has this number if it is kept.

        Another lane may have heard that before, and of commits behind it: then it is no news. Where it is not certain,
        or the batch was refused, its owners' folios are read again.
        """
        copies = self._on_their_way.pop(batch_id, {})
        if is_kept and number <= self._heard:
            return
        is_next = is_kept and number == self._heard + 1
        for owner, copy in copies.items():
            if is_next:
                self.keep(owner, copy)
            else:
                self._forget(owner)
        if is_next:
            self._heard = number

    def _forget(self, owner: int) -> None:
        copy = self._copies.pop(owner, None)
        if copy is not None:
            self._rows -= copy.folio.rows
