"""A move of the books that is killed, wherever it is: said again, it is done, and there is one house at any time."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from strongroom.store.sqlite.moved import DataFolderMoved, read_mark
from support.house_nodes import store_of
from support.moving import die_moving, is_new, live, moved, sqlite_store


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stopped house's data folder, whose books have everything in them; not to be changed."""
    folder = tmp_path_factory.mktemp("lived") / "house"
    asyncio.run(live(folder))
    return folder


@pytest.fixture
def house(lived: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(lived, tmp_path / "house"))


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A database with an empty ledger."""
    return store_of(tmp_path)


@pytest.mark.parametrize("stage", ["copying item", "copying user", "comparing item", "auditing", "committing"])
def test_a_move_that_is_killed_leaves_an_empty_database(house: Path, url: str, stage: str) -> None:
    """It is simply done again."""
    die_moving(house, url, stage)
    assert is_new(url)
    if stage == "committing":
        with pytest.raises(DataFolderMoved, match="not seen to its end"):
            sqlite_store(house)
    assert moved(house, url).moved
    assert not is_new(url)


def test_a_move_that_is_killed_behind_its_commit_is_found_to_be_done(house: Path, url: str) -> None:
    """Until it is said again the books are not opened; then both sides are compared once more."""
    die_moving(house, url, "committed")
    assert not is_new(url)
    with pytest.raises(DataFolderMoved, match="not seen to its end"):
        sqlite_store(house)
    view = moved(house, url)
    assert (view.moved, view.findings) == (True, [])
    mark = read_mark(house)
    assert mark is not None
    assert mark.done
