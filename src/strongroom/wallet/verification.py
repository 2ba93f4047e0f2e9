"""Verification: the whole journal read once from its first item on, and everything kept worked out from it anew.

It needs nobody's word: balances follow from postings, postings sum to zero, items hash to the seals, histories are
linked without a gap, and the kept rows are what the journal last said of them. Memory grows with the accounts,
histories and kept rows, not with the items.
"""

from __future__ import annotations

import msgspec

from strongroom.engine.port import Reads
from strongroom.wallet.audit.findings import Findings
from strongroom.wallet.audit.stretch import Stretch


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
    stretch = Stretch(findings, reads.seals())
    stretch.read(reads, reads.last()[0])
    return conclude(stretch, reads, findings)


def conclude(stretch: Stretch, reads: Reads, findings: Findings) -> Report:
    """Compare what all items come to with what is kept, and report."""
    stretch.compare(reads)
    return Report(
        stretch.items,
        stretch.balances.postings,
        stretch.histories.lines,
        stretch.balances.accounts,
        stretch.seals.frontier.root().hex(),
        [Finding(*found) for found in findings.found],
    )
