"""A load generator: signed requests over keep-alive connections, each sent when the one before it was answered."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Callable
from hashlib import sha384
from typing import NamedTuple, cast
from urllib.parse import urlsplit

import msgspec


class Key(msgspec.Struct, frozen=True):
    """What a request is signed with."""

    text: str
    secret: str


class Result(NamedTuple):
    """What a run measured: answered requests a second, and the times they took in milliseconds."""

    per_second: float
    p50_ms: float
    p99_ms: float
    failures: int


class Nonces:
    """Turns for keys: each key signs with ever newer nonces, so that no two requests have one signature."""

    def __init__(self, keys: list[Key]) -> None:
        self._keys = keys
        self._last = [0] * len(keys)
        self._turn = 0

    def take(self) -> tuple[Key, int]:
        """Return whose turn it is, and a nonce that the key has not used: the clock, or one more than its last."""
        turn = self._turn = (self._turn + 1) % len(self._keys)
        self._last[turn] = max(self._last[turn] + 1, time.time_ns() // 1_000_000)
        return self._keys[turn], self._last[turn]


def request(key: Key, nonce: int, method: str, path: str, body: bytes = b"") -> bytes:
    """Return the bytes of a signed HTTP request; the optional mount is not signed."""
    signed = path.removeprefix("/spot").encode() + str(nonce).encode() + body
    signature = hmac.digest(key.secret.encode(), signed, sha384).hex()
    head = (
        f"{method} {path} HTTP/1.1\r\nhost: bench\r\nrequest-api: {key.text}\r\nrequest-nonce: {nonce}\r\n"
        f"request-sign: {signature}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class _Connection(asyncio.Protocol):
    """One keep-alive connection that sends its next request as soon as a reply is whole."""

    def __init__(self, make: Callable[[], bytes], run: _Run) -> None:
        self._make = make
        self._run = run
        self._seen = bytearray()
        self._sent_s = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast(asyncio.Transport, transport)
        self._send()

    def data_received(self, data: bytes) -> None:
        """Count a reply once all of it is there."""
        self._seen += data
        head_end = self._seen.find(b"\r\n\r\n")
        if head_end < 0:
            return
        head = bytes(self._seen[:head_end]).lower()
        length = int(head.split(b"content-length: ", 1)[1].split(b"\r\n", 1)[0])
        if len(self._seen) < head_end + 4 + length:
            return
        del self._seen[: head_end + 4 + length]
        self._run.note(time.perf_counter() - self._sent_s, succeeded=head[9:12] == b"200")
        self._send()

    def connection_lost(self, error: Exception | None) -> None:
        """Take note that this connection has ended."""
        self._run.ended()

    def _send(self) -> None:
        if self._run.is_over():
            self._transport.close()
            return
        self._sent_s = time.perf_counter()
        self._transport.write(self._make())


class _Run:
    """The measurements of one run, and when it ends."""

    def __init__(self, connections: int, seconds: float) -> None:
        self.times_s: list[float] = []
        self.failures = 0
        self.done = asyncio.Event()
        self._open = connections
        self._end_s = time.perf_counter() + seconds

    def is_over(self) -> bool:
        """Say whether the time is up."""
        return time.perf_counter() >= self._end_s

    def note(self, seconds: float, *, succeeded: bool) -> None:
        """Keep one request's time."""
        self.times_s.append(seconds)
        self.failures += not succeeded

    def ended(self) -> None:
        """Take note of a closed connection."""
        self._open -= 1
        if not self._open:
            self.done.set()


async def measure(base_url: str, make: Callable[[], bytes], connections: int, seconds: float) -> Result:
    """Send `make`'s requests over so many connections for so long, and return what was measured."""
    url = urlsplit(base_url)
    host, port = url.hostname or "127.0.0.1", url.port or 80
    loop, run, started_s = asyncio.get_running_loop(), _Run(connections, seconds), time.perf_counter()
    for _ in range(connections):
        await loop.create_connection(lambda: _Connection(make, run), host, port)
    await run.done.wait()
    elapsed_s, times = time.perf_counter() - started_s, sorted(run.times_s)
    middle, high = times[len(times) // 2], times[min(len(times) - 1, len(times) * 99 // 100)]
    return Result(len(times) / elapsed_s, middle * 1000, high * 1000, run.failures)
