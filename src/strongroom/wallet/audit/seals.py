"""Seals: the Merkle tree grown again from the items, held against every seal that was kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from strongroom.engine.port import Sealed
from strongroom.engine.sealing import leaves_of
from strongroom.ledger.seals import Frontier
from strongroom.wallet.audit.findings import Findings


class Seals:
    """The tree over the items so far, from a seal on that was kept, and the next kept seal to compare with."""

    def __init__(self, findings: Findings, start: Frontier, kept: Iterator[Frontier]) -> None:
        """`kept` are the seals after `start`, oldest first."""
        self._findings = findings
        self._kept = kept
        self._newest = start.count
        self._matched = start.count
        self._is_broken = False
        self.frontier = start
        self._next = self._following()

    def append(self, items: Sequence[Sealed]) -> None:
        """Add items, and compare with the seals that end with one of them."""
        leaves = leaves_of(items)
        begin, last = 0, items[-1].number
        while self._next is not None and self._next.count <= last:
            end = max(begin, self._next.count - items[0].number + 1)
            self.frontier = self.frontier.append(*leaves[begin:end])
            begin = end
            self.compare(self._next)
            self._next = self._following()
        self.frontier = self.frontier.append(*leaves[begin:])

    def compare(self, seal: Frontier) -> None:
        """Compare with a seal; all after the first one that differs would differ too, so only that one is told."""
        if self.frontier == seal:
            self._matched = seal.count
        elif not self._is_broken:
            self._is_broken = True
            first = self._matched + 1
            which = f"items {first} to {seal.count} do" if first < seal.count else "it does"
            self._findings.add(first, f"{which} not hash to the seal that covers it", seal.count)

    def _following(self) -> Frontier | None:
        """Return the next kept seal; report one that does not cover more than the one before it."""
        seal = next(self._kept, None)
        if seal is not None:
            if seal.count <= self._newest:
                what = f"a seal over {seal.count} items follows one over {self._newest}"
                self._findings.add(self._matched + 1, what, self._newest)
            self._newest = seal.count
        return seal
