"""A bad line to a server on loopback: a TCP proxy whose fault can be changed at any time, also for what is open.

async with FaultProxy(node.port) as proxy:
    proxy.mode = Mode.STALL
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, Self

HOST: Final = "127.0.0.1"
PIECE_BYTES: Final = 64 * 1024
MAX_CONNECTIONS: Final = 64
MAX_STALL_S: Final = 60.0
"""A stalled connection ends after this time, so that no test waits for ever."""

CONNECT_S: Final = 5.0
OPENING_BYTES: Final = 1_024
"""What of a connection's first questions is kept, to know by it who talks."""


class Mode(Enum):
    """What the line does."""

    PASS = "pass"
    REFUSE = "refuse"
    """Every connection is closed at once, those that are open too."""

    STALL = "stall"
    """Connections are accepted, and nothing passes in either direction, no end either, until the mode changes."""

    SLOW = "slow"
    """Every piece of at most `slow_bytes` takes `delay_s`."""

    CUT_ANSWER = "cut_answer"
    """Questions pass; when an answer comes that holds `about`, `answer_bytes` of it pass and the connection is cut."""

    CUT_QUESTION = "cut_question"
    """The connection is cut when a question that holds `about` comes: nothing of that piece passes."""

    SWALLOW = "swallow"
    """Every question passes; the answer to one that holds `about` never comes, and the connection stays open."""


@dataclass(eq=False)
class Talk:
    """One connection: what it began with, and whether the question was asked whose answer is swallowed."""

    opening: bytes = b""
    asked: asyncio.Event = field(default_factory=asyncio.Event)


class FaultProxy:
    """A proxy on `port` to another port of loopback; `mode` says how it fails."""

    def __init__(self, target_port: int) -> None:
        self.target_port = target_port
        self.port = 0
        self.delay_s = 0.05
        self.slow_bytes = 64
        self.answer_bytes = 0
        self.about = b""
        self.chosen = b""
        """Only connections that began with these bytes somewhere meet the fault; all, if it is empty."""

        self.swallowed = asyncio.Event()
        """Set once an answer was swallowed."""

        self.questions_bytes = 0
        """How much of what was asked has reached the target."""

        self._mode = Mode.PASS
        self._changed = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: dict[asyncio.StreamWriter, Talk] = {}

    @property
    def mode(self) -> Mode:
        """Return what the line does now."""
        return self._mode

    @mode.setter
    def mode(self, mode: Mode) -> None:
        self._mode = mode
        self._changed.set()
        self._changed = asyncio.Event()
        if mode is Mode.REFUSE:
            self._cut_all()

    def turn_to(self, port: int) -> None:
        """Lead to another port from now on: what is open is cut."""
        self.target_port = port
        self._cut_all()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, HOST, 0, limit=PIECE_BYTES)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Stop listening and cut every connection; from then on connections are refused by the system itself."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self._cut_all()
        tasks = list(self._tasks)
        for task in tasks:
            _ = task.cancel()
        _ = await asyncio.gather(*tasks, return_exceptions=True)

    def _cut_all(self) -> None:
        for writer, talk in self._writers.items():
            if self._is_chosen(talk):
                writer.transport.abort()

    def _is_chosen(self, talk: Talk) -> bool:
        return self.chosen in talk.opening

    def _mode_of(self, talk: Talk) -> Mode:
        return self._mode if self._is_chosen(talk) else Mode.PASS

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._mode_of(Talk()) is Mode.REFUSE or len(self._tasks) >= MAX_CONNECTIONS:
            writer.transport.abort()
            return
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talk = Talk()
        self._writers[writer] = talk
        target: asyncio.StreamWriter | None = None
        try:
            async with asyncio.timeout(CONNECT_S):
                answers, target = await asyncio.open_connection(HOST, self.target_port, limit=PIECE_BYTES)
            self._writers[target] = talk
            await _first_of(
                self._pump(reader, target, talk, is_answer=False),
                self._pump(answers, writer, talk, is_answer=True),
            )
        except OSError:
            # TimeoutError too: a target that is away looks to the client like a line that is cut.
            pass
        finally:
            for end in (writer, target):
                if end is not None:
                    end.transport.abort()
                    _ = self._writers.pop(end, None)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, talk: Talk, *, is_answer: bool
    ) -> None:
        """Pass pieces on until either end closes or the mode says to cut."""
        while piece := await reader.read(PIECE_BYTES):
            if not is_answer and len(talk.opening) < OPENING_BYTES:
                talk.opening += piece[:OPENING_BYTES]
            await self._wait_while_stalled(talk)
            mode = self._mode_of(talk)
            if mode is Mode.REFUSE:
                return
            if not is_answer and self.about in piece:
                if mode is Mode.CUT_QUESTION:
                    return
                if mode is Mode.SWALLOW:
                    talk.asked.set()
            if is_answer and talk.asked.is_set():
                self.swallowed.set()
                continue
            if is_answer and mode is Mode.CUT_ANSWER and self.about in piece:
                writer.write(piece[: self.answer_bytes])
                # Closed in order, so that what passed does arrive.
                writer.close()
                await writer.wait_closed()
                return
            if mode is Mode.SLOW:
                await self._pass_slowly(piece, writer)
            else:
                writer.write(piece)
            if not is_answer:
                self.questions_bytes += len(piece)
            await writer.drain()
        # An end is not heard of either while nothing passes.
        await self._wait_while_stalled(talk)

    async def _wait_while_stalled(self, talk: Talk) -> None:
        async with asyncio.timeout(MAX_STALL_S):
            while self._mode_of(talk) is Mode.STALL:
                _ = await self._changed.wait()

    async def _pass_slowly(self, piece: bytes, writer: asyncio.StreamWriter) -> None:
        for start in range(0, len(piece), self.slow_bytes):
            if self._mode is Mode.SLOW:
                await asyncio.sleep(self.delay_s)
            writer.write(piece[start : start + self.slow_bytes])
            await writer.drain()


async def _first_of(*pumps: Coroutine[Any, Any, None]) -> None:
    """Run pumps until one of them ends, for whatever reason, and end the others."""
    tasks = [asyncio.create_task(pump) for pump in pumps]
    try:
        _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            _ = task.cancel()
        _ = await asyncio.gather(*tasks, return_exceptions=True)
