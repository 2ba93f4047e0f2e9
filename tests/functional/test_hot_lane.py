"""The hot lane and plain ASGI answer byte for byte the same, whatever is sent and however it arrives."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as effort
from hypothesis import strategies as st

from strongroom.api import requests
from strongroom.clock import SetClock
from strongroom.config.settings import Tier
from support.client import MARKETS, V1, V3, ApiClient
from support.serving import House, mail_of, opened
from support.wire import Line, Reply, ask, request, sign_head, signed, watched, without_lane

WALLET, TRANSFER, ADDRESS = V3 + "user/wallet", V3 + "user/wallet/transfer", V3 + "user/wallet/address"
SENT = {"amount": "0.01", "asset": "BTC", "toUser": "bob", "toUserMail": mail_of("bob")}
SEND_TO = {"asset": "BTC", "amount": 2, "receiverUsername": "bob"}
CONVERT = {"amount": "0.01", "fromAsset": "BTC", "toAsset": "USD"}
ORIGIN = "https://app.example.com"
ABROAD = "https://例え.example"
START_MS = 1_790_000_000_000


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A house without rate limits that trusts proxies on this machine and serves pages of one origin."""
    more = {"trusted_proxies": ("127.0.0.0/8",), "cors_origins": (ORIGIN, ABROAD), "head_timeout_s": 2.0}
    with opened(tmp_path_factory.mktemp("house"), **more) as house:
        yield house


@pytest.fixture(scope="module")
def alice(house: House) -> ApiClient:
    """Alice's client, with all permissions."""
    return house.client("alice")


def both(house: House, monkeypatch: pytest.MonkeyPatch, make: Callable[[], bytes]) -> tuple[Reply, Reply]:
    """Return the replies to a request by the lane and by uvicorn; it is made anew, since a signature is used up."""
    with watched(monkeypatch) as ways:
        fast = ask(house.url, make())
        assert ways.by_uvicorn == 0
        with without_lane(monkeypatch):
            plain = ask(house.url, make())
        assert ways.by_uvicorn == 1
    return fast, plain


def wrongly(client: ApiClient, **changes: str) -> bytes:
    """Return a signed read of the wallet with some of its authentication headers changed."""
    key, nonce, signature = sign_head(client, WALLET)
    headers = {"request-api": key, "request-nonce": nonce, "request-sign": signature}
    return request("GET", WALLET, [*(headers | {f"request-{n}": v for n, v in changes.items()}).items()])


CASES: dict[str, tuple[int, Callable[[ApiClient], bytes]]] = {
    "a balance": (200, lambda c: signed(c, "GET", WALLET)),
    "a balance of wallet v1": (200, lambda c: signed(c, "GET", V1 + "user/assets")),
    "its head": (200, lambda c: signed(c, "HEAD", WALLET)),
    "a history": (200, lambda c: signed(c, "GET", V3 + "user/wallet_history?currency=BTC&count=2")),
    "a strange query": (400, lambda c: signed(c, "GET", V3 + "user/wallet_history?a=%2F//&count=%zz?")),
    "a public read": (200, lambda _: request("GET", MARKETS)),
    "the time": (200, lambda _: request("GET", V3 + "time?x=1#part")),
    "headers of a deprecated path": (200, lambda _: request("GET", V3 + "availableCurrencyNetworks?currency=BTC")),
    "methods": (204, lambda _: request("OPTIONS", WALLET)),
    "another method": (405, lambda c: signed(c, "PATCH", WALLET)),
    "no signature": (401, lambda _: request("GET", WALLET)),
    "a wrong signature": (401, lambda c: wrongly(c, sign="0" * 96)),
    "no hexadecimal digits": (401, lambda c: wrongly(c, sign="x" * 96)),
    "a wrong key": (401, lambda c: wrongly(c, api="nobody")),
    "an old nonce": (401, lambda c: wrongly(c, nonce="1624984297330")),
    "a path that remembers": (200, lambda c: signed(c, "GET", ADDRESS + "?currency=ETH")),
    "a transfer": (200, lambda c: signed(c, "POST", TRANSFER, SENT)),
    "a transfer of wallet v1": (200, lambda c: signed(c, "POST", V1 + "user/assets/sendTo", SEND_TO)),
    "too much": (400, lambda c: signed(c, "POST", TRANSFER, SENT | {"amount": "1000000"})),
    "nobody to send to": (400, lambda c: signed(c, "POST", TRANSFER, SENT | {"toUser": "nobody"})),
    "a body that is none": (400, lambda c: signed(c, "POST", TRANSFER, b'{"amount":')),
    "a compressed body": (400, lambda c: signed(c, "POST", TRANSFER, SENT, content_encoding="gzip")),
    "a malformed key": (400, lambda c: signed(c, "POST", TRANSFER, SENT, idempotency_key="two words")),
    "the largest body": (400, lambda c: signed(c, "POST", TRANSFER, b" " * 65_536)),
    "a body nobody reads": (200, lambda c: signed(c, "GET", WALLET, {"a": 1})),
    "a conversion": (200, lambda c: signed(c, "POST", V3 + "user/wallet/convert", CONVERT)),
    "an address": (400, lambda c: signed(c, "POST", ADDRESS, {"currency": "BTC"})),
    "a page of the origin": (200, lambda c: signed(c, "GET", WALLET, origin=ORIGIN)),
    "a page of another origin": (200, lambda c: signed(c, "GET", WALLET, origin="https://example.org")),
    "a page from abroad": (200, lambda c: signed(c, "GET", WALLET, origin=ABROAD.encode().decode("latin-1"))),
    "a page that asks first": (204, lambda _: request("OPTIONS", WALLET, [("origin", ORIGIN)])),
    "a proxy": (200, lambda c: signed(c, "GET", WALLET, x_forwarded_for="192.0.2.1")),
    "two proxies": (200, lambda c: signed(c, "GET", WALLET, x_forwarded_for="192.0.2.1", X_Forwarded_For="192.0.2.2")),
    "a header twice": (401, lambda c: signed(c, "GET", WALLET, Request_Api="other")),
    "kept expressly": (200, lambda c: signed(c, "GET", WALLET, connection="Keep-Alive")),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_both_ways_answer_the_same(house: House, alice: ApiClient, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    """Status, headers and body do not tell which way a request went."""
    status, make = CASES[case]
    if case == "an address":
        _ = alice.post(ADDRESS, {"currency": "BTC"})
    fast, plain = both(house, monkeypatch, lambda: make(alice))
    assert (fast.status, fast.whole) == (status, plain.whole)


def test_a_repeated_change_is_told_so_both_ways(
    house: House, alice: ApiClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A known Idempotency-Key gets the first reply, with the header that says so, and so does a re-sent signature."""
    first = ask(house.url, signed(alice, "POST", TRANSFER, SENT, idempotency_key="once"))
    again = both(house, monkeypatch, lambda: signed(alice, "POST", TRANSFER, SENT, idempotency_key="once"))
    for reply in again:
        assert (reply.body, reply.headers["idempotency-replayed"]) == (first.body, "true")
    assert again[0].whole == again[1].whole


def test_a_signature_authorises_once_whichever_way_it_comes(
    house: House, alice: ApiClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the lane has carried out is a replay for uvicorn, and the other way round."""
    raw = signed(alice, "POST", TRANSFER, SENT)
    assert ask(house.url, raw).status == 200
    with without_lane(monkeypatch):
        assert ask(house.url, raw).status == 401
        other = signed(alice, "POST", TRANSFER, SENT)
        assert ask(house.url, other).status == 200
    assert ask(house.url, other).status == 401


@pytest.mark.parametrize(
    "special",
    [
        {"expect": "100-continue"},
        {"transfer-encoding": "chunked"},
        {"connection": "upgrade", "upgrade": "h2c"},
        {"connection": "close"},
        {"content-length": "70000"},
    ],
    ids=lambda headers: next(iter(headers)),
)
def test_what_is_special_goes_by_uvicorn(
    house: House, monkeypatch: pytest.MonkeyPatch, special: dict[str, str]
) -> None:
    """Heads with a meaning for the connection are left to who knows them all."""
    with watched(monkeypatch) as ways, Line(house.url) as line:
        line.send(request("GET", MARKETS, special.items()))
        line.send(b"0\r\n\r\n" if "transfer-encoding" in special else b" " * int(special.get("content-length", 0)))
        reply = line.reply()
        if reply.status == 100:
            reply = line.reply()
        assert ways.by_uvicorn == 1
    assert reply.status == (413 if "content-length" in special else 200)


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_an_old_client_is_answered_and_left(house: House, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    """HTTP/1.0 gets its answer, and its connection is closed even where it would keep it."""
    raw = request("GET", MARKETS, [("connection", "keep-alive")]).replace(b"HTTP/1.1", f"HTTP/{version}".encode())
    with watched(monkeypatch) as ways, Line(house.url) as line:
        line.send(raw)
        reply = line.reply()
        assert (reply.status, reply.headers.get("connection")) == (200, "close" if version == "1.0" else None)
        assert ways.by_uvicorn == (version == "1.0")
        if version == "1.0":
            assert line.is_closed()


@pytest.mark.parametrize("target", [b"http://x/api/v3.2/time", b"http://x/api/v3.2/time?a=1", b"/api/v3.2/time?#?"])
def test_targets_in_other_forms_are_the_same_path(house: House, monkeypatch: pytest.MonkeyPatch, target: bytes) -> None:
    """A whole URL and a fragment are read as uvicorn reads them."""
    fast = ask(house.url, request("GET", target))
    with without_lane(monkeypatch):
        plain = ask(house.url, request("GET", target))
    assert fast.whole.split(b"\r\n\r\n")[0] == plain.whole.split(b"\r\n\r\n")[0]
    assert fast.status == 200


AUTHENTICATION = ["request-api", "btse-api", "Request-Nonce", "request-sign", "Idempotency-Key"]
NAMES = st.sampled_from(
    [*AUTHENTICATION, "X-Forwarded-For", "origin", "content-encoding", "connection", "accept", "forwarded", "Host"]
)
VALUES = st.one_of(
    st.sampled_from(
        ["", "1", "close", "keep-alive", "gzip", "identity", ORIGIN, "192.0.2.1, 10.0.0.1", "1624984297330"]
    ),
    st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=20),
)
TARGETS = st.one_of(
    st.sampled_from([WALLET, TRANSFER, ADDRESS, MARKETS, V3 + "time", V1 + "user/assets", "/healthz", "/nothing", "*"]),
    st.builds(
        lambda path, query: f"{path}?{query}",
        st.sampled_from([V3 + "time", V1 + "assets/exchangeRate", V3 + "user/wallet_history"]),
        st.text("ab=&%2F?#/+;[]|\"'", max_size=20),
    ),
)


@effort(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    method=st.sampled_from(["GET", "POST", "HEAD", "DELETE", "OPTIONS", "PUT", "PATCH", "TRACE", "CONNECT", "BREW"]),
    target=TARGETS,
    version=st.sampled_from(["1.1", "1.1", "1.1", "1.0", "2.0"]),
    headers=st.lists(st.tuples(NAMES, VALUES), max_size=6),
    body=st.one_of(st.just(b""), st.binary(max_size=40), st.sampled_from([b"{}", b'{"amount":1}', b" " * 65_537])),
    cuts=st.lists(st.integers(0, 400), max_size=3),
)
def test_odd_requests_are_answered_the_same(
    house: House,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    target: str,
    version: str,
    headers: list[tuple[str, str]],
    body: bytes,
    cuts: list[int],
) -> None:
    """Whatever a head says, and wherever it is cut, both ways answer the same bytes and keep or close alike."""
    raw = request(method, target, headers, body).replace(b" HTTP/1.1", f" HTTP/{version}".encode(), 1)
    places = sorted({0, len(raw), *(cut for cut in cuts if cut < len(raw))})
    pieces = [raw[start:end] for start, end in pairwise(places)]

    def outcome() -> tuple[bytes, bool]:
        with Line(house.url) as line:
            # What is no HTTP is answered at its first wrong byte, and soon nothing more is taken.
            with suppress(ConnectionError):
                line.send(*pieces)
            reply = line.reply(method)
            try:
                line.send(request("GET", "/healthz", [("connection", "close")]))
                return reply.whole, line.reply().status == 200
            except (EOFError, ConnectionError):
                return reply.whole, False

    fast = outcome()
    with without_lane(monkeypatch):
        assert fast == outcome()


def test_a_request_may_arrive_in_any_two_pieces(
    house: House, alice: ApiClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut at every byte, a signed transfer on one kept connection is carried out each time, once."""
    size = len(signed(alice, "POST", TRANSFER, SENT))
    before = len(house.books())
    with Line(house.url) as line:
        for cut in range(1, size):
            raw = signed(alice, "POST", TRANSFER, SENT)
            assert len(raw) == size
            line.send(raw[:cut])
            # Anything the server does between the pieces makes it take the first one by itself.
            assert ask(house.url, request("GET", "/healthz")).status == 200
            line.send(raw[cut:])
            assert line.reply("POST").status == 200
    assert len(house.books()) == before


def test_requests_sent_ahead_are_answered_in_order(house: House, alice: ApiClient) -> None:
    """Reads, changes and paths outside the lane on one connection, all sent at once, come back in their order."""
    makes: list[tuple[int, Callable[[], bytes]]] = [
        (200, lambda: signed(alice, "GET", WALLET)),
        (200, lambda: signed(alice, "POST", TRANSFER, SENT)),
        (404, lambda: request("GET", "/nothing")),
        (400, lambda: signed(alice, "POST", TRANSFER, b"{")),
        (204, lambda: request("OPTIONS", TRANSFER)),
        (200, lambda: request("GET", "/healthz")),
        (200, lambda: signed(alice, "POST", TRANSFER, SENT)),
        (200, lambda: signed(alice, "GET", WALLET)),
    ]
    for start in range(len(makes)):
        order = [*makes[start:], *makes[:start]] * 3
        with Line(house.url) as line:
            line.send(b"".join(make() for _, make in order))
            assert [line.reply().status for _ in order] == [status for status, _ in order]
            line.send(signed(alice, "GET", WALLET))
            assert line.reply().status == 200


def test_a_body_that_follows_its_head_late_is_waited_for(
    house: House, alice: ApiClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A body that stays away for a while is left to uvicorn, and the request is carried out all the same."""
    raw = signed(alice, "POST", TRANSFER, SENT)
    with watched(monkeypatch) as ways, Line(house.url) as line:
        line.send(raw[:-5])
        limit_s = time.monotonic() + 10
        while not ways.by_uvicorn and time.monotonic() < limit_s:
            time.sleep(0.01)
        assert ways.by_uvicorn == 1
        line.send(raw[-5:])
        assert line.reply("POST").status == 200
        line.send(signed(alice, "GET", WALLET))
        assert line.reply().status == 200
        assert ways.by_uvicorn == 1


def test_a_late_body_has_its_time(house: House, alice: ApiClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that never comes is a 408 on a connection that is kept."""
    monkeypatch.setattr(requests, "BODY_TIMEOUT_S", 0.1)
    raw = signed(alice, "POST", TRANSFER, SENT)
    with Line(house.url) as line:
        line.send(raw[:-5])
        assert line.reply("POST").status == 408
        line.send(raw[-5:] + signed(alice, "GET", WALLET))
        assert line.reply().status == 200


def test_a_client_that_leaves_during_the_commit_gets_its_change_done(house: House, alice: ApiClient) -> None:
    """A transfer whose client has gone is carried out, once, and the server goes on."""
    before = house.verify().items
    for _ in range(20):
        line = Line(house.url)
        line.send(signed(alice, "POST", TRANSFER, SENT))
        line.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        line.socket.close()
    limit_s = time.monotonic() + 10
    while house.verify().items < before + 20 and time.monotonic() < limit_s:
        time.sleep(0.05)
    report = house.verify()
    assert (report.items, report.is_whole) == (before + 20, True)


def test_a_kept_connection_that_says_nothing_is_closed(tmp_path_factory: pytest.TempPathFactory) -> None:
    """After an answer of the lane a connection is kept for its time, and one in the midst of a head for a shorter."""
    with opened(tmp_path_factory.mktemp("idle"), keep_alive_s=1, head_timeout_s=0.4) as house:
        with Line(house.url) as line:
            line.send(request("GET", MARKETS))
            assert line.reply().status == 200
            started_s = time.monotonic()
            assert line.is_closed()
            assert 0.9 < time.monotonic() - started_s < 5
        with Line(house.url) as line:
            line.send(request("GET", MARKETS))
            assert line.reply().status == 200
            line.send(b"GET / HTTP/1.1\r\nhos")
            started_s = time.monotonic()
            assert line.is_closed()
            assert time.monotonic() - started_s < 0.9


def test_a_client_that_does_not_read_is_not_read_from(house: House, alice: ApiClient) -> None:
    """Answers that nobody takes stop the server from reading on; they are all there, in order, once they are taken."""
    ahead, others = request("GET", MARKETS) * 1000, request("GET", "/healthz")
    with Line(house.url) as line:
        line.socket.settimeout(1)
        with pytest.raises(TimeoutError):
            line.send(*[ahead] * 1000)
        assert ask(house.url, others).status == 200
        line.socket.settimeout(20)
        assert {line.reply().status for _ in range(5000)} == {200}


def test_draining_ends_connections_both_ways(house: House, alice: ApiClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer of a server that stops is the same, and closes the connection, either way."""
    house.application.drain()
    try:
        fast, plain = both(house, monkeypatch, lambda: signed(alice, "GET", WALLET))
        with Line(house.url) as line:
            line.send(signed(alice, "POST", TRANSFER, SENT))
            assert line.reply("POST").headers["connection"] == "close"
            assert line.is_closed()
    finally:
        house.application.api.draining = False
    assert (fast.status, fast.whole) == (503, plain.whole)


def test_limits_count_both_ways_together(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calls by either way use up the same limit, and its headers and its refusal are alike."""
    seen: list[Reply] = []
    with opened(tmp_path_factory.mktemp("limits"), SetClock(START_MS), rate_limits={"default": Tier()}) as house:
        alice = house.client("alice")
        for _ in range(16):
            seen.append(ask(house.url, signed(alice, "GET", WALLET)))
            with without_lane(monkeypatch):
                seen.append(ask(house.url, signed(alice, "GET", WALLET)))
    assert [int(reply.headers["x-ratelimit-remaining"]) for reply in seen] == [*reversed(range(30)), 0, 0]
    assert [reply.status for reply in seen[-3:]] == [200, 429, 429]
    assert seen[-2].whole == seen[-1].whole
