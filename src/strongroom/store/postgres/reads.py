"""Queries on committed state: point look-ups on a connection that only reads, and walks through whole tables.

Each asks the database anew, so that it sees what other nodes have committed. A walk sees one moment, and has a
connection of its own: a look-up in the middle of it is not held to that moment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from time import monotonic
from typing import Any, Final, TypeVar, cast

import msgspec
import psycopg

from strongroom.engine.command import Row
from strongroom.engine.port import DiskFailed, Equal, LineLink, Sealed, StoredItem
from strongroom.engine.sealing import read_item, read_lines
from strongroom.errors import check
from strongroom.ledger.accounts import owner_of
from strongroom.ledger.seals import Frontier
from strongroom.records.heads import Head
from strongroom.records.history import LINES_PER_ITEM, Line, Thread
from strongroom.records.kept import Kept, Key
from strongroom.store.folio import Folio, decode_folio, decode_heads, decode_spines
from strongroom.store.journal import frontier_of
from strongroom.store.postgres.arrays import pack, place_of
from strongroom.store.postgres.cable import Cable
from strongroom.store.postgres.connection import RECONNECT_S, Connection, Limits, connect_reader
from strongroom.store.postgres.pipeline import Rows, run_together
from strongroom.store.postgres.route import Route
from strongroom.store.postgres.tables import TABLES, KindTable, Statement, has_nul

_WALK_ROWS: Final = 1_000
_LONG_S: Final = 1.0
"""A connection that is lost in less than that was ended by somebody: a new one may be had."""

_NO_FOLIO: Final = Folio({}, {})

_PLACES: Final = {name: place for place, name in enumerate(Line.__struct_fields__)}
_LINE: Final = f"item.text::json -> 'lines' -> (wanted.number % {LINES_PER_ITEM})::int"
_ITEM: Final = f"JOIN item ON item.number = wanted.number / {LINES_PER_ITEM}"
_LINKED: Final = "COALESCE(NULLIF((line ->> %s::int)::bigint, 0), (line ->> %s::int)::bigint)"
_TRAILS: Final = (
    f"WITH RECURSIVE trail (line, length) AS (SELECT {_LINE}, 1 FROM unnest({place_of(int)}) AS wanted (number) {_ITEM}"
    f" UNION ALL SELECT {_LINE}, length + 1 FROM trail CROSS JOIN LATERAL (SELECT {_LINKED})"
    f" AS wanted (number) {_ITEM} WHERE length < %s::int AND wanted.number > 0)"
    " SELECT line::text FROM trail WHERE line IS NOT NULL"
)
"""The server follows a link from line to line, where each step would be a round trip for whoever asks."""

_decode_line: Final = msgspec.json.Decoder(Line).decode

Answer = TypeVar("Answer")


class PostgresReads:
    """What `Reads` asks, but for `subscribe`. For one thread. All of it raises `DiskFailed` while there is no database.

    A look-up is tried once more over a new connection where the old one was lost: so a restart of the server or a
    failover that is over shows nowhere.
    """

    def __init__(self, route: Route, limits: Limits) -> None:
        self._route = route
        self._limits = limits
        self._reader: Connection | None = None
        self._cable = Cable()

    def cut_unless(self, server: str) -> None:
        """Let nobody wait any longer unless the connection leads to this server; for any thread."""
        self._cable.cut_unless(server)

    def close_reader(self) -> None:
        """Close the reading connection, if there is one."""
        self._cable.take_up()
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def row(self, kind: type[Row], *key: int | str | bytes) -> Row:
        """Return the committed row, or the absent one."""
        if kind is Head:
            (account,) = cast(tuple[int], key)
            return cast(Row, self._folio(owner_of(account)).head(account))
        if kind is Thread:
            thread = cast(tuple[int, int, int], key)
            return cast(Row, self._folio(thread[0]).thread(thread))
        found = [] if has_nul(key) else self._ask(TABLES[kind].select_one, key)
        return cast(Row, TABLES[kind].decode(found[0]) if found else kind(*key))

    def rows_at(self, keys: Sequence[Key]) -> list[Kept]:
        """Return the rows at these addresses, absent ones included, in their order; in one round trip."""
        by_kind: dict[type[Kept], list[Key]] = {}
        for key in keys:
            by_kind.setdefault(key[0], []).append(key[1:])
        tables = [_table_of(kind) for kind in by_kind]
        asked = [(table, table.fetch(by_kind[table.kind])) for table in tables]
        wanted = [(table, statement) for table, statement in asked if statement is not None]
        found: dict[Key, Kept] = {}
        for (table, _), rows in zip(wanted, self._ask_all([it for _, it in wanted]) if wanted else (), strict=True):
            found.update((row.key(), row) for row in map(table.decode, rows))
        return [found.get(key) or key[0].absent(key) for key in keys]

    def heads(self, owner: int, accounts: Sequence[int]) -> list[Head]:
        """Return the heads of an owner's packed accounts, as one row tells them."""
        folio = self._folio(owner)
        return [folio.head(account) for account in accounts]

    def threads(self, owner: int, kinds: Sequence[tuple[int, int]]) -> list[Thread]:
        """Return threads of one owner, as one row tells them."""
        folio = self._folio(owner)
        return [folio.thread((owner, asset, type_)) for asset, type_ in kinds]

    def rows(self, kind: type[Row], equal: Equal, limit: int, *, newest_first: bool = False) -> list[Row]:
        """Return at most `limit` rows whose fields equal these values, in the order of their keys."""
        table = _table_of(kind)
        sql, values = table.select_where(equal, limit, newest_first=newest_first)
        return [] if has_nul(values) else [cast(Row, table.decode(found)) for found in self._ask(sql, values)]

    def each(self, kind: type[Row]) -> Iterator[Row]:
        """Yield every row of a kind in the order of their keys, as of one moment; threads owner by owner."""
        if kind is Thread:
            for owner, spines in self._walk("SELECT owner, spines FROM folio ORDER BY owner"):
                yield from cast(Iterator[Row], Folio({}, decode_spines(spines)).threads(owner))
            return
        table = _table_of(kind)
        for found in self._walk(*table.select_where({}, None)):
            yield cast(Row, table.decode(found))

    def line(self, number: int) -> Line:
        """Return a history line; the absent one if there is none."""
        item, place = divmod(number, LINES_PER_ITEM)
        found = self._ask("SELECT text FROM item WHERE number = %s", (item,))
        lines = read_lines(found[0][0].encode()) if found else []
        return lines[place] if place < len(lines) else Line(number)

    def trails(self, numbers: Sequence[int], link: LineLink, limit: int) -> list[Line]:
        """Return the lines of these numbers, and those that the link leads to from each; in one round trip."""
        places = _PLACES[link], _PLACES[f"{link.partition('_')[0]}_before"]
        [rows] = self._ask_all([(_TRAILS, (pack(int, numbers), *places, limit))])
        return [_decode_line(text) for (text,) in rows]

    def _commits(self) -> int:
        """Return how many commits there were."""
        [(commits,)] = self._ask("SELECT commits FROM journal")
        return commits

    def last(self) -> tuple[int, int]:
        """Return the number and the stamp (Unix ms) of the newest journal item."""
        [(last_item, last_ms)] = self._ask("SELECT last_item, last_ms FROM journal")
        return last_item, last_ms

    def journal(self, first: int, limit: int) -> list[Sealed]:
        """Return journal items from a number on, as they are kept."""
        sql = "SELECT number, convert_to(text, 'UTF8'), salt FROM item WHERE number >= %s ORDER BY number LIMIT %s"
        return list(map(Sealed._make, self._ask(sql, (first, limit))))

    def items(self, first: int, limit: int) -> list[StoredItem]:
        """Return what journal items say, from a number on."""
        return [read_item(sealed.text) for sealed in self.journal(first, limit)]

    def frontier(self) -> Frontier:
        """Return the seal over all items so far."""
        [(last_item, peaks)] = self._ask("SELECT last_item, peaks FROM journal")
        return frontier_of(last_item, peaks)

    def seals(self, after: int = 0) -> Iterator[Frontier]:
        """Yield the seal after every batch, oldest first, as of one moment; only those over more than `after` items."""
        # Without a condition a seal that says it covers less is still seen, and can be told.
        where = "AND last_item > %s" if after else "AND %s = 0"
        sql = f"SELECT last_item, peaks FROM batch WHERE items > 0 {where} ORDER BY number"
        for last_item, peaks in self._walk(sql, (after,)):
            yield frontier_of(last_item, peaks)

    def seal_over(self, items: int) -> Frontier:
        """Return the first seal over so many items or more; the empty one if there is none."""
        sql = "SELECT last_item, peaks FROM batch WHERE last_item >= %s ORDER BY number LIMIT 1"
        found = self._ask(sql, (items,))
        return frontier_of(*found[0]) if found else Frontier()

    def balances(self) -> Iterator[tuple[int, int, int]]:
        """Yield (packed account, balance, count) of every account, as of one moment."""
        for (heads,) in self._walk("SELECT heads FROM folio ORDER BY owner"):
            for account, (after, count) in decode_heads(heads).items():
                yield account, after, count

    def _folio(self, owner: int) -> Folio:
        found = self._ask("SELECT heads, spines FROM folio WHERE owner = %s", (owner,))
        return decode_folio(*found[0]) if found else _NO_FOLIO

    def check_reachable(self) -> None:
        """Raise `DiskFailed` where it is known that nobody answers; here nobody looks."""

    def _connect(self) -> Connection:
        self.check_reachable()
        return connect_reader(self._route.straight, self._limits._replace(connect_s=RECONNECT_S))

    def _connect_anew(self) -> Connection:
        """Return a new reading connection, which is cut when another server is found to be the one."""
        self.close_reader()
        self._reader = reader = self._connect()
        with reader.within(self._limits.read_s):
            reader.ask_server()
        self._cable.lay(reader)
        return reader

    def note_silence(self) -> None:
        """Note that the database was waited for in vain, for long; here nobody asks."""

    def _ask(self, sql: str, values: Sequence[Any] = ()) -> Rows:
        """Return the rows of a short answer."""

        def question(reader: Connection) -> Rows:
            cursor = reader.run(sql, values)
            return cursor.fetchall() if cursor.description else []

        return self._asked(question)

    def _ask_all(self, statements: Iterable[Statement]) -> list[Rows]:
        """Return the rows of several statements, which go together."""
        return self._asked(lambda reader: run_together(reader, statements))

    def _asked(self, question: Callable[[Connection], Answer]) -> Answer:
        """Return what a question comes to; where nothing came for long, nothing more is waited for."""
        self.check_reachable()
        began_s = monotonic()
        try:
            if (reader := self._reader) is not None and not reader.is_lost:
                try:
                    return self._ask_on(reader, question)
                except psycopg.OperationalError:
                    if not reader.is_lost or monotonic() - began_s >= _LONG_S:
                        raise
            return self._ask_on(self._connect_anew(), question)
        except psycopg.OperationalError as error:
            if monotonic() - began_s >= _LONG_S:
                self.note_silence()
            raise DiskFailed(str(error)) from error

    def _ask_on(self, reader: Connection, question: Callable[[Connection], Answer]) -> Answer:
        with reader.within(self._limits.read_s):
            return question(reader)

    def _walk(self, sql: str, values: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of a long answer, of which only a part is in memory at any time."""
        try:
            walker = self._connect()
            cursor = walker.cursor("walk", binary=True)
            # The connection first, so that the cursor has nobody to tell that it is closed.
            with closing(cursor), closing(walker):
                with walker.within(self._limits.read_s):
                    walker.run("BEGIN")
                yield from walk_on(walker, cursor, self._limits.read_s, sql, values)
        except psycopg.OperationalError as error:
            raise DiskFailed(str(error)) from error


def walk_on(
    walker: Connection, cursor: psycopg.ServerCursor[Any], limit_s: float, sql: str, values: Sequence[Any]
) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of a long answer; each part of it is waited for so long at most. Raises `psycopg.Error`."""
    with walker.within(limit_s):
        cursor.execute(sql.encode(), values or None)
    while True:
        with walker.within(limit_s):
            found = cursor.fetchmany(_WALK_ROWS)
        yield from found
        if len(found) < _WALK_ROWS:
            return


def _table_of(kind: type[Kept]) -> KindTable:
    """Return the table of a kind that is kept row by row: neither in folios nor a memory of signatures."""
    check(kind in TABLES, "rows of folios are read one by one")
    return TABLES[kind]
