"""Backups of a house's books, and their return: a restored ledger is proved whole and begins a new epoch."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

import apsw
import msgspec

from strongroom.admin.auditing import audit_books
from strongroom.admin.protocol import AdminError
from strongroom.books import open_books
from strongroom.clock import Clock, Ids
from strongroom.config.settings import Config
from strongroom.engine.command import Command
from strongroom.engine.port import Books
from strongroom.engine.writer import Writer
from strongroom.errors import check
from strongroom.files import claim, move_new, sync_file
from strongroom.store.sqlite.connection import DATABASE_FILE
from strongroom.store.sqlite.copying import check_database, copy_database
from strongroom.wallet.context import Context, perform_own
from strongroom.wallet.epochs import epoch_of, prepare_epoch

_BY_THE_DATABASE: Final = (
    "the books are in a PostgreSQL database: back it up with its own means, pgBackRest for one, and after a restore "
    "say `strongroom restore --here` with the same settings"
)

UNFINISHED: Final = "restoring"
"""The folder, inside the data folder, in which a restore works until it is done."""


class BackupView(msgspec.Struct, frozen=True):
    """A backup that was made: its file, its size, and the newest item in it with the root of the seal."""

    file: str
    bytes: int
    items: int
    root: str


class RestoreView(msgspec.Struct, frozen=True):
    """A restored ledger: its folder, what its audit read, and the epoch that has begun."""

    folder: str
    items: int
    root: str
    epoch: int


def back_up(config: Config, target: Path) -> BackupView:
    """Copy a data folder's ledger into a new file, beside a running server or without one.

    Raises `AdminError` where there is no ledger, it is in a database or the file is there already, `NotCopied`,
    `OSError`.
    """
    if config.store:
        raise AdminError(_BY_THE_DATABASE)
    folder = config.folder
    if not (folder / DATABASE_FILE).is_file():
        raise AdminError(f"{folder} has no ledger")
    if target.exists():
        raise _taken(target)
    try:
        seal = copy_database(folder, target)
    except FileExistsError:
        raise _taken(target) from None
    return BackupView(str(target), target.stat().st_size, seal.count, seal.root().hex())


def restore(backup: Path, folder: Path) -> RestoreView:
    """Make a data folder's ledger of a backup, prove it whole, and begin an epoch; all of it, or nothing.

    Raises `AdminError` where there is a ledger already, and for a backup that is not whole; `StoreError`, `OSError`.
    """
    for name in (DATABASE_FILE, f"{DATABASE_FILE}-wal"):
        if (folder / name).exists():
            raise _taken(folder / name)
    if not backup.is_file():
        raise AdminError(f"there is no backup {backup}")
    check_database(backup)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    working = folder / UNFINISHED
    shutil.rmtree(working, ignore_errors=True)
    working.mkdir(mode=0o700)
    try:
        claim(working / DATABASE_FILE)
        shutil.copyfile(backup, working / DATABASE_FILE)
        view = _begin(Config(data=str(working)))
        check(not (working / f"{DATABASE_FILE}-wal").exists(), "a closed ledger is one file")
        sync_file(working / DATABASE_FILE)
        move_new(working / DATABASE_FILE, folder / DATABASE_FILE)
    finally:
        shutil.rmtree(working, ignore_errors=True)
    return msgspec.structs.replace(view, folder=str(folder))


def restore_here(config: Config) -> RestoreView:
    """Begin an epoch in books that were copied back by other means, once they are proved whole.

    Raises `AdminError`, `StoreError`: `DataFolderBusy` beside a running server.
    """
    if not config.store and not (config.folder / DATABASE_FILE).is_file():
        raise AdminError(f"{config.folder} has no ledger")
    return _begin(config)


def _begin(config: Config) -> RestoreView:
    """Bring a ledger to this release's schema, prove it whole, and begin an epoch in it."""
    with _opened(config, Ids(Clock())):
        pass
    report = audit_books(config)
    if not report.is_whole:
        what = "; ".join(finding.what for finding in report.findings[:3])
        raise AdminError(f"the ledger is not whole, and nothing was changed: {what}")
    epoch = asyncio.run(_begin_epoch(config))
    return RestoreView(str(config.folder), report.items, report.root, epoch)


async def _begin_epoch(config: Config) -> int:
    clock = Clock()
    ids = Ids(clock)
    with _opened(config, ids) as store:
        clock.go_on_after(store.last()[1])
        writer = Writer(store, clock, _Quiet())
        running = asyncio.create_task(writer.run())
        try:
            context = Context(writer.submit, store, clock, ids)
            _ = await perform_own(context, lambda: prepare_epoch(context))
        finally:
            writer.close()
            await running
        return epoch_of(store)


@contextmanager
def _opened(config: Config, ids: Ids) -> Generator[Books]:
    """Open books that nobody else has open. Raises `StoreError`, and `AdminError` for what is no such ledger."""
    try:
        opened = open_books(config, ids)
    except apsw.Error as error:
        raise AdminError(f"the ledger of {config.folder} cannot be read: {error}") from None
    with closing(opened):
        if opened.store.nodes > 1:
            raise AdminError("other nodes have the database open: stop them first")
        yield opened.store


class _Quiet:
    """A writer's events, of which an epoch's beginning tells none: what fails is raised."""

    def committed(self, commands: int, seconds: float) -> None:
        """Tell nothing."""

    def failed(self, command: Command, error: Exception) -> None:
        """Tell nothing."""

    def doubtful(self, error: Exception, *, resolved: bool) -> None:
        """Tell nothing."""

    def troubled(self, trouble: str) -> None:
        """Tell nothing."""


def _taken(path: Path) -> AdminError:
    return AdminError(f"{path} is there already, and nothing is overwritten")
