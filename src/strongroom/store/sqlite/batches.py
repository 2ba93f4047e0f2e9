"""Batches: the statements that make one state durable, journal and rows together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from strongroom.clock import Ids
from strongroom.engine.sealing import leaf_of, stored_item
from strongroom.engine.state import State
from strongroom.errors import check
from strongroom.ledger.seals import SALT_BYTES, Frontier
from strongroom.records.guards import Nonce
from strongroom.records.kept import Kept, Key
from strongroom.store.sqlite.sweep import Sweep
from strongroom.store.sqlite.tables import (
    ITEM_COLUMNS,
    LINES,
    NONCE_COLUMNS,
    POSTING_COLUMNS,
    POSTINGS_PER_ITEM,
    TABLES,
    insertions,
)

Statements: TypeAlias = list[tuple[str, list[Any]]]

_FORGET_AT_LEAST: Final = 1_000
_FORGOTTEN_PER_REPLY: Final = 2


def journal_statements(state: State, frontier: Frontier, commit: int, ids: Ids) -> tuple[Frontier, Statements]:
    """Return the seal after the state's items, and the statements that append them with all their effects.

    `commit` is the number of the commit they are made for. Without items there is nothing to append.
    """
    if not state.items:
        return frontier, []
    items: list[tuple[Any, ...]] = []
    postings: list[tuple[Any, ...]] = []
    lines: list[list[Any]] = []
    for item in state.items:
        stored = stored_item(item, ids.random_bytes(SALT_BYTES))
        frontier = frontier.append(leaf_of(stored))
        texts = (stored.command.decode(), stored.refusal, stored.effects.decode(), stored.salt)
        items.append((stored.number, stored.at_ms, *texts))
        check(len(item.postings) < POSTINGS_PER_ITEM, "an item's postings fit into its numbers")
        first = item.number * POSTINGS_PER_ITEM
        postings += [(first + place, *booked) for place, booked in enumerate(item.postings)]
        lines += [LINES.encode(line) for line in item.lines]
    end = (commit, frontier.count, state.items[-1].at_ms, b"".join(frontier.peaks))
    return frontier, [
        *insertions("INSERT", "item", ITEM_COLUMNS, items),
        *insertions("INSERT", "posting", POSTING_COLUMNS, postings),
        *insertions("INSERT", "line", LINES.columns, lines),
        *insertions("INSERT", "batch", ("number", "last_item", "at_ms", "peaks"), [end]),
    ]


def row_statements(state: State, sweep: Sweep, dirty: Mapping[Key, Kept], commit: int) -> Statements:
    """Return the statements that write the changed rows, the swept ones as they are after the batch, and the count of
    commits."""
    rows = [row for row in state.changed.values() if not row.TRAILING and not isinstance(row, Nonce)]
    rows += [state.changed.get(key) or dirty[key] for key in sweep.keys]
    by_kind: dict[type[Kept], list[list[Any]]] = {}
    for row in rows:
        by_kind.setdefault(type(row), []).append(TABLES[type(row)].encode(row))
    statements: Statements = []
    for kind, values in by_kind.items():
        statements += insertions("INSERT OR REPLACE", TABLES[kind].name, TABLES[kind].columns, values)
    if sweep.watermark is None:
        return [*statements, ("UPDATE progress SET commits = ?", [commit])]
    return [*statements, ("UPDATE progress SET commits = ?, swept_item = ?", [commit, sweep.watermark])]


def nonce_statements(rows: list[tuple[Any, ...]]) -> Statements:
    """Return the statements that append used signatures."""
    return insertions("INSERT", "nonce", NONCE_COLUMNS, rows)


def forgetting_statements(oldest_nonce: int, now_ms: int, fresh_replies: int) -> Statements:
    """Return the statements that drop signatures and replies whose time is over.

    Of replies at most twice as many as were remembered since the last time, so that they never pile up.
    """
    limit = max(_FORGET_AT_LEAST, _FORGOTTEN_PER_REPLY * fresh_replies)
    expired = "SELECT owner, digest FROM reply WHERE expires_ms < ? LIMIT ?"
    return [
        ("DELETE FROM nonce WHERE number < ?", [oldest_nonce]),
        (f"DELETE FROM reply WHERE (owner, digest) IN ({expired})", [now_ms, limit]),
    ]
