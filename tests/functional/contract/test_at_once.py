"""Many requests at once: each rule holds as if they had come one after another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import httpx
import pytest

from support.client import V1, V3, ApiClient
from support.serving import House, mail_of
from support.shapes import answered, enveloped

ADDRESS, ADDRESS_V1 = V3 + "user/wallet/address", V1 + "user/crypto/address"


def at_once(ask: Callable[[int], httpx.Response], count: int) -> Counter[tuple[int, int]]:
    """Return how often each status and error code was answered to so many requests at once."""
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(ask, range(count)))
    return Counter((reply.status_code, 0 if reply.is_success else reply.json()["code"]) for reply in replies)


@pytest.fixture
def fresh(house: House, request: pytest.FixtureRequest) -> ApiClient:
    """A user of the test's own, with ten BTC and ten ETH."""
    name = request.node.name.removeprefix("test_")[:60]
    house.open_user(name)
    house.fund(name, BTC="10", ETH="10")
    return house.client(name)


def test_one_address_is_given(fresh: ApiClient) -> None:
    """Of many requests for an address v3 fulfils one, and of as many to delete it too."""
    asked = {"currency": "BTC"}
    assert at_once(lambda _: fresh.post(ADDRESS, asked), 24) == {(200, 0): 1, (400, 3528): 23}
    [row] = answered(fresh.get(ADDRESS, asked))
    named = asked | {"address": row["address"]}
    assert at_once(lambda _: fresh.delete(ADDRESS, named), 16) == {(200, 0): 1, (400, -2): 15}


def test_ten_addresses_are_given(fresh: ApiClient) -> None:
    """Of many requests for an address wallet v1 fulfils ten, each with another one."""
    asked = {"crypto": "ETH", "network": "ERC20"}
    assert at_once(lambda _: fresh.post(ADDRESS_V1, asked), 40) == {(200, 0): 10, (400, 3528): 30}
    assert len({row["address"] for row in enveloped(fresh.get(ADDRESS_V1, asked))}) == 10


def test_nobody_spends_twice(house: House, fresh: ApiClient) -> None:
    """Of thirty transfers of one BTC from a balance of ten, ten are done."""
    body = {"asset": "BTC", "amount": "1", "receiverUsername": "bob"}
    done = at_once(lambda _: fresh.post(V1 + "user/assets/sendTo", body), 30)
    assert done == {(200, 0): 10, (400, 51523): 20}
    assert len(enveloped(fresh.get(V1 + "user/walletHistory", {"asset": "BTC", "historyTypes": '["SEND"]'}))) == 10


def test_everything_together(house: House, fresh: ApiClient) -> None:
    """Transfers, conversions and withdrawals at once spend what is there and keep every limit."""
    asks: list[tuple[str, dict[str, Any]]] = [
        (V3 + "user/wallet/transfer", {"asset": "ETH", "amount": "1", "toUser": "bob", "toUserMail": mail_of("bob")}),
        (V1 + "user/assets/convert", {"fromAsset": "ETH", "toAsset": "USDT", "amount": "1"}),
        (V3 + "user/wallet/withdraw", {"currency": "ETH", "address": "0x" + "1" * 40, "amount": "1"}),
    ]
    done = at_once(lambda n: fresh.post(*asks[n % 3]), 90)
    assert done[200, 0] == 10
    assert set(done) <= {(200, 0), (400, 51523), (400, 3508)}
    [eth] = [row for row in answered(fresh.get(V3 + "user/wallet")) if row["currency"] == "ETH"]
    assert eth["available"] == "0"
    withdrawn = enveloped(fresh.get(V1 + "user/walletHistory", {"asset": "ETH", "historyTypes": '["WITHDRAW"]'}))
    assert eth["total"] == str(len(withdrawn))
    assert len(withdrawn) <= 5
    assert house.verify().is_whole


def test_money_goes_round(house: House) -> None:
    """While four users send each other money both ways, none is lost and none is made."""
    names = ["north", "east", "south", "west"]
    for name in names:
        house.open_user(name)
        house.fund(name, XRP="100")
    clients = [house.client(name) for name in names]

    def send(n: int) -> httpx.Response:
        body = {"asset": "XRP", "amount": "0.7", "receiverUsername": names[(n * 7 + 1) % 4]}
        return clients[n % 4].post(V1 + "user/assets/sendTo", body)

    assert set(at_once(send, 120)) <= {(200, 0), (400, 28)}
    totals = [
        Decimal(row["totalAmount"])
        for client in clients
        for row in enveloped(client.get(V1 + "user/assets"))
        if row["asset"] == "XRP"
    ]
    assert sum(totals) == 400
    assert house.verify().is_whole
