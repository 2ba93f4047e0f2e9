"""Recovery: what the trailing tables lack after a start, worked out from the journal behind the watermark."""

from __future__ import annotations

import apsw

from strongroom.records.heads import Head
from strongroom.records.history import LINES_PER_ITEM, Thread, threads_of
from strongroom.records.kept import Kept, Key
from strongroom.store.sqlite.connection import run
from strongroom.store.sqlite.reads import load
from strongroom.store.sqlite.tables import POSTINGS_PER_ITEM


def unswept_rows(connection: apsw.Connection) -> dict[Key, Kept]:
    """Return the heads and threads whose tables are behind the journal."""
    found = run(connection, "SELECT swept_item FROM progress").fetchone()
    first = int(found[0]) + 1
    return {**_heads(connection, first), **_threads(connection, first)}


def _heads(connection: apsw.Connection, first_item: int) -> dict[Key, Kept]:
    """Return the newest head of every account that was posted to since an item."""
    rows: dict[Key, Kept] = {}
    postings = run(
        connection,
        "SELECT account, after, count FROM posting WHERE number >= ? ORDER BY number",
        (first_item * POSTINGS_PER_ITEM,),
    )
    for account, after, count in postings:
        rows[(Head, account)] = Head(account, after, count)
    return rows


def _threads(connection: apsw.Connection, first_item: int) -> dict[Key, Kept]:
    """Return every thread that got lines since an item; lines that its swept row has already are passed over."""
    rows: dict[Key, Thread] = {}
    lines = run(
        connection,
        "SELECT number, owner, asset, type, all_count, kind_count FROM line WHERE number >= ? ORDER BY number",
        (first_item * LINES_PER_ITEM,),
    )
    for number, owner, asset, type_, all_count, kind_count in lines:
        for key, count in zip(threads_of(owner, asset, type_), (all_count, kind_count), strict=True):
            thread = rows.get(key) or load(connection, key)
            if isinstance(thread, Thread):
                rows[key] = thread.append(number) if count == thread.count + 1 else thread
    return {**rows}
