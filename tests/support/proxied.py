"""A fault proxy in a thread of its own: for a client that blocks the loop it runs in, as a look-up does."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from support.fault_proxy import FaultProxy, Mode


class Line:
    """A proxy's port, and its mode, which is set when `turn` returns."""

    def __init__(self, proxy: FaultProxy, loop: asyncio.AbstractEventLoop) -> None:
        self._proxy = proxy
        self._loop = loop
        self.port = proxy.port

    def turn(self, mode: Mode, about: bytes = b"") -> None:
        """Have the line do something else from now on."""

        async def set_mode() -> None:
            self._proxy.about = about
            self._proxy.mode = mode

        asyncio.run_coroutine_threadsafe(set_mode(), self._loop).result()

    def cut(self) -> None:
        """Cut what is open, and refuse nothing: whoever connects anew is let through."""

        async def cut() -> None:
            self._proxy.turn_to(self._proxy.target_port)

        asyncio.run_coroutine_threadsafe(cut(), self._loop).result()


@contextmanager
def proxied(port: int) -> Iterator[Line]:
    """Run a proxy to a port of loopback until the end of the block."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="proxy")
    thread.start()
    proxy = FaultProxy(port)
    try:
        asyncio.run_coroutine_threadsafe(proxy.__aenter__(), loop).result()
        try:
            yield Line(proxy, loop)
        finally:
            asyncio.run_coroutine_threadsafe(proxy.close(), loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
