"""The replay memory: whole in memory, appended to its table in the commit, dropped from the table's front.

A table without an index costs the same however many signatures are remembered.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, Final

import apsw

from strongroom.records.guards import Nonce
from strongroom.records.kept import Key
from strongroom.store.sqlite.connection import run

_COLUMNS: Final = "api_key, signature, expires_ms, spent"


class NonceMemory:
    """Every signature that has not expired, and where its newest row stands in the table."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._rows: dict[Key, Nonce] = {}
        self._ages: deque[tuple[int, Nonce]] = deque()
        self._next = 1
        for found in run(connection, f"SELECT number, {_COLUMNS} FROM nonce ORDER BY number"):
            number, api_key, signature, expires_ms, spent = found
            self._remember(number, Nonce(api_key, signature, expires_ms, bool(spent)))

    def get(self, key: Key) -> Nonce:
        """Return what is remembered at an address, or the absent row."""
        return self._rows.get(key) or Nonce.absent(key)

    def numbered(self, nonces: Sequence[Nonce]) -> list[tuple[Any, ...]]:
        """Return the table's rows for signatures that a commit uses up."""
        return [
            (self._next + place, nonce.api_key, nonce.signature, nonce.expires_ms, int(nonce.spent))
            for place, nonce in enumerate(nonces)
        ]

    def fold(self, nonces: Sequence[Nonce], now_ms: int) -> None:
        """Remember committed signatures, and forget those at the front whose window closed before `now_ms`."""
        for nonce in nonces:
            self._remember(self._next, nonce)
        while self._ages and self._ages[0][1].expires_ms < now_ms:
            _, nonce = self._ages.popleft()
            if self._rows.get(nonce.key()) is nonce:
                del self._rows[nonce.key()]

    @property
    def oldest(self) -> int:
        """The first number of the table that is still needed."""
        return self._ages[0][0] if self._ages else self._next

    def _remember(self, number: int, nonce: Nonce) -> None:
        self._rows[nonce.key()] = nonce
        self._ages.append((number, nonce))
        self._next = number + 1
