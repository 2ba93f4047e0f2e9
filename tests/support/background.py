"""A whole server in a thread of its own, for tests that cannot be coroutines: over HTTP, or straight into the ASGI."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import uvicorn

from strongroom.application import Application
from strongroom.engine.command import NOBODY
from strongroom.ledger.accounts import Purpose, house
from strongroom.serving import bind, url_of
from strongroom.wallet.bookings import FundHouse
from strongroom.wallet.context import perform_own
from support.server import MASTER_KEY, Member, join, settings

Result = TypeVar("Result")

USDT = 2
START_S = 30
CALL_S = 60
PIECE_BYTES = 50_000


class Answer(NamedTuple):
    """What the ASGI application answered."""

    status: int
    headers: dict[str, str]
    body: bytes


class Background:
    """A running server: where it answers, who can sign, and a way to run coroutines in its loop."""

    application: Application
    url: str
    alice: Member
    bob: Member

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._server: uvicorn.Server | None = None
        self._thread = threading.Thread(target=self._run, name="server")

    def start(self) -> None:
        """Return once requests are answered."""
        self._thread.start()
        assert self._started.wait(START_S), "the server starts"

    def stop(self) -> None:
        """Return once the thread has ended."""
        assert self._server is not None
        self._server.should_exit = True
        self._thread.join(START_S)
        assert not self._thread.is_alive()

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run a coroutine in the server's loop and return its result."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(CALL_S)

    async def call(self, method: str, path: bytes, query: bytes, headers: dict[str, str], body: bytes) -> Answer:
        """Send bytes straight into the application, as a socket may deliver them; in the server's loop."""
        scope = {
            "type": "http",
            "method": method,
            "path": path.decode("latin-1"),
            "raw_path": path,
            "query_string": query,
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
            "client": ("127.0.0.1", 1),
        }
        sent: list[dict[str, Any]] = []
        pieces = [body[start : start + PIECE_BYTES] for start in range(0, len(body), PIECE_BYTES)] or [b""]

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        await self.application.front(scope, receive, send)
        found = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return Answer(sent[0]["status"], found, sent[1]["body"])

    async def _stock(self) -> None:
        """Give the house what it pays conversions with."""
        command = FundHouse(NOBODY, USDT, 1_000_000_00000000, house(Purpose.BANK, USDT), Purpose.INVENTORY)
        await perform_own(self.application.context, lambda: command)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        self.application = Application(settings(self._folder), MASTER_KEY)
        async with self.application.running():
            self.alice = await join(self.application, "alice", 100_00000000)
            self.bob = await join(self.application, "bob")
            await self._stock()
            bound = bind("127.0.0.1", 0)
            self.url = url_of(bound)
            application: Any = self.application.front
            config = uvicorn.Config(application, interface="asgi3", lifespan="off", log_config=None, log_level="error")
            self._server = uvicorn.Server(config)
            # From here on connections wait until they are served.
            bound.listen()
            self._started.set()
            await self._server.serve(sockets=[bound])


@contextmanager
def in_background(folder: Path) -> Iterator[Background]:
    """Run a house with two customers, alice with a hundred Bitcoin, while the block runs."""
    background = Background(folder)
    background.start()
    try:
        yield background
    finally:
        background.stop()
