"""A node's process: a child of the demo that ends with it, however the demo ends, and is missed when it ends by itself.

While a node lives it holds the lock of its folder, whoever started it: after a demo was killed, the next one waits
until the old node has put its files in order.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import IO, Final

import structlog

from strongroom.admin.protocol import AdminError
from strongroom.clock import Clock, Ids
from strongroom.custody.chain import Unreachable
from strongroom.custody.rpc import RpcError
from strongroom.demo import tether
from strongroom.files import claim
from strongroom.serving import bind

HOST: Final = "127.0.0.1"
STARTS_WITHIN_S: Final = 60.0
"""How long a node may take until it answers."""

STOPS_WITHIN_S: Final = 20.0
"""How long a node may take to put its files in order before it is killed; so long a start waits for an old one."""

LOCK_FILE: Final = "lock"
OUTPUT_FILE: Final = "output"

_POLL_S: Final = 0.05
_LOWEST_PORT: Final = 20_000
_PORTS: Final = 12_000
_TRIES: Final = 100
_SAID_CHARS: Final = 300
_TAIL_BYTES: Final = 4_096

log = structlog.get_logger("node")


class NodeProcess:
    """The process of one node, in a folder of its own."""

    def __init__(self, program: Path, folder: Path, stop_signal: signal.Signals = signal.SIGTERM) -> None:
        self.name = program.name
        self.folder = folder
        self._program = program
        self._stop_signal = stop_signal
        self._process: asyncio.subprocess.Process | None = None
        self._missing: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        """The process id, 0 while there is no process."""
        return 0 if self._process is None or self.has_ended else self._process.pid

    @property
    def has_ended(self) -> bool:
        """Whether the process has been started, and has ended."""
        return self._process is not None and self._process.returncode is not None

    async def start(self, arguments: Sequence[str], is_ready: Callable[[], Awaitable[object]]) -> None:
        """Start the program, and return once `is_ready` raises neither `Unreachable` nor `RpcError` any more.

        Raises `AdminError` for a program that ends instead, or takes longer than `STARTS_WITHIN_S`.
        """
        await self._spawn(arguments)
        try:
            async with asyncio.timeout(STARTS_WITHIN_S):
                await self._wait_for(is_ready)
        except TimeoutError:
            await self.stop()
            raise AdminError(f"{self.name} does not answer after {STARTS_WITHIN_S:g} s: {self._said()}") from None
        except BaseException:
            await self.stop()
            raise
        self._missing = asyncio.create_task(self._miss())

    async def stop(self) -> None:
        """Ask the program to end, and kill it when that takes longer than `STOPS_WITHIN_S`, or nobody waits for it."""
        if self._missing is not None:
            _ = self._missing.cancel()
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.send_signal(self._stop_signal)
        try:
            async with asyncio.timeout(STOPS_WITHIN_S):
                _ = await process.wait()
        except TimeoutError:
            log.error("node_killed", program=self.name, reason=f"still there after {STOPS_WITHIN_S:g} s")
        finally:
            if process.returncode is None:
                process.kill()
                _ = await process.wait()

    async def _spawn(self, arguments: Sequence[str]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = await lock_when_free(self.folder)
        tied = (sys.executable, "-I", tether.__file__, str(os.getpid()), str(int(self._stop_signal)))
        # Some programs keep files in the home folder too: none of them belongs there.
        environment = os.environ | {"HOME": str(self.folder)}
        claim(self.folder / OUTPUT_FILE)
        try:
            with (self.folder / OUTPUT_FILE).open("wb") as output:
                # A session of its own: Ctrl-C is for the demo, which stops its nodes when nothing needs them any more.
                self._process = await asyncio.create_subprocess_exec(
                    *(*tied, str(self._program), *arguments),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    cwd=self.folder,
                    env=environment,
                    start_new_session=True,
                    pass_fds=(lock.fileno(),),
                )
        finally:
            # The child has the lock now, and keeps it as long as it lives.
            lock.close()

    async def _wait_for(self, is_ready: Callable[[], Awaitable[object]]) -> None:
        while True:
            try:
                _ = await is_ready()
            except (Unreachable, RpcError):
                if self.has_ended:
                    raise AdminError(f"{self.name} ended instead of starting: {self._said()}") from None
                await asyncio.sleep(_POLL_S)
            else:
                return

    async def _miss(self) -> None:
        """Tell when the program ends without having been asked to."""
        if self._process is not None:
            code = await self._process.wait()
            log.error("node_ended", program=self.name, code=code, said=self._said(), remedy="start the demo again")

    def _said(self) -> str:
        """Return the last line that the program has printed."""
        with (self.folder / OUTPUT_FILE).open("rb") as output:
            _ = output.seek(max(0, output.seek(0, os.SEEK_END) - _TAIL_BYTES))
            lines = output.read().decode("utf-8", "replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")[-_SAID_CHARS:]


async def lock_when_free(folder: Path) -> IO[str]:
    """Return a node's folder's lock once no node lives in it. Raises `AdminError` after `STOPS_WITHIN_S`."""
    claim(folder / LOCK_FILE)
    lock = (folder / LOCK_FILE).open("a+")
    for _ in range(round(STOPS_WITHIN_S / _POLL_S)):
        if _is_locked(lock):
            return lock
        try:
            await asyncio.sleep(_POLL_S)
        except BaseException:
            lock.close()
            raise
    lock.close()
    raise AdminError(f"another process has the node's folder {folder}, and does not end")


def _is_locked(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def free_port(ids: Ids | None = None) -> int:
    """Return a port of loopback that nobody listens on. Raises `AdminError` where there is none.

    It lies below those that the system gives to connections, so that none of them takes it before the node does.
    """
    ids = ids or Ids(Clock())
    for _ in range(_TRIES):
        port = _LOWEST_PORT + ids.below(_PORTS)
        try:
            bind(HOST, port).close()
        except OSError:
            continue
        return port
    raise AdminError("no port of loopback is free for a node")
