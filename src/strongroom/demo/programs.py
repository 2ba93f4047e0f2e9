"""Where the programs of chain nodes are: in a folder that is named, in the project's `.nodes/bin`, or on the path."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from strongroom.config.settings import ConfigError

VARIABLE: Final = "STRONGROOM_NODES"
"""The environment variable that names the folder with the programs."""

INSTALLED: Final = Path(".nodes") / "bin"
"""Where `make nodes` installs them, in the project's folder."""


def find_programs(names: Iterable[str], folder: Path | None = None) -> dict[str, Path]:
    """Return where each program is: in `folder` only, if it is given.

    Raises `ConfigError` with a line for each that is missing, and what to do.
    """
    folders = [folder] if folder else _installed()
    found = {name: _find(name, folders, on_path=folder is None) for name in names}
    missing = [name for name, path in found.items() if path is None]
    if missing:
        where = str(folder) if folder else f"{' or '.join(map(str, folders))}, nor on the path"
        raise ConfigError([f"there is no {name} in {where}: {_remedy(folder)}" for name in missing])
    return {name: path for name, path in found.items() if path is not None}


def _installed() -> list[Path]:
    """Return where `make nodes` would have installed them: beside this package's source, and beside the environment."""
    projects = dict.fromkeys((Path(__file__).parents[3], Path(sys.prefix).parent))
    folders = [project / INSTALLED for project in projects]
    return [folder for folder in folders if folder.is_dir()] or folders[:1]


def _find(name: str, folders: Iterable[Path], *, on_path: bool) -> Path | None:
    for folder in folders:
        if os.access(folder / name, os.X_OK):
            return (folder / name).absolute()
    beside = shutil.which(name) if on_path else None
    return Path(beside).absolute() if beside else None


def _remedy(folder: Path | None) -> str:
    if folder:
        return f"name another folder with {VARIABLE} or 'demo --nodes', or run 'make nodes' and name none"
    return f"run 'make nodes' in the project, or name the folder that has it with {VARIABLE} or 'demo --nodes'"
