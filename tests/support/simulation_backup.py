"""Backups of a simulated house: a copy of its books at one moment, and their return beside chains that went on."""

from __future__ import annotations

import shutil
from pathlib import Path
from random import Random
from typing import NamedTuple
from unittest import mock

from strongroom.admin import restoring
from strongroom.config.settings import Config
from strongroom.store.sqlite.connection import DATABASE_FILE
from support.simulation_deeds import Record
from support.simulation_life import DATABASE_FILES
from support.simulation_loop import SimulatedClock, SimulatedIds, Timeline


class Backup(NamedTuple):
    """The books of a moment, and what was known then of all that was asked, answered and said."""

    books: bytes
    record: Record


def back_up(folder: Path, record: Record) -> Backup:
    """Copy the books of a house, as the command does that beside a running server."""
    target = folder.parent / "backup.sqlite"
    restoring.back_up(Config(data=str(folder)), target)
    books = target.read_bytes()
    target.unlink()
    return Backup(books, record.copy())


def restored(backup: Backup, scratch: Path, files: dict[str, bytes], timeline: Timeline, seed: str) -> dict[str, bytes]:
    """Return a data folder's files with the books made of a backup, as the command does that; an epoch has begun."""
    folder, file = scratch / "restored", scratch / "backup.sqlite"
    file.write_bytes(backup.books)
    clock = SimulatedClock(timeline)
    ids = SimulatedIds(clock, Random(f"{seed}/epoch"))
    try:
        with (
            mock.patch.object(restoring, "Clock", return_value=clock),
            mock.patch.object(restoring, "Ids", return_value=ids),
        ):
            restoring.restore(file, folder)
        books = (folder / DATABASE_FILE).read_bytes()
    finally:
        file.unlink()
        shutil.rmtree(folder, ignore_errors=True)
    return {name: content for name, content in files.items() if name not in DATABASE_FILES} | {DATABASE_FILE: books}
