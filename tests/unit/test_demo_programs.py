"""Where a demo finds the programs of its nodes."""

from __future__ import annotations

from pathlib import Path

import pytest

from strongroom.config.settings import ConfigError, load_config
from strongroom.demo import programs
from strongroom.demo.programs import find_programs


def program(folder: Path, name: str = "bitcoind", mode: int = 0o755) -> Path:
    """Put a program into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text("#!/bin/sh\n")
    path.chmod(mode)
    return path


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project's folder of installed nodes, and a path with a folder of its own."""
    folder = tmp_path / "project" / ".nodes" / "bin"
    monkeypatch.setattr(programs, "_installed", lambda: [folder])
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    return folder


def test_what_is_installed_goes_before_the_path(installed: Path, tmp_path: Path) -> None:
    """A program of 'make nodes' is taken, and one on the path where there is none."""
    on_path = program(tmp_path / "path")
    assert find_programs(["bitcoind"]) == {"bitcoind": on_path}
    ours = program(installed)
    assert find_programs(["bitcoind"]) == {"bitcoind": ours}


def test_a_folder_that_is_named_is_the_only_one(installed: Path, tmp_path: Path) -> None:
    """Whoever names a folder gets its programs or none."""
    program(installed)
    named = program(tmp_path / "named", "litecoind")
    assert find_programs(["litecoind"], named.parent) == {"litecoind": named}
    with pytest.raises(ConfigError, match=f"there is no bitcoind in {named.parent}: "):
        find_programs(["bitcoind"], named.parent)


def test_every_missing_program_is_named_with_what_to_do(installed: Path) -> None:
    """What cannot be run counts as missing, and all that is missing is told at once."""
    program(installed, "anvil", 0o644)
    with pytest.raises(ConfigError) as refused:
        find_programs(["bitcoind", "anvil"])
    assert [problem.split(":")[0] for problem in refused.value.problems] == [
        f"there is no bitcoind in {installed}, nor on the path",
        f"there is no anvil in {installed}, nor on the path",
    ]
    assert all("make nodes" in problem and "STRONGROOM_NODES" in problem for problem in refused.value.problems)


def test_nothing_is_looked_for_where_nothing_is_needed(installed: Path) -> None:
    """A demo of simulated chains needs no program."""
    assert find_programs([]) == {}


def test_the_variable_is_no_setting_of_a_server() -> None:
    """Whoever has named the folder for demos can serve a house all the same."""
    assert load_config(None, {programs.VARIABLE: "/nodes"}).nodes == {}
