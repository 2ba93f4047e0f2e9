"""Batches: the statements that make one state durable, journal and rows together."""

from __future__ import annotations

from typing import Any, Final, TypeAlias

from strongroom.clock import Ids
from strongroom.engine.state import State
from strongroom.ledger.seals import Frontier
from strongroom.records.kept import Kept
from strongroom.store.journal import peaks_of, seal_all
from strongroom.store.sqlite.folios import Sweep
from strongroom.store.sqlite.tables import TABLES, insertions

Statements: TypeAlias = list[tuple[str, list[Any]]]

_FORGET_AT_LEAST: Final = 1_000
_FORGOTTEN_PER_REPLY: Final = 2
_ITEM_COLUMNS: Final = ("number", "text", "salt")
_BATCH_COLUMNS: Final = ("number", "last_item", "at_ms", "peaks")
_FOLIO_COLUMNS: Final = ("owner", "heads", "spines")
_NONCE_COLUMNS: Final = ("number", "expires_ms", "used")


def journal_statements(state: State, frontier: Frontier, commit: int, ids: Ids) -> tuple[Frontier, Statements]:
    """Return the seal after the state's items, and the statements that append them with all their effects.

    `commit` is the number of the commit they are made for. Without items there is nothing to append.
    """
    if not state.items:
        return frontier, []
    frontier, sealed = seal_all(state.items, frontier, ids)
    items = [(number, text.decode(), salt) for number, text, salt in sealed]
    end = (commit, frontier.count, state.items[-1].at_ms, peaks_of(frontier))
    return frontier, [
        *insertions("INSERT", "item", _ITEM_COLUMNS, items),
        *insertions("INSERT", "batch", _BATCH_COLUMNS, [end]),
    ]


def row_statements(state: State) -> Statements:
    """Return the statements that write the changed rows of every kind that has a table of its own."""
    by_kind: dict[type[Kept], list[list[Any]]] = {}
    for row in state.rows.values():
        by_kind.setdefault(type(row), []).append(TABLES[type(row)].encode(row))
    statements: Statements = []
    for kind, values in by_kind.items():
        statements += insertions("INSERT OR REPLACE", TABLES[kind].name, TABLES[kind].columns, values)
    return statements


def sweep_statements(sweep: Sweep, commit: int) -> Statements:
    """Return the statements that write folios behind, and the count of commits."""
    folios = insertions("INSERT OR REPLACE", "folio", _FOLIO_COLUMNS, sweep.rows)
    if sweep.watermark is None:
        return [*folios, ("UPDATE progress SET commits = ?", [commit])]
    return [*folios, ("UPDATE progress SET commits = ?, swept_item = ?", [commit, sweep.watermark])]


def nonce_statements(row: tuple[int, int, bytes] | None) -> Statements:
    """Return the statement that appends used signatures."""
    return [] if row is None else insertions("INSERT", "nonce", _NONCE_COLUMNS, [row])


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
