"""Driving: an exchange with the server that the event loop carries on whenever its socket is ready.

The driver's own way wakes the task that waits, sets a timer and adds and removes the socket for each part of an answer,
of which a batch has a dozen. Here the loop calls the exchange itself, and the task wakes once, when it has ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any, Generic, TypeVar

import psycopg
from psycopg.waiting import Ready, Wait

Answer = TypeVar("Answer")


async def drive(gen: Generator[Any, Any, Answer], fileno: int, limit_s: float) -> Answer:
    """Return what a generator of the driver's comes to, which waits for this socket. In the event loop.

    Raises what it raises, and `psycopg.OperationalError` when it has not ended within `limit_s` seconds.
    """
    drive_ = _Drive(gen, fileno)
    try:
        drive_.start(limit_s)
        return await drive_.ended
    finally:
        drive_.stop()


class _Drive(Generic[Answer]):
    """A generator and its socket, which is looked at for answers all the time and for room only where it is asked."""

    def __init__(self, gen: Generator[Any, Any, Answer], fileno: int) -> None:
        self._gen = gen
        self._fileno = fileno
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._wants_room = False
        self._is_reading = False
        self.ended: asyncio.Future[Answer] = self._loop.create_future()

    def start(self, limit_s: float) -> None:
        """Begin; what ends without waiting has ended on return."""
        self._go_on(None)
        if not self.ended.done():
            self._timer = self._loop.call_later(limit_s, self._expire)
            self._loop.add_reader(self._fileno, self._go_on, Ready.R)
            self._is_reading = True

    def stop(self) -> None:
        """Look at the socket no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._is_reading:
            _ = self._loop.remove_reader(self._fileno)
            self._is_reading = False
        self._want_room(is_wanted=False)

    def _go_on(self, ready: Ready | None) -> None:
        if self.ended.done():
            return
        try:
            wanted = self._gen.send(ready)
        except StopIteration as end:
            self.ended.set_result(end.value)
        except BaseException as error:  # noqa: BLE001 - whatever it is, whoever waits is told
            self.ended.set_exception(error)
        else:
            self._want_room(is_wanted=bool(wanted & Wait.W))
            return
        self.stop()

    def _want_room(self, *, is_wanted: bool) -> None:
        if is_wanted and not self._wants_room:
            self._loop.add_writer(self._fileno, self._go_on, Ready.W)
        elif self._wants_room and not is_wanted:
            _ = self._loop.remove_writer(self._fileno)
        self._wants_room = is_wanted

    def _expire(self) -> None:
        if not self.ended.done():
            self.ended.set_exception(psycopg.OperationalError("the server did not answer in time"))
            self.stop()
