"""The signer as a process of its own: one Unix socket, one kind of request, and a judge who reads the books himself.

    {"network": "BITCOIN", "payment": 2026112700000000001}  ->  {"signature": "base64"}  or  {"error": "why not"}

A line each, one request a connection. When the signer is busy, or cannot read the books or keep its count, it closes
the connection without an answer: ask again later. A no is an answer.
"""

from __future__ import annotations

import asyncio
import base64
import os
import shutil
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import msgspec
import structlog

from strongroom.custody.chain import Rejected
from strongroom.custody.policy import Judge

MAX_REQUEST_BYTES: Final = 1_024
MAX_CONNECTIONS: Final = 16
REQUEST_WITHIN_S: Final = 5
"""How long a request may take to arrive, and its answer to leave."""

MAX_PATH_BYTES: Final = 107
"""A Unix socket's address holds no longer path."""

_MAX_REF: Final = 2**63 - 1

log = structlog.get_logger("signer")


class SignRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All that a signer can be asked: a payment's reference, and the network it is on."""

    network: str
    payment: int


class SignReply(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Its answer: a signature in base64, or why there is none."""

    signature: str = ""
    error: str = ""


class SocketError(Exception):
    """The socket cannot be made as it was asked for."""


class SigningService:
    """Serves connections, a bounded number at a time, one decision after the other."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self._turn = asyncio.Lock()
        self._served = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection's request."""
        if self._served >= MAX_CONNECTIONS:
            log.warning("signer_busy", connections=self._served)
            writer.close()
            return
        self._served += 1
        try:
            await self._answer(reader, writer)
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            log.warning("signer_connection_lost", problem=type(error).__name__)
        finally:
            self._served -= 1
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(REQUEST_WITHIN_S):
            try:
                line = await reader.readuntil(b"\n")
            except asyncio.LimitOverrunError:
                line = b""
        reply = await self._reply_to(line)
        if reply is None:
            return
        writer.write(msgspec.json.encode(reply) + b"\n")
        async with asyncio.timeout(REQUEST_WITHIN_S):
            await writer.drain()

    async def _reply_to(self, line: bytes) -> SignReply | None:
        """Return the answer to a line; None where there is none yet, which is logged."""
        try:
            request = _read(line)
        except Rejected as refusal:
            log.warning("signer_refused", reason=str(refusal))
            return SignReply(error=str(refusal))
        about = {"network": request.network, "payment": request.payment}
        try:
            async with self._turn:
                signature = await asyncio.to_thread(self._judge.sign, request.network, request.payment)
        except Rejected as refusal:
            log.warning("signer_refused", reason=str(refusal), **about)
            return SignReply(error=str(refusal))
        except Exception as error:  # noqa: BLE001 - whatever is wrong with the books or the disk, nothing is signed
            log.error("signer_failed", problem=f"{type(error).__name__}: {error}", **about)
            return None
        log.info("payment_signed", **about)
        return SignReply(signature=base64.b64encode(signature).decode())


def _read(line: bytes) -> SignRequest:
    try:
        request = msgspec.json.decode(line, type=SignRequest)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise Rejected("not a request for a signature") from None
    if not 0 < request.payment <= _MAX_REF:
        raise Rejected("not the reference of a payment")
    return request


@asynccontextmanager
async def signing_socket(path: Path, service: SigningService, group: str = "") -> AsyncGenerator[None]:
    """Listen on `path` while the context lasts: for the own user, or with `group` for that group's members as well.

    The folder is made for the socket alone where there is none. Raises `SocketError`, `OSError`.
    """
    _prepare_folder(path, group)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        before = os.umask(0o177)
        try:
            bound.bind(str(path))
        finally:
            _ = os.umask(before)
        if group:
            _hand_over(path, group, 0o660)
        server = await asyncio.start_unix_server(service.serve, sock=bound, limit=MAX_REQUEST_BYTES)
    except BaseException:
        bound.close()
        raise
    try:
        yield
    finally:
        server.close()
        _remove(path)


def _prepare_folder(path: Path, group: str) -> None:
    """Make the socket's folder, closed to others, and clear away what a killed signer left."""
    if len(os.fsencode(path)) > MAX_PATH_BYTES:
        raise SocketError(f"the socket's path is longer than {MAX_PATH_BYTES} bytes: {path}")
    if not path.parent.is_dir():
        path.parent.mkdir(parents=True, mode=0o700)
        if group:
            _hand_over(path.parent, group, 0o750)
    if path.is_socket():
        _check_unused(path)
        path.unlink()
    elif path.exists():
        raise SocketError(f"{path} is there already, and is no socket")


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


def _check_unused(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
        if line.connect_ex(str(path)) == 0:
            raise SocketError(f"another signer listens on {path}")


def _hand_over(path: Path, group: str, mode: int) -> None:
    try:
        shutil.chown(path, group=group)
    except LookupError:
        raise SocketError(f"there is no group {group}") from None
    path.chmod(mode)
