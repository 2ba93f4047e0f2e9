"""SQLite's tables: its mark for a value, and statements that write many rows at once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, Final

from strongroom.records.kept import Kept
from strongroom.store.tables import KINDS, Table

TABLES: Final[dict[type[Kept], Table]] = {kind: Table(kind, "?") for kind in KINDS}

_ROWS_PER_STATEMENT: Final = 64


def insertions(
    verb: str, table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]
) -> list[tuple[str, list[Any]]]:
    """Return statements that write the rows, as many rows in each as there are, up to 64.

    Every statement gives up the interpreter's lock and waits to get it back: a commit's time is mostly their number.
    """
    return [
        (_insertion(verb, table, tuple(columns), len(chunk)), [value for row in chunk for value in row])
        for first in range(0, len(rows), _ROWS_PER_STATEMENT)
        for chunk in [rows[first : first + _ROWS_PER_STATEMENT]]
    ]


@cache
def _insertion(verb: str, table: str, columns: tuple[str, ...], rows: int) -> str:
    places = ", ".join([f"({', '.join('?' * len(columns))})"] * rows)
    return f"{verb} INTO {table} ({', '.join(columns)}) VALUES {places}"
