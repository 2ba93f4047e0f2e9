"""A disk that fails when it is told to: between SQLite and its files, while everything else is the real thing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from random import Random
from typing import Any, ClassVar, Final, NamedTuple

import apsw

from strongroom.store.sqlite.connection import DATABASE_FILE

DATABASE: Final = DATABASE_FILE
LOG: Final = f"{DATABASE_FILE}-wal"
READ, WRITE, SYNC, END_OF_COMMIT = "read", "write", "sync", "end of commit"
SECTOR: Final = 512
"""A disk writes so many bytes whole or not at all."""

HELD_S: Final = 20.0
"""How long a held disk waits at most: a test that forgets it fails instead of hanging."""

_COMMIT_PHASE_TWO: Final = 22
"""SQLITE_FCNTL_COMMIT_PHASETWO: SQLite tells the disk that a commit is through."""

_numbers = count()


class FaultyDisk(apsw.VFS):
    """A way to the disk under a name of its own; `failing` maps (operation, file) to the error that it meets.

    `met` counts the faults that were met, `first_fault` is called at the first; `waiting`: something is held now.
    """

    RECORDS: ClassVar[bool] = False

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

    def wrote(self, file: str, offset: int, before: bytes, after: bytes) -> None:
        """Take note of a write that nothing has synced yet."""

    def synced(self, file: str) -> None:
        """Take note that all that was written to a file is safe."""

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
        before = super().xRead(len(data), offset) if self._disk.RECORDS else b""
        super().xWrite(data, offset)
        self._disk.wrote(self._file, offset, before, data)

    def xSync(self, flags: int) -> None:  # noqa: N802
        """Sync, if the disk lets it."""
        self._disk.ask(SYNC, self._file)
        super().xSync(flags)
        self._disk.synced(self._file)

    def xFileControl(self, operation: int, pointer: int) -> bool:  # noqa: N802
        """Pass a control on; the end of a commit may fail."""
        if operation == _COMMIT_PHASE_TWO:
            self._disk.ask(END_OF_COMMIT, self._file)
        return super().xFileControl(operation, pointer)


class Image(NamedTuple):
    """What a power failure would have left: the files' bytes, and what had been answered by then."""

    files: dict[str, bytes]
    answered: frozenset[int]


class FailingPower(FaultyDisk):
    """A disk of which images are taken as after power failures: what was not synced is there, gone, or torn.

    `answered` holds whatever the test has been promised so far.
    """

    RECORDS: ClassVar[bool] = True

    def __init__(self, folder: Path, chance: Random, often: float) -> None:
        self.images: list[Image] = []
        self.answered: set[int] = set()
        self.often = often
        self._folder, self._chance = folder, chance
        self._open: dict[str, list[tuple[int, bytes, bytes]]] = {DATABASE: [], LOG: []}
        super().__init__()

    def wrote(self, file: str, offset: int, before: bytes, after: bytes) -> None:
        """Remember the write until its file is synced; now and then the power fails here."""
        self._open.setdefault(file, []).append((offset, before, after))
        self._perhaps()

    def synced(self, file: str) -> None:
        """Forget what is safe; now and then the power fails here."""
        self._open[file] = []
        self._perhaps()

    def _perhaps(self) -> None:
        if self._chance.random() < self.often:
            answered = frozenset(self.answered)
            self.images.append(Image({file: self._torn(file) for file in (DATABASE, LOG)}, answered))

    def _torn(self, file: str) -> bytes:
        """Return a file as it is found: of each write that was not synced all, nothing, or a part."""
        path = self._folder / file
        content = bytearray(path.read_bytes() if path.exists() else b"")
        fate = self._chance.choice(("all", "none", "some", "cut"))
        for offset, before, after in reversed(self._open[file]):
            lost = {"all": 0, "none": len(after)}.get(fate, self._chance.choice((0, len(after), self._end(after))))
            keep = len(after) - lost
            content[offset + keep : offset + len(after)] = before[keep:].ljust(lost, b"\0")
        grown = [offset + len(before) for offset, before, after in self._open[file] if len(before) < len(after)]
        if fate == "cut" and grown:
            # Only what made the file longer can be missing at its end: what was safe before stays.
            del content[self._chance.randrange(min(grown), len(content) + 1) :]
        return bytes(content)

    def _end(self, written: bytes) -> int:
        """Return how much of a write is missing when it ends at some sector."""
        return len(written) - SECTOR * self._chance.randrange(-(-len(written) // SECTOR))
