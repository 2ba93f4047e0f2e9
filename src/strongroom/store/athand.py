"""At hand: several things asked for at once, of a store that has each single one as quickly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from strongroom.engine.port import LineLink, ReadsRows
from strongroom.records.history import Line, Thread
from strongroom.records.kept import Kept, Key


class _HasLines(ReadsRows, Protocol):
    def line(self, number: int) -> Line: ...


class AtHand:
    """What `Reads` asks for several at once, for whoever has `row` and `line`."""

    def rows_at(self: ReadsRows, keys: Sequence[Key]) -> list[Kept]:
        """Return the rows at these addresses, absent ones included, in their order."""
        return [self.row(key[0], *key[1:]) for key in keys]

    def threads(self: ReadsRows, owner: int, kinds: Sequence[tuple[int, int]]) -> list[Thread]:
        """Return threads of one owner, each by its asset and type."""
        return [self.row(Thread, owner, asset, type_) for asset, type_ in kinds]

    def trails(self: _HasLines, numbers: Sequence[int], link: LineLink, limit: int) -> list[Line]:
        """Return the lines of these numbers, and none before somebody asks for it."""
        return [self.line(number) for number in numbers]
