"""Reading threads: where a look-up is a round trip to a database, reads are answered beside the event loop.

Nothing else waits for them then: changes, and everything that is answered from memory, go on in the loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Final, TypeAlias, cast

from strongroom.api.calls import Call, Services
from strongroom.api.operations import Answer
from strongroom.engine.port import Reads
from strongroom.errors import UNAVAILABLE

THREADS: Final = 4
"""More would wait at once, and not answer more: they share one interpreter with the loop."""

MOST_WAITING: Final = 1_000
"""Reads that are accepted and not answered; more are told that the system is busy."""

Told: TypeAlias = Callable[[bytes | Exception], None]
"""Who waits for a read: called in the event loop with the body of the reply, or with what was raised instead."""


class ReadingThreads:
    """Threads with a reader each; `waiting` counts the reads that are not answered yet. For the event loop."""

    def __init__(self, services: Services, readers: Sequence[Reads]) -> None:
        """There must be at least one reader."""
        self.waiting = 0
        self._free: SimpleQueue[Services] = SimpleQueue()
        for reads in readers:
            self._free.put(services._replace(context=services.context.beside(reads)))
        self._threads = ThreadPoolExecutor(len(readers), "strongroom-reader")

    def read(self, call: Call, told: Told) -> None:
        """Have a reading operation carried out, whose parameters were read. Raises `Refused` where too many wait."""
        if self.waiting >= MOST_WAITING:
            raise UNAVAILABLE("System busy")
        self.waiting += 1
        loop = asyncio.get_running_loop()

        def tell(answer: bytes | Exception) -> None:
            self.waiting -= 1
            told(answer)

        _ = self._threads.submit(lambda: loop.call_soon_threadsafe(tell, self._answer(call)))

    def close(self) -> None:
        """End the threads, once what they are reading is answered; for any thread."""
        self._threads.shutdown()

    def _answer(self, call: Call) -> bytes | Exception:
        """Carry an operation out, in one of the threads."""
        # There are as many as threads: never is one waited for.
        services = self._free.get()
        call.services = services
        try:
            return cast(Answer, call.operation.answer)(call)
        except Exception as error:  # noqa: BLE001 - whoever waits is told, whatever it is
            return error
        finally:
            self._free.put(services)
