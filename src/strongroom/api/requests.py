"""Requests as they come off the socket: headers collected, bodies read within bounds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, TypeAlias

import msgspec

from strongroom.errors import REQUEST_TIMEOUT, TOO_LARGE

Scope: TypeAlias = dict[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[dict[str, Any]]]
Send: TypeAlias = Callable[[dict[str, Any]], Awaitable[None]]

MAX_BODY_BYTES: Final = 65_536
MAX_DISCARDED_BYTES: Final = 16_777_216
BODY_TIMEOUT_S: Final = 30

_NONE_REPEATED: Final[Mapping[bytes, Sequence[bytes]]] = MappingProxyType({})


class Disconnected(Exception):
    """The client went away before its request was complete: nothing was done, nobody waits for an answer."""


class Request(msgspec.Struct, frozen=True, eq=False):
    """A request's head. `path` is as received, byte for byte; header names are in lower case.

    `headers` holds one value for each name, as it stands in the head; the names that came more than once have all
    their values in `repeated`. `values` is right for both.
    """

    method: str
    path: bytes
    query: bytes
    headers: Mapping[bytes, bytes]
    repeated: Mapping[bytes, Sequence[bytes]]
    peer: str | None

    def values(self, name: bytes) -> Sequence[bytes]:
        """Return every value of a header, in order and without outer white space; none for one that is absent."""
        value = self.headers.get(name)
        if value is None:
            return ()
        return [given.strip() for given in self.repeated.get(name) or (value,)]


def by_name(pairs: Sequence[tuple[bytes, bytes]]) -> tuple[dict[bytes, bytes], Mapping[bytes, Sequence[bytes]]]:
    """Return `Request.headers` and `Request.repeated` for a head's headers, whose names are in lower case."""
    headers = dict(pairs)
    if len(headers) == len(pairs):
        return headers, _NONE_REPEATED
    every: dict[bytes, list[bytes]] = {}
    for name, value in pairs:
        every.setdefault(name, []).append(value)
    return headers, {name: values for name, values in every.items() if len(values) > 1}


def read_head(scope: Scope) -> Request:
    """Return the head of an HTTP request from its ASGI scope."""
    headers, repeated = by_name(list(scope["headers"]))
    peer = scope.get("client")
    path = scope.get("raw_path") or scope["path"].encode()
    return Request(scope["method"], path, scope["query_string"], headers, repeated, peer[0] if peer else None)


async def read_body(receive: Receive) -> bytes:
    """Return the whole body. Raises `Refused` TOO_LARGE beyond 64 KiB, REQUEST_TIMEOUT after 30 s, and `Disconnected`.

    A body that is too large is read and discarded up to 16 MiB, so that the answer arrives.
    """
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body"):
        return _bounded(message.get("body", b""))
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            return await _read_rest(receive, message)
    except TimeoutError:
        raise REQUEST_TIMEOUT("the body did not arrive in time") from None


async def _read_rest(receive: Receive, message: dict[str, Any]) -> bytes:
    body, seen = bytearray(), 0
    while True:
        if message["type"] == "http.disconnect":
            raise Disconnected
        chunk: bytes = message.get("body", b"")
        seen += len(chunk)
        if seen <= MAX_BODY_BYTES:
            body += chunk
        if not message.get("more_body") or seen > MAX_DISCARDED_BYTES:
            break
        message = await receive()
    if seen > MAX_BODY_BYTES:
        raise TOO_LARGE("a body has at most 64 KiB")
    return bytes(body)


def _bounded(body: bytes) -> bytes:
    if len(body) > MAX_BODY_BYTES:
        raise TOO_LARGE("a body has at most 64 KiB")
    return body
