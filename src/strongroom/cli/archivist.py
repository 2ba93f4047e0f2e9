"""The archivist's commands: backups of the books, their return, and their move to another store."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from strongroom.cli.failures import expected_failures
from strongroom.cli.folders import find_place, settings_of
from strongroom.cli.root import root
from strongroom.cli.showing import show

if TYPE_CHECKING:
    from strongroom.admin.moving import MoveView

_TELL_EVERY_S: Final = 5.0
_FILE = click.Path(dir_okay=False, path_type=Path)
_FOLDER = click.Path(file_okay=False, path_type=Path)


@root.command()
@click.option("--config", type=_FILE, help="The house's settings file.")
@click.option("--data", type=_FOLDER, help="The house's data folder.")
@click.option("--to", "target", type=_FILE, required=True, help="The new file; it must not be there yet.")
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON.")
def backup(config: Path | None, data: Path | None, target: Path, as_json: bool) -> None:
    """Copy the books into one file, whole and as they are at one moment.

    Beside a running server or without one. The sealed seed, the settings and the master key are files of their own.
    """
    with expected_failures():
        import msgspec

        from strongroom.admin.restoring import back_up

        view = back_up(settings_of(find_place(config, data)), target)
        show(msgspec.to_builtins(view), as_json=as_json)


@root.command()
@click.argument("file", type=_FILE, required=False)
@click.option("--config", type=_FILE, help="The house's settings file; with --here only.")
@click.option("--data", type=_FOLDER, help="The data folder, which must have no books yet.")
@click.option("--here", is_flag=True, help="The books were copied back already: only begin a new epoch.")
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON.")
def restore(file: Path | None, config: Path | None, data: Path | None, here: bool, as_json: bool) -> None:
    """Make a data folder's books of a backup, prove them whole, and begin a new epoch.

    In it no old address is given out, and a network pays nothing before its chain has been compared with the books.
    """
    if here == (file is not None):
        raise click.UsageError("give either the file of a backup, or --here for books that were copied back already")
    if (config is None and data is None) or (file is not None and data is None):
        raise click.UsageError("say which house: --data DIR, or --here --config FILE")
    with expected_failures():
        import msgspec

        from strongroom.admin import restoring

        if file is None or data is None:
            view = restoring.restore_here(settings_of(find_place(config, data)))
        else:
            view = restoring.restore(file, data)
        show(msgspec.to_builtins(view), as_json=as_json)


@root.group()
def store() -> None:
    """Where the books are kept."""


@store.command()
@click.option("--from", "source", required=True, help="What to move: sqlite:DATA_FOLDER, or sqlite:FILE of a backup.")
@click.option(
    "--to",
    "target",
    required=True,
    envvar="STRONGROOM_STORE",
    show_envvar=True,
    help="The database, with nothing in it: postgresql://USER@HOST/DATABASE.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON.")
def migrate(source: str, target: str, as_json: bool) -> None:
    """Move the books of a stopped server from its data folder into an empty PostgreSQL database.

    All of them in one transaction or nothing: every row is counted and compared on both sides, and what has arrived is
    audited, before it is committed. Exit with 0 only then. The data folder is left as it was, and marked as moved.
    """
    with expected_failures():
        import msgspec

        from strongroom.admin.moving import move

        view = move(source, target, _teller())
        if as_json:
            show(msgspec.to_builtins(view), as_json=True)
        else:
            _show_move(view)
    sys.exit(0 if view.moved else 1)


def _teller() -> Callable[[str, int], None]:
    """Return what tells on standard error how far a move is, every few seconds."""
    told_s = time.monotonic()

    def tell(what: str, rows: int) -> None:
        nonlocal told_s
        if time.monotonic() >= told_s + _TELL_EVERY_S:
            told_s = time.monotonic()
            click.echo(f"{what}: {rows} rows", err=True)

    return tell


def _show_move(view: MoveView) -> None:
    import msgspec

    show(msgspec.to_builtins(view.kinds), as_json=False)
    print()
    show(msgspec.to_builtins(view.sums), as_json=False)
    print(f"\nitems {view.items}\nroot  {view.root}")
    for finding in view.findings:
        click.echo(f"strongroom: {finding}", err=True)
    if not view.moved:
        click.echo("strongroom: not equal, and nothing was moved", err=True)
        return
    print(f"moved to {view.to}\n\nNext:")
    for number, step in enumerate(view.next, 1):
        print(f"{number}. {step}")
