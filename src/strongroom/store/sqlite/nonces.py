"""The replay memory: whole in memory, appended to its table in the commit, dropped from the table's front.

A row holds all signatures of a commit; without an index the table costs the same however many are remembered.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Mapping
from typing import Final

import apsw

from strongroom.engine.state import NonceKey
from strongroom.errors import check
from strongroom.records.guards import Nonce
from strongroom.store.sqlite.connection import run

_NUMBER_BYTES: Final = 8
_SIGNATURE_BYTES: Final = 48
_KEY_BYTES: Final = _NUMBER_BYTES + _SIGNATURE_BYTES
_RECORD_BYTES: Final = _KEY_BYTES + _NUMBER_BYTES


class NonceMemory:
    """Every signature that has not expired: the end of its window, doubled, + 1 if it authorised a change."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._windows: dict[bytes, int] = {}
        self._ages: deque[tuple[int, int, list[bytes]]] = deque()
        self._next = 1
        for number, expires_ms, used in run(connection, "SELECT number, expires_ms, used FROM nonce ORDER BY number"):
            self._next = number
            self._remember(expires_ms, used)

    def get(self, key: NonceKey) -> Nonce:
        """Return what is remembered at an address, or the absent row."""
        window = self._windows.get(_packed(key))
        return Nonce(*key) if window is None else Nonce(*key, window >> 1, bool(window & 1))

    def all(self) -> Iterator[Nonce]:
        """Yield every signature that is remembered."""
        for key, window in self._windows.items():
            number = int.from_bytes(key[:_NUMBER_BYTES], "big")
            yield Nonce(number, key[_NUMBER_BYTES:], window >> 1, bool(window & 1))

    def row(self, nonces: Mapping[NonceKey, Nonce]) -> tuple[int, int, bytes]:
        """Return the table's row for the signatures that a commit uses."""
        used = [
            _packed(key) + (nonce.expires_ms << 1 | nonce.spent).to_bytes(_NUMBER_BYTES, "big")
            for key, nonce in nonces.items()
        ]
        check(all(len(record) == _RECORD_BYTES for record in used), "a signature has 48 bytes")
        return self._next, max(nonce.expires_ms for nonce in nonces.values()), b"".join(used)

    def fold(self, row: tuple[int, int, bytes] | None, now_ms: int) -> None:
        """Remember committed signatures, and forget those at the front whose windows closed before `now_ms`."""
        if row is not None:
            self._remember(row[1], row[2])
        while self._ages and self._ages[0][1] < now_ms:
            _, expires_ms, keys = self._ages.popleft()
            self._forget(keys, expires_ms)

    @property
    def oldest(self) -> int:
        """The first number of the table that is still needed."""
        return self._ages[0][0] if self._ages else self._next

    def _remember(self, expires_ms: int, used: bytes) -> None:
        keys: list[bytes] = []
        for start in range(0, len(used), _RECORD_BYTES):
            key = used[start : start + _KEY_BYTES]
            window = used[start + _KEY_BYTES : start + _RECORD_BYTES]
            self._windows[key] = int.from_bytes(window, "big")
            keys.append(key)
        self._ages.append((self._next, expires_ms, keys))
        self._next += 1

    def _forget(self, keys: Collection[bytes], expires_ms: int) -> None:
        """Forget signatures, but those that a later commit used again: they have a window of their own there."""
        for key in keys:
            if self._windows.get(key, expires_ms << 1) >> 1 <= expires_ms:
                _ = self._windows.pop(key, None)


def _packed(key: NonceKey) -> bytes:
    return key[0].to_bytes(_NUMBER_BYTES, "big") + key[1]
