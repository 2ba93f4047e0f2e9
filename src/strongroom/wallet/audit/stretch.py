"""A stretch of the journal, from its first item or from a kept seal on: audited by itself, joined to the one before.

What a stretch says of the items before it is taken for granted while it is read, remembered, and checked when it is
joined: so stretches can be read at the same time, and together prove what one reading from the first item proves.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, TypeAlias

import msgspec

from strongroom.engine.port import Reads, Sealed
from strongroom.ledger.seals import Frontier
from strongroom.wallet.audit.balances import Balances
from strongroom.wallet.audit.effects import Effects, read_effects
from strongroom.wallet.audit.findings import Findings
from strongroom.wallet.audit.histories import Histories
from strongroom.wallet.audit.keptrows import KeptRows
from strongroom.wallet.audit.seals import Seals

ITEMS_AT_ONCE: Final = 500
"""How many items are in memory at a time."""

PARCEL_ROWS: Final = 10_000
"""How many accounts, threads or rows are handed over at a time."""

_NOTHING: Final = Frontier()

Parcel: TypeAlias = tuple[str, Any]
"""A part of what a stretch has found out, with the name of the method that takes it over."""


class Ends(msgspec.Struct, frozen=True):
    """Where a stretch starts and ends: its seals and stamps (Unix ms), and how much it has read."""

    start: Frontier
    end: Frontier
    first_ms: int
    last_ms: int
    items: int
    postings: int
    lines: int


class Stretch:
    """The items behind a seal, the first and empty one by default."""

    def __init__(self, findings: Findings, seals: Iterator[Frontier], start: Frontier = _NOTHING) -> None:
        """`seals` are the kept ones behind `start`. With another start, `findings` must end with the first one."""
        self._findings = findings
        from_nothing = not start.count
        self._start = start
        self.seals = Seals(findings, start, seals)
        self.balances = Balances(findings, from_nothing=from_nothing)
        self.histories = Histories(findings, from_nothing=from_nothing)
        self.rows = KeptRows(findings)
        self.items = 0
        self._first_ms: int | None = None
        self._last_ms = 0

    def read(self, reads: Reads, last: int) -> None:
        """Read the items up to one, and check them."""
        first = self._start.count + 1
        while first <= last and (chunk := reads.journal(first, min(ITEMS_AT_ONCE, last - first + 1))):
            chunk = [item for item in chunk if item.number <= last] if chunk[-1].number > last else chunk
            if not chunk:
                break
            self._check_numbers(chunk, first)
            self.seals.append(chunk)
            items = self._decode(chunk)
            if items and self._first_ms is None:
                self._first_ms = items[0].at_ms
            self._check(items)
            self.balances.book(items)
            self.histories.link(items)
            self.rows.note(items)
            self._findings.settle(by_item=True)
            self.items += len(chunk)
            first = chunk[-1].number + 1
        if first <= last:
            self._findings.add(first, f"it is missing, and so are all up to item {last}")
        self._findings.settle(by_item=True)

    def parcels(self) -> Iterator[Parcel]:
        """Yield what the stretch has found out, for the one before it; the order matters."""
        yield "ends", self._ends()
        for far in self.histories.far_parcels(PARCEL_ROWS):
            yield "far lines", far
        for threads in self.histories.parcels(PARCEL_ROWS):
            yield "threads", threads
        for balances in self.balances.parcels(PARCEL_ROWS):
            yield "balances", balances
        for rows in self.rows.parcels(PARCEL_ROWS):
            yield "rows", rows

    def take_over(self, parcel: Parcel) -> None:
        """Continue with a parcel of the stretch that follows this one."""
        kind, part = parcel
        take = {
            "ends": self._join,
            "far lines": self.histories.check_far,
            "threads": self.histories.take_over,
            "balances": self.balances.take_over,
            "rows": self.rows.take_over,
        }[kind]
        take(part)

    def compare(self, reads: Reads) -> None:
        """Check that what is kept, and stands at the last item that was read, is what the items come to."""
        last, _ = reads.last()
        if beyond := reads.journal(last + 1, 1):
            self._findings.add(beyond[0].number, f"it is not covered by the newest seal, which ends at item {last}")
        self.seals.compare(reads.frontier())
        self.balances.compare(reads)
        self.histories.compare(reads)
        self.rows.compare(reads, self.balances)
        self._findings.settle(by_item=False)

    def _check_numbers(self, chunk: Sequence[Sealed], first: int) -> None:
        """Report numbers that are missing."""
        if chunk[-1].number - first + 1 == len(chunk):
            return
        for item in chunk:
            if item.number != first:
                self._findings.add(first, f"it is missing, and so are all before item {item.number}", item.number)
            first = item.number + 1

    def _decode(self, chunk: Sequence[Sealed]) -> list[Effects]:
        """Return what items say; report the texts that are none of their numbers."""
        items: list[Effects] = []
        for number, text, _ in chunk:
            try:
                item = read_effects(text)
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                self._findings.add(number, f"it cannot be read: {error}")
                continue
            if item.number == number:
                items.append(item)
            else:
                self._findings.add(number, f"it says that it is item {item.number}")
        return items

    def _check(self, items: Sequence[Effects]) -> None:
        """Check that stamps never go back, and that what was refused has no effects."""
        last_ms = self._last_ms
        for item in items:
            if item.at_ms < last_ms:
                self._findings.add(item.number, "its stamp is before that of the item before it")
            last_ms = item.at_ms
            if item.refusal and (item.postings or item.lines or item.rows):
                self._findings.add(item.number, "it was refused, and yet has effects")
        self._last_ms = last_ms

    def _ends(self) -> Ends:
        first_ms = self._last_ms if self._first_ms is None else self._first_ms
        postings, lines = self.balances.postings, self.histories.lines
        return Ends(self._start, self.seals.frontier, first_ms, self._last_ms, self.items, postings, lines)

    def _join(self, ends: Ends) -> None:
        """Check that a stretch starts where this one ends, and go on to its end."""
        at = self.seals.frontier.count
        if ends.start != self.seals.frontier:
            self._findings.add(at, "the items up to it do not hash to the seal that the next ones were added to")
        if ends.first_ms < self._last_ms:
            self._findings.add(at + 1, "its stamp is before that of the item before it")
        self.seals.frontier = ends.end
        self._last_ms = ends.last_ms
        self.items += ends.items
        self.balances.postings += ends.postings
        self.histories.lines += ends.lines
