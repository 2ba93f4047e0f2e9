"""The one owner of time, randomness and fresh ids, so that a simulator can put its own in their place."""

from __future__ import annotations

import os
import secrets
import time
import uuid
from collections.abc import Iterator
from datetime import date, timedelta
from functools import lru_cache
from typing import Final

DAY_MS: Final = 86_400_000
_DAY_MS_SPACE: Final = 100_000_000
_REFS_PER_MS: Final = 1000
MAX_NODES: Final = 32
"""So many nodes at most make order references at the same time, each 31 a millisecond."""

_REQUEST_ID_BYTES: Final = 8
_DRAWN_REQUEST_IDS: Final = 512


class Clock:
    """Wall clock in Unix milliseconds that never runs backwards, and a monotonic one in seconds for durations."""

    def __init__(self) -> None:
        self._latest_ms = 0

    def now_ms(self) -> int:
        """Return Unix milliseconds; never less than any earlier answer."""
        now_ms = self._read_ms()
        if now_ms <= self._latest_ms:
            return self._latest_ms
        self._latest_ms = now_ms
        return now_ms

    def go_on_after(self, at_ms: int) -> None:
        """Answer nothing but moments after `at_ms`: the books' last stamp, when they are opened.

        Order references are made of the time, so that none of an earlier run comes again where the clock went back.
        """
        self._latest_ms = max(self._latest_ms, at_ms + 1)

    def monotonic_s(self) -> float:
        """Return seconds since an arbitrary moment, for measuring durations only."""
        return time.monotonic()

    def _read_ms(self) -> int:
        return time.time_ns() // 1_000_000


class SetClock(Clock):
    """A clock that stands where it was set until it is moved: for writing a dated past, and for tests."""

    def __init__(self, at_ms: int) -> None:
        super().__init__()
        self.at_ms = at_ms

    def _read_ms(self) -> int:
        return self.at_ms

    def monotonic_s(self) -> float:
        """Return the set time in seconds."""
        return self.at_ms / 1000


@lru_cache(maxsize=2)
def _calendar_day(day: int) -> int:
    """Return yyyymmdd of a day, counted from 1970."""
    return int((date(1970, 1, 1) + timedelta(days=day)).strftime("%Y%m%d"))


class Ids:
    """Fresh identifiers: order references, user ids, UUIDs, salts and secrets."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._node, self._nodes = 0, 1
        self._last_ref = 0
        self._last_ref_ms = -1
        self._request_ids = self._draw_request_ids()

    def number_node(self, node: int, last_ms: int) -> None:
        """Make order references from now on that no other node makes: every 32nd, and of moments after `last_ms`.

        `node` is in [0, MAX_NODES) and no other running node's; `last_ms` is the books' last stamp.
        """
        self._clock.go_on_after(last_ms)
        self._node, self._nodes, self._last_ref_ms = node, MAX_NODES, -1

    def ref(self) -> int:
        """Return a new order reference: yyyymmdd, then 11 digits (millisecond of the day, sequence); ever growing."""
        now_ms = self._clock.now_ms()
        fresh = 0
        if now_ms != self._last_ref_ms:
            self._last_ref_ms = now_ms
            day, day_ms = divmod(now_ms, DAY_MS)
            fresh = (_calendar_day(day) * _DAY_MS_SPACE + day_ms) * _REFS_PER_MS
        earliest = max(fresh, self._last_ref + 1)
        self._last_ref = earliest + (self._node - earliest) % self._nodes
        return self._last_ref

    def uid(self) -> int:
        """Return a random ten-digit user id."""
        return 1_000_000_000 + secrets.randbelow(9_000_000_000)

    def uuid(self) -> str:
        """Return a random UUID as text."""
        return str(uuid.uuid4())

    def request_id(self) -> str:
        """Return 16 random hexadecimal digits that tell one request from all others."""
        return next(self._request_ids)

    def random_bytes(self, count: int) -> bytes:
        """Return `count` bytes from the operating system's generator."""
        return os.urandom(count)

    def below(self, limit: int) -> int:
        """Return a random integer in [0, limit)."""
        return secrets.randbelow(limit)

    def _draw_request_ids(self) -> Iterator[str]:
        """Yield random digits, many of them from each question to the operating system."""
        width = 2 * _REQUEST_ID_BYTES
        while True:
            digits = self.random_bytes(_REQUEST_ID_BYTES * _DRAWN_REQUEST_IDS).hex()
            for start in range(0, len(digits), width):
                yield digits[start : start + width]
