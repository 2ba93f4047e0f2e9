"""The command line over a house that no server serves: it opens the books itself, and says what it cannot do."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from strongroom.demo.founding import found
from support.demos import environment, invoke, invoke_json, run


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A house that was made by `init`."""
    folder = tmp_path_factory.mktemp("cli") / "house"
    assert invoke("init", "--data", folder).code == 0
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A demo's folder that nobody serves."""
    folder = tmp_path_factory.mktemp("whole") / "house"
    asyncio.run(found(folder))
    return folder


@pytest.fixture
def tampered(whole: Path, tmp_path: Path) -> Iterator[tuple[Path, sqlite3.Connection]]:
    """A copy of a demo's folder, with its database open for bad deeds."""
    folder = tmp_path / "house"
    shutil.copytree(whole, folder)
    database = sqlite3.connect(folder / "strongroom.sqlite")
    yield folder, database
    database.close()


def test_init_writes_a_house_that_only_its_owner_can_read(house: Path) -> None:
    """Settings that can be read, a master key, a sealed seed; each for the owner only."""
    settings = tomllib.loads((house / "strongroom.toml").read_text())
    assert settings["data"] == "."
    assert set(settings["assets"]) >= {"BTC", "USDT", "USD"}
    for name in ("strongroom.toml", "master.key", "seed.sealed"):
        assert (house / name).stat().st_mode & 0o777 == 0o600


def test_init_overwrites_nothing(house: Path) -> None:
    """A second time it refuses, and leaves every file as it was."""
    before = {path.name: path.read_bytes() for path in house.iterdir() if path.is_file()}
    ran = invoke("init", "--data", house)
    assert ran.code == 1
    assert "is there already" in ran.err
    assert {path.name: path.read_bytes() for path in house.iterdir() if path.is_file()} == before


def test_users_and_keys_are_made_and_shown(house: Path) -> None:
    """Users, a sub-account and a key come into the books, and the key's secret is shown once only."""
    alice = invoke_json("user", "add", "alice", "alice@example.com", "--data", house)
    sub = invoke_json(
        "subaccount", "add", "alice", "alice-sub", "sub@example.com", "--config", house / "strongroom.toml"
    )
    assert (sub["parent"], sub["state"]) == ("alice", "active")
    key = invoke_json(
        *("key", "create", alice["uid"], "--permission", "Read", "--permission", "transfer"),
        *("--network", "10.0.0.7/8", "--expires", "2099-01-31", "--label", "bot", "--data", house),
    )
    assert key["permissions"] == ["Read", "Transfer"]
    assert (key["networks"], key["expires"]) == (["10.0.0.0/8"], "2099-01-31T00:00:00Z")
    [listed] = invoke_json("key", "list", "alice", "--data", house)
    assert (listed["key"], listed["label"], listed["state"]) == (key["key"], "bot", "works")
    assert key["secret"] not in json.dumps(listed)
    assert invoke_json("key", "revoke", key["key"], "--data", house)["state"] == "revoked"
    shown = invoke_json("user", "show", "alice@example.com", "--data", house)
    assert (shown["subaccounts"], shown["working_keys"]) == (["alice-sub"], 0)


def test_the_faucet_pays_without_a_server(house: Path) -> None:
    """Coins arrive through the chain with their confirmations, money through the bank; the books stay whole."""
    invoke_json("user", "add", "frank", "frank@example.com", "--data", house)
    paid = invoke_json("faucet", "frank", "xrp", "25.5", "--data", house)
    assert paid["credited"]
    assert paid["tag"]
    assert invoke_json("faucet", "frank", "EUR", "100", "--data", house)["credited"]
    balances = {row["asset"]: row["available"] for row in invoke_json("balance", "frank", "--data", house)}
    assert (balances["XRP"], balances["EUR"], balances["BTC"]) == ("25.5", "100", "0")
    assert invoke_json("ledger", "verify", "--data", house)["whole"]


def test_a_price_that_was_set_outlives_the_program(house: Path) -> None:
    """A declared price is there again the next time the house is opened, the other way round replaced as well."""
    invoke_json("rates", "set", "BTC/USDT", "66680.5", "--data", house)
    invoke_json("rates", "set", "USDT/BTC", "0.00002", "--data", house)
    table = [row for row in invoke_json("rates", "show", "--data", house) if row["source"] == "table"]
    assert [(row["pair"], row["price"], row["usable"]) for row in table] == [("USDT/BTC", "0.00002", True)]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["user", "show", "nobody"], "there is no user nobody"),
        (["user", "add", "x", "x@example.com"], "username must be"),
        (["balance", "nobody"], "there is no user nobody"),
        (["faucet", "frank", "DOGE", "1"], "Invalid currency DOGE"),
        (["faucet", "frank", "BTC", "0.000000001"], "amount has too many decimals"),
        (["withdrawal", "approve", "1"], "withdrawal is not awaiting approval"),
        (["withdrawal", "list", "--state", "lost"], "there is no state lost"),
        (["rates", "set", "BTC", "1"], "is not a pair"),
        (["rates", "set", "BTC/USDT", "0"], "is not a price"),
        (["key", "revoke", "abc"], "key is unknown"),
        (["chain", "mine", "DOGE"], "Invalid protocol"),
    ],
)
def test_what_cannot_be_done_is_told_in_a_line(house: Path, arguments: list[str], complaint: str) -> None:
    """An expected failure is one line on standard error and exit code 1."""
    ran = invoke(*arguments, "--data", house)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("strongroom: ")
    assert complaint in ran.err
    assert ran.err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [["user"], ["user", "sing"], ["balance"], ["faucet", "alice", "BTC"], ["demo", "--port", "70000"], ["serve"]],
)
def test_wrong_usage_has_a_code_of_its_own(arguments: list[str]) -> None:
    """Usage that cannot be meant ends with 2 and names the way to the help."""
    ran = invoke(*arguments)
    assert ran.code == 2
    assert "Usage: strongroom" in ran.err


def test_a_setting_that_is_unknown_is_refused_with_its_neighbour(house: Path, tmp_path: Path) -> None:
    """A slip in the settings ends with 2 and names what was probably meant."""
    wrong = tmp_path / "wrong.toml"
    wrong.write_text((house / "strongroom.toml").read_text().replace("nonce_window_ms", "nonce_window"))
    ran = invoke("serve", "--config", wrong)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == "strongroom: unknown setting 'nonce_window', did you mean 'nonce_window_ms'?\n"


def test_a_house_that_is_not_there_is_told(tmp_path: Path) -> None:
    """Neither a server nor settings: commands and the audit say so and end with 1."""
    assert invoke("balance", "alice", "--data", tmp_path).code == 1
    ran = invoke("ledger", "verify", "--data", tmp_path)
    assert (ran.code, ran.err) == (1, f"strongroom: {tmp_path} has no ledger\n")


def test_the_help_is_there_at_once() -> None:
    """Nothing heavy is imported for the help."""
    script = (
        "import sys; from strongroom.cli.main import root; print('bip_utils' in sys.modules, 'apsw' in sys.modules)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, env=environment(), check=True
    )
    assert ran.stdout == "False False\n"


def test_whole_books_are_verified(whole: Path) -> None:
    """An untouched folder is whole, also by the program in a process of its own, and the audit changes no byte."""
    before = (whole / "strongroom.sqlite").read_bytes()
    ran = run("ledger", "verify", "--data", whole)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.endswith("whole\n")
    assert (whole / "strongroom.sqlite").read_bytes() == before


@pytest.mark.parametrize(
    ("deed", "item"),
    [
        ("UPDATE item SET text = json_set(text, '$.postings[0][1]', 7) WHERE text ->> '$.postings' LIKE '[[%'", None),
        ("DELETE FROM item WHERE number = 55", 55),
        ("UPDATE item SET text = json_set(text, '$.at_ms', 5) WHERE number = 60", 60),
        ("UPDATE item SET text = json_set(text, '$.lines[0][7]', 5) WHERE number = (SELECT min(item) FROM line)", None),
        ("UPDATE withdrawal SET state = 3 WHERE ref = (SELECT min(ref) FROM withdrawal)", None),
    ],
)
def test_tampered_books_are_not_whole(tampered: tuple[Path, sqlite3.Connection], deed: str, item: int | None) -> None:
    """Whatever was changed behind the ledger's back, the audit ends with 1 and names the first wrong item."""
    folder, database = tampered
    triggers = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")]
    with database:
        for trigger in triggers:
            database.execute(f"DROP TRIGGER {trigger}")
        assert database.execute(deed).rowcount >= 1
    ran = invoke("ledger", "verify", "--data", folder, "--json")
    report = json.loads(ran.out)
    assert (ran.code, report["whole"]) == (1, False)
    assert report["findings"]
    assert item is None or report["first_wrong_item"] == item


def test_a_file_that_is_no_database_is_told_in_a_line(tmp_path: Path) -> None:
    """Garbage instead of books is no traceback."""
    (tmp_path / "strongroom.sqlite").write_bytes(b"garbage" * 1000)
    ran = invoke("ledger", "verify", "--data", tmp_path)
    assert ran.code == 1
    assert ran.err.startswith(f"strongroom: the ledger of {tmp_path} cannot be read")


def test_a_key_may_expire_after_a_time_from_now(house: Path) -> None:
    """`--expires 2h` is two hours from now; what is neither that nor a date is wrong usage."""
    invoke_json("user", "add", "grace", "grace@example.com", "--data", house)
    key = invoke_json("key", "create", "grace", "--expires", "2h", "--data", house)
    left_s = time.mktime(time.strptime(key["expires"], "%Y-%m-%dT%H:%M:%SZ")) - time.mktime(time.gmtime())
    assert 7_100 < left_s <= 7_260
    assert invoke("key", "create", "grace", "--expires", "soon", "--data", house).code == 2
