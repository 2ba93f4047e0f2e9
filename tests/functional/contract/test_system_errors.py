"""Refusals that are nobody's fault but ours, or of time: draining, our own mistakes, bodies that never come."""

from __future__ import annotations

import json
import socket
import time

import pytest

from strongroom.api import requests
from strongroom.rates.book import RateBook
from support.client import V1, V3, ApiClient, check_refusal
from support.serving import House, mail_of, unchanged

TRANSFER = V3 + "user/wallet/transfer"
BODY = {"amount": "1", "asset": "BTC", "toUser": "bob", "toUserMail": mail_of("bob")}


def test_a_draining_server_does_nothing_more(house: House, alice: ApiClient) -> None:
    """While draining everything is a 503 that may be sent again just as it is, and is done once then."""
    content = json.dumps(BODY).encode()
    headers = alice.headers(TRANSFER, content)
    house.application.drain()
    try:
        with unchanged(house):
            reply = alice.http.post(TRANSFER, content=content, headers=headers)
            check_refusal(reply, 503, -11, "System draining")
            assert int(reply.headers["retry-after"]) >= 1
            check_refusal(alice.get(V1 + "crypto/list"), 503, -11, "System draining")
    finally:
        house.application.api.draining = False
    assert alice.http.post(TRANSFER, content=content, headers=headers).status_code == 200


def test_our_own_mistake(house: House, nobody: ApiClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistake of ours is a 500 that names nothing, has an id to find it by, and never asks to be sent again."""
    monkeypatch.setattr(house.application.context, "rates", None)
    query = {"srcCurrency": "BTC", "targetCurrency": "USD"}
    reply = nobody.get(V3 + "exchangeRate", query)
    check_refusal(reply, 500, -11, "System error")
    assert "retry-after" not in reply.headers
    monkeypatch.undo()
    assert isinstance(house.application.context.rates, RateBook)
    assert nobody.get(V3 + "exchangeRate", query).status_code == 200


def test_a_mistake_while_changing_something(house: House, alice: ApiClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistake on the way to a change leaves the books as they were."""
    monkeypatch.setattr(house.application.context, "rates", None)
    with unchanged(house):
        reply = alice.post(V3 + "user/wallet/convert", {"amount": "1", "fromAsset": "BTC", "toAsset": "USD"})
    check_refusal(reply, 500, -11, "System error")


def test_a_body_that_never_comes(house: House, alice: ApiClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request whose body does not arrive in time is a 408, and nothing is done."""
    monkeypatch.setattr(requests, "BODY_TIMEOUT_S", 0.2)
    content = json.dumps(BODY).encode()
    head = [f"POST {TRANSFER} HTTP/1.1", "host: x", f"content-length: {len(content)}"]
    head += [f"{name}: {value}" for name, value in alice.headers(TRANSFER, content).items()]
    host, port = house.url.removeprefix("http://").split(":")
    with unchanged(house), socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall("\r\n".join([*head, "", ""]).encode() + content[:-1])
        started_s = time.monotonic()
        answer = connection.recv(65_536)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"code":-11,"msg":"TIMEOUT: the body did not arrive in time"' in answer
    assert time.monotonic() - started_s < 5


def test_no_address_ready(house: House, alice: ApiClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """When no address is in stock, asking for one is a 503 that may be sent again as it is."""
    content = json.dumps({"currency": "BTC"}).encode()
    path = V3 + "user/wallet/address"
    headers = alice.headers(path, content)
    monkeypatch.setattr(house.application.treasury.pools, "take", lambda network: None)
    reply = alice.http.post(path, content=content, headers=headers)
    check_refusal(reply, 503, -11, "No address ready")
    assert int(reply.headers["retry-after"]) >= 1
    monkeypatch.undo()
    assert alice.http.post(path, content=content, headers=headers).status_code == 200


def test_a_retry_is_answered_though_no_address_is_ready(
    house: House, alice: ApiClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first reply to an Idempotency-Key comes again while the stock is empty; nobody gets a second address."""
    body, keyed = {"crypto": "USDT", "network": "ERC20"}, {"idempotency-key": "one-address"}
    path = V1 + "user/crypto/address"
    first = alice.post(path, body, headers=keyed)
    assert first.status_code == 200
    monkeypatch.setattr(house.application.treasury.pools, "take", lambda network: None)
    again = alice.post(path, body, headers=keyed)
    assert (again.status_code, again.content) == (200, first.content)
    assert again.headers["idempotency-replayed"] == "true"
    other = alice.post(path, body | {"crypto": "ETH"}, headers=keyed)
    check_refusal(other, 422, -2, "BADREQUEST: Idempotency-Key was used with another request")
