"""The demo: one command gives a whole house, with money and a past, however often it is killed on the way."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from strongroom.demo.founding import DONE, FOLDER
from strongroom.demo.house import KEYS_FILE
from support.client import V1, V3
from support.demos import Demo, invoke, launch, output, run, running

PROMISED = {"BTC": 10, "ETH": 100, "USDT": 100_000, "XRP": 10_000}
ASSETS = {"BTC", "ETH", "USDT", "USDC", "LTC", "XRP", "USD", "EUR", "GBP", "JPY", "HKD", "SGD"}
WEEK_MS = 7 * 86_400_000
TYPES = {
    "Deposit": "DEPOSIT",
    "Withdraw": "WITHDRAW",
    "Convert fiat": "CONVERT",
    "Transfer_Out": "SEND",
    "Transfer_In": "RECEIVE",
    "ReferralEarning": "REFERRAL",
    "Trading Fee Stake Freeze": "TRADING_FEE_STAKE_FREEZE",
    "Trading Fee Stake Unfreeze": "TRADING_FEE_STAKE_UNFREEZE",
    "Sub Account Transfer In": "SUB_ACCOUNT_TRANSFER_IN",
    "Sub Account Transfer Out": "SUB_ACCOUNT_TRANSFER_OUT",
}
ENDED = {"COMPLETED", "CANCELLED", "EXPIRED", "FAILURE"}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """A demo for tests that leave it as it was told."""
    with running(tmp_path_factory.mktemp("demo") / "house") as demo:
        yield demo


def test_the_line_of_json_is_the_contract_with_tools(demo: Demo) -> None:
    """The line names the address, the folder and three users with keys that may do everything."""
    assert set(demo.ready) == {"base_url", "data", "users"}
    assert httpx.get(f"{demo.url}/readyz", trust_env=False).status_code == 200
    assert [(user["username"], user["parent"]) for user in demo.ready["users"]] == [
        ("alice", None),
        ("bob", None),
        ("alice-sub1", "alice"),
    ]
    for user in demo.ready["users"]:
        assert set(user) == {"username", "email", "uid", "api_key", "api_secret", "permissions", "parent"}
        assert user["email"] == f"{user['username']}@example.com"
        assert re.fullmatch(r"\d{10}", user["uid"])
        assert user["permissions"] == ["Read", "Trading", "Transfer", "Wallet", "Withdraw"]


def test_everybody_has_money(demo: Demo) -> None:
    """Alice and bob have what is promised and some of everything, in both dialects; the sub-account has some too."""
    for username, promised in (("alice", PROMISED), ("bob", PROMISED), ("alice-sub1", {"BTC": 1, "USDT": 1})):
        client = demo.client(username)
        rows = client.get(f"{V3}user/wallet").json()
        available = {row["currency"]: row["available"] for row in rows}
        assert all(available[asset] >= amount for asset, amount in promised.items())
        unified = client.get(f"{V1}user/assets").json()["data"]
        assert {row["asset"]: Decimal(row["availableAmount"]) for row in unified} == {
            asset: Decimal(str(amount)) for asset, amount in available.items()
        }
        assert set(available) == ASSETS
        assert username == "alice-sub1" or min(available.values()) > 0
        client.close()


def test_history_has_every_type_of_the_last_week_and_nothing_open(demo: Demo) -> None:
    """Alice's history has all nineteen types within seven days, each at its end, in both dialects."""
    client = demo.client("alice")
    rows: list[dict[str, Any]] = client.get(f"{V3}user/wallet_history").json()
    assert len({row["type"] for row in rows}) == 19
    assert set(TYPES) <= {row["type"] for row in rows}
    assert {row["status"] for row in rows} == ENDED
    now_ms = time.time() * 1000
    assert all(now_ms - WEEK_MS < row["timestamp"] <= now_ms for row in rows)
    unified: list[dict[str, Any]] = []
    for asset in ASSETS:
        unified += client.get(f"{V1}user/walletHistory", {"walletType": "SPOT", "asset": asset}).json()["data"]
    assert len({row["type"] for row in unified}) == 19
    assert set(TYPES.values()) <= {row["type"] for row in unified}
    assert sorted(row["transactionRef"] for row in unified) == sorted(row["orderId"] for row in rows)
    assert {row["status"] for row in unified} <= ENDED
    client.close()


def test_the_house_can_convert_all_that_a_customer_has(demo: Demo) -> None:
    """The inventory covers conversions of the promised size, each way and into every kind of money."""
    client = demo.client("bob")
    for source, target, amount in (
        ("BTC", "ETH", "10"),
        ("ETH", "USDT", "100"),
        ("USDT", "JPY", "100000"),
        ("XRP", "BTC", "10000"),
        ("HKD", "SGD", "1000"),
        ("GBP", "LTC", "1000"),
        ("EUR", "USDC", "1000"),
    ):
        body = {"fromAsset": source, "toAsset": target, "amount": amount}
        reply = client.post(f"{V1}user/assets/convert", body)
        assert reply.status_code == 200, reply.text
    client.close()


def test_no_secret_lies_anywhere_but_where_it_belongs(demo: Demo) -> None:
    """Neither the databases nor the log have an API secret or the master key, and others cannot read the key files."""
    secrets = [user["api_secret"].encode() for user in demo.ready["users"]]
    master = (demo.folder / "master.key").read_text().strip()
    kept = {path.name: path.read_bytes() for path in demo.folder.iterdir() if path.is_file()}
    for name, content in kept.items():
        found = [secret for secret in secrets if secret in content]
        assert bool(found) == (name == KEYS_FILE), name
        assert (master.encode() in content) == (name == "master.key"), name
        assert bytes.fromhex(master) not in content, name
    log = demo.errors.read_bytes()
    assert not any(secret in log for secret in [*secrets, master.encode()])
    for name in (KEYS_FILE, "master.key", "seed.sealed"):
        assert (demo.folder / name).stat().st_mode & 0o077 == 0


def test_a_second_server_on_the_folder_is_refused_in_a_line(demo: Demo) -> None:
    """A demo whose folder another one serves ends with 1 and says who has it."""
    ran = run("demo", "--port", "0", "--data", demo.folder, "--json")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.count("\n") == 1
    assert f"in use by process {demo.process.pid}" in ran.err


def test_a_port_in_use_is_refused_in_a_line(tmp_path: Path) -> None:
    """A demo whose port is taken ends with 1 before it does anything."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ran = run("demo", "--port", str(port), "--data", tmp_path / "house", "--json")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == f"strongroom: cannot listen on 127.0.0.1:{port}: Address already in use\n"
    assert not (tmp_path / "house").exists()


def test_every_printed_curl_line_works_each_time_it_is_pasted(tmp_path: Path) -> None:
    """The lines for people stand alone, and sh runs each of them twice with success; ctrl-C ends the demo well."""
    process = launch(tmp_path / "house", tmp_path / "log")
    try:
        lines: list[str] = []
        while not lines or "Ctrl-C" not in lines[-1]:
            lines.append(output(process).readline())
            assert lines[-1], (tmp_path / "log").read_text()
        commands = [line for line in lines if line.startswith("curl ")]
        assert len(commands) == 6
        for command in commands * 2:
            ran = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=20, check=False)
            assert ran.returncode == 0, (command, ran.stdout, ran.stderr)
            assert json.loads(ran.stdout), command
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait(20)
        output(process).close()


def test_keys_and_money_outlive_a_kill(tmp_path: Path) -> None:
    """After kill -9 a second start has the same users and keys, and every transfer that was acknowledged."""
    folder = tmp_path / "house"
    with running(folder) as first:
        client = first.client("alice")
        body = {"asset": "USDT", "amount": "12.34", "toUser": "bob", "toUserMail": "bob@example.com"}
        assert client.post(f"{V3}user/wallet/transfer", body).status_code == 200
        before = client.get(f"{V3}user/wallet").json()
        first.kill()
        client.close()
    with running(folder) as second:
        assert second.ready["users"] == first.ready["users"]
        client = second.client("alice")
        assert client.get(f"{V3}user/wallet").json() == before
        client.close()
        assert invoke("ledger", "verify", "--data", folder).code == 0
        assert second.stop() == (0, "")


@pytest.mark.parametrize("size", [1, 1_000_000, 2_000_000])
def test_a_first_start_that_is_killed_is_made_up_for_by_the_next(tmp_path: Path, size: int) -> None:
    """However far the past was written when the kill came, the next start has a whole demo."""
    folder = tmp_path / "house"
    process = launch(folder, tmp_path / "log", "--json")
    wait_for(lambda: written(folder / FOLDER) >= size or (folder / KEYS_FILE).exists())
    process.kill()
    process.communicate(timeout=20)
    assert not (folder / KEYS_FILE).exists()
    with running(folder) as demo:
        assert list(demo.users) == ["alice", "bob", "alice-sub1"]
        assert not (folder / FOLDER).exists()
        assert invoke("ledger", "verify", "--data", folder).code == 0


def test_a_move_that_is_killed_is_brought_to_its_end(demo: Demo, tmp_path: Path) -> None:
    """When the finished past had only half its files in place, the next start moves the others and keeps the keys."""
    folder = tmp_path / "house"
    workshop = folder / FOLDER
    workshop.mkdir(parents=True)
    with running(tmp_path / "other") as other:
        users = other.ready["users"]
        assert other.stop(signal.SIGINT) == (0, "")
    for path in (tmp_path / "other").iterdir():
        if path.is_file() and path.name != "lock":
            shutil.copy2(path, (folder if path.name == "strongroom.sqlite" else workshop) / path.name)
    (workshop / DONE).touch()
    with running(folder) as again:
        assert again.ready["users"] == users
        assert not workshop.exists()


def test_books_that_are_no_demo_are_left_alone(tmp_path: Path) -> None:
    """A demo does not move in beside somebody's books."""
    house = tmp_path / "house"
    house.mkdir()
    (house / "strongroom.sqlite").write_bytes(b"precious")
    ran = run("demo", "--port", "0", "--data", house, "--json")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == f"strongroom: {house} has books that are not a demo's\n"
    assert (house / "strongroom.sqlite").read_bytes() == b"precious"


def written(folder: Path) -> int:
    """Return how many bytes of books lie in a folder."""
    sizes = 0
    for path in folder.glob("strongroom.sqlite*"):
        try:
            sizes += path.stat().st_size
        except FileNotFoundError:
            continue
    return sizes


def wait_for(condition: Any, timeout_s: float = 30) -> None:
    """Look until a condition holds: the files of another process tell nobody."""
    end_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.002)
