"""A disk that fails when it is told to: between SQLite and its files, while everything else is the real thing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from itertools import count
from typing import Any, Final

import apsw

from strongroom.store.sqlite.connection import DATABASE_FILE

DATABASE: Final = DATABASE_FILE
LOG: Final = f"{DATABASE_FILE}-wal"
READ, WRITE, SYNC, END_OF_COMMIT = "read", "write", "sync", "end of commit"
HELD_S: Final = 20.0
"""How long a held disk waits at most: a test that forgets it fails instead of hanging."""

_COMMIT_PHASE_TWO: Final = 22
"""SQLITE_FCNTL_COMMIT_PHASETWO: SQLite tells the disk that a commit is through."""

_numbers = count()


class FaultyDisk(apsw.VFS):
    """A way to the disk under a name of its own; `failing` maps (operation, file) to the error that it meets.

    `met` counts the faults that were met, `first_fault` is called at the first; `waiting`: something is held now.
    """

    def __init__(self) -> None:
        self.name = f"faulty-{next(_numbers)}"
        self.failing: dict[tuple[str, str], type[apsw.Error]] = {}
        self.met = 0
        self.waiting = False
        self.first_fault: Callable[[], None] = lambda: None
        self._free = threading.Event()
        self._free.set()
        super().__init__(self.name, "")

    def xOpen(self, name: Any, flags: Any) -> FaultyFile:  # noqa: N802 - SQLite's name
        """Open a file whose operations ask this disk first."""
        return FaultyFile(self, name, flags)

    @contextmanager
    def fails(self, *operations: str, file: str = LOG, error: type[apsw.Error] = apsw.IOError) -> Generator[None]:
        """Let operations on a file fail inside the block."""
        faults = {(operation, file): error for operation in operations}
        self.failing |= faults
        try:
            yield
        finally:
            self.failing = {fault: kind for fault, kind in self.failing.items() if fault not in faults}

    @contextmanager
    def held(self) -> Generator[None]:
        """Let whatever goes to the log wait for the end of the block."""
        self._free.clear()
        try:
            yield
        finally:
            self._free.set()

    def ask(self, operation: str, file: str) -> None:
        """Wait while the log is held; raise what the operation shall meet."""
        if operation in {SYNC, WRITE} and file == LOG and not self._free.is_set():
            self._wait()
        if error := self.failing.get((operation, file)):
            self.met += 1
            if self.met == 1:
                self.first_fault()
            raise error("a fault of the test")

    def _wait(self) -> None:
        self.waiting = True
        in_time = self._free.wait(HELD_S)
        self.waiting = False
        if not in_time:
            raise apsw.IOError("held for too long")


class FaultyFile(apsw.VFSFile):
    """One file of a faulty disk."""

    def __init__(self, disk: FaultyDisk, name: Any, flags: Any) -> None:
        path = name.filename() if isinstance(name, apsw.URIFilename) else str(name)
        self._disk, self._file = disk, path.rpartition("/")[2]
        super().__init__("", name, flags)

    def excepthook(self, *_: object) -> None:
        """Say nothing: the error arrives where it belongs."""

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802
        """Read, if the disk lets it."""
        self._disk.ask(READ, self._file)
        return super().xRead(amount, offset)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        """Write, if the disk lets it."""
        self._disk.ask(WRITE, self._file)
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:  # noqa: N802
        """Sync, if the disk lets it."""
        self._disk.ask(SYNC, self._file)
        super().xSync(flags)

    def xFileControl(self, operation: int, pointer: int) -> bool:  # noqa: N802
        """Pass a control on; the end of a commit may fail."""
        if operation == _COMMIT_PHASE_TWO:
            self._disk.ask(END_OF_COMMIT, self._file)
        return super().xFileControl(operation, pointer)
