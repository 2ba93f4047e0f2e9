"""The pages in docs/reference: made from the code, current, and silent about nothing that a reader can meet."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import click
import pytest

from strongroom.api.dialects import OPERATIONS
from strongroom.cli.main import root
from strongroom.config.reading import all_settings
from strongroom.errors import ERRORS

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "reference"
SCRIPT = ROOT / "scripts" / "generate_docs.py"


def loaded() -> ModuleType:
    """Return the script that writes the pages."""
    spec = importlib.util.spec_from_file_location("generate_docs", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GENERATE = loaded()


def words(page: str) -> str:
    """Return a page's text."""
    return (FOLDER / page).read_text("utf-8")


@pytest.mark.parametrize("page", GENERATE.PAGES)
def test_a_page_is_what_the_code_says_now(page: str) -> None:
    """The committed page is the one that `make docs` writes."""
    assert words(page) == GENERATE.PAGES[page](), "run make docs"


def test_a_page_is_the_same_on_every_machine() -> None:
    """The width of a terminal and the seed of hashes change nothing in the pages."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONHASHSEED": "7", "COLUMNS": "40"}
    subprocess.run([sys.executable, SCRIPT, "--check"], check=True, env=environ)


def test_every_error_is_in_the_docs() -> None:
    """Each error of the list stands in the page of errors with its code, its message and when it happens."""
    page = words("errors.md")
    for error in ERRORS.values():
        line = next(line for line in page.splitlines() if f"`{error.name}`" in line)
        assert all(
            text in line for text in (f"| {error.status} |", f"`{error.code}`", f"`{error.message}`", error.when)
        )


def test_every_operation_is_in_the_docs() -> None:
    """Each path of each operation stands in the page of endpoints, with its method and its parameters' names."""
    page = words("endpoints.md")
    for operation in OPERATIONS:
        assert all(f"- `{operation.method} {path}`\n" in page for path in operation.paths)


def test_every_setting_is_in_the_docs() -> None:
    """Each setting stands in the page of settings."""
    page = words("settings.md")
    assert [setting.name for setting in all_settings() if f"| `{setting.name}` |" not in page] == []


def test_every_command_is_in_the_docs() -> None:
    """Each command of the command line stands in the page of commands."""
    page = words("commands.md")
    names = list(names_of(root, "strongroom"))
    assert {"strongroom demo", "strongroom ledger verify", "strongroom key create"} <= set(names)
    assert [name for name in names if f"## {name}\n" not in page] == []


def names_of(command: click.Command, path: str) -> list[str]:
    """Return a command's full name and those of all below it."""
    below = command.commands.items() if isinstance(command, click.Group) else ()
    return [path, *(found for name, child in below for found in names_of(child, f"{path} {name}"))]


def test_every_page_is_reached_from_the_readme() -> None:
    """The README leads to each page of the reference."""
    readme = (ROOT / "README.md").read_text("utf-8")
    assert [page.name for page in FOLDER.glob("*.md") if f"docs/reference/{page.name}" not in readme] == []
