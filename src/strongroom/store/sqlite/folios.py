"""Folios: what every owner's accounts and histories have come to, in memory, and written to their table behind the
commits.

A folio holds all heads and threads of one owner. What is committed but not yet written can be worked out from the
journal behind a watermark, so nothing waits for it: rounds go through all folios that changed, in the order of their
owners, a few with each commit, and touch each page of the table once instead of once per change.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final, NamedTuple

import apsw

from strongroom.engine.port import DiskFailed
from strongroom.engine.state import ThreadKey
from strongroom.ledger.accounts import owner_of
from strongroom.records.heads import Head
from strongroom.records.history import Thread, append_line, newest_in
from strongroom.store.folio import Folio, decode_folio, encode_folio, pack_head, thread_number
from strongroom.store.sqlite.connection import run

MAX_ROWS_IN_MEMORY: Final = 2_000_000
"""Most heads and threads that are kept in memory because they were used, about 200 bytes each."""

ROUND_ITEMS: Final = 100_000
"""A round is done after so many journal items: twice as many are at most worked through again after a start."""

_SWEPT_AT_LEAST: Final = 8
_FORGOTTEN_AT_ONCE: Final = 2_000


class Arrears:
    """What one owner's folio lacks in its table: the newest heads, and (thread number, line) of the newest lines."""

    __slots__ = ("heads", "lines")

    def __init__(self) -> None:
        self.heads: dict[int, int] = {}
        self.lines: list[tuple[int, int]] = []

    def bring_up(self, folio: Folio) -> None:
        """Bring a folio as the table has it up to date; the table may have some of the lines already."""
        folio.heads.update(self.heads)
        spines = folio.spines
        for number, line in self.lines:
            spine = spines.get(number, b"")
            if line > newest_in(spine):
                spines[number], _ = append_line(spine, line)


class Sweep(NamedTuple):
    """Folios that one commit writes behind, as rows of their table, and its new watermark, None within a round."""

    rows: list[tuple[int, str, bytes]]
    watermark: int | None


def load_folio(connection: apsw.Connection, owner: int) -> Folio:
    """Return an owner's folio as its table has it, empty if it is not there."""
    found = run(connection, "SELECT heads, spines FROM folio WHERE owner = ?", (owner,)).fetchone()
    if found is None:
        return Folio({}, {})
    return decode_folio(*found)


class Folios:
    """The folios that were used lately and all that their table is behind with, over a connection for the others."""

    def __init__(self, connection: apsw.Connection, arrears: dict[int, Arrears]) -> None:
        """`arrears` are what the table is behind with after a start: made up for owner by owner, when one is used."""
        self._connection = connection
        self._arrears = dict(arrears)
        self._folios: dict[int, Folio] = {}
        self._order: deque[int] = deque()
        self._behind = set(arrears)
        self._rows = 0
        self._round: list[int] = []
        self._next = 0
        self._began_at_item = 0

    def head(self, account: int) -> Head:
        """Return the head of a packed account."""
        owner = owner_of(account)
        return (self._folios.get(owner) or self.folio(owner)).head(account)

    def thread(self, key: ThreadKey) -> Thread:
        """Return a thread."""
        return (self._folios.get(key[0]) or self.folio(key[0])).thread(key)

    def folio(self, owner: int) -> Folio:
        """Return an owner's folio, from the table if it is not in memory. Raises `DiskFailed`."""
        folio = self._folios.get(owner)
        if folio is None:
            try:
                folio = load_folio(self._connection, owner)
            except apsw.Error as error:
                raise DiskFailed(str(error)) from error
            if (arrears := self._arrears.pop(owner, None)) is not None:
                arrears.bring_up(folio)
            self._folios[owner] = folio
            self._order.append(owner)
            self._rows += folio.rows
        return folio

    def plan(self, items: int, last_item: int) -> Sweep:
        """Return what to write with a commit of so many items, when `last_item` is the newest committed."""
        if self._next >= len(self._round):
            self._round = sorted(self._behind)
            self._next, self._began_at_item = 0, last_item
        share = -(-len(self._round) * items // ROUND_ITEMS)
        owners = self._round[self._next : self._next + max(_SWEPT_AT_LEAST, share)]
        ends = self._next + len(owners) >= len(self._round)
        return Sweep([self._row(owner) for owner in owners], self._began_at_item if ends else None)

    def fold(self, sweep: Sweep, heads: Iterable[Head], threads: Iterable[Thread]) -> None:
        """Take over what a commit wrote behind, then what it changed."""
        behind, known = self._behind, self._folios
        behind.difference_update([row[0] for row in sweep.rows])
        self._next += len(sweep.rows)
        for head in heads:
            account, after, count = head.account, head.after, head.count
            owner = owner_of(account)
            (known.get(owner) or self.folio(owner)).heads[account] = pack_head(after, count)
            behind.add(owner)
            self._rows += count == 1
        for thread in threads:
            owner = thread.owner
            spines = (known.get(owner) or self.folio(owner)).spines
            number = thread_number(thread.asset, thread.type)
            self._rows += number not in spines
            spines[number] = thread.spine
            behind.add(owner)
        if self._rows > MAX_ROWS_IN_MEMORY:
            self._forget()

    def _row(self, owner: int) -> tuple[int, str, bytes]:
        return owner, *encode_folio(self.folio(owner))

    def _forget(self) -> None:
        """Make room: let the folios go that came in first, but those not written yet, whose turn comes again.

        So many are looked at that more go than one batch can bring in, and never so many that a commit would wait.
        """
        for _ in range(min(len(self._order), _FORGOTTEN_AT_ONCE)):
            if self._rows <= MAX_ROWS_IN_MEMORY:
                return
            owner = self._order.popleft()
            if owner in self._behind:
                self._order.append(owner)
            else:
                self._rows -= self._folios.pop(owner).rows
