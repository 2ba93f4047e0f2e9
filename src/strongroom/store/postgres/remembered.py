"""Remembered: rows that most requests ask for, kept in memory so that these wait for no database.

Two sorts of rows can be kept where other nodes commit as well: those that never change once they are there, and those
whose changes are announced, for as long as this node is known to hear of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from strongroom.records.kept import Kept, Key
from strongroom.records.keys import ApiKey
from strongroom.records.settings import Settings
from strongroom.records.users import Name, Profile, User

LASTING: Final[frozenset[type[Kept]]] = frozenset({Name, Profile})
"""What is written once and never changed."""

HEARD_OF: Final[frozenset[type[Kept]]] = frozenset({ApiKey, Settings, User})
"""What other nodes announce when they change it (`announcements`)."""

MAX_ROWS: Final = 200_000
"""Most rows of a kind: when there are as many, all are forgotten."""


class Remembered:
    """Rows by kind and key. What is not there is not remembered: somebody may just be making it."""

    def __init__(self) -> None:
        self._rows: dict[type[Kept], dict[tuple[Any, ...], Kept]] = {kind: {} for kind in LASTING | HEARD_OF}

    def find(self, kind: type[Kept], key: tuple[Any, ...], *, is_current: bool) -> Kept | None:
        """Return a row; `is_current` says whether changes are heard of at the moment."""
        rows = self._rows.get(kind)
        if rows is None or not (is_current or kind in LASTING):
            return None
        return rows.get(key)

    def keep(self, row: Kept, key: tuple[Any, ...]) -> None:
        """Keep a row that was read, if it is of such a kind and there."""
        rows = self._rows.get(type(row))
        if rows is None or row == type(row)(*key):
            return
        if len(rows) >= MAX_ROWS:
            rows.clear()
        rows[key] = row

    def keep_lasting(self, row: Kept, key: tuple[Any, ...]) -> None:
        """Keep a row that was read, if it is of a kind that never changes; for any thread."""
        if type(row) in LASTING:
            self.keep(row, key)

    def forget(self, changed: Iterable[Key]) -> None:
        """Forget rows that a commit has changed."""
        for kind, *key in changed:
            if (rows := self._rows.get(kind)) is not None:
                _ = rows.pop(tuple(key), None)
