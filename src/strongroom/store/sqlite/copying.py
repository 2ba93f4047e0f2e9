"""Copying: a whole copy of the database beside a server that goes on writing, and a look at whether a copy is whole."""

from __future__ import annotations

from pathlib import Path

import apsw

from strongroom.engine.port import StoreError
from strongroom.files import claim, move_new, sync_file
from strongroom.ledger.seals import Frontier
from strongroom.store.sqlite.connection import open_reader, run
from strongroom.store.sqlite.reads import load_frontier


class NotCopied(StoreError):
    """The copy could not be made, or is not whole; nothing is left of it."""


def copy_database(folder: Path, target: Path) -> Frontier:
    """Copy a data folder's database as it is now into one new file, durably, for its owner's eyes only.

    The copy is read in one transaction, so that all of it is of one moment; its newest seal is returned. Raises
    `FileExistsError`, `NotCopied`.
    """
    fresh = target.with_name(f".{target.name}.new")
    fresh.unlink(missing_ok=True)
    claim(fresh)
    try:
        _copy(folder, fresh)
        seal = _check_whole(fresh)
        sync_file(fresh)
        move_new(fresh, target)
    except apsw.Error as error:
        raise NotCopied(f"{folder} could not be copied: {error}") from None
    finally:
        fresh.unlink(missing_ok=True)
    return seal


def _copy(folder: Path, fresh: Path) -> None:
    source, copy = open_reader(folder), apsw.Connection(str(fresh))
    try:
        with copy.backup("main", source, "main") as backup:
            while not backup.done:
                _ = backup.step(-1)
        # One file that is complete by itself; a server puts its log beside it again.
        run(copy, "PRAGMA journal_mode=DELETE")
    finally:
        copy.close()
        source.close()


def check_database(path: Path) -> None:
    """Raise `NotCopied` unless SQLite finds a database file whole."""
    try:
        _ = _check_whole(path)
    except apsw.Error as error:
        raise NotCopied(f"{path} is not a whole database: {error}") from None


def _check_whole(path: Path) -> Frontier:
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        found = [str(row[0]) for row in run(connection, "PRAGMA integrity_check(3)")]
        if found != ["ok"]:
            raise NotCopied(f"{path} is not a whole database: {'; '.join(found)}")
        return load_frontier(connection)[1]
    finally:
        connection.close()
