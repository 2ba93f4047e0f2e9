"""The row cache: committed rows of the kinds that have a table of their own, by kind and then by key.

A dictionary a kind with bare integers and texts as keys is found through faster than one with addresses as keys: what a
request looks up is seldom in the processor's own caches.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any, Final

from strongroom.records.kept import Kept, Key
from strongroom.store.tables import KINDS

MAX_CACHED_ROWS: Final = 1_000_000
"""Most rows of all kinds together."""


class RowCache:
    """Rows that were read or written lately; the absent row, for an address at which there is none.

    `by_kind` is read by whoever looks a row up, by its key: the only field of it as it is, several as a tuple.
    """

    def __init__(self) -> None:
        self.by_kind: dict[type[Kept], dict[Any, Kept]] = {kind: {} for kind in KINDS}

    def update(self, rows: Iterable[tuple[Key, Kept]]) -> None:
        """Keep rows, and let those go that came first when there are too many."""
        for key, row in rows:
            self.by_kind[key[0]][key[1] if len(key) == 2 else key[1:]] = row
        if sum(map(len, self.by_kind.values())) > MAX_CACHED_ROWS:
            for known in self.by_kind.values():
                for first in list(islice(known, len(known) // 10)):
                    del known[first]
