"""Requests byte for byte over a socket, replies byte for byte back, and which way through the server they went."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final, NamedTuple

import pytest
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from strongroom.connections import Connection
from support.client import ApiClient, raw_body, sign, signed_path

TIMEOUT_S: Final = 20
_VARYING: Final = (
    (re.compile(rb"(?m)^date: [^\r]+"), b"date: D"),
    (re.compile(rb"(?m)^x-request-id: [0-9a-f]{16}"), b"x-request-id: I"),
    (re.compile(rb'"time":\d{13}|"iso":"[^"]+","epoch":\d{10}'), b'"time":T'),
    (re.compile(rb'"(transactionRef|orderId|withdraw_id|withdrawId)":"[0-9a-f-]+"'), rb'"\1":"R"'),
)


class Reply(NamedTuple):
    """A reply as it came; `whole` is all of it with what differs from moment to moment blotted out."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    whole: bytes


class Line:
    """One connection to a server."""

    def __init__(self, url: str) -> None:
        host, port = url.removeprefix("http://").split(":")
        self.socket = socket.create_connection((host, int(port)), timeout=TIMEOUT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._seen = b""

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, *pieces: bytes) -> None:
        """Send bytes, each piece by itself."""
        for piece in pieces:
            self.socket.sendall(piece)

    def reply(self, method: str = "GET") -> Reply:
        """Return the next reply, to a request of this method."""
        while b"\r\n\r\n" not in self._seen:
            self._read()
        head, _, rest = self._seen.partition(b"\r\n\r\n")
        status, *lines = head.decode("latin-1").split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        length = 0 if method == "HEAD" else int(headers.get("content-length", 0))
        while len(rest) < length:
            self._read()
            rest = self._seen.partition(b"\r\n\r\n")[2]
        self._seen = rest[length:]
        whole = head + b"\r\n\r\n" + rest[:length]
        for pattern, blot in _VARYING:
            whole = pattern.sub(blot, whole)
        return Reply(int(status.split()[1]), headers, rest[:length], whole)

    def is_closed(self) -> bool:
        """Say whether the server has closed, and sent nothing more before."""
        try:
            return not self._seen and self.socket.recv(1) == b""
        except ConnectionResetError:
            return True

    def _read(self) -> None:
        data = self.socket.recv(65_536)
        if not data:
            raise EOFError(self._seen)
        self._seen += data


def request(method: str, target: str | bytes, headers: Iterable[tuple[str, str]] = (), body: bytes = b"") -> bytes:
    """Return a request as bytes; one with a body says its length."""
    target = target if isinstance(target, bytes) else target.encode()
    lines = [method.encode() + b" " + target + b" HTTP/1.1", b"host: x"]
    lines += [f"{name}: {value}".encode("latin-1") for name, value in headers]
    lines += [b"content-length: %d" % len(body)] if body else []
    return b"\r\n".join([*lines, b"", body])


def signed(client: ApiClient, method: str, target: str, body: object = None, **more: str) -> bytes:
    """Return a signed request as bytes, with more headers (their dashes as underscores) after the signature."""
    content, path = raw_body(body), target.partition("?")[0]
    headers = list(client.headers(path, content).items())
    return request(method, target, [*headers, *((n.replace("_", "-"), v) for n, v in more.items())], content)


def sign_head(client: ApiClient, path: str, body: bytes = b"") -> tuple[str, str, str]:
    """Return key, nonce and signature for a request."""
    check = client.credentials
    assert check is not None
    nonce = client.nonces.fresh()
    return check.key, nonce, sign(check.secret, signed_path(path), nonce, body)


def ask(url: str, raw: bytes) -> Reply:
    """Return the reply to one request on a connection of its own."""
    with Line(url) as line:
        line.send(raw)
        return line.reply(raw.split(b" ", 1)[0].decode("latin-1"))


class Ways:
    """How many heads went uvicorn's way."""

    def __init__(self) -> None:
        self.by_uvicorn = 0


@contextmanager
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ways]:
    """Count the heads that go uvicorn's way while the block runs."""
    ways, ordinary = Ways(), HttpToolsProtocol.on_headers_complete

    def counted(self: HttpToolsProtocol) -> None:
        ways.by_uvicorn += 1
        ordinary(self)

    with monkeypatch.context() as patch:
        patch.setattr(HttpToolsProtocol, "on_headers_complete", counted)
        yield ways


@contextmanager
def without_lane(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Send every request of connections that are opened meanwhile uvicorn's way."""
    with monkeypatch.context() as patch:
        patch.setattr(Connection, "has_lane", False)
        yield
