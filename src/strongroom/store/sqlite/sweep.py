"""The sweeper: writes trailing rows (heads, threads) behind the commits, in key order, a few with each.

What is committed but not yet swept can be worked out from the postings and lines after the watermark, so nothing waits
for it; a sweep in key order touches each page of the tables once instead of once per change.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from strongroom.records.kept import Kept, Key

_SWEPT_PER_CHANGE: Final = 2
_SWEPT_AT_LEAST: Final = 16


class Sweep:
    """Rows that one commit shall write behind, and the watermark it may raise (None while a round goes on)."""

    def __init__(self, keys: Sequence[Key], watermark: int | None) -> None:
        self.keys = keys
        self.watermark = watermark


class Sweeper:
    """`dirty` holds the trailing rows whose table is behind. A round visits all that were dirty when it began."""

    def __init__(self, dirty: dict[Key, Kept]) -> None:
        self.dirty = dirty
        self._round: list[Key] = []
        self._next = 0
        self._began_at_item = 0

    def plan(self, changes: int, last_item: int) -> Sweep:
        """Return what to write with a commit of `changes` trailing rows, when `last_item` is the newest committed."""
        if self._next >= len(self._round):
            self._round = sorted(self.dirty, key=_sort_key)
            self._next, self._began_at_item = 0, last_item
        quota = max(_SWEPT_AT_LEAST, changes * _SWEPT_PER_CHANGE)
        keys = self._round[self._next : self._next + quota]
        ends = self._next + len(keys) >= len(self._round)
        return Sweep(keys, self._began_at_item if ends else None)

    def done(self, sweep: Sweep, changed: Iterable[Kept]) -> None:
        """Take note of what a commit swept (as it was after it), and of the trailing rows it changed."""
        swept = set(sweep.keys)
        for row in changed:
            if (key := row.key()) not in swept:
                self.dirty[key] = row
        for key in sweep.keys:
            del self.dirty[key]
        self._next += len(sweep.keys)


def _sort_key(key: Key) -> tuple[str, tuple[int, ...]]:
    return key[0].__name__, key[1:]
