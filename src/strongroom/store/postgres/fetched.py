"""Fetched: the committed rows that a batch's commands declared, as they stand while the journal is locked.

Folios that this node has in memory are not asked for. They are as old as what was heard when the question was sent:
what has changed since is told in the answer, and is asked for behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeAlias, TypeVar

from strongroom.engine.state import NonceKey, ThreadKey
from strongroom.errors import check
from strongroom.ledger.accounts import owner_of
from strongroom.records.guards import Nonce
from strongroom.records.heads import Head
from strongroom.records.history import Thread
from strongroom.records.kept import Kept, Key
from strongroom.store.folio import Folio, decode_folio
from strongroom.store.postgres.copies import Copies, Copy
from strongroom.store.postgres.tables import FOLIO, TABLES, Statement

Taker: TypeAlias = Callable[[Iterable[Sequence[Any]]], None]

Row = TypeVar("Row", bound=Kept)

_UNASKED: Final = "a batch reads and changes only the rows that its commands declared"


_NONE_YET: Final = Copy(0, Folio({}, {}))


class Fetched:
    """`Committed` over what was fetched: what was asked for and not found is absent, and there is nothing else.

    Raises `InvariantBroken` for what was not asked for: taken for absent, a row that exists would be written over.
    """

    def __init__(self, known: Copies | None = None) -> None:
        """Folios that are `known` are not asked for; the copies are to hear of commits before `lacking`."""
        self._known = known
        self._copies: dict[int, Copy] = {}
        self._rows: dict[Key, Kept] = {}
        self._asked: set[Key] = set()
        self._owners: set[int] = set()

    def statements(self, keys: Iterable[Key]) -> list[tuple[Statement, Taker]]:
        """Return what to ask for to have the rows at these addresses, each with who takes its answer: one a kind."""
        self._asked = set(keys)
        self._owners, others = _owners_and_others(self._asked)
        owners: Iterable[int] = self._owners
        if self._known is not None:
            find = self._known.find
            owners = [owner for owner in owners if find(owner) is None]
        by_kind: dict[type[Kept], list[Any]] = {}
        for key in others:
            by_kind.setdefault(key[0], []).append(key[1:])
        found = [self._fetch_folios(owners)]
        found += [(TABLES[kind].fetch(wanted), self._taker(kind)) for kind, wanted in by_kind.items()]
        return [(statement, taker) for statement, taker in found if statement is not None]

    def lacking(self) -> list[tuple[Statement, Taker]]:
        """Return what else to ask for, now that the answers were taken: folios of which the copy was out of date."""
        lacking: list[int] = []
        for owner in self._owners:
            if owner not in self._copies and self._known is not None:
                if (copy := self._known.find(owner)) is not None:
                    self._copies[owner] = copy
                else:
                    lacking.append(owner)
        statement, taker = self._fetch_folios(lacking)
        return [] if statement is None else [(statement, taker)]

    def copy(self, owner: int) -> Copy:
        """Return an owner's folio with its edition; an empty one if there is none yet."""
        found = self._copies.get(owner)
        if found is None:
            check(owner in self._owners, _UNASKED)
            return _NONE_YET
        return found

    def head(self, account: int) -> Head:
        """Return the head of a packed account."""
        return self.copy(owner_of(account)).folio.head(account)

    def thread(self, key: ThreadKey) -> Thread:
        """Return a thread."""
        return self.copy(key[0]).folio.thread(key)

    def nonce(self, key: NonceKey) -> Nonce:
        """Return what is remembered of a signature."""
        found = self._rows.get((Nonce, *key))
        return found if isinstance(found, Nonce) else self._absent(Nonce(*key))

    def kept(self, key: Key) -> Kept:
        """Return the row of any other kind."""
        return self._rows.get(key) or self._absent(key[0].absent(key))

    def check_asked(self, key: Key) -> None:
        """Raise `InvariantBroken` unless the row at an address may be written: it is known what is there."""
        check(key in self._asked, _UNASKED)

    def _absent(self, row: Row) -> Row:
        self.check_asked(row.key())
        return row

    def _fetch_folios(self, owners: Iterable[int]) -> tuple[Statement | None, Taker]:
        wanted = [(owner,) for owner in owners]

        def take(rows: Iterable[Sequence[Any]]) -> None:
            found = {owner: Copy(edition, decode_folio(heads, spines)) for owner, heads, spines, edition in rows}
            for (owner,) in wanted:
                copy = self._copies[owner] = found.get(owner, _NONE_YET)
                if self._known is not None:
                    self._known.keep(owner, copy)

        return FOLIO.fetch(wanted), take

    def _taker(self, kind: type[Kept]) -> Taker:
        def take(rows: Iterable[Sequence[Any]]) -> None:
            kept = map(TABLES[kind].decode, rows)
            self._rows.update((row.key(), row) for row in kept)

        return take


def take_all(wanted: Iterable[tuple[Statement, Taker]], answers: Iterable[Iterable[Sequence[Any]]]) -> None:
    """Have each statement's answer taken."""
    for (_, take), answer in zip(wanted, answers, strict=True):
        take(answer)


def _owners_and_others(keys: set[Key]) -> tuple[set[int], list[Key]]:
    """Return the owners whose folios are needed, and the addresses of all other rows."""
    owners: set[int] = set()
    others: list[Key] = []
    for key in keys:
        kind = key[0]
        if kind is Head:
            owners.add(owner_of(key[1]))
        elif kind is Thread:
            owners.add(key[1])
        else:
            others.append(key)
    return owners, others
