"""Paths and methods: byte for byte, HEAD, OPTIONS, and what is answered where nothing is."""

from __future__ import annotations

import http.client

import pytest

from support.client import MARKETS, V1, V3, ApiClient, check_refusal
from support.serving import House, opened


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/spot",
        V3 + "user/wallet/",
        V3 + "user//wallet",
        "/spot//api/v3.3/user/wallet",
        "/spot/api/v3.3/user%2Fwallet",
        "/spot/api/v3.3/user/walle%74",
        "/spot/api/v3.3/User/Wallet",
        "/spot/api/v3.4/user/wallet",
        "/spot/spot/api/v3.3/user/wallet",
        "/spot" + V1 + "user/assets",
        "/api/v3.1/user/wallet_history",
        V1 + "user/assets/",
        V1 + "user/../user/assets",
        MARKETS + "/",
        "/futures/api/v2.3/user/wallet",
    ],
)
def test_paths_match_byte_for_byte(house: House, alice: ApiClient, path: str) -> None:
    """A path that is written in any other way is not there, and nobody is sent elsewhere."""
    connection = http.client.HTTPConnection(house.url.removeprefix("http://"), timeout=10)
    connection.request("GET", path, headers=alice.headers(path))
    reply = connection.getresponse()
    body = reply.read()
    connection.close()
    assert reply.status == 404
    assert b'"code":404,"msg":"NOTFOUND: no such path"' in body
    assert b'"success":false' in body
    assert b"errorCode" not in body


@pytest.mark.parametrize(
    ("path", "allow"),
    [
        (V3 + "user/wallet", "GET, HEAD, OPTIONS"),
        ("/api/v3.1/user/wallet", "GET, HEAD, OPTIONS"),
        (V3 + "user/wallet/address", "DELETE, GET, HEAD, OPTIONS, POST"),
        (V3 + "subaccount/wallet/history", "GET, HEAD, OPTIONS, POST"),
        (V3 + "user/wallet/withdraw", "OPTIONS, POST"),
        (V1 + "user/crypto/address", "DELETE, GET, HEAD, OPTIONS, POST"),
        (V1 + "user/assets/sendTo", "OPTIONS, POST"),
        (MARKETS, "GET, HEAD, OPTIONS"),
    ],
)
def test_methods(nobody: ApiClient, path: str, allow: str) -> None:
    """OPTIONS names the methods of a path, and so does the refusal of any other method."""
    reply = nobody.send("OPTIONS", path)
    assert (reply.status_code, reply.headers["allow"], reply.content) == (204, allow, b"")
    refused = nobody.send("PATCH", path)
    check_refusal(refused, 405, 405, f"METHODNOTALLOWED: the path answers {allow}")
    assert refused.headers["allow"] == allow


@pytest.mark.parametrize("path", [V3 + "user/wallet", V1 + "user/assets", MARKETS])
def test_head_answers_as_get(alice: ApiClient, path: str) -> None:
    """HEAD has the status and headers of GET, and no body."""
    got, head = alice.get(path), alice.send("HEAD", path)
    assert (head.status_code, head.content) == (200, b"")
    different = {"date", "x-request-id"}
    assert {k: v for k, v in head.headers.items() if k not in different} == {
        k: v for k, v in got.headers.items() if k not in different
    }


def test_head_of_a_refusal(nobody: ApiClient) -> None:
    """HEAD without a signature is refused like GET."""
    reply = nobody.send("HEAD", V3 + "user/wallet")
    assert (reply.status_code, reply.content) == (401, b"")


def test_no_cors_and_no_incoming_request_id(alice: ApiClient) -> None:
    """Without configured origins no reply invites browsers, and the request id is the server's own."""
    reply = alice.get(V3 + "user/wallet", headers={"origin": "https://evil.example", "x-request-id": "mine"})
    assert not [name for name in reply.headers if name.startswith("access-control")]
    assert reply.headers["x-request-id"] != "mine"


def test_configured_origins(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A browser of a configured origin may call, and is told what it may send; another one is told nothing."""
    with opened(tmp_path_factory.mktemp("cors"), cors_origins=("https://shop.example",)) as house:
        bob = house.client("bob")
        good, other = ({"origin": f"https://{name}.example"} for name in ("shop", "evil"))
        before = house.client().send("OPTIONS", V3 + "user/wallet", headers=good)
        assert before.status_code == 204
        assert before.headers["access-control-allow-origin"] == "https://shop.example"
        assert "GET" in before.headers["access-control-allow-methods"]
        assert "request-sign" in before.headers["access-control-allow-headers"]
        reply = bob.get(V3 + "user/wallet", headers=good)
        assert (reply.status_code, reply.headers["access-control-allow-origin"]) == (200, "https://shop.example")
        assert "retry-after" in reply.headers["access-control-expose-headers"]
        for reply in (bob.get(V3 + "user/wallet", headers=other), bob.get(V3 + "user/wallet")):
            assert not [name for name in reply.headers if name.startswith("access-control")]
            assert reply.headers["vary"] == "Origin"


@pytest.mark.parametrize("path", [V3 + "user/wallet/transfer", V1 + "user/assets/sendTo"])
def test_content_type_is_ignored(alice: ApiClient, path: str) -> None:
    """A JSON body counts whatever its content type says."""
    body = {"asset": "BTC", "amount": "0.001", "toUser": "bob", "toUserMail": "bob@example.com"}
    body["receiverUsername"] = "bob"
    assert alice.post(path, body, headers={"content-type": "text/plain"}).status_code == 200


def test_a_compressed_body_is_refused(house: House, alice: ApiClient) -> None:
    """A body that says it is compressed is a 400."""
    reply = alice.post(V3 + "user/wallet/transfer", {"asset": "BTC"}, headers={"content-encoding": "gzip"})
    check_refusal(reply, 400, -2, "BADREQUEST: a compressed body is not accepted")


@pytest.mark.parametrize("path", [V3 + "user/wallet/transfer", V1 + "user/assets/sendTo", "/nowhere"])
def test_a_large_body_is_read_and_refused(alice: ApiClient, path: str) -> None:
    """A body above 64 KiB is a 413 that arrives, on every path and before anything else is looked at."""
    for size in (65_537, 4_000_000):
        check_refusal(alice.post(path, b" " * size), 413, 413, "TOOLARGE: a body has at most 64 KiB")


def test_a_body_in_chunks(alice: ApiClient) -> None:
    """A body that comes in chunks without a length is signed and read like any other, and bounded too."""
    path, body = V1 + "user/assets/sendTo", b'{"asset":"BTC","amount":"0.001","receiverUsername":"bob"}'
    headers = alice.headers(path, body)
    reply = alice.http.post(path, content=(body[n : n + 7] for n in range(0, len(body), 7)), headers=headers)
    assert reply.status_code == 200
    large = alice.http.post(path, content=(b" " * 10_000 for _ in range(8)), headers=alice.headers(path))
    check_refusal(large, 413, 413, "TOOLARGE: a body has at most 64 KiB")


def test_the_largest_body(alice: ApiClient) -> None:
    """A body of 64 KiB is looked at."""
    check_refusal(
        alice.post(V1 + "user/assets/sendTo", b" " * 65_534 + b"{}"),
        400,
        -2,
        "BADREQUEST: asset parameter is mandatory",
    )
