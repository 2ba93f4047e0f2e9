"""The cable of the writing connection, which another thread can cut: so that nobody waits for a server that is gone.

A server whose machine is lost, or that hangs, says nothing. What waits for its answer is a batch that no other can
pass, and it may rightly wait long: for the replicas, or for its turn. That another server is the one by now is found
out over another connection.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from threading import Lock

from strongroom.store.postgres.connection import Connection


class Cable:
    """A second hold on a connection's socket; for any thread."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._socket: socket.socket | None = None
        self._server = ""

    def lay(self, connection: Connection) -> None:
        """Take hold of a connection that knows its server, and of no other."""
        with self._lock:
            self._let_go()
            self._socket = socket.socket(fileno=os.dup(connection.fileno()))
            self._server = connection.server

    def take_up(self) -> None:
        """Let go."""
        with self._lock:
            self._let_go()

    def cut_unless(self, server: str) -> None:
        """Cut the connection unless it leads to this server: whoever waits at it finds it lost."""
        with self._lock:
            if self._socket is not None and self._server != server:
                with suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)

    def _let_go(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
