"""Standing: where every account and history is on disk, by the folios' table and the journal behind its watermark.

It is one reading of the table in its order; the view `balance` says the same of accounts, but takes SQL much longer.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import apsw
import msgspec

from strongroom.ledger.entries import Booked
from strongroom.records.history import Thread
from strongroom.store.folio import Folio, decode_heads, decode_spines
from strongroom.store.sqlite.connection import run
from strongroom.store.sqlite.recovery import unswept


class _Postings(msgspec.Struct, frozen=True, gc=False):
    """Of an item's text only its postings."""

    postings: list[Booked] = []


_decode_postings: Final = msgspec.json.Decoder(_Postings).decode


def standing_balances(connection: apsw.Connection) -> Iterator[tuple[int, int, int]]:
    """Yield (packed account, balance, count) of every account: the head, or the later posting."""
    later = _later_heads(connection)
    for (text,) in run(connection, "SELECT heads FROM folio ORDER BY owner"):
        for account, (after, count) in decode_heads(text).items():
            newer = later.pop(account, (after, count))
            yield (account, *newer) if newer[1] > count else (account, after, count)
    for account, (after, count) in later.items():
        yield account, after, count


def standing_threads(connection: apsw.Connection) -> Iterator[Thread]:
    """Yield every thread, owner by owner."""
    behind = unswept(connection)
    for owner, data in run(connection, "SELECT owner, spines FROM folio ORDER BY owner"):
        folio = Folio({}, decode_spines(data))
        if (arrears := behind.pop(owner, None)) is not None:
            arrears.bring_up(folio)
        yield from folio.threads(owner)
    for owner, arrears in behind.items():
        folio = Folio({}, {})
        arrears.bring_up(folio)
        yield from folio.threads(owner)


def _later_heads(connection: apsw.Connection) -> dict[int, tuple[int, int]]:
    """Return the (balance, count) that postings behind the watermark led to."""
    heads: dict[int, tuple[int, int]] = {}
    sql = "SELECT text FROM item WHERE number > (SELECT swept_item FROM progress) ORDER BY number"
    for (text,) in run(connection, sql):
        for posting in _decode_postings(text).postings:
            heads[posting.account] = (posting.after, posting.nth)
    return heads
