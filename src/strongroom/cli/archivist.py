"""The archivist's commands: backups of the books, and their return."""

from __future__ import annotations

from pathlib import Path

import click

from strongroom.cli.failures import expected_failures
from strongroom.cli.folders import find_place, settings_of
from strongroom.cli.root import root
from strongroom.cli.showing import show

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
