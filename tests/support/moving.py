"""Houses that are moved from a file into a database: a life before, and a move that dies where it is told to.

    .venv/bin/python -m support.moving FOLDER URL STAGE

moves the books of a data folder and kills itself when it comes to a stage: the first that begins with this text.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

from strongroom.admin.moving import MoveView, move
from strongroom.clock import Ids, SetClock
from strongroom.records.kept import Kept
from strongroom.store.postgres.connection import Limits
from strongroom.store.postgres.schema import prepare_database
from strongroom.store.postgres.store import PostgresStore
from strongroom.store.sqlite.store import SqliteStore
from strongroom.store.tables import KINDS
from support.house_nodes import url_of
from support.ledger_machine import EACH_KIND
from support.postgres import shared_server
from support.whole_ledger import WholeHouse
from support.world import NOW_MS, AnyStore, World, opened

ROOT: Final = Path(__file__).parents[2]
CROWD: Final = 12
"""More customers than a commit writes folios of, so that the newest of them are only in the journal's end."""

ENDS_WITHIN_S: Final = 60

FAULTS: Final[dict[str, str]] = {
    "a row is dropped": """CREATE FUNCTION fault() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
        CREATE TRIGGER fault BEFORE INSERT ON "user" FOR EACH ROW EXECUTE FUNCTION fault()""",
    "a value is changed": """CREATE FUNCTION fault() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN NEW.expires_ms := NEW.expires_ms + 1; RETURN NEW; END $$;
        CREATE TRIGGER fault BEFORE INSERT ON nonce FOR EACH ROW EXECUTE FUNCTION fault()""",
    "an item is changed": """CREATE FUNCTION fault() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN NEW.text := NEW.text || ' '; RETURN NEW; END $$;
        CREATE TRIGGER fault BEFORE INSERT ON item FOR EACH ROW WHEN (NEW.number = 40) EXECUTE FUNCTION fault()""",
    "money is added": """CREATE FUNCTION fault() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN NEW.heads := regexp_replace(NEW.heads, '\\[(\\d+)', '[1\\1'); RETURN NEW; END $$;
        CREATE TRIGGER fault BEFORE INSERT ON folio FOR EACH ROW EXECUTE FUNCTION fault()""",
}
"""SQL that makes a database keep something else than it was told."""


def no_news(what: str, rows: int) -> None:
    """Tell nobody how far a move is."""


def moved(folder: Path, url: str) -> MoveView:
    """Move the books of a data folder."""
    return move(f"sqlite:{folder}", url, no_news)


def sqlite_store(folder: Path) -> SqliteStore:
    """Open the embedded books of a folder."""
    return SqliteStore(folder, Ids(SetClock(NOW_MS)))


def opened_database(url: str) -> PostgresStore:
    """Open the books in a database."""
    return PostgresStore(url, Ids(SetClock(NOW_MS)))


async def live(folder: Path) -> None:
    """Let a house do everything once in a data folder, and be stopped."""
    async with opened(sqlite_store(folder)) as world:
        await do_everything(world)


async def do_everything(world: World) -> WholeHouse:
    """Let a house do everything once, with a customer's last transfers at its end."""
    house = WholeHouse(world)
    await house.furnish()
    for deed in EACH_KIND:
        outcome = await house.do(deed)
        assert outcome.refusal is None, deed
    for number in range(CROWD):
        await house.open_user(f"crowd{number}", None)
        await house.transfer("alice", "BTC", f"0.0{number + 1:02}", f"crowd{number}")
    return house


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file of a data folder but its lock, in which is only who had it last."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "lock"}


def all_rows(store: AnyStore) -> list[Kept]:
    """Return every row of every kind."""
    return [row for kind in KINDS for row in store.each(kind)]


def sample(kind: type[Kept], number: int) -> Kept:
    """Return a row of a kind with a value of its own in every field that is no list or struct."""
    values = {field.name: _value(field, number) for field in msgspec.structs.fields(kind)}
    return kind(**{name: value for name, value in values.items() if value is not None})


def _value(field: Any, number: int) -> Any:
    if field.type is bool:
        return number % 2 == 1
    if field.type is int:
        return 0 if field.name == "id" else 10**15 * number + len(field.name)
    if field.type is bytes:
        return bytes([0, 255, number]) * 16
    if field.type is str:
        return str(number) if field.name.endswith("units") else f"{number} ü\\\t'\"\n"
    return None


def is_new(url: str) -> bool:
    """Say whether a database's ledger was never written to."""
    with closing(opened_database(url)) as store:
        return store._commits() == 0 and all_rows(store) == []


@contextmanager
def another_database(*fault: str, migrated: bool = True) -> Iterator[str]:
    """Give the URL of a new database while the block runs: with an empty ledger, or bare; with a fault put into it."""
    server = shared_server()
    server.run("CREATE DATABASE another")
    try:
        if migrated:
            prepare_database(server.dsn("another"), Limits())
        for sql in fault:
            server.run(sql, "another")
        yield url_of(server.dsn("another"))
    finally:
        server.run("DROP DATABASE another (FORCE)")


def die_moving(folder: Path, url: str, stage: str) -> None:
    """Move the books of a data folder in a process that is killed at a stage."""
    environ = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'tests'}"}
    command = [sys.executable, "-m", "support.moving", str(folder), url, stage]
    ended = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=ENDS_WITHIN_S, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr


def main(folder: str, url: str, stage: str) -> None:
    """Be the process that dies."""

    def tell(what: str, rows: int) -> None:
        if what.startswith(stage):
            os.kill(os.getpid(), signal.SIGKILL)

    _ = move(f"sqlite:{folder}", url, tell)


if __name__ == "__main__":
    main(*sys.argv[1:])
