"""Files that only their owner can read, written so that a crash leaves the old content or the new, never half of it."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Final

_PRIVATE: Final = 0o600


def write_new(path: Path, content: bytes) -> None:
    """Write a file that is not there yet, durably. Raises `FileExistsError`."""
    _write(path, content, os.O_EXCL)
    sync_folder(path.parent)


def write_over(path: Path, content: bytes) -> None:
    """Write a file in the place of the one that may be there, durably and as a whole."""
    fresh = path.with_name(f"{path.name}.new")
    _write(fresh, content, os.O_TRUNC)
    os.replace(fresh, path)
    sync_folder(path.parent)


def move_new(path: Path, target: Path) -> None:
    """Give a whole, synced file its name, durably. Raises `FileExistsError` where the name is taken."""
    if target.exists():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    path.rename(target)
    sync_folder(target.parent)


def sync_file(path: Path) -> None:
    """Make a file's content durable, whoever wrote it."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def claim(path: Path) -> None:
    """Make sure that a file is there and that only its owner can read it, before somebody else opens and fills it."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT, _PRIVATE)
    try:
        os.fchmod(handle, _PRIVATE)
    finally:
        os.close(handle)


def sync_folder(folder: Path) -> None:
    """Make what happened to a folder's names durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write(path: Path, content: bytes, mode: int) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | mode, _PRIVATE)
    with os.fdopen(handle, "wb") as file:
        _ = file.write(content)
        file.flush()
        os.fsync(file.fileno())
