"""Verification: the whole journal read once from its first item on, and everything kept worked out from it anew.

It needs nobody's word: balances follow from postings, postings sum to zero, items hash to the seals, histories are
linked without a gap, and the kept rows are what the journal last said of them. Memory grows with the accounts,
histories and kept rows, not with the items.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from strongroom.engine.port import Reads, Sealed, StoredItem
from strongroom.engine.sealing import leaf_of, read_item
from strongroom.ledger.seals import Frontier
from strongroom.records.history import LINES_PER_ITEM, Line, Link, Thread, threads_of
from strongroom.wallet.keptrows import KeptRows
from strongroom.wallet.recount import Accounts, Findings

ITEMS_AT_ONCE: Final = 2_000
"""How many items are in memory at a time."""


class Finding(msgspec.Struct, frozen=True):
    """What is wrong, and the journal item it was found at; 0 where no item can be named."""

    item: int
    what: str


class Report(msgspec.Struct, frozen=True):
    """What was read, the root of the seal (hexadecimal) to compare with one kept outside, and what is wrong.

    `findings` are at most 20, those within the journal first, in its order.
    """

    items: int
    postings: int
    lines: int
    accounts: int
    root: str
    findings: list[Finding]

    @property
    def is_whole(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings

    @property
    def first_wrong_item(self) -> int:
        """The number of the first item that is wrong, 0 if there is none.

        A row that is not what the journal says counts for the item that wrote it last.
        """
        return next((finding.item for finding in self.findings if finding.item), 0)


def verify(reads: Reads) -> Report:
    """Check the books against themselves and report; it changes nothing.

    `reads` must stand still meanwhile: a snapshot, or a store whose writer waits.
    """
    findings = Findings()
    accounts, rows = Accounts(findings), KeptRows(findings)
    histories, seals = _Histories(findings), _Seals(findings, reads.seals())
    count, at_ms = 0, 0
    for sealed in _items(reads, findings):
        count += 1
        seals.append(sealed)
        item = _read(sealed, findings)
        if item is None:
            continue
        if item.at_ms < at_ms:
            findings.add(item.number, "its stamp is before that of the item before it")
        at_ms = item.at_ms
        if item.refusal and (item.postings or item.lines or item.rows):
            findings.add(item.number, "it was refused, and yet has effects")
        accounts.book(item)
        histories.link(item)
        rows.note(item)
    seals.compare_end(reads)
    accounts.compare(reads)
    histories.compare(reads)
    rows.compare(reads, accounts)
    return Report(
        count,
        accounts.postings,
        histories.lines,
        len(accounts.heads),
        seals.frontier.root().hex(),
        [Finding(*found) for found in findings.found],
    )


def _read(sealed: Sealed, findings: Findings) -> StoredItem | None:
    """Return what an item says; None, and a finding, for a text that is none of its number."""
    try:
        item = read_item(sealed.text)
    except msgspec.MsgspecError as error:
        return findings.add(sealed.number, f"it cannot be read: {error}")
    if item.number != sealed.number:
        return findings.add(sealed.number, f"it says that it is item {item.number}")
    return item


def _items(reads: Reads, findings: Findings) -> Iterator[Sealed]:
    """Yield every item; report numbers that are missing, and items behind the newest seal."""
    last, _ = reads.last()
    first = 1
    while chunk := reads.journal(first, ITEMS_AT_ONCE):
        for item in chunk:
            if item.number != first:
                findings.add(first, f"it is missing, and so are all before item {item.number}")
            if item.number > last:
                findings.add(item.number, f"it is not covered by the newest seal, which ends at item {last}")
                return
            yield item
            first = item.number + 1
    if first <= last:
        findings.add(first, f"it is missing, and so are all up to item {last}")


class _Histories:
    """Every thread as its lines lead on from each other."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._threads: dict[tuple[int, int, int], Thread] = {}
        self.lines = 0

    def link(self, item: StoredItem) -> None:
        """Check an item's lines, and hang them on the ends of their threads."""
        self.lines += len(item.lines)
        for place, line in enumerate(item.lines):
            if line.number != item.number * LINES_PER_ITEM + place or line.at_ms != item.at_ms:
                self._findings.add(item.number, f"history line {line.number} is not in its place or time")
            every, kind = (key[1:] for key in threads_of(line.owner, line.asset, line.type))
            self._append(item, every, line, (line.all_count, line.all_before, line.all_jump))
            self._append(item, kind, line, (line.kind_count, line.kind_before, line.kind_jump))

    def _append(self, item: StoredItem, key: tuple[int, int, int], line: Line, said: Link) -> None:
        self._threads[key], link = (self._threads.get(key) or Thread(*key)).append(line.number)
        if link != said:
            self._findings.add(item.number, f"history line {line.number} does not follow the lines before it")

    def compare(self, reads: Reads) -> None:
        """Check that every kept thread ends where its lines do."""
        for key, thread in self._threads.items():
            if reads.row(Thread, *key).spine != thread.spine:
                owner, asset, type_ = key
                what = f"the history of owner {owner}, asset {asset}, type {type_} does not end with its line"
                self._findings.add(thread.newest // LINES_PER_ITEM, what)


class _Seals:
    """The Merkle tree grown again from the items, held against every seal that was kept."""

    def __init__(self, findings: Findings, kept: Iterator[Frontier]) -> None:
        self._findings = findings
        self._kept = kept
        self._next = next(kept, None)
        self._matched = 0
        self._is_broken = False
        self.frontier = Frontier()

    def append(self, item: Sealed) -> None:
        """Add an item, and compare with the seals that end with it."""
        self.frontier = self.frontier.append(leaf_of(item.text, item.salt))
        while self._next is not None and self._next.count <= item.number:
            if self._next.count == item.number:
                self._compare(self._next)
            self._next = next(self._kept, None)

    def compare_end(self, reads: Reads) -> None:
        """Compare with the newest seal."""
        self._compare(reads.frontier())

    def _compare(self, seal: Frontier) -> None:
        """Compare with a seal; all after the first one that differs would differ too, so only that one is told."""
        if self.frontier == seal:
            self._matched = seal.count
        elif not self._is_broken:
            self._is_broken = True
            first = self._matched + 1
            which = f"items {first} to {seal.count} do" if first < seal.count else "it does"
            self._findings.add(first, f"{which} not hash to the seal that covers it")
