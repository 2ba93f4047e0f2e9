"""A disk that is full, as the kernel says it: the server accepts nothing, says why, and goes on when there is room."""

from __future__ import annotations

import asyncio
import os
import resource
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import pytest

from support.harness import Answer, Server, Unanswered
from support.harness_rounds import verified
from support.harness_single import AMOUNT, PATIENCE_S, QUIET_S, balance, both, send, transfer, until_status

FULL: Final = 0
"""Not a byte can be written to any file, the server's log included."""

SIZE: Final = "24m"
_BLOCK: Final = bytes(4096)
_ANSWERED_WITHIN_S: Final = 2.0


class FileSizeLimit:
    """No file of the server may grow or be written to; every user can set that."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(self, server: Server) -> None:
        """Leave no room."""
        self._limit(server, FULL)

    def empty(self, server: Server) -> None:
        """Make room again; a new process has it anyway."""
        if server.runs:
            self._limit(server, resource.RLIM_INFINITY)

    def _limit(self, server: Server, size: int) -> None:
        _, hard = resource.prlimit(server.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (size, hard))


class SmallFileSystem:
    """A file system of its own, which something else fills up; only root can mount one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filler = folder / "filler"

    def fill(self, _server: Server) -> None:
        """Leave no room."""
        with suppress(OSError), self._filler.open("wb", buffering=0) as file:
            while file.write(_BLOCK):
                pass

    def empty(self, _server: Server) -> None:
        """Make room again."""
        self._filler.unlink(missing_ok=True)


def mount(folder: Path) -> bool:
    """Mount a small file system; say whether that is allowed here."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "none", str(folder)]
    return os.geteuid() == 0 and subprocess.run(command, check=False, capture_output=True).returncode == 0


def unmount(folder: Path) -> None:
    """Take a file system away, whoever still has a file of it open."""
    subprocess.run(["umount", "-l", str(folder)], check=True)


def can_mount() -> bool:
    """Say whether a file system can be mounted here."""
    with tempfile.TemporaryDirectory() as folder:
        if mounted := mount(Path(folder)):
            unmount(Path(folder))
        return mounted


Disk = FileSizeLimit | SmallFileSystem
DISKS: Final[list[Callable[[Path], Disk]]] = [FileSizeLimit, *([SmallFileSystem] if can_mount() else [])]


@pytest.fixture(params=DISKS, ids=lambda kind: kind.__name__)
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    """A disk that can be filled."""
    mounted = request.param is SmallFileSystem and mount(tmp_path)
    yield request.param(tmp_path)
    if mounted:
        unmount(tmp_path)


async def send_until_full(server: Server) -> tuple[int, asyncio.Task[Answer]]:
    """Send until an answer does not come; return how many came, and the one that is waited for."""
    for done in range(1_000):
        asked = asyncio.create_task(send(server, transfer(server)))
        _ = await asyncio.wait([asked], timeout=_ANSWERED_WITHIN_S)
        if not asked.done():
            return done, asked
        assert asked.result().status == 200, asked.result()
    raise AssertionError("the disk is not full")


@pytest.mark.parametrize("killed", [False, True], ids=["room-again", "killed-while-full"])
async def test_a_full_disk_stops_changes_and_loses_nothing(disk: Disk, killed: bool) -> None:
    """Balances are read on, changes are put off, `/readyz` says why; with room, or a new start, all goes on."""
    server = Server(disk.folder / "house", seconds_per_block=QUIET_S)
    try:
        await server.start()
        alice, bob = await both(server)
        disk.fill(server)
        done, doubted = await send_until_full(server)
        told = await until_status(server, 503)
        assert told["details"]["writer"].startswith("Ledger in doubt")
        put_off = transfer(server)
        refused = await send(server, put_off)
        assert (refused.status, "retry-after" in refused.headers) == (503, True)
        assert await balance(server, "alice") == alice - done * AMOUNT
        assert not doubted.done()
        if killed:
            server.kill()
            with suppress(Unanswered):
                raise AssertionError(await doubted)
            disk.empty(server)
            await server.start()
            done += (alice - await balance(server, "alice") - done * AMOUNT) == AMOUNT
        else:
            disk.empty(server)
            async with asyncio.timeout(PATIENCE_S):
                assert (await doubted).status == 503
            await until_status(server, 200)
        assert await both(server) == (alice - done * AMOUNT, bob + done * AMOUNT)
        assert (await send(server, put_off)).status == 200
        assert await both(server) == (alice - (done + 1) * AMOUNT, bob + (done + 1) * AMOUNT)
        await verified(server.folder)
    finally:
        server.kill()
