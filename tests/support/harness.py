"""A server that can be killed: a demo in a process of its own, and a client that knows what it was answered."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import os
import subprocess
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, NamedTuple

from strongroom.admin.protocol import AdminError, Request
from strongroom.admin.telephone import NoServer, ask_server
from support.demos import STRONGROOM, environment, output

V3: Final = "/api/v3.2/"
V1: Final = "/public-api/wallet/v1/"
TESTS: Final = Path(__file__).parents[1]
READY_WITHIN_S: Final = 60
ANSWER_WITHIN_S: Final = 30
_GONE: Final = ("the server did not answer", "the server closed the connection")


class Answer(NamedTuple):
    """What came back: whole, or it is no answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the body, numbers exact."""
        return json.loads(self.body, parse_float=Decimal, parse_int=Decimal)


class Unanswered(Exception):
    """The server went away before an answer was whole."""


class Signed(NamedTuple):
    """A request that can be sent again exactly as it is."""

    path: str
    headers: Mapping[str, str]
    body: bytes
    method: str = "POST"


class Server:
    """A demo on a folder that is started, killed and started again; `program` is what runs it."""

    def wire(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Wire:
        """Return a connection to it."""
        return Wire(reader, writer)

    def __init__(self, folder: Path, program: Sequence[str] = STRONGROOM, seconds_per_block: float = 0.3) -> None:
        self.folder = folder
        self.program = program
        self.users: dict[str, Any] = {}
        self._address = ("", 0)
        self._options = ("--json", "--no-rate-limits", "--port", "0", "--seconds-per-block", str(seconds_per_block))
        self._process: subprocess.Popen[str] | None = None

    @property
    def pid(self) -> int:
        """The number of the running process."""
        assert self._process is not None
        return self._process.pid

    @property
    def runs(self) -> bool:
        """Whether there is a process."""
        return self._process is not None

    @property
    def log(self) -> Path:
        """What the process says."""
        return self.folder.with_name(f"{self.folder.name}.log")

    def begin(self) -> None:
        """Start the process, and do not wait for it."""
        command = [*self.program, "demo", "--data", str(self.folder), *self._options]
        own = environment()
        own["PYTHONPATH"] += f"{os.pathsep}{TESTS}"
        with self.log.open("a") as log:
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=own)

    async def start(self) -> None:
        """Start the process and wait until it serves."""
        self.begin()
        assert self._process is not None
        async with asyncio.timeout(READY_WITHIN_S):
            line = await asyncio.to_thread(output(self._process).readline)
        if not line:
            raise RuntimeError(self.log.read_text()[-2000:])
        ready = json.loads(line)
        users = {user["username"]: user for user in ready["users"]}
        assert self.users in ({}, users), "the same users with the same keys after a restart"
        self.users = users
        host, _, port = ready["base_url"].removeprefix("http://").partition(":")
        self._address = (host, int(port))

    def kill(self) -> None:
        """Kill the process, as the kernel would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            output(self._process).close()
            self._process = None

    async def ended(self, timeout_s: float) -> bool:
        """Wait for the process to end of itself; say whether it did in time."""
        assert self._process is not None
        try:
            await asyncio.to_thread(self._process.wait, timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    async def operate(self, request: Request) -> Any:
        """Return the result of an operator's request. Raises `AdminError` if it is refused, `Unanswered`."""
        try:
            return await asyncio.to_thread(ask_server, self.folder / "admin.sock", request)
        except NoServer as error:
            raise Unanswered from error
        except AdminError as error:
            if any(words in str(error) for words in _GONE):
                raise Unanswered from error
            raise

    async def readiness(self) -> Answer:
        """Return the answer of `/readyz`. Raises `Unanswered`."""
        async with self.connected() as wire:
            return await wire.send("GET", Signed("/readyz", {}, b""))

    @asynccontextmanager
    async def connected(self) -> AsyncGenerator[Wire]:
        """Give a connection to the server for a while. Raises `Unanswered`."""
        try:
            reader, writer = await asyncio.open_connection(*self._address)
        except OSError as error:
            raise Unanswered from error
        try:
            yield self.wire(reader, writer)
        finally:
            writer.close()

    def sign(
        self,
        username: str,
        path: str,
        body: bytes = b"",
        more: Mapping[str, str] | None = None,
        method: str = "POST",
    ) -> Signed:
        """Return a request of a user with a signature of now."""
        return self.sign_at(time.time_ns() // 1_000_000, username, path, body, more, method)

    def sign_at(
        self, at_ms: int, username: str, path: str, body: bytes, more: Mapping[str, str] | None, method: str
    ) -> Signed:
        """Return a request of a user with a nonce of some moment (Unix ms)."""
        user, nonce = self.users[username], str(at_ms)
        signature = hmac.new(user["api_secret"].encode(), path.encode() + nonce.encode() + body, hashlib.sha384)
        signed = {"request-api": user["api_key"], "request-nonce": nonce, "request-sign": signature.hexdigest()}
        return Signed(path, signed | dict(more or {}), body, method)


class Wire:
    """One connection that is kept open; requests go out one after the other."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def send(self, method: str, request: Signed, query: str = "") -> Answer:
        """Send a request and return its whole answer. Raises `Unanswered`."""
        [answer] = await self.send_together([(method, request, query)])
        return answer

    async def send_together(self, requests: Sequence[tuple[str, Signed, str]]) -> list[Answer]:
        """Send requests (method, request, query) without waiting in between; return their answers.

        Raises `Unanswered`.
        """
        try:
            self._writer.write(b"".join(_message(*request) for request in requests))
            async with asyncio.timeout(ANSWER_WITHIN_S):
                return [await self._receive() for _ in requests]
        except (OSError, asyncio.IncompleteReadError) as error:
            raise Unanswered from error

    async def _receive(self) -> Answer:
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
        return Answer(int(head[0].split()[1]), headers, await self._reader.readexactly(int(headers["content-length"])))


def _message(method: str, request: Signed, query: str) -> bytes:
    """Return a request as it goes over the wire."""
    lines = [f"{method} {request.path}{query} HTTP/1.1", "host: localhost", f"content-length: {len(request.body)}"]
    lines += [f"{name}: {value}" for name, value in request.headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + request.body
