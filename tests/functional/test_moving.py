"""`strongroom store migrate` as an operator sees it: a living house stops on SQLite and goes on in PostgreSQL."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from decimal import Decimal
from importlib import resources
from pathlib import Path
from typing import Any, Final, NamedTuple

import httpx
import pytest

from strongroom.cli import archivist
from strongroom.store.sqlite.moved import MOVED_FILE
from support.client import V1, V3, ApiClient, Credentials
from support.demos import STRONGROOM, Demo, environment, invoke, invoke_json, run, running
from support.house_nodes import store_of
from support.moving import FAULTS, another_database, contents, is_new
from support.nodes import free_port

READY_WITHIN_S: Final = 60
STILL_S: Final = "3600"
"""Seconds between blocks, so that no status changes by itself."""

USERS: Final = ("alice", "bob", "alice-sub1")
SENT: Final = {"amount": "0.25", "asset": "BTC", "toUser": "bob", "toUserMail": "bob@example.com"}
_HEAD: Final = """data = "{data}"
store = "{store}"
port = {port}
drain_s = 0
master_key_file = "{data}/master.key"
[rate_limits.default]
unlimited = true
"""


def write_settings(path: Path, folder: Path, store: str, port: int) -> Path:
    """Write the settings of a demo's house for a server that is no demo."""
    house = (resources.files("strongroom.demo") / "house.toml").read_text()
    catalogue = house[house.index("[simulation]") :].replace("seconds_per_block = 2", f"seconds_per_block = {STILL_S}")
    path.write_text(_HEAD.format(data=folder, store=store, port=port) + catalogue)
    return path


@contextmanager
def serving(settings: Path, port: int) -> Iterator[str]:
    """Run `strongroom serve` while the block runs, and yield its URL once it is ready."""
    log = settings.with_suffix(".log")
    with log.open("w") as errors:
        process = subprocess.Popen([*STRONGROOM, "serve", "--config", str(settings)], stderr=errors, env=environment())
    url = f"http://127.0.0.1:{port}"
    try:
        deadline_s = time.monotonic() + READY_WITHIN_S
        while not is_ready(url):
            assert process.poll() is None, log.read_text()[-2000:]
            assert time.monotonic() < deadline_s, log.read_text()[-2000:]
            time.sleep(0.05)
        yield url
    finally:
        process.terminate()
        process.wait(READY_WITHIN_S)


def is_ready(url: str) -> bool:
    """Say whether a server takes requests."""
    try:
        return httpx.get(f"{url}/readyz", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


class Lived(NamedTuple):
    """What customers had been told when the house was stopped: each one's answers, a keyed reply, and its request."""

    told: dict[str, Any]
    reply: httpx.Response
    used: tuple[dict[str, str], bytes]
    refs: set[int]
    root: str


@contextmanager
def customers(url: str, keys: Mapping[str, Credentials]) -> Iterator[dict[str, ApiClient]]:
    """Give a client for each customer while the block runs."""
    with ExitStack() as stack:
        yield {name: stack.enter_context(closing(ApiClient(url, key))) for name, key in keys.items()}


def told(client: ApiClient) -> list[Any]:
    """Return everything that a customer is shown: balances, history in pages, the addresses of its coins."""
    pages = [client.get(f"{V3}user/wallet_history", {"page": page, "count": 7}).json() for page in (1, 2, 3)]
    addresses = [client.get(f"{V3}user/wallet/address", {"currency": code}).json() for code in ("BTC", "ETH", "XRP")]
    unified = client.get(f"{V1}user/assets").json()["data"]
    return [client.get(f"{V3}user/wallet").json(), unified, pages, addresses]


def refs_of(client: ApiClient) -> list[int]:
    """Return the order references in a customer's whole history."""
    return [row["orderId"] for row in client.get(f"{V3}user/wallet_history", {"count": 500}).json()]


def live(demo: Demo, clients: dict[str, ApiClient]) -> Lived:
    """Let customers do a little of everything in a house that already has a past."""
    alice = clients["alice"]
    reply = alice.post(f"{V3}user/wallet/transfer", SENT, headers={"Idempotency-Key": "once"})
    assert reply.status_code == 200, reply.text
    content = json.dumps(SENT).encode()
    used = alice.headers(f"{V3}user/wallet/transfer", content)
    sent = alice.http.post(f"{V3}user/wallet/transfer", content=content, headers=used)
    assert sent.status_code == 200, sent.text
    swapped = alice.post(f"{V3}user/wallet/convert", {"amount": "0.1", "fromAsset": "BTC", "toAsset": "USDT"})
    assert swapped.status_code == 200, swapped.text
    demo.ask("faucet", "alice", "BTC", "0.5")
    to = clients["bob"].get(f"{V3}user/wallet/address", {"currency": "ETH"}).json()[0]["address"]
    body = {"currency": "ETH", "address": to, "tag": "", "amount": "0.5"}
    assert alice.post(f"{V3}user/wallet/withdraw", body).status_code == 200
    seen = {name: told(client) for name, client in clients.items()}
    refs = {ref for client in clients.values() for ref in refs_of(client)}
    return Lived(seen, reply, (used, content), refs, "")


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Credentials], Lived]:
    """A house that was stopped: its folder, its customers' keys, and what they were told."""
    folder = tmp_path_factory.mktemp("moving") / "house"
    with running(folder, pace_s=STILL_S) as demo:
        keys = {name: Credentials(user["api_key"], user["api_secret"]) for name, user in demo.users.items()}
        with customers(demo.url, keys) as clients:
            lived = live(demo, clients)
        code, _ = demo.stop()
        assert code == 0
    root = invoke_json("ledger", "verify", "--data", folder)["root"]
    return folder, keys, lived._replace(root=root)


def test_a_house_moves_and_goes_on(stopped: tuple[Path, dict[str, Credentials], Lived], tmp_path: Path) -> None:
    """Customers are told the same as before, what was used up stays so, and nobody can serve the old books."""
    folder, keys, lived = stopped
    store, port = store_of(tmp_path), free_port()
    before = contents(folder)
    ran = run("store", "migrate", "--from", f"sqlite:{folder}", "--to", store)
    assert ran.code == 0, ran.err
    assert f"root  {lived.root}" in ran.out
    assert f"moved to {store}\n" in ran.out
    assert f'store = "{store}"' in ran.out
    rows = [line.split("\t") for line in ran.out.splitlines() if line.count("\t") == 3]
    assert rows[0] == ["kind", "rows_in_source", "rows_in_target", "equal"]
    assert all(count == there and equal == "yes" for _, count, there, equal in rows[1:])
    assert {"item", "nonce", "reply", "holding", "payment", "withdrawal", "deposit"} <= {
        row[0] for row in rows if row[1] != "0"
    }
    assert {name: content for name, content in contents(folder).items() if name != "moved.json"} == before
    see_the_old_books_closed(folder, tmp_path)
    settings = write_settings(tmp_path / "strongroom.toml", folder, store, port)
    verified = invoke_json("ledger", "verify", "--config", settings)
    assert (verified["whole"], verified["root"]) == (True, lived.root)
    with serving(settings, port) as url, customers(url, keys) as clients:
        see_the_same(clients, lived)
        see_it_go_on(clients, lived, settings)
    assert invoke_json("ledger", "verify", "--config", settings)["whole"]


def see_the_old_books_closed(folder: Path, tmp_path: Path) -> None:
    """Every door to the books in the folder says where they are, but for those that only look."""
    settings = write_settings(tmp_path / "old.toml", folder, "", free_port())
    for command in (
        ("serve", "--config", settings),
        ("demo", "--data", folder, "--port", "0"),
        ("user", "list", "--config", settings),
        ("restore", "--here", "--config", settings),
    ):
        ran = run(*command)
        assert ran.code == 1
        assert re.search(r"^strongroom: the books of .* were moved to postgresql://", ran.err, re.MULTILINE), ran.err
    assert invoke("ledger", "verify", "--data", folder).code == 0


def see_the_same(clients: dict[str, ApiClient], lived: Lived) -> None:
    """Everybody is told what was told before; a retry has its reply, and a signature is used up."""
    for name in USERS:
        assert told(clients[name]) == lived.told[name]
    alice = clients["alice"]
    again = alice.post(f"{V3}user/wallet/transfer", SENT, headers={"Idempotency-Key": "once"})
    assert (again.status_code, again.content) == (200, lived.reply.content)
    assert again.headers["idempotency-replayed"] == "true"
    headers, content = lived.used
    replayed = alice.http.post(f"{V3}user/wallet/transfer", content=content, headers=headers)
    assert replayed.status_code == 401
    assert "nonce" in replayed.text
    assert told(alice) == lived.told["alice"]


def see_it_go_on(clients: dict[str, ApiClient], lived: Lived, settings: Path) -> None:
    """New money comes and goes, under new references; the chain goes on where it was, and no epoch has begun."""
    alice, bob = clients["alice"], clients["bob"]
    for _ in range(5):
        assert alice.post(f"{V3}user/wallet/transfer", SENT).status_code == 200
    refs = [ref for client in clients.values() for ref in refs_of(client)]
    assert len(set(refs)) == len(set(lived.refs)) + 10
    assert sorted(refs)[: len(lived.refs)] == sorted(lived.refs)
    had = available(bob, "LTC")
    assert invoke("faucet", "bob", "LTC", "3", "--config", settings).code == 0
    assert invoke("chain", "mine", "LITECOIN", "20", "--config", settings).code == 0
    deadline_s = time.monotonic() + READY_WITHIN_S
    while available(bob, "LTC") != had + 3:
        assert time.monotonic() < deadline_s
        time.sleep(0.1)
    waits = invoke_json("network", "list", "--config", settings)
    assert [network["waits"] for network in waits if network["waits"]] == []


def available(client: ApiClient, code: str) -> float:
    """Return what a customer can spend of an asset."""
    return next(row["available"] for row in client.get(f"{V3}user/wallet").json() if row["currency"] == code)


def test_a_move_that_differs_exits_with_1(stopped: tuple[Path, dict[str, Credentials], Lived], tmp_path: Path) -> None:
    """The table is printed, standard error says what differs, and the database stays as it was."""
    folder = Path(shutil.copytree(stopped[0], tmp_path / "house"))
    (folder / MOVED_FILE).unlink(missing_ok=True)
    with another_database(FAULTS["a row is dropped"]) as url:
        ran = run("store", "migrate", "--from", f"sqlite:{folder}", "--to", url)
        assert ran.code == 1
        assert re.search(r"^user\t[1-9]\d*\t0\tno$", ran.out, re.MULTILINE), ran.out
        assert ran.err.splitlines() == [
            "strongroom: user: what has arrived is not the same",
            "strongroom: not equal, and nothing was moved",
        ]
        assert is_new(url)


def test_a_move_tells_how_far_it_is_and_what_it_came_to(
    stopped: tuple[Path, dict[str, Credentials], Lived], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every few seconds on standard error; at the end, for tools, in one line of JSON."""
    folder = Path(shutil.copytree(stopped[0], tmp_path / "house"))
    (folder / MOVED_FILE).unlink(missing_ok=True)
    monkeypatch.setattr(archivist, "_TELL_EVERY_S", 0.0)
    with another_database(migrated=False) as url:
        ran = invoke("store", "migrate", "--from", f"sqlite:{folder}", "--to", url, "--json")
    view = json.loads(ran.out)
    assert (ran.code, view["moved"], view["root"], view["to"]) == (0, True, stopped[2].root, url)
    bitcoin = next(row for row in view["sums"] if row["asset"] == "BTC")
    assert bitcoin["equal"]
    assert Decimal(bitcoin["customers_in_target"]) == -Decimal(bitcoin["house_in_source"]) > 20
    told = [line for line in ran.err.splitlines() if line.endswith(": 0 rows")]
    assert [f"{stage} item: 0 rows" in told for stage in ("copying", "comparing")] == [True, True]


def test_a_move_without_the_driver_says_what_to_install(
    stopped: tuple[Path, dict[str, Credentials], Lived], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is an extra of the package; nothing is read or marked without it."""
    monkeypatch.setitem(sys.modules, "psycopg", None)
    before = contents(stopped[0])
    ran = invoke("store", "migrate", "--from", f"sqlite:{stopped[0]}", "--to", "postgresql://a@localhost/b")
    assert (ran.code, "a move to PostgreSQL needs PostgreSQL's driver, install strongroom[postgresql]" in ran.err) == (
        2, True,
    )  # fmt: skip
    assert contents(stopped[0]) == before


@pytest.mark.parametrize(
    ("source", "target", "why"),
    [
        ("postgresql://a@localhost/b", "sqlite:house", "in no other direction"),
        ("sqlite:/nowhere/at/all", "postgresql://a@localhost/b", "there is no ledger to move"),
    ],
    ids=["back", "missing"],
)
def test_a_move_that_cannot_be_is_told_in_a_line(source: str, target: str, why: str) -> None:
    """Nothing is opened, and there is no traceback."""
    ran = invoke("store", "migrate", "--from", source, "--to", target)
    assert (ran.code, ran.out, ran.err.count("\n")) == (1, "", 1)
    assert why in ran.err


def test_a_database_that_does_not_answer_is_told(stopped: tuple[Path, dict[str, Credentials], Lived]) -> None:
    """The password in the URL is not shown."""
    url = f"postgresql://somebody:hidden@127.0.0.1:{free_port()}/none"
    ran = invoke("store", "migrate", "--from", f"sqlite:{stopped[0]}", "--to", url)
    assert ran.code == 1
    assert "the database cannot be used: connection failed" in ran.err
    assert "hidden" not in ran.err
