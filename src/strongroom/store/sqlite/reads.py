"""Queries on the committed state of the embedded store: point look-ups only, so that none gets slower with age."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

import apsw

from strongroom.engine.command import Row
from strongroom.engine.port import StoredItem
from strongroom.ledger.entries import Booked
from strongroom.ledger.seals import HASH_BYTES, Frontier
from strongroom.records.history import LINES_PER_ITEM, Line
from strongroom.records.kept import Kept, Key
from strongroom.store.sqlite.connection import run
from strongroom.store.sqlite.tables import LINES, POSTING_COLUMNS, POSTINGS_PER_ITEM, TABLES


def load(connection: apsw.Connection, key: Key) -> Kept:
    """Return the row at an address as its table has it, or the absent one."""
    table = TABLES[key[0]]
    found = run(connection, table.select_one, key[1:]).fetchone()
    return key[0].absent(key) if found is None else table.decode(found)


def load_where(
    connection: apsw.Connection, kind: type[Row], equal: Mapping[str, Any], limit: int, *, newest_first: bool
) -> list[Row]:
    """Return at most `limit` rows of a kind whose columns equal these values, in key order."""
    table = TABLES[kind]
    values = [equal[name] for name in equal if name in table.columns]
    sql = table.select_where(list(equal), newest_first=newest_first)
    return [cast(Row, table.decode(found)) for found in run(connection, sql, (*values, limit))]


def load_each(connection: apsw.Connection, kind: type[Row]) -> Iterator[Row]:
    """Yield every row of a kind in key order."""
    table = TABLES[kind]
    for found in run(connection, table.select_where((), newest_first=False), (-1,)):
        yield cast(Row, table.decode(found))


def load_line(connection: apsw.Connection, number: int) -> Line:
    """Return a history line, or the absent one."""
    found = run(connection, LINES.select_one, (number,)).fetchone()
    return Line(number) if found is None else Line(*found)


def load_items(connection: apsw.Connection, first: int, limit: int) -> list[StoredItem]:
    """Return journal items from a number on, as they stand on disk."""
    items = run(
        connection,
        "SELECT number, at_ms, command, refusal, effects, salt FROM item WHERE number >= ? ORDER BY number LIMIT ?",
        (first, limit),
    ).fetchall()
    if not items:
        return []
    last = items[-1][0]
    postings = _grouped(
        run(
            connection,
            f"SELECT {', '.join(POSTING_COLUMNS)} FROM posting WHERE number >= ? AND number < ? ORDER BY number",
            (first * POSTINGS_PER_ITEM, (last + 1) * POSTINGS_PER_ITEM),
        ),
        POSTINGS_PER_ITEM,
    )
    lines = _grouped(
        run(
            connection,
            f"SELECT {', '.join(LINES.columns)} FROM line WHERE number >= ? AND number < ? ORDER BY number",
            (first * LINES_PER_ITEM, (last + 1) * LINES_PER_ITEM),
        ),
        LINES_PER_ITEM,
    )
    return [
        StoredItem(
            number,
            at_ms,
            command.encode(),
            refusal,
            effects.encode(),
            salt,
            [Booked(*found[1:]) for found in postings.get(number, ())],
            [Line(*found) for found in lines.get(number, ())],
        )
        for number, at_ms, command, refusal, effects, salt in items
    ]


def _grouped(found: Any, per_item: int) -> dict[int, list[Any]]:
    groups: dict[int, list[Any]] = {}
    for row in found:
        groups.setdefault(row[0] // per_item, []).append(row)
    return groups


def load_balances(connection: apsw.Connection) -> Iterator[tuple[int, int, int]]:
    """Yield (packed account, balance, count) of every account, as the view works them out."""
    yield from run(connection, "SELECT account, after, count FROM balance")


def load_frontier(connection: apsw.Connection) -> tuple[int, int, Frontier]:
    """Return the newest batch's number and stamp, and the seal after it."""
    found = run(connection, "SELECT number, at_ms, last_item, peaks FROM batch ORDER BY number DESC LIMIT 1")
    newest = found.fetchone()
    if newest is None:
        return 0, 0, Frontier()
    number, at_ms, last_item, peaks = newest
    return number, at_ms, _frontier(last_item, peaks)


def load_seals(connection: apsw.Connection) -> Iterator[Frontier]:
    """Yield the seal after every batch, oldest first."""
    for last_item, peaks in run(connection, "SELECT last_item, peaks FROM batch ORDER BY number"):
        yield _frontier(last_item, peaks)


def _frontier(last_item: int, peaks: bytes) -> Frontier:
    return Frontier(last_item, tuple(peaks[i : i + HASH_BYTES] for i in range(0, len(peaks), HASH_BYTES)))
