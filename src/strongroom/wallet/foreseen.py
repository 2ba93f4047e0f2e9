"""Foreseen: rows that a page will tell of, looked up together before they are wanted one by one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from strongroom.engine.command import Row
from strongroom.engine.port import Reads
from strongroom.records.kept import Kept, Key


class Foreseen:
    """Look-ups of single rows (`ReadsRows`), each done once; what was not foreseen is looked up when it is wanted."""

    def __init__(self, reads: Reads, keys: Iterable[Key] = ()) -> None:
        """`keys` are the first to foresee."""
        self._reads = reads
        self._rows: dict[Key, Kept] = {}
        self.foresee(keys)

    def foresee(self, keys: Iterable[Key]) -> None:
        """Look up rows, neither heads nor threads, in one question."""
        wanted = list({key: None for key in keys if key not in self._rows})
        if wanted:
            self._rows.update(zip(wanted, self._reads.rows_at(wanted), strict=True))

    def row(self, kind: type[Row], *key: int | str | bytes) -> Row:
        """Return the committed row, or the absent one."""
        address: Key = (kind, *key)
        found = self._rows.get(address)
        if found is None:
            found = self._rows[address] = self._reads.row(kind, *key)
        return cast(Row, found)
