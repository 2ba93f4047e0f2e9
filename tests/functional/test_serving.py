"""What a client meets on the socket: paths byte for byte, bounds on heads and bodies, methods, and refusals in form."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
import pytest_asyncio

from strongroom.api import requests
from support.server import TRANSFER, WALLET, Served, join, served, settings, transfer_to

WHOLE = {"code", "msg", "time", "data", "success", "status", "errorCode", "message"}


@pytest_asyncio.fixture
async def server(tmp_path: Path) -> AsyncGenerator[Served]:
    """A server on loopback."""
    async with served(settings(tmp_path, head_timeout_s=0.5)) as running:
        yield running


def parts(response: bytes) -> tuple[int, dict[str, str], bytes]:
    """Return status, headers and body of a raw response."""
    head, _, body = response.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return int(status.split()[1]), headers, body


async def test_money_moves_between_two_users_over_http(server: Served) -> None:
    """A signed transfer is answered, and both balances show it at once."""
    alice, bob = await join(server.application, "alice", 100_000_000), await join(server.application, "bob")
    done = await server.post(alice, TRANSFER, transfer_to(bob, "0.25"))
    assert (done.status_code, done.json()["amount"]) == (200, "0.25")
    for member, expected in ((alice, 0.75), (bob, 0.25)):
        rows = (await server.get(member, WALLET)).json()
        assert next(row["available"] for row in rows if row["currency"] == "BTC") == expected


@pytest.mark.parametrize("size", [70_000, 1 << 20, 20 << 20])
async def test_too_large_a_body_is_told_so(server: Served, size: int) -> None:
    """A body beyond 64 KiB is a 413 whose answer arrives, whatever its size."""
    response = await server.client.post(TRANSFER, content=b" " * size)
    assert response.status_code == 413
    assert response.json()["msg"].startswith("TOOLARGE: ")


async def test_a_chunked_body_is_read_like_any_other(server: Served) -> None:
    """A client that sends its body in pieces is served."""
    alice, bob = await join(server.application, "alice", 100_000_000), await join(server.application, "bob")
    body = json.dumps(transfer_to(bob)).encode()

    async def pieces() -> AsyncGenerator[bytes]:
        for start in range(0, len(body), 7):
            yield body[start : start + 7]

    done = await server.client.post(TRANSFER, headers=alice.headers(TRANSFER, body), content=pieces())
    assert done.status_code == 200
    assert done.request.headers["transfer-encoding"] == "chunked"


async def test_a_body_that_never_comes_is_not_waited_for(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request whose body stays away is a 408 once its time is over."""
    monkeypatch.setattr(requests, "BODY_TIMEOUT_S", 0.1)
    request = f"POST {TRANSFER} HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\nconnection: close\r\n\r\nabc"
    status, _, body = parts(await server.raw(request.encode()))
    assert status == 408
    assert json.loads(body)["code"] == -11


async def test_a_head_that_never_ends_is_not_waited_for(server: Served) -> None:
    """A connection that begins a request and stays silent is closed when its time is over."""
    assert await server.raw(b"GET /healthz HTTP/1.1\r\nhost:") == b""


async def test_a_connection_without_a_request_is_not_kept(server: Served) -> None:
    """A connection that says nothing, or nothing but empty lines, is closed when its time is over."""
    assert await server.raw(b"") == b""
    assert await server.raw(b"\r\n\r\n") == b""


@pytest.mark.parametrize("size", [33_000, 60_000, 300_000])
async def test_too_large_a_head_is_refused(server: Served, size: int) -> None:
    """A head beyond 32 KiB is a 400 in the contract's form, in one piece or in many."""
    request = b"GET /healthz HTTP/1.1\r\nhost: x\r\nx-long: " + b"a" * size + b"\r\n\r\n"
    status, _, body = parts(await server.raw(request))
    assert status == 400
    assert set(json.loads(body)) == WHOLE


async def test_a_large_head_within_the_bound_is_served(server: Served) -> None:
    """A head of 30 KiB is no reason to refuse a request."""
    assert (await server.client.get("/healthz", headers={"x-long": "a" * 30_000})).status_code == 200


@pytest.mark.parametrize(
    "text", [b"EHLO example.com\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n", b"GET  HTTP/1.1\r\n\r\n"]
)
async def test_what_is_not_http_is_answered_in_form(server: Served, text: bytes) -> None:
    """A client that speaks something else gets the contract's body and a closed connection."""
    status, headers, body = parts(await server.raw(text))
    assert (status, headers["connection"]) == (400, "close")
    answer = json.loads(body)
    assert set(answer) == WHOLE
    assert (answer["code"], answer["success"]) == (-2, False)


@pytest.mark.parametrize(
    "path",
    [
        "/api/v3.2/time/",
        "/api//v3.2/time",
        "//api/v3.2/time",
        "/api%2Fv3.2/time",
        "/api/v3.2/%74ime",
        "/API/v3.2/time",
        "/api/v3.2/time;x",
        "/healthz/",
        "/%68ealthz",
        "/",
    ],
)
async def test_paths_match_byte_for_byte(server: Served, path: str) -> None:
    """Another spelling of a path is a 404 with a body, never a redirect."""
    request = f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    status, headers, body = parts(await server.raw(request.encode()))
    assert status == 404
    assert headers["content-type"] == "application/json"
    assert json.loads(body)["code"] == 404


async def test_a_query_does_not_change_the_path(server: Served) -> None:
    """What follows the question mark is no part of the path, whatever it holds."""
    request = b"GET /api/v3.2/time?a=%2F//&b=%zz? HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    assert parts(await server.raw(request))[0] == 200


@pytest.mark.parametrize("path", ["/api/v3.2/time", "/healthz", "/readyz", "/metrics"])
async def test_head_answers_as_get_without_a_body(server: Served, path: str) -> None:
    """HEAD has GET's status and type, and nothing else."""
    got, headed = await server.client.get(path), await server.client.head(path)
    assert (headed.status_code, headed.content) == (200, b"")
    assert headed.headers["content-type"] == got.headers["content-type"]


@pytest.mark.parametrize("path", ["/api/v3.2/time", TRANSFER, "/healthz", "/readyz", "/metrics"])
async def test_options_tell_the_methods_and_others_are_refused(server: Served, path: str) -> None:
    """OPTIONS is an empty 204 with Allow, and a method outside it a 405 with the same Allow."""
    options = await server.client.options(path)
    assert (options.status_code, options.content) == (204, b"")
    refused = await server.client.request("PATCH", path)
    assert (refused.status_code, refused.json()["code"]) == (405, 405)
    assert refused.headers["allow"] == options.headers["allow"]


@pytest.mark.parametrize("path", ["/api/v3.2/time", WALLET, "/nothing", "/healthz", "/readyz", "/metrics"])
async def test_every_answer_has_an_id_of_ours(server: Served, path: str) -> None:
    """X-Request-Id is made here, another one each time, and an incoming one is ignored."""
    first, second = [(await server.client.get(path, headers={"x-request-id": "mine"})) for _ in range(2)]
    found = {response.headers["x-request-id"] for response in (first, second)}
    assert len(found) == 2
    assert "mine" not in found


async def test_an_upgrade_is_not_taken_up(server: Served) -> None:
    """A client that asks for another protocol is answered in HTTP/1.1."""
    request = b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: upgrade, close\r\nupgrade: websocket\r\n\r\n"
    assert parts(await server.raw(request))[0] == 200


async def test_more_connections_than_the_bound_are_told_so(tmp_path: Path) -> None:
    """The connection after the last allowed one gets a 503 that promises nothing was done, and the others go on."""
    async with served(settings(tmp_path, max_connections=1)) as server:
        assert (await server.client.get("/healthz")).status_code == 200
        answer = await server.raw(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        status, headers, body = parts(answer)
        assert (status, headers["retry-after"], headers["connection"]) == (503, "1", "close")
        assert json.loads(body)["msg"] == "System busy"
        assert (await server.client.get("/healthz")).status_code == 200


async def test_requests_in_a_row_on_one_connection_are_answered_in_order(server: Served) -> None:
    """A client may send its next request before the answer to the last."""
    request = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\nGET /nothing HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    answer = await server.raw(request)
    assert answer.index(b"200 OK") < answer.index(b"404 Not Found")


async def test_a_head_behind_a_large_body_is_measured_alone(server: Served) -> None:
    """What a client sends before a head, in one piece with its beginning, does not count against the head's bound."""
    body = b"x" * 60_000
    first = f"POST {TRANSFER} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body
    pieces = (first + b"GET /healthz HTTP/1.1\r\nhost: x\r\nx-lo", b"ng: 1\r\nconnection: close\r\n\r\n")
    host, port = server.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(pieces[0])
    assert b"401" in await reader.readline()
    writer.write(pieces[1])
    assert b"200 OK" in await reader.read()
    writer.close()


async def test_a_client_that_leaves_disturbs_nobody(server: Served) -> None:
    """A connection that breaks off in the middle of a body does nothing, and the next request is served."""
    host, port = server.url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"POST {TRANSFER} HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nabc".encode())
    await writer.drain()
    writer.transport.abort()
    assert (await server.client.get("/readyz")).status_code == 200
