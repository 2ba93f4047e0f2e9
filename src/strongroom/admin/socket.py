"""The operator's local socket: a Unix socket in the data folder that only the server's own user may talk to."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final, cast

import structlog

from strongroom.admin.commands import carry_out
from strongroom.admin.protocol import MAX_LINE_BYTES, AdminError, Reply, line_of, read_request
from strongroom.admin.telephone import short_path
from strongroom.application import Application

MAX_CONNECTIONS: Final = 16
LINE_WITHIN_S: Final = 30
"""How long a request may take to arrive."""

_CREDENTIALS: Final = struct.Struct("3i")

log = structlog.get_logger("admin")


@asynccontextmanager
async def admin_socket(house: Application) -> AsyncGenerator[None]:
    """Answer requests of the operator while the house is open. The folder's lock says that no other server does."""
    path = house.config.admin_socket_path
    path.unlink(missing_ok=True)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with short_path(path) as short:
            before = os.umask(0o177)
            try:
                bound.bind(short)
            finally:
                _ = os.umask(before)
        server = await asyncio.start_unix_server(_Desk(house).serve, sock=bound, limit=MAX_LINE_BYTES)
    except BaseException:
        bound.close()
        raise
    try:
        yield
    finally:
        server.close()
        path.unlink(missing_ok=True)


class _Desk:
    """Serves connections, a bounded number at a time."""

    def __init__(self, house: Application) -> None:
        self._house = house
        self._served = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection's requests in turn."""
        try:
            if self._served >= MAX_CONNECTIONS or not _is_own(writer):
                return
            self._served += 1
            try:
                while await self._answer(reader, writer):
                    pass
            finally:
                self._served -= 1
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; say whether there may be another."""
        try:
            async with asyncio.timeout(LINE_WITHIN_S):
                line = await reader.readline()
            if not line.endswith(b"\n"):
                return False
            writer.write(line_of(await self._reply(line)))
            await writer.drain()
        except (TimeoutError, ValueError, ConnectionError):
            return False
        return True

    async def _reply(self, line: bytes) -> Reply:
        try:
            return Reply(result=await carry_out(self._house, read_request(line)))
        except AdminError as error:
            return Reply(error=str(error))
        except Exception as error:
            log.error("admin request failed", exc_info=error)
            return Reply(error=f"the server failed at this: {type(error).__name__}")


def _is_own(writer: asyncio.StreamWriter) -> bool:
    """Say whether the other side runs as our user or as root; where the system does not tell, the mode 0600 does."""
    if not hasattr(socket, "SO_PEERCRED"):
        return True
    peer = cast(socket.socket, writer.get_extra_info("socket"))
    _, uid, _ = _CREDENTIALS.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return uid in (0, os.geteuid())
