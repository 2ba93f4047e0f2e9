"""Connections: HTTP/1.1 with bounds in space and time, and the hot lane, which answers plain API requests by itself.

uvicorn's protocol class does the rest. Its `cycle` is the request in progress: for a request in the lane a `Turn` takes
its place, which has what uvicorn looks at from outside (`connection_lost`, `shutdown`, `on_body` and pipelining).
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any, Final, cast

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from strongroom.api.health import refusal_reply
from strongroom.api.operations import Dialect
from strongroom.api.replies import Reply, error_body, header, header_pairs
from strongroom.api.requests import MAX_BODY_BYTES, Receive, Request, Scope, Send, by_name
from strongroom.api.server import Api
from strongroom.clock import Clock
from strongroom.errors import PARAMETER_INVALID, UNAVAILABLE, Refused

MAX_HEAD_BYTES: Final = 32 * 1024
LINGER_S: Final = 1.0
SWEEPS_PER_TIMEOUT: Final = 4
MAX_SWEEP_S: Final = 0.5

_NEVER: Final = float("inf")
_CLOSE: Final = header("connection", "close")
_SPECIAL: Final = frozenset({b"expect", b"transfer-encoding", b"upgrade"})
_METHODS: Final = {method.encode(): method for method in ("GET", "HEAD", "POST", "DELETE", "OPTIONS", "PUT", "PATCH")}


class HeadTooLarge(Exception):
    """A request's head is larger than 32 KiB."""


class Terms:
    """What all connections of one server have in common."""

    def __init__(self, api: Api, clock: Clock, head_timeout_s: float, max_connections: int) -> None:
        self.api = api
        self.clock = clock
        self.head_timeout_s = head_timeout_s
        self.max_connections = max_connections
        self._defaults: object = None
        self._starts: dict[int, str] = {}

    def start_of(self, status: int, defaults: list[tuple[bytes, bytes]]) -> str:
        """Return the status line and uvicorn's own headers, which are other ones every second (the date)."""
        if defaults is not self._defaults:
            self._defaults = defaults
            self._starts.clear()
        start = self._starts.get(status)
        if start is None:
            lines = b"".join(name + b": " + value + b"\r\n" for name, value in defaults)
            start = self._starts[status] = (STATUS_LINE[status] + lines).decode("latin-1")
        return start


class _NoEvent:
    """Stands for the event that wakes a cycle: nothing waits in the lane."""

    def set(self) -> None:
        """Wake nobody."""


class Turn:
    """Takes the place of uvicorn's cycle while the lane has a request; each connection has one and uses it again."""

    __slots__ = ("body", "disconnected", "keep_alive", "more_body", "response_complete", "response_started")

    message_event: Final = _NoEvent()

    def __init__(self) -> None:
        self.disconnected = False
        self.response_complete = True
        self.begin()

    def begin(self) -> None:
        """Begin with a request that has a head and no body yet."""
        self.body = b""
        self.keep_alive = True
        self.more_body = True
        self.response_started = False


class Connection(HttpToolsProtocol):
    """One connection of a client."""

    terms: Terms

    _refused = False
    _in_message = False
    _in_head = False
    _at_start = True
    _began_inside = False
    _head_bytes = 0
    _arrived_bytes = 0
    _deadline_s = _NEVER
    _is_head_timed = False
    has_lane = True
    _request: Request | None = None
    _began_s = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Begin a connection; one more than the bound is told so, whatever it asks."""
        super().connection_made(transport)
        self._turn = Turn()
        self._peer = self.client[0] if self.client else None
        if len(self.connections) > self.terms.max_connections:
            self.app = cast(Any, self._busy)
            self.has_lane = False
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """End a connection; what is on its way to be durable goes on, and nobody is told."""
        self._deadline_s = _NEVER
        self._request = None
        self._turn.disconnected = True
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what arrived, and bound what is still on its way."""
        if self._refused:
            return
        self._arrived_bytes = self._head_bytes + len(data)
        self._at_start = not self._in_message
        self._feed(data)
        if self._in_head and not self._refused:
            # What came before a head that began in the middle of the data is none of it.
            self._head_bytes += 0 if self._began_inside else len(data)
            self._began_inside = False
            if self._head_bytes > MAX_HEAD_BYTES:
                self.send_400_response("")
            if not self._is_head_timed:
                self._await_head()
        elif self._deadline_s is _NEVER and not self._in_message and self._is_idle():
            # Data that begins no request ended uvicorn's own watch over an idle connection.
            self._await_head()

    def _feed(self, data: bytes) -> None:
        """Parse data as uvicorn does; what is not HTTP is refused, and no other protocol is taken up."""
        if self.timeout_keep_alive_task is not None:
            self._unset_keepalive_if_required()
        try:
            cast(httptools.HttpRequestParser, self.parser).feed_data(data)
        except httptools.HttpParserUpgrade:
            # A client that offers another protocol is answered in this one.
            pass
        except httptools.HttpParserError:
            self.send_400_response("")

    def on_message_begin(self) -> None:
        """Begin a head."""
        self._in_message = self._in_head = True
        self._began_inside = not self._at_start
        self._at_start = False
        self._head_bytes = 0
        self.url = b""
        self.headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one header."""
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """End a head, and choose the request's way; a head that came in large pieces is measured here.

        Raises `HeadTooLarge`.
        """
        self._in_head = self._is_head_timed = False
        self._deadline_s = _NEVER
        if self._arrived_bytes > MAX_HEAD_BYTES:
            size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
            if size > MAX_HEAD_BYTES:
                raise HeadTooLarge
        request = self._plain_request() if self.has_lane and self._is_idle() else None
        if request is None:
            self._go_by_uvicorn()
            return
        self._began_s = self.terms.clock.monotonic_s()
        self._request = request
        self.cycle = cast(Any, self._turn)
        self._turn.begin()
        self._turn.response_complete = False

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        if self._request is None:
            super().on_body(body)
        else:
            self._turn.body += body

    def on_message_complete(self) -> None:
        """End a request, and answer it if it is in the lane."""
        self._in_message = False
        if self._request is None:
            super().on_message_complete()
            return
        request, self._request = self._request, None
        self._turn.more_body = False
        self.terms.api.handle(request, self._turn.body, self._began_s, self._respond)

    def shutdown(self) -> None:
        """End when the server stops: after what is in progress."""
        if self._request is not None:
            self._leave_lane()
        super().shutdown()

    def sweep(self, now_s: float) -> None:
        """Close the connection if its time is over; let uvicorn wait for a body that did not come with its head."""
        if now_s >= self._deadline_s:
            self._deadline_s = _NEVER
            self.transport.close()
        elif self._request is not None:
            self._leave_lane()

    def _is_idle(self) -> bool:
        cycle = cast(RequestResponseCycle | None, self.cycle)
        return cycle is None or cycle.response_complete

    def _await_head(self) -> None:
        self._is_head_timed = True
        self._deadline_s = self.loop.time() + self.terms.head_timeout_s

    def _plain_request(self) -> Request | None:
        """Return the head that has just ended if the lane can answer it, and None for what uvicorn knows better."""
        headers, repeated = by_name(self.headers)
        parser = cast(httptools.HttpRequestParser, self.parser)
        if _SPECIAL.isdisjoint(headers) and parser.should_keep_alive() and not self.flow.write_paused:
            # Without a Connection header only HTTP/1.1 keeps a connection: so the version need not be asked for.
            plain = b"connection" not in headers or parser.get_http_version() == "1.1"
            path, query = self._target()
            method = _METHODS.get(parser.get_method())
            if plain and method and path in self.terms.api.routes and _is_short(headers.get(b"content-length")):
                return Request(method, path, query, headers, repeated, self._peer)
        return None

    def _target(self) -> tuple[bytes, bytes]:
        """Return path and query as uvicorn tells them."""
        if b"?" not in self.url:
            return self.url, b""
        url = httptools.parse_url(self.url)
        return url.path or b"", url.query or b""

    def _respond(self, status: int, headers: str, body: bytes) -> None:
        """Answer the request in the lane, in one piece."""
        turn, transport = self._turn, self.transport
        turn.response_complete = True
        if turn.disconnected or transport.is_closing():
            return
        closes = not turn.keep_alive
        if status != 200 and _CLOSE in headers:
            closes = True
        elif closes:
            headers += _CLOSE
        start = self.terms.start_of(status, self.server_state.default_headers)
        transport.write(f"{start}{headers}\r\n".encode("latin-1") + body)
        if closes:
            transport.close()
        if closes or self.pipeline:
            self.on_response_complete()
            return
        self.server_state.total_requests += 1
        if not self._in_head:
            self._deadline_s = self.loop.time() + self.timeout_keep_alive

    def _leave_lane(self) -> None:
        """Hand a request whose body is still on its way to uvicorn, with what has arrived of it."""
        turn, self._request = self._turn, None
        turn.response_complete = True
        self.cycle = cast(Any, None)
        self._go_by_uvicorn()
        self.cycle.keep_alive = self.cycle.keep_alive and turn.keep_alive
        if turn.body:
            super().on_body(turn.body)

    def _go_by_uvicorn(self) -> None:
        """Begin a request as uvicorn does, with the head that was collected for it."""
        url, headers = self.url, self.headers
        super().on_message_begin()
        super().on_url(url)
        for name, value in headers:
            super().on_header(name, value)
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP, or too large a head of it, in the contract's form, and close.

        A request before it that is whole is answered first, and then nothing more.
        """
        self._refused = True
        cycle = cast(RequestResponseCycle | None, self.cycle)
        if cycle is not None and not cycle.response_complete:
            if cycle.response_started or not cycle.more_body:
                cycle.keep_alive = False
                return
            cycle.disconnected = True
            cycle.message_event.set()
        refusal = PARAMETER_INVALID("the request is not HTTP, or its head is larger than 32 KiB")
        self.transport.write(refusal_reply(_reply(refusal, self.terms.clock)))
        # What is still on its way is read and discarded for a moment: closing at once would take the answer back.
        self.transport.write_eof()
        _ = self.loop.call_later(LINGER_S, self.transport.close)

    async def _busy(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 503, at once and whatever was asked, and close."""
        reply = _reply(UNAVAILABLE("System busy"), self.terms.clock)
        headers = header("content-type", "application/json") + header("content-length", len(reply.body)) + _CLOSE
        start = {
            "type": "http.response.start",
            "status": reply.status,
            "headers": header_pairs(headers + reply.headers),
        }
        await send(start)
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else reply.body})


def _is_short(length: bytes | None) -> bool:
    """Say whether a body of this length, if there is one, may be collected."""
    return length is None or int(length) <= MAX_BODY_BYTES


def _reply(refusal: Refused, clock: Clock) -> Reply:
    """Return a refusal in the fuller of the two forms: nobody knows yet which dialect the client speaks."""
    headers = header("retry-after", refusal.retry_after_s) if refusal.retry_after_s else ""
    return Reply(refusal.error.status, error_body(refusal, Dialect.V3, clock.now_ms()), headers)


def sweep(connections: Collection[Connection], now_s: float) -> float:
    """Look at the deadline of every connection; return in how many seconds to look again.

    One look at all costs less than a timer or two for each request; a deadline may be that much late.
    """
    shortest_s = MAX_SWEEP_S * SWEEPS_PER_TIMEOUT
    for connection in list(connections):
        connection.sweep(now_s)
        shortest_s = min(shortest_s, connection.terms.head_timeout_s, connection.timeout_keep_alive)
    return shortest_s / SWEEPS_PER_TIMEOUT
