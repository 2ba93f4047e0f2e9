"""An exchange that the event loop carries on whenever its socket is ready, with a real socket at the other end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Generator, Iterator

import psycopg
import pytest
from psycopg.waiting import Ready, Wait

from strongroom.store.postgres.driving import drive

LONG_S = 30.0
MUCH = bytes(8 << 20)
"""More than the system takes for a socket that nobody reads."""


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of one connection."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        yield ours, theirs


def hear(ours: socket.socket, parts: int) -> Generator[Wait, Ready, list[bytes]]:
    """Wait for so many parts."""
    heard: list[bytes] = []
    while len(heard) < parts:
        assert (yield Wait.R) is Ready.R
        heard.append(ours.recv(1_000))
    return heard


def say(ours: socket.socket, what: bytes) -> Generator[Wait, Ready, int]:
    """Send everything, whenever there is room."""
    sent, waits = 0, 0
    while sent < len(what):
        try:
            sent += ours.send(what[sent:])
        except BlockingIOError:
            waits += 1
            while not (yield Wait.RW) & Ready.W:
                pass
    return waits


def fail() -> Generator[Wait, Ready, None]:
    """Fail when something has come."""
    _ = yield Wait.R
    raise psycopg.OperationalError("as it is")


def no_wait() -> Generator[Wait, Ready, str]:
    """End without waiting for anything."""
    return "at once"
    yield Wait.R


async def test_parts_of_an_answer_are_taken_as_they_come(ends: tuple[socket.socket, socket.socket]) -> None:
    """Each is given to the exchange, and whoever waits is told in the end."""
    ours, theirs = ends
    heard = asyncio.create_task(drive(hear(ours, 3), ours.fileno(), LONG_S))
    for part in (b"one", b"two", b"three"):
        _ = theirs.send(part)
        for _ in range(3):
            await asyncio.sleep(0)
    assert await heard == [b"one", b"two", b"three"]
    assert not asyncio.get_running_loop().remove_reader(ours.fileno())


async def test_what_the_socket_has_no_room_for_waits_for_it(ends: tuple[socket.socket, socket.socket]) -> None:
    """Nothing is lost of it, and nobody looks for room afterwards."""
    ours, theirs = ends
    loop, got = asyncio.get_running_loop(), 0
    saying = asyncio.create_task(drive(say(ours, MUCH), ours.fileno(), LONG_S))
    while got < len(MUCH):
        got += len(await loop.sock_recv(theirs, 1 << 20))
    assert await saying > 0
    assert not loop.remove_writer(ours.fileno())


async def test_what_ends_without_waiting_needs_no_answer(ends: tuple[socket.socket, socket.socket]) -> None:
    """It is over before the loop has looked at the socket."""
    assert await drive(no_wait(), ends[0].fileno(), LONG_S) == "at once"


async def test_an_exchange_that_fails_fails_whoever_waits_for_it(ends: tuple[socket.socket, socket.socket]) -> None:
    """With the same error, and the socket is let go."""
    ours, theirs = ends
    failing = asyncio.create_task(drive(fail(), ours.fileno(), LONG_S))
    await asyncio.sleep(0)
    _ = theirs.send(b"anything")
    with pytest.raises(psycopg.OperationalError, match="as it is"):
        await failing
    assert not asyncio.get_running_loop().remove_reader(ours.fileno())


async def test_nobody_waits_longer_than_the_limit(ends: tuple[socket.socket, socket.socket]) -> None:
    """A server that says nothing is an error of the driver's own kind."""
    ours, _ = ends
    with pytest.raises(psycopg.OperationalError, match="did not answer in time"):
        _ = await drive(hear(ours, 1), ours.fileno(), 0.05)
    assert not asyncio.get_running_loop().remove_reader(ours.fileno())


async def test_whoever_stops_waiting_lets_go_of_the_socket(ends: tuple[socket.socket, socket.socket]) -> None:
    """What comes afterwards is for nobody."""
    ours, theirs = ends
    waiting = asyncio.create_task(drive(hear(ours, 1), ours.fileno(), LONG_S))
    await asyncio.sleep(0)
    _ = waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        _ = await waiting
    _ = theirs.send(b"late")
    assert not asyncio.get_running_loop().remove_reader(ours.fileno())
