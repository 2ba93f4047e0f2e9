"""Recovery: what the folios' table lacks after a start, worked out from the journal behind the watermark."""

from __future__ import annotations

from typing import Final

import apsw
import msgspec

from strongroom.ledger.accounts import owner_of
from strongroom.ledger.entries import Booked
from strongroom.records.history import Line, append_line, lines_in
from strongroom.store.sqlite.connection import run
from strongroom.store.sqlite.folios import Folio, load_folio, thread_number


class _Effects(msgspec.Struct, frozen=True, gc=False):
    """Of an item's text only what changed folios."""

    postings: list[Booked] = []
    lines: list[Line] = []


_decode: Final = msgspec.json.Decoder(_Effects).decode


def unswept_folios(connection: apsw.Connection) -> dict[int, Folio]:
    """Return the folios that their table is behind with, brought up to date."""
    recovery = _Recovery(connection)
    swept_item = run(connection, "SELECT swept_item FROM progress").fetchone()[0]
    for (text,) in run(connection, "SELECT text FROM item WHERE number > ? ORDER BY number", (swept_item,)):
        effects = _decode(text)
        for posting in effects.postings:
            recovery.post(posting)
        for line in effects.lines:
            recovery.hang(line)
    return recovery.folios


class _Recovery:
    """The folios that the journal behind the watermark names."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self.folios: dict[int, Folio] = {}

    def post(self, posting: Booked) -> None:
        """Take over the balance that a posting led to."""
        self._folio(owner_of(posting.account)).heads[posting.account] = (posting.after, posting.nth)

    def hang(self, line: Line) -> None:
        """Hang a line on the ends of its threads, unless the table has the line already."""
        spines = self._folio(line.owner).spines
        for number, nth in ((0, line.all_count), (thread_number(line.asset, line.type), line.kind_count)):
            spine = spines.get(number, b"")
            if nth == lines_in(spine) + 1:
                spines[number], _ = append_line(spine, line.number)

    def _folio(self, owner: int) -> Folio:
        folio = self.folios.get(owner)
        if folio is None:
            folio = self.folios[owner] = load_folio(self._connection, owner)
        return folio
