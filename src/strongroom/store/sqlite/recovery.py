"""Recovery: what the folios' table lacks after a start, read from the journal behind the watermark.

It is only noted whose folios are behind, and with what: each is brought up to date when it is used.
"""

from __future__ import annotations

from typing import Final

import apsw
import msgspec

from strongroom.ledger.accounts import owner_of
from strongroom.ledger.entries import Booked
from strongroom.store.folio import pack_head, thread_number
from strongroom.store.sqlite.connection import run
from strongroom.store.sqlite.folios import Arrears

_EVERY: Final = thread_number(0, 0)


class _Hung(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """Of a history line, whose further fields are left out, only where it hangs."""

    number: int
    at_ms: int
    owner: int
    asset: int
    type: int


class _Effects(msgspec.Struct, frozen=True, gc=False):
    """Of an item's text only what changed folios."""

    postings: list[Booked] = []
    lines: list[_Hung] = []


_decode: Final = msgspec.json.Decoder(_Effects).decode


def unswept(connection: apsw.Connection) -> dict[int, Arrears]:
    """Return what the folios' table is behind with, by owner."""
    behind: dict[int, Arrears] = {}
    # Cast, a text goes from the file to the decoder without becoming a `str` in between.
    sql = "SELECT CAST(text AS BLOB) FROM item WHERE number > (SELECT swept_item FROM progress) ORDER BY number"
    for (text,) in run(connection, sql):
        effects = _decode(text)
        for posting in effects.postings:
            account = posting.account
            owner = owner_of(account)
            found = behind.get(owner) or behind.setdefault(owner, Arrears())
            found.heads[account] = pack_head(posting.after, posting.nth)
        for line in effects.lines:
            found = behind.get(line.owner) or behind.setdefault(line.owner, Arrears())
            found.lines += ((_EVERY, line.number), (thread_number(line.asset, line.type), line.number))
    return behind
