"""Batches: the statements that make one state durable, journal and rows together, in few statements with arrays."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from strongroom.clock import DAY_MS, Ids
from strongroom.engine.port import Sealed
from strongroom.engine.state import State
from strongroom.ledger.accounts import owner_of
from strongroom.ledger.seals import Frontier
from strongroom.records.guards import Nonce
from strongroom.records.kept import Kept
from strongroom.store.folio import Folio, encode_folio, pack_head, thread_number
from strongroom.store.journal import peaks_of, seal_all
from strongroom.store.postgres.announcements import changed_text
from strongroom.store.postgres.arrays import columns, pack, place_of
from strongroom.store.postgres.copies import Copy
from strongroom.store.postgres.fetched import Fetched
from strongroom.store.postgres.tables import FOLIO, TABLES, Statement

_FORGET_AT_LEAST: Final = 1_000
_FORGOTTEN_PER_FRESH: Final = 2

_ITEM_TYPES: Final = (int, str, bytes)
_ITEMS: Final = f"INSERT INTO item (number, text, salt) SELECT * FROM unnest({', '.join(map(place_of, _ITEM_TYPES))})"
_BATCH: Final = (
    "INSERT INTO batch (number, id, items, last_item, at_ms, peaks, changed, owners)"
    f" VALUES (%s, %s, %s, %s, %s, %s, %s, {place_of(int)})"
)
_JOURNAL: Final = "UPDATE journal SET commits = %s, last_item = %s, last_ms = %s, peaks = %s"


class Ahead(NamedTuple):
    """Where the journal stands before a batch: its commits, its newest item and stamp in the seal over it."""

    commits: int = 0
    frontier: Frontier = Frontier()
    last_ms: int = 0


def journal_statements(
    state: State, ahead: Ahead, batch_id: str, owners: Iterable[int], ids: Ids
) -> Iterator[Statement]:
    """Yield the statements that append the state's items, and that note its commit under the batch's id.

    `owners` are those whose folios it writes.
    """
    frontier, sealed = seal_all(state.items, ahead.frontier, ids)
    at_ms = state.items[-1].at_ms if state.items else ahead.last_ms
    commits, peaks = ahead.commits + 1, peaks_of(frontier)
    if sealed:
        yield _insert_items(sealed)
    changed = changed_text(state), pack(int, sorted(owners))
    yield _BATCH, (commits, batch_id, len(sealed), frontier.count, at_ms, peaks, *changed)
    yield _JOURNAL, (commits, frontier.count, at_ms, peaks)


def _insert_items(sealed: list[Sealed]) -> Statement:
    return _ITEMS, columns(_ITEM_TYPES, [(item.number, item.text.decode(), item.salt) for item in sealed])


def row_statements(state: State, fetched: Fetched, folios: Mapping[int, Copy]) -> Iterator[Statement]:
    """Yield the statements that write every changed row: one for each kind, and one for the folios (`folios_after`).

    Raises `InvariantBroken` for a row that was not fetched.
    """
    by_kind: dict[type[Kept], list[Any]] = {}
    changed: Iterable[Kept] = (*state.nonces.values(), *state.rows.values())
    for row in changed:
        fetched.check_asked(row.key())
        by_kind.setdefault(type(row), []).append(TABLES[type(row)].encode(row))
    for kind, values in by_kind.items():
        yield TABLES[kind].write(values)
    if folios:
        yield FOLIO.write([(owner, *encode_folio(it.folio), it.edition) for owner, it in sorted(folios.items())])


def folios_after(state: State, fetched: Fetched) -> dict[int, Copy]:
    """Return the next editions of the folios that the state changes. Raises `InvariantBroken` as `row_statements`."""
    changed: dict[int, Copy] = {}

    def folio_of(owner: int) -> Folio:
        copy = changed.get(owner)
        if copy is None:
            before = fetched.copy(owner)
            folio = Folio(dict(before.folio.heads), dict(before.folio.spines))
            copy = changed[owner] = Copy(before.edition + 1, folio)
        return copy.folio

    for head in state.heads.values():
        folio_of(owner_of(head.account)).heads[head.account] = pack_head(head.after, head.count)
    for thread in state.threads.values():
        folio_of(thread.owner).spines[thread_number(thread.asset, thread.type)] = thread.spine
    return changed


def forgetting_statements(now_ms: int, fresh: int) -> list[Statement]:
    """Return the statements that drop signatures and replies whose time is over, and batches that appended nothing.

    At most twice as many as were remembered since the last time, `fresh`, so that they never pile up.
    """
    limit = max(_FORGET_AT_LEAST, _FORGOTTEN_PER_FRESH * fresh)
    empty_since_ms = now_ms - DAY_MS
    return [
        (_forget(TABLES[Nonce].name, "expires_ms < %s"), (now_ms, limit)),
        (_forget("reply", "expires_ms < %s"), (now_ms, limit)),
        (_forget("batch", "items = 0 AND at_ms < %s"), (empty_since_ms, limit)),
    ]


def _forget(table: str, condition: str) -> str:
    return f"DELETE FROM {table} WHERE ctid = ANY (ARRAY(SELECT ctid FROM {table} WHERE {condition} LIMIT %s))"
