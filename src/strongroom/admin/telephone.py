"""The other end of the operator's socket: one request to a running server, one answer."""

from __future__ import annotations

import os
import socket
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from strongroom.admin.protocol import MAX_REPLY_BYTES, AdminError, Request, line_of, read_reply

ANSWER_WITHIN_S: Final = 120
"""How long an answer is waited for."""

_LONGEST_PATH: Final = 100


class NoServer(Exception):
    """Nobody answers at the socket."""


def ask_server(path: Path, request: Request) -> Any:
    """Return a running server's result of a request, made of plain dicts and lists.

    Raises `NoServer` where none listens, `AdminError` for what the server refuses.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
        line.settimeout(ANSWER_WITHIN_S)
        try:
            with short_path(path) as short:
                line.connect(short)
        except (FileNotFoundError, ConnectionRefusedError):
            raise NoServer from None
        except PermissionError:
            raise AdminError(f"only the server's own user may talk to {path}") from None
        try:
            line.sendall(line_of(request))
            with line.makefile("rb") as incoming:
                answer = incoming.readline(MAX_REPLY_BYTES)
        except OSError as error:
            raise AdminError(f"the server did not answer: {error}") from None
    if not answer:
        raise AdminError("the server closed the connection")
    reply = read_reply(answer)
    if reply.error:
        raise AdminError(reply.error)
    return reply.result


@contextmanager
def short_path(path: Path) -> Generator[str]:
    """Yield a name for a path that fits a socket's address: a long one goes through its folder's descriptor."""
    if len(os.fsencode(path)) <= _LONGEST_PATH:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
