"""Recovery: what the folios' table lacks after a start, worked out from the journal behind the watermark."""

from __future__ import annotations

import apsw

from strongroom.engine.sealing import read_item
from strongroom.ledger.accounts import owner_of
from strongroom.ledger.entries import Booked
from strongroom.records.history import Line, Thread
from strongroom.store.sqlite.connection import run
from strongroom.store.sqlite.folios import Folio, load_folio, thread_number


def unswept_folios(connection: apsw.Connection) -> dict[int, Folio]:
    """Return the folios that their table is behind with, brought up to date."""
    recovery = _Recovery(connection)
    swept_item = run(connection, "SELECT swept_item FROM progress").fetchone()[0]
    for (text,) in run(connection, "SELECT text FROM item WHERE number > ? ORDER BY number", (swept_item,)):
        item = read_item(text.encode())
        for posting in item.postings:
            recovery.post(posting)
        for line in item.lines:
            recovery.hang(line, 0, 0, line.all_count)
            recovery.hang(line, line.asset, line.type, line.kind_count)
    return recovery.folios


class _Recovery:
    """The folios that the journal behind the watermark names."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self.folios: dict[int, Folio] = {}

    def post(self, posting: Booked) -> None:
        """Take over the balance that a posting led to."""
        self._folio(owner_of(posting.account)).heads[posting.account] = (posting.after, posting.nth)

    def hang(self, line: Line, asset: int, type_: int, count: int) -> None:
        """Hang a line on the end of its thread, unless the table has the line already."""
        spines, number = self._folio(line.owner).spines, thread_number(asset, type_)
        thread = Thread(line.owner, asset, type_, spines.get(number, b""))
        if count == thread.count + 1:
            spines[number] = thread.append(line.number)[0].spine

    def _folio(self, owner: int) -> Folio:
        folio = self.folios.get(owner)
        if folio is None:
            folio = self.folios[owner] = load_folio(self._connection, owner)
        return folio
