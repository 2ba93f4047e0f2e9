"""Fetched: the committed rows that a batch's commands declared, as they stand while the journal is locked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

from strongroom.engine.state import NonceKey, ThreadKey
from strongroom.ledger.accounts import owner_of
from strongroom.records.guards import Nonce
from strongroom.records.heads import Head
from strongroom.records.history import Thread
from strongroom.records.kept import Kept, Key
from strongroom.store.folio import Folio, decode_folio
from strongroom.store.postgres.tables import FOLIO, TABLES, Statement

Taker: TypeAlias = Callable[[Iterable[Sequence[Any]]], None]


class Fetched:
    """`Committed` over what was fetched; what was declared and not found is absent."""

    def __init__(self) -> None:
        self.folios: dict[int, Folio] = {}
        self._rows: dict[Key, Kept] = {}

    def statements(self, keys: Iterable[Key]) -> list[tuple[Statement, Taker]]:
        """Return what to ask for to have the rows at these addresses, each with who takes its answer: one a kind."""
        owners, by_kind = _by_kind(keys)
        found = [(FOLIO.fetch([(owner,) for owner in owners]), self._take_folios)]
        found += [(TABLES[kind].fetch(wanted), self._taker(kind)) for kind, wanted in by_kind.items()]
        return [(statement, taker) for statement, taker in found if statement is not None]

    def head(self, account: int) -> Head:
        """Return the head of a packed account."""
        folio = self.folios.get(owner_of(account))
        return folio.head(account) if folio else Head(account)

    def thread(self, key: ThreadKey) -> Thread:
        """Return a thread."""
        folio = self.folios.get(key[0])
        return folio.thread(key) if folio else Thread(*key)

    def nonce(self, key: NonceKey) -> Nonce:
        """Return what is remembered of a signature."""
        found = self._rows.get((Nonce, *key))
        return found if isinstance(found, Nonce) else Nonce(*key)

    def kept(self, key: Key) -> Kept:
        """Return the row of any other kind."""
        return self._rows.get(key) or key[0].absent(key)

    def _take_folios(self, rows: Iterable[Sequence[Any]]) -> None:
        self.folios.update((owner, decode_folio(heads, spines)) for owner, heads, spines in rows)

    def _taker(self, kind: type[Kept]) -> Taker:
        def take(rows: Iterable[Sequence[Any]]) -> None:
            kept = map(TABLES[kind].decode, rows)
            self._rows.update((row.key(), row) for row in kept)

        return take


def _by_kind(keys: Iterable[Key]) -> tuple[set[int], dict[type[Kept], list[Any]]]:
    """Return the owners whose folios are needed, and the keys of all other rows by their kind."""
    owners: set[int] = set()
    by_kind: dict[type[Kept], list[Any]] = {}
    for key in set(keys):
        kind = key[0]
        if kind is Head:
            owners.add(owner_of(key[1]))
        elif kind is Thread:
            owners.add(key[1])
        else:
            by_kind.setdefault(kind, []).append(key[1:])
    return owners, by_kind
