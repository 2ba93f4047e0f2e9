"""`strongroom backup` and `restore`: whole copies beside a server, and refusals that leave everything as it was."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from strongroom.admin import restoring
from strongroom.crashpoints import arm
from strongroom.demo.founding import found
from support.demos import invoke, invoke_json, running

DATABASE = "strongroom.sqlite"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A demo's folder that nobody serves."""
    folder = tmp_path_factory.mktemp("whole") / "house"
    asyncio.run(found(folder))
    return folder


@pytest.fixture
def backup(whole: Path, tmp_path: Path) -> Path:
    """A backup of its books."""
    target = tmp_path / "backup.sqlite"
    made = invoke_json("backup", "--data", whole, "--to", target)
    assert (made["file"], made["bytes"]) == (str(target), target.stat().st_size)
    return target


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file under a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def newest(database: Path) -> tuple[int, str]:
    """Return the number and the text of the newest item of a closed database."""
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute("SELECT number, text FROM item ORDER BY number DESC LIMIT 1").fetchone()


def transfers(database: Path) -> list[int]:
    """Return the newest transfer's amount."""
    sql = "SELECT text ->> '$.command.amount' FROM item WHERE text ->> '$.command.command' = 'Transfer'"
    with closing(sqlite3.connect(database)) as connection:
        return [amount for (amount,) in connection.execute(f"{sql} ORDER BY number DESC LIMIT 1")]


def edited(backup: Path, *deeds: str) -> None:
    """Change a backup behind the ledger's back."""
    database = sqlite3.connect(backup)
    with database:
        for (trigger,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            database.execute(f"DROP TRIGGER {trigger}")
        for deed in deeds:
            database.execute(deed)
    database.close()


def test_a_backup_is_one_file_for_its_owner_only(backup: Path) -> None:
    """It needs no log beside it, others cannot read it, and nothing else is left in its folder."""
    assert backup.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in backup.parent.iterdir()] == [backup.name]


def test_a_backup_overwrites_nothing(whole: Path, backup: Path) -> None:
    """A second one to the same name is refused, and so is one of a folder without books."""
    before = backup.read_bytes()
    ran = invoke("backup", "--data", whole, "--to", backup)
    assert (ran.code, ran.err) == (1, f"strongroom: {backup} is there already, and nothing is overwritten\n")
    assert backup.read_bytes() == before
    empty = backup.parent / "empty"
    ran = invoke("backup", "--data", empty, "--to", backup.parent / "other")
    assert (ran.code, ran.err) == (1, f"strongroom: {empty} has no ledger\n")
    assert invoke("backup", "--data", whole, "--to", backup.parent / "no" / "such" / "folder").code == 1
    assert [path.name for path in backup.parent.iterdir()] == [backup.name]


def test_a_restored_ledger_is_whole_and_begins_an_epoch(backup: Path, tmp_path: Path) -> None:
    """Each restore counts on, the audit finds nothing, and the file is its owner's only."""
    folder = tmp_path / "house"
    restored = invoke_json("restore", backup, "--data", folder)
    assert (restored["folder"], restored["epoch"]) == (str(folder), 1)
    assert list(contents(folder)) == [DATABASE]
    assert (folder / DATABASE).stat().st_mode & 0o777 == 0o600
    assert invoke_json("ledger", "verify", "--data", folder)["whole"]
    assert invoke_json("restore", "--here", "--data", folder)["epoch"] == 2
    again = tmp_path / "again.sqlite"
    assert invoke("backup", "--data", folder, "--to", again).code == 0
    assert invoke_json("restore", again, "--data", tmp_path / "third")["epoch"] == 3


def test_a_folder_with_books_is_not_restored_over(whole: Path, backup: Path) -> None:
    """The books that are there stay as they are."""
    before = contents(whole)
    ran = invoke("restore", backup, "--data", whole)
    assert (ran.code, ran.err) == (
        1, f"strongroom: {whole / DATABASE} is there already, and nothing is overwritten\n",
    )  # fmt: skip
    assert contents(whole) == before


@pytest.mark.parametrize(
    ("deeds", "why"),
    [
        (["UPDATE item SET text = json_set(text, '$.at_ms', 5) WHERE number = 60"], "the ledger is not whole"),
        (["DELETE FROM item WHERE number = 55"], "the ledger is not whole"),
        (["DROP TABLE progress"], "cannot be read: no such table"),
        (["PRAGMA user_version = 99"], "schema 99"),
    ],
    ids=["changed", "deleted", "no table", "newer"],
)
def test_a_backup_that_is_not_whole_is_not_restored(backup: Path, tmp_path: Path, deeds: list[str], why: str) -> None:
    """It ends with 1 and says why, and the folder has no books afterwards."""
    edited(backup, *deeds)
    folder = tmp_path / "house"
    ran = invoke("restore", backup, "--data", folder)
    assert (ran.code, ran.out) == (1, "")
    assert why in ran.err
    assert contents(folder) == {}


@pytest.mark.parametrize("content", [b"", b"garbage" * 1_000], ids=["empty", "garbage"])
def test_what_is_no_backup_is_told_in_a_line(tmp_path: Path, content: bytes) -> None:
    """Neither a missing file, nor an empty one, nor garbage becomes books."""
    file, folder = tmp_path / "backup.sqlite", tmp_path / "house"
    assert invoke("restore", file, "--data", folder).err == f"strongroom: there is no backup {file}\n"
    file.write_bytes(content)
    ran = invoke("restore", file, "--data", folder)
    assert ran.code == 1
    assert ran.err.startswith("strongroom: ")
    assert ran.err.count("\n") == 1
    assert not (folder / DATABASE).exists()


def test_either_a_file_or_here(tmp_path: Path) -> None:
    """Both, or neither, is wrong usage; a folder without books has nothing to begin anew."""
    assert invoke("restore", "--data", tmp_path).code == 2
    assert invoke("restore", tmp_path / "file", "--here", "--data", tmp_path).code == 2
    assert invoke("restore", "--here", "--data", tmp_path).err == f"strongroom: {tmp_path} has no ledger\n"


def test_a_restore_that_died_is_begun_again(backup: Path, tmp_path: Path) -> None:
    """Whenever it ends, the folder has either no books or restored ones: never books without their epoch."""
    folder = tmp_path / "house"

    class Dead(BaseException):
        """The process is gone."""

    def die(point: str) -> None:
        if point == "transaction committed":
            shutil.copytree(folder, tmp_path / "remains")
            raise Dead

    arm(die)
    try:
        with pytest.raises(Dead):
            _ = restoring.restore(backup, folder)
    finally:
        arm(None)
    remains = tmp_path / "remains"
    assert not (remains / DATABASE).exists()
    assert restoring.restore(backup, remains).epoch == 1
    assert list(contents(remains)) == [DATABASE]


def test_a_backup_beside_a_running_server_is_of_one_moment(tmp_path: Path) -> None:
    """It is whole, restored it has what was answered before, and the server's own folder cannot be begun anew."""
    with running(tmp_path / "demo") as demo:
        client = demo.client("alice")
        body = {"amount": "0.001", "asset": "BTC", "toUser": "bob", "toUserMail": "bob@example.com"}
        assert client.post("/api/v3.2/user/wallet/transfer", body).status_code == 200
        client.close()
        made = invoke_json("backup", "--data", demo.folder, "--to", tmp_path / "backup.sqlite")
        assert newest(tmp_path / "backup.sqlite")[0] == made["items"]
        ran = invoke("restore", "--here", "--data", demo.folder)
        assert ran.code == 1
        assert "is in use by process" in ran.err
    restored = invoke_json("restore", tmp_path / "backup.sqlite", "--data", tmp_path / "second")
    assert (restored["items"], restored["root"]) == (made["items"], made["root"])
    assert transfers(tmp_path / "backup.sqlite") == [100_000]
    number, text = newest(tmp_path / "second" / DATABASE)
    assert (number, json.loads(text)["command"]["command"]) == (made["items"] + 1, "BeginEpoch")
