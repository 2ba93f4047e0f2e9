"""The state a batch is decided over: committed rows, with the effects of the batch's earlier commands laid on top."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

import msgspec

from strongroom.engine.command import Command, Row
from strongroom.errors import check
from strongroom.ledger.entries import Booked
from strongroom.records.history import Line
from strongroom.records.kept import Kept, Key


class Item(msgspec.Struct, frozen=True, gc=False):
    """One row of the journal: a command with all its effects, or with the name of the refusal it met."""

    number: int
    at_ms: int
    command: Command
    refusal: str = ""
    postings: Sequence[Booked] = ()
    lines: Sequence[Line] = ()
    rows: Sequence[Kept] = ()


class State:
    """The rows that one batch may read and change, and the items it has made so far.

    `rows` are those the store loaded; `changed` those to write; `items` go to the journal from `first_item` on.
    """

    def __init__(self, rows: dict[Key, Kept], first_item: int, last_ms: int) -> None:
        self.rows = rows
        self.first_item = first_item
        self.last_ms = last_ms
        self.changed: dict[Key, Kept] = {}
        self.items: list[Item] = []
        self._declared: frozenset[Key] = frozenset()

    def open_for(self, needs: Iterable[Key]) -> None:
        """Let the next command read these rows and no others."""
        self._declared = frozenset(needs)

    def get(self, kind: type[Row], *key: int | str | bytes) -> Row:
        """Return the row as the batch sees it; raises `InvariantBroken` if the current command did not declare it."""
        address: Key = (kind, *key)
        check(address in self._declared, "a decision reads only the rows its command declared")
        return cast(Row, self.rows[address])

    def apply(self, rows: Sequence[Kept], item: Item | None = None) -> None:
        """Lay changed rows and a journal item on top, all or none; each row must be one the command declared."""
        fresh = {row.key(): row for row in rows}
        check(self._declared.issuperset(fresh), "a decision changes only the rows its command declared")
        self.rows.update(fresh)
        self.changed.update(fresh)
        if item is not None:
            self.items.append(item)

    def next_item(self) -> int:
        """Return the number of the item that the current command will be."""
        return self.first_item + len(self.items)
