"""Serving over HTTP: uvicorn with bounded heads, errors of our own, and a stop that loses no accepted request."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager, nullcontext
from typing import Any, Final, cast

import structlog
import uvicorn
import uvloop
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from strongroom.api.health import refusal_reply
from strongroom.api.operations import Dialect
from strongroom.api.replies import Reply, error_body, header, header_pairs
from strongroom.api.requests import Receive, Scope, Send
from strongroom.application import Application
from strongroom.clock import Clock
from strongroom.engine.supervisor import Supervisor
from strongroom.errors import PARAMETER_INVALID, UNAVAILABLE, Refused, check

MAX_HEAD_BYTES: Final = 32 * 1024
BACKLOG: Final = 2_048
LINGER_S: Final = 1.0
SWITCH_INTERVAL_S: Final = 0.000_05
"""How long the interpreter lets one thread run: the store's thread hands a commit back to the loop sooner."""

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)

log = structlog.get_logger("serving")


class HeadTooLarge(Exception):
    """A request's head is larger than 32 KiB."""


class BoundedProtocol(HttpToolsProtocol):
    """HTTP/1.1 with a bound on the head's size and time, and refusals in the contract's form."""

    clock: Clock
    head_timeout_s: float
    max_connections: int

    _refused = False
    _in_message = False
    _in_head = False
    _at_start = True
    _began_inside = False
    _head_bytes = 0
    _arrived_bytes = 0
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Begin a connection; one more than the bound is told so, whatever it asks."""
        super().connection_made(transport)
        if len(self.connections) > self.max_connections:
            self.app = cast(Any, self._busy)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """End a connection."""
        self._head_arrived()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what arrived, and bound what is still on its way."""
        if self._refused:
            return
        self._arrived_bytes = self._head_bytes + len(data)
        self._at_start = not self._in_message
        super().data_received(data)
        if self._in_head and not self._refused:
            # What came before a head that began in the middle of the data is none of it.
            self._head_bytes += 0 if self._began_inside else len(data)
            self._began_inside = False
            if self._head_bytes > MAX_HEAD_BYTES:
                self.send_400_response("")
        cycle = cast(RequestResponseCycle | None, self.cycle)
        if self._in_head or cycle is None or cycle.response_complete:
            self._await_head()
        elif self._head_timer is not None:
            self._head_arrived()

    def on_message_begin(self) -> None:
        """Begin a head."""
        self._in_message = self._in_head = True
        self._began_inside = not self._at_start
        self._at_start = False
        self._head_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """End a head; one that came in large pieces is measured here. Raises `HeadTooLarge`."""
        self._in_head = False
        if self._arrived_bytes > MAX_HEAD_BYTES:
            size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
            if size > MAX_HEAD_BYTES:
                raise HeadTooLarge
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """End a request."""
        self._in_message = False
        super().on_message_complete()

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
        self.transport.write(refusal_reply(_reply(refusal, self.clock)))
        # What is still on its way is read and discarded for a moment: closing at once would take the answer back.
        self.transport.write_eof()
        _ = self.loop.call_later(LINGER_S, self.transport.close)

    def _unsupported_upgrade_warning(self) -> None:
        """Say nothing: a client that offers another protocol is answered in this one."""

    def _await_head(self) -> None:
        if self._head_timer is None and not self.transport.is_closing():
            self._head_timer = self.loop.call_later(self.head_timeout_s, self._give_up)

    def _head_arrived(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _give_up(self) -> None:
        self._head_timer = None
        self.transport.close()

    async def _busy(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 503, at once and whatever was asked, and close."""
        reply = _reply(UNAVAILABLE("System busy"), self.clock)
        length = (b"content-length", str(len(reply.body)).encode())
        headers = [
            (b"content-type", b"application/json"),
            length,
            (b"connection", b"close"),
            *header_pairs(reply.headers),
        ]
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else reply.body})


def _reply(refusal: Refused, clock: Clock) -> Reply:
    """Return a refusal in the fuller of the two forms: nobody knows yet which dialect the client speaks."""
    headers = header("retry-after", refusal.retry_after_s) if refusal.retry_after_s else ""
    return Reply(refusal.error.status, error_body(refusal, Dialect.V3, clock.now_ms()), headers)


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers, and with an event for the moment it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    def capture_signals(self) -> Any:
        """Leave signals to us."""
        return nullcontext()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen, and tell."""
        await super().startup(sockets)
        self.listening.set()

    def abandon(self) -> None:
        """Close whatever is still open; nothing is after an ordinary stop."""
        for listener in self.servers if self.started else ():
            listener.close()
        for connection in list(self.server_state.connections):
            connection.transport.abort()


def bind(host: str, port: int) -> socket.socket:
    """Return a socket bound to an address; port 0 takes a free one. Raises `OSError`."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except BaseException:
        bound.close()
        raise
    bound.setblocking(False)
    return bound


def url_of(bound: socket.socket) -> str:
    """Return the base URL of a bound socket, for a client on this machine when it is bound to every address."""
    host, port = cast(tuple[str, int], bound.getsockname()[:2])
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def serve(application: Application, on_ready: Callable[[str], None]) -> int:
    """Serve a running application until a signal stops it or its writer fails; return the process's exit code.

    `on_ready` is told the base URL once requests are answered. SIGTERM and SIGINT drain; a second one hurries.
    Raises `OSError` if the address cannot be bound.
    """
    check(application.supervisor is not None, "an application is running before it serves")
    supervisor = cast(Supervisor, application.supervisor)
    config = application.config
    bound = bind(config.host, config.port)
    url = url_of(bound)
    server = _Server(_uvicorn_config(application))
    with _signals() as stops:
        serving = asyncio.create_task(server.serve(sockets=[bound]))
        failure = asyncio.create_task(supervisor.failed())
        listening = asyncio.create_task(server.listening.wait())
        stop = asyncio.create_task(stops.first.wait())
        try:
            _ = await asyncio.wait((serving, listening), return_when=asyncio.FIRST_COMPLETED)
            if listening.done():
                _settle_memory()
                on_ready(url)
                log.info("serving", url=url)
            _ = await asyncio.wait((serving, failure, stop), return_when=asyncio.FIRST_COMPLETED)
            if failure.done():
                # Nothing in flight can be finished any more, and nobody shall wait for it.
                stops.second.set()
            await _stop(application, server, stops, serving)
            return 1 if failure.done() else 0
        finally:
            for task in (serving, failure, listening, stop):
                _ = task.cancel()
            server.abandon()
            bound.close()


class _Stops:
    """The signals that have arrived."""

    def __init__(self) -> None:
        self.first = asyncio.Event()
        self.second = asyncio.Event()

    def note(self) -> None:
        """Count one signal."""
        (self.second if self.first.is_set() else self.first).set()


@contextmanager
def _signals() -> Generator[_Stops]:
    """Take the signals over while serving."""
    stops, loop = _Stops(), asyncio.get_running_loop()
    for number in _SIGNALS:
        loop.add_signal_handler(number, stops.note)
    try:
        yield stops
    finally:
        for number in _SIGNALS:
            _ = loop.remove_signal_handler(number)


async def _stop(application: Application, server: _Server, stops: _Stops, serving: asyncio.Task[None]) -> None:
    """Say so for a while, stop listening, let requests in flight finish; hurry at a second signal."""
    application.drain()
    log.info("draining", seconds=application.config.drain_s)
    hurry = asyncio.create_task(stops.second.wait())
    _ = await asyncio.wait((hurry, serving), timeout=application.config.drain_s, return_when=asyncio.FIRST_COMPLETED)
    server.should_exit = True
    _ = await asyncio.wait((hurry, serving), return_when=asyncio.FIRST_COMPLETED)
    server.force_exit = hurry.done()
    _ = hurry.cancel()
    await serving
    log.info("stopped")


def _uvicorn_config(application: Application) -> uvicorn.Config:
    settings = application.config
    bounds = {
        "clock": application.clock,
        "head_timeout_s": settings.head_timeout_s,
        "max_connections": settings.max_connections,
    }
    return uvicorn.Config(
        cast(Any, application.front),
        http=type("Protocol", (BoundedProtocol,), bounds),
        interface="asgi3",
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=True,
        backlog=BACKLOG,
        timeout_keep_alive=settings.keep_alive_s,
        timeout_graceful_shutdown=max(1, round(settings.finish_s)),
    )


def _settle_memory() -> None:
    """Keep what was loaded out of the garbage collector, and threads from waiting long for each other."""
    _ = gc.collect()
    gc.freeze()
    sys.setswitchinterval(SWITCH_INTERVAL_S)


def run(main: Coroutine[Any, Any, int]) -> int:
    """Run the server's main coroutine on uvloop and return its exit code."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)
