"""Moved: the mark in a data folder whose books went to a database, so that the ones left behind are not written again.

Two houses that go on from the same books pay the same withdrawals and give out the same addresses.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from strongroom.engine.port import StoreError
from strongroom.files import sync_folder, write_over

MOVED_FILE: Final = "moved.json"


class DataFolderMoved(StoreError):
    """The books of this data folder are in a database by now, or may be."""


class Mark(msgspec.Struct, frozen=True):
    """Where the books went (without a password), when, up to which item, and whether that is known to be done."""

    to: str
    at: str
    items: int
    root: str
    done: bool


def read_mark(folder: Path) -> Mark | None:
    """Return a folder's mark, None where there is none. Raises `DataFolderMoved` for one that cannot be read."""
    path = folder / MOVED_FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=Mark)
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError as error:
        raise DataFolderMoved(f"{path} says that these books were moved, and cannot be read: {error}") from None


def write_mark(folder: Path, mark: Mark | None) -> None:
    """Mark a folder, durably; None takes the mark away."""
    if mark is None:
        with suppress(FileNotFoundError):
            (folder / MOVED_FILE).unlink()
        sync_folder(folder)
    else:
        write_over(folder / MOVED_FILE, msgspec.json.format(msgspec.json.encode(mark)) + b"\n")


def refuse_moved(folder: Path) -> None:
    """Raise `DataFolderMoved` where the books of a folder may be somewhere else by now."""
    mark = read_mark(folder)
    if mark is None:
        return
    path = folder / MOVED_FILE
    if mark.done:
        raise DataFolderMoved(
            f"the books of {folder} were moved to {mark.to} on {mark.at}: say so in the setting 'store'. Only if "
            f"nothing was ever done there may you go on with these: remove {path}"
        )
    raise DataFolderMoved(
        f"a move of the books of {folder} to {mark.to} was not seen to its end: say `strongroom store migrate` again, "
        f"or, if that database has no ledger, remove {path}"
    )
