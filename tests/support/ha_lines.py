"""The network of a cluster: a line for everybody who talks to somebody, each a fault proxy, all in one thread.

The thread's loop does nothing else, so that the load of a test does not slow the network down.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, Self, TypeVar

from support.fault_proxy import FaultProxy, Mode

Result = TypeVar("Result")


class Lines:
    """Lines by the names of their two ends: `port("node1", "pg2")` is where node 1 finds PostgreSQL 2."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="lines")
        self._proxies: dict[tuple[str, str], FaultProxy] = {}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            for proxy in self._proxies.values():
                self._run(proxy.close())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def lay(self, source: str, target: str, port: int) -> int:
        """Lay a line to a port of loopback, and return the port of its other end."""
        proxy = FaultProxy(port)
        self._run(proxy.__aenter__())
        self._proxies[source, target] = proxy
        return proxy.port

    def cut(self, source: str, target: str, mode: Mode = Mode.STALL, chosen: bytes = b"") -> None:
        """Have a line fail from now on; `chosen`: only for connections that began with these bytes somewhere."""
        self._turn([self._proxies[source, target]], mode, chosen)

    def heal(self) -> None:
        """Have every line pass everything, what was held up too."""
        self._turn(list(self._proxies.values()), Mode.PASS, b"")

    def _turn(self, proxies: list[FaultProxy], mode: Mode, chosen: bytes) -> None:
        async def turn() -> None:
            for proxy in proxies:
                proxy.chosen = chosen
                proxy.mode = mode

        self._run(turn())

    def _run(self, work: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()
