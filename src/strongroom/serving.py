"""Serving over HTTP: uvicorn with connections of our own, and a stop that loses no accepted request."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
import sys
from collections.abc import Callable, Collection, Coroutine, Generator
from contextlib import contextmanager, nullcontext
from typing import Any, Final, cast

import structlog
import uvicorn
import uvloop

from strongroom.application import Application
from strongroom.connections import Connection, Terms, sweep
from strongroom.engine.supervisor import Supervisor
from strongroom.errors import check

BACKLOG: Final = 2_048
SWITCH_INTERVAL_S: Final = 0.000_05
"""How long the interpreter lets one thread run: the store's thread hands a commit back to the loop sooner."""

COLLECT_AFTER: Final = (5_000, 4, 1_000_000)
"""The collector's thresholds: so many new objects before it looks at the new ones, so many such looks before it looks
at older ones too. It never looks at all by itself: once there are millions, that takes tenths of a second."""

COLLECT_ALL_EVERY_S: Final = 600.0

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)

log = structlog.get_logger("serving")


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers, with an event for the moment it listens, and deadlines for connections."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()
        self._sweep_at_s = 0.0
        self._collect_at_s = 0.0

    def capture_signals(self) -> Any:
        """Leave signals to us."""
        return nullcontext()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen, and tell."""
        await super().startup(sockets)
        self.listening.set()

    async def on_tick(self, counter: int) -> bool:
        """Do what uvicorn does ten times a second; look at connections' deadlines, and for garbage, when it is time."""
        now_s = asyncio.get_running_loop().time()
        if now_s >= self._sweep_at_s:
            self._sweep_at_s = now_s + sweep(cast(Collection[Connection], self.server_state.connections), now_s)
        if now_s >= self._collect_at_s:
            if self._collect_at_s:
                _ = gc.collect()
            self._collect_at_s = now_s + COLLECT_ALL_EVERY_S
        return await super().on_tick(counter)

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
    terms = Terms(application.api, application.clock, settings.head_timeout_s, settings.max_connections)
    return uvicorn.Config(
        cast(Any, application.front),
        http=type("Protocol", (Connection,), {"terms": terms}),
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
    """Keep what was loaded out of the garbage collector, and threads from waiting long for each other.

    What requests leave behind is freed at once, by counting references. Only what refers to itself waits for the
    collector, and that is little: so it looks at everything every ten minutes, not whenever enough has come in.
    """
    _ = gc.collect()
    gc.freeze()
    gc.enable()
    gc.set_threshold(*COLLECT_AFTER)
    sys.setswitchinterval(SWITCH_INTERVAL_S)


def run(main: Coroutine[Any, Any, int]) -> int:
    """Run the server's main coroutine on uvloop and return its exit code.

    Until it serves there is no garbage collection: loading makes millions of objects that all stay.
    """
    gc.disable()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)
