"""The operator beside a running server: commands go through its local socket, and take effect at once."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest

from support.client import V1, V3, ApiClient, Credentials
from support.demos import Demo, invoke, running

STRANGER = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """A demo whose chains stand still unless the operator mines."""
    with running(tmp_path_factory.mktemp("admin") / "house", pace_s="100000") as demo:
        yield demo


@pytest.fixture(scope="module")
def alice(demo: Demo) -> Iterator[ApiClient]:
    """Alice's client."""
    client = demo.client("alice")
    yield client
    client.close()


def eventually(condition: Callable[[], Any], timeout_s: float = 20) -> Any:
    """Return what a condition says as soon as it is true: the server is another process."""
    end_s = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < end_s, "did not happen in time"
        time.sleep(0.02)
    return found


def available(client: ApiClient, asset: str) -> Decimal:
    """Return what a user can spend of an asset."""
    rows = client.get(f"{V1}user/assets").json()["data"]
    return next(Decimal(row["availableAmount"]) for row in rows if row["asset"] == asset)


def status_of(client: ApiClient, ref: str) -> str:
    """Return the status of a history line."""
    rows = client.get(f"{V3}user/wallet_history").json()
    return next((row["status"] for row in rows if row["orderId"] == ref), "")


def withdraw(client: ApiClient, amount: str, currency: str = "BTC", address: str = STRANGER) -> str:
    """Ask for a withdrawal and return its reference."""
    body = {"currency": currency, "address": address, "tag": "", "amount": amount}
    return client.post(f"{V3}user/wallet/withdraw", body).json()["withdrawId"]


def test_a_new_key_works_until_it_is_revoked(demo: Demo) -> None:
    """A key made beside the server works on the next request, and a revoked one fails on the next."""
    demo.ask("user", "add", "carol", "carol@example.com")
    made = demo.ask("key", "create", "carol", "--permission", "all")
    client = ApiClient(demo.url, Credentials(made["key"], made["secret"]))
    assert client.get(f"{V3}user/wallet").status_code == 200
    demo.ask("key", "revoke", made["key"])
    refused = client.get(f"{V3}user/wallet")
    assert (refused.status_code, refused.json()["code"]) == (401, 10002)
    client.close()


def test_a_key_of_default_terms_can_only_read(demo: Demo, alice: ApiClient) -> None:
    """Whoever says nothing of permissions gets the least."""
    made = demo.ask("key", "create", "alice")
    client = ApiClient(demo.url, Credentials(made["key"], made["secret"]))
    assert client.get(f"{V3}user/wallet").status_code == 200
    body = {"asset": "USDT", "amount": "1", "toUser": "bob", "toUserMail": "bob@example.com"}
    assert client.post(f"{V3}user/wallet/transfer", body).status_code == 403
    client.close()


def test_a_frozen_user_cannot_spend(demo: Demo, alice: ApiClient) -> None:
    """Freezing takes effect on the next request, and so does its end."""
    body = {"asset": "USDT", "amount": "1", "toUser": "bob", "toUserMail": "bob@example.com"}
    assert demo.ask("user", "freeze", "alice")["state"] == "frozen"
    assert alice.post(f"{V3}user/wallet/transfer", body).json()["code"] == 28
    assert demo.ask("user", "unfreeze", "alice")["state"] == "active"
    assert alice.post(f"{V3}user/wallet/transfer", body).status_code == 200


def test_the_faucet_is_a_deposit_that_confirms_and_may_be_taken_back(demo: Demo, alice: ApiClient) -> None:
    """Coins are seen, confirm block by block and are credited; a reorganisation takes them, until they confirm anew."""
    before = available(alice, "BTC")
    paid = demo.ask("faucet", "alice", "BTC", "0.7")
    assert not paid["credited"]
    query = {"walletType": "SPOT", "asset": "BTC", "pageSize": 1}

    def newest() -> tuple[str, str]:
        [row] = alice.get(f"{V1}user/walletHistory", query).json()["data"]
        return (row["status"], row["confirmTimes"]) if row["txId"] == paid["txid"] else ("", "")

    eventually(lambda: newest() == ("PROCESSING", "(0/2)"))
    demo.ask("chain", "mine", "BITCOIN")
    eventually(lambda: newest() == ("PROCESSING", "(1/2)"))
    demo.ask("chain", "mine", "bitcoin")
    eventually(lambda: newest() == ("COMPLETED", "(2/2)"))
    assert available(alice, "BTC") == before + Decimal("0.7")
    assert len(demo.ask("chain", "reorg", "BITCOIN", "2")) == 3
    eventually(lambda: newest() == ("PROCESSING", "(1/2)"))
    assert available(alice, "BTC") == before
    demo.ask("chain", "mine", "BITCOIN")
    eventually(lambda: newest() == ("COMPLETED", "(2/2)"))
    assert available(alice, "BTC") == before + Decimal("0.7")


def test_money_from_the_faucet_comes_through_the_bank(demo: Demo, alice: ApiClient) -> None:
    """Fiat is credited at once, as a deposit."""
    before = available(alice, "GBP")
    assert demo.ask("faucet", "alice", "gbp", "12.5")["credited"]
    assert available(alice, "GBP") == before + Decimal("12.5")


def test_a_large_withdrawal_waits_for_the_operator(demo: Demo, alice: ApiClient) -> None:
    """Above the limit it is pending; rejected, the customer has the money again; approved, it goes out."""
    demo.ask("faucet", "alice", "BTC", "60", "--mine", "--wait")
    before = available(alice, "BTC")
    turned_down, paid = withdraw(alice, "21"), withdraw(alice, "22")
    assert {row["ref"] for row in demo.ask("withdrawal", "list", "--state", "awaiting")} == {turned_down, paid}
    assert status_of(alice, paid) == "PENDING"
    assert demo.ask("withdrawal", "reject", turned_down)["state"] == "rejected"
    assert status_of(alice, turned_down) == "CANCELLED"
    assert demo.ask("withdrawal", "approve", paid)["state"] == "approved"
    eventually(lambda: status_of(alice, paid) == "PROCESSING")

    def mined() -> bool:
        demo.ask("chain", "mine", "BITCOIN")
        return status_of(alice, paid) == "COMPLETED"

    eventually(mined)
    assert available(alice, "BTC") == before - 22
    assert demo.ask("withdrawal", "list") == []


def test_a_payment_can_be_made_to_fail(demo: Demo, alice: ApiClient) -> None:
    """After `fail-next` the next withdrawal on that chain fails, and its money is there again."""
    before = available(alice, "BTC")
    demo.ask("chain", "fail-next", "BITCOIN")
    ref = withdraw(alice, "0.5")

    def failed() -> bool:
        demo.ask("chain", "mine", "BITCOIN")
        return status_of(alice, ref) == "FAILURE"

    eventually(failed)
    assert available(alice, "BTC") == before


def test_a_price_that_is_set_is_answered_at_once(demo: Demo, alice: ApiClient) -> None:
    """The operator's price goes before the old one, less the spread, and is shown with its age."""
    shown = demo.ask("rates", "set", "LTC-USDT", "80")
    assert (shown["pair"], shown["price"], shown["source"]) == ("LTC/USDT", "80", "table")
    assert [row["price"] for row in demo.ask("rates", "show") if row["pair"] == "LTC/USDT"] == ["80"]
    query = {"baseCurrency": "LTC", "quoteCurrency": "USDT", "amount": "1"}
    rate = alice.get(f"{V1}assets/exchangeRate", query).json()["data"]["rate"]
    assert Decimal(rate) == Decimal("79.92")


def test_books_and_chains_agree(demo: Demo) -> None:
    """Every network of the demo is compared, and no difference is without its cause."""
    ran = invoke("reconcile", "--data", demo.folder, "--json")
    rows = json.loads(ran.out)
    assert {row["network"] for row in rows} == {"BITCOIN", "LITECOIN", "ERC20", "RIPPLE"}
    assert [row for row in rows if row["unexplained"] != "0"] == []
    assert ran.code == 0


def test_the_books_are_whole_beside_the_running_server(demo: Demo) -> None:
    """The audit reads the folder while the server serves."""
    ran = invoke("ledger", "verify", "--data", demo.folder)
    assert (ran.code, ran.err) == (0, "")


def test_the_socket_is_for_the_owner_only(demo: Demo) -> None:
    """Nobody else may connect."""
    assert (demo.folder / "admin.sock").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "line",
    [b"nonsense\n", b"{}\n", b'{"do":"sing"}\n', b'{"do":"user show"}\n', b'{"do":"user show","user":7}\n', b"\xff\n"],
)
def test_what_is_no_request_is_answered_with_an_error(demo: Demo, line: bytes) -> None:
    """Malformed lines get an error each, on a connection that goes on."""
    with telephone(demo) as (send, receive):
        send(line)
        assert b'"error":"not a request' in receive()
        send(b'{"do":"user list"}\n')
        assert b'"username":"alice"' in receive()


def test_an_endless_line_is_cut_off(demo: Demo) -> None:
    """A line beyond the bound ends the connection, and the server lives on."""
    with telephone(demo) as (send, receive):
        try:
            send(b"x" * 7_000_000)
            assert receive() == b""
        except ConnectionError:
            pass
    assert demo.ask("user", "list")


class telephone:  # noqa: N801 - reads as the context manager that it is
    """A connection to the admin socket, as a pair of functions that send bytes and receive a line."""

    def __init__(self, demo: Demo) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(10)
        self._path = demo.folder / "admin.sock"

    def __enter__(self) -> tuple[Callable[[bytes], None], Callable[[], bytes]]:
        self._socket.connect(str(self._path))
        self._file = self._socket.makefile("rb")
        return self._socket.sendall, self._file.readline

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._socket.close()
