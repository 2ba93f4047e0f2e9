"""Files that only their owner can read."""

from __future__ import annotations

from pathlib import Path

import pytest

from strongroom.files import claim, write_new, write_over


def _mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_new_file_is_private_and_never_takes_the_place_of_another(tmp_path: Path) -> None:
    """What is there already stays as it is."""
    path = tmp_path / "secret"
    write_new(path, b"one")
    with pytest.raises(FileExistsError):
        write_new(path, b"two")
    assert (path.read_bytes(), _mode(path)) == (b"one", 0o600)


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    """The new content stands alone, and no half-written file is left beside it."""
    path = tmp_path / "secret"
    for content in (b"a long first content", b"short"):
        write_over(path, content)
    assert [entry.name for entry in tmp_path.iterdir()] == ["secret"]
    assert (path.read_bytes(), _mode(path)) == (b"short", 0o600)


def test_a_file_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    """Claiming keeps the content and takes the others' rights away."""
    path = tmp_path / "books"
    path.write_bytes(b"content")
    path.chmod(0o644)
    claim(path)
    assert (path.read_bytes(), _mode(path)) == (b"content", 0o600)
