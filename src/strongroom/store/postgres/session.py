"""Sessions: a connection apart from the batches' and the reads', with a thread of its own, for what a loop asks again
and again. It is opened when it is needed, and anew when it was lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

import psycopg

from strongroom.store.postgres.connection import Connection, Limits

Answer = TypeVar("Answer")


class Session:
    """One such connection; `opening` makes it. All of a question is waited for `limit_s` seconds at most."""

    def __init__(self, name: str, opening: Callable[[], Connection], limit_s: float) -> None:
        self._thread = ThreadPoolExecutor(1, f"strongroom-{name}")
        self._opening = opening
        self._limit_s = limit_s
        self._connection: Connection | None = None

    async def ask(self, question: Callable[[Connection], Answer]) -> Answer | None:
        """Return what a question comes to, asked in the session's thread; None where the database does not answer."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._ask, question)

    def close(self) -> None:
        """End it, once what is being asked is answered."""
        self._thread.shutdown()
        self._drop()

    def _ask(self, question: Callable[[Connection], Answer]) -> Answer | None:
        try:
            if self._connection is None or self._connection.is_lost:
                self._drop()
                self._connection = self._opening()
            with self._connection.within(self._limit_s):
                return question(self._connection)
        except psycopg.Error:
            self._drop()
            return None

    def _drop(self) -> None:
        if self._connection is not None:
            with suppress(psycopg.Error):
                self._connection.close()
            self._connection = None


def limits_of(limit_s: float) -> Limits:
    """Return limits for a connection on which answers come soon or never."""
    return Limits(connect_s=2, answer_s=limit_s, read_s=limit_s)
