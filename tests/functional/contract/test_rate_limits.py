"""Rate limits: what counts together, what a reply tells of it, and how long an excess blocks."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from strongroom.clock import SetClock
from strongroom.config.settings import Tier
from support.client import MARKETS, V1, V3, ApiClient, Credentials, check_refusal
from support.serving import House, mail_of, opened, unchanged

LIMITED = (429, 303, "Rate limit exceeded")
WALLET, TRANSFER, SEND = V3 + "user/wallet", V3 + "user/wallet/transfer", V1 + "user/assets/sendTo"


class Stopped(SetClock):
    """A clock that a test moves."""

    def pass_s(self, seconds: float) -> None:
        """Let time pass."""
        self.at_ms += round(seconds * 1000)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A house with the contract's limits, where time only passes when told, behind a proxy that names the clients."""
    tiers = {"default": Tier(), "fast": Tier(wallet_per_2s=12, operation_per_2s=40), "free": Tier(unlimited=True)}
    clock = Stopped(time.time_ns() // 1_000_000)
    changes: dict[str, Any] = {"rate_limits": tiers, "trusted_proxies": ("127.0.0.1",)}
    with opened(tmp_path_factory.mktemp("stopped"), clock, **changes) as house:
        yield house


@pytest.fixture
def clock(stopped: House) -> Stopped:
    """The clock, a day after all earlier tests."""
    assert isinstance(stopped.clock, Stopped)
    stopped.clock.pass_s(86_400)
    return stopped.clock


@pytest.fixture
def alice(stopped: House, clock: Stopped) -> ApiClient:
    """Alice's client."""
    return stopped.client("alice")


def transfer(amount: str = "0.001") -> dict[str, Any]:
    """Return a transfer to bob that both dialects read."""
    return {"asset": "BTC", "amount": amount, "toUser": "bob", "toUserMail": mail_of("bob"), "receiverUsername": "bob"}


def check_limited(reply: httpx.Response, limit: int, wait_s: int) -> None:
    """Check the refusal of a limit: how large it is, and when to come back."""
    check_refusal(reply, *LIMITED)
    told = {name: reply.headers[name] for name in ("retry-after", "x-ratelimit-reset", "x-ratelimit-remaining")}
    assert told == {"retry-after": str(wait_s), "x-ratelimit-reset": str(wait_s), "x-ratelimit-remaining": "0"}
    assert reply.headers["x-ratelimit-limit"] == str(limit)


def use_up(ask: Callable[[], httpx.Response], limit: int) -> None:
    """Make as many calls as a limit lets through, each telling how many are left."""
    for left in reversed(range(limit)):
        reply = ask()
        assert reply.status_code == 200, reply.text
        assert (reply.headers["x-ratelimit-limit"], reply.headers["x-ratelimit-remaining"]) == (str(limit), str(left))
        assert 1 <= int(reply.headers["x-ratelimit-reset"]) <= 2


def test_wallet_operations_are_limited_per_user(stopped: House, alice: ApiClient) -> None:
    """Ten changes of a kind in two seconds are let through, over all mounts, versions, dialects and keys together."""
    other_key = stopped.client("alice", permissions=31)
    paths = [TRANSFER, TRANSFER.removeprefix("/spot"), "/api/v3.2/user/wallet/transfer", SEND, SEND]
    asks = iter([(client, path) for path in paths for client in (alice, other_key)])

    def ask() -> httpx.Response:
        client, path = next(asks)
        return client.post(path, transfer())

    use_up(ask, 10)
    with unchanged(stopped):
        check_limited(alice.post(TRANSFER, transfer()), 10, 1)
        check_limited(other_key.post(SEND, transfer()), 10, 1)
    body = {"amount": "0.001", "fromAsset": "BTC", "toAsset": "USDT"}
    assert alice.post(V3 + "user/wallet/convert", body).status_code == 200
    assert alice.get(WALLET).status_code == 200
    assert stopped.client("alice-sub1").post(TRANSFER, transfer()).status_code == 200


def test_reads_are_limited_per_key_and_operation(stopped: House, alice: ApiClient) -> None:
    """Thirty reads of a kind in two seconds are let through per key, over both dialects together."""
    paths = iter([WALLET, "/api/v3.1/user/wallet", V1 + "user/assets"] * 10)
    use_up(lambda: alice.get(next(paths)), 30)
    check_limited(alice.get(V1 + "user/assets"), 30, 1)
    assert alice.get(V3 + "user/wallet_history").status_code == 200
    assert stopped.client("alice", permissions=1).get(WALLET).status_code == 200


def test_reads_are_limited_per_user(stopped: House, alice: ApiClient) -> None:
    """Sixty reads of all kinds in two seconds are let through per user, whatever the key."""
    clients = [alice, stopped.client("alice", permissions=1), stopped.client("alice", permissions=3)]
    for client in clients:
        for _ in range(20):
            assert client.get(WALLET).status_code == 200
    check_limited(clients[0].get(V3 + "user/wallet_history"), 60, 1)
    assert stopped.client("bob").get(WALLET).status_code == 200


@pytest.mark.parametrize("path", [MARKETS, V1 + "crypto/list", "/spot/api/v3.3/time"])
def test_public_calls_are_limited_per_address(stopped: House, clock: Stopped, path: str) -> None:
    """Fifty public calls of all kinds in two seconds are let through per client address."""
    nobody, here = stopped.client(), {"x-forwarded-for": "198.51.100.1"}
    paths = iter([path, V1 + "assets"] * 25)
    use_up(lambda: nobody.get(next(paths), headers=here), 50)
    check_limited(nobody.get(path, headers=here), 50, 1)
    assert nobody.get(path, headers={"x-forwarded-for": "198.51.100.2"}).status_code == 200
    assert nobody.get("/healthz", headers=here).status_code == 200


def test_addresses_of_one_ipv6_network_are_one(stopped: House, clock: Stopped) -> None:
    """All addresses of an IPv6 /64 are one client."""
    nobody = stopped.client()
    addresses = iter([f"2001:db8::{n:x}" for n in range(50)])
    use_up(lambda: nobody.get(MARKETS, headers={"x-forwarded-for": next(addresses)}), 50)
    assert nobody.get(MARKETS, headers={"x-forwarded-for": "2001:db8::ffff"}).status_code == 429
    assert nobody.get(MARKETS, headers={"x-forwarded-for": "2001:db8:0:1::1"}).status_code == 200


def test_a_bucket_fills_again(alice: ApiClient, clock: Stopped) -> None:
    """A bucket gets back one call every fifth of a second."""
    use_up(lambda: alice.post(TRANSFER, transfer()), 10)
    clock.pass_s(0.2)
    assert alice.post(TRANSFER, transfer()).headers["x-ratelimit-remaining"] == "0"
    clock.pass_s(2)
    use_up(lambda: alice.post(TRANSFER, transfer()), 10)


def exceed(client: ApiClient) -> httpx.Response:
    """Transfer until the limit is exceeded, and return that refusal."""
    for _ in range(11):
        reply = client.post(TRANSFER, transfer("0.00001"))
        if reply.status_code == 429:
            return reply
    raise AssertionError("no limit")


def test_the_ladder(alice: ApiClient, clock: Stopped) -> None:
    """An excess blocks for one second, then five minutes, then a quarter of an hour, and then all is forgotten."""
    for wait_s in (1, 300, 900, 1, 300):
        check_limited(exceed(alice), 10, wait_s)
        clock.pass_s(wait_s - 0.001)
        check_limited(alice.post(TRANSFER, transfer()), 10, 1)
        clock.pass_s(0.002)
        assert alice.post(TRANSFER, transfer()).status_code == 200
        clock.pass_s(2)


def test_an_hour_without_excess_is_forgotten(alice: ApiClient, clock: Stopped) -> None:
    """An hour after the last excess the ladder starts again."""
    for _ in range(2):
        check_limited(exceed(alice), 10, 1)
        clock.pass_s(3601)


def test_calls_during_a_block_do_not_prolong_it(alice: ApiClient, clock: Stopped) -> None:
    """Whoever goes on calling during a block waits no longer for it."""
    _ = exceed(alice)
    for _ in range(20):
        check_limited(alice.post(TRANSFER, transfer()), 10, 1)
        clock.pass_s(0.05)
    assert alice.post(TRANSFER, transfer()).status_code == 200


def test_a_limited_request_may_be_sent_again_as_it_is(stopped: House, alice: ApiClient, clock: Stopped) -> None:
    """A 429 does not use up the signature."""
    _ = exceed(alice)
    content = json.dumps(transfer()).encode()
    headers = alice.headers(TRANSFER, content)
    with unchanged(stopped):
        check_limited(alice.http.post(TRANSFER, content=content, headers=headers), 10, 1)
    clock.pass_s(1.1)
    assert alice.http.post(TRANSFER, content=content, headers=headers).status_code == 200


def test_failed_authentications_count_against_the_address(stopped: House, alice: ApiClient) -> None:
    """Twenty failures in two seconds block their address for everything signed, but never the key's owner elsewhere."""
    assert alice.credentials
    forger = stopped.client(credentials=Credentials(alice.credentials.key, "wrong"))
    there, here = {"x-forwarded-for": "203.0.113.66"}, {"x-forwarded-for": "198.51.100.50"}
    for _ in range(20):
        assert forger.get(WALLET, headers=there).status_code == 401
    check_limited(forger.get(WALLET, headers=there), 20, 1)
    check_limited(alice.get(WALLET, headers=there), 20, 1)
    assert alice.get(WALLET, headers=here).headers["x-ratelimit-remaining"] == "29"
    assert stopped.client().get(MARKETS, headers=there).status_code == 200


def test_failures_do_not_count_against_the_key(stopped: House, alice: ApiClient) -> None:
    """Who knows a key cannot lock its owner out, from however many addresses."""
    assert alice.credentials
    forger = stopped.client(credentials=Credentials(alice.credentials.key, "wrong"))
    for n in range(40):
        reply = forger.post(TRANSFER, transfer(), headers={"x-forwarded-for": f"203.0.113.{n}"})
        assert reply.status_code == 401
    assert alice.post(TRANSFER, transfer()).headers["x-ratelimit-remaining"] == "9"


def test_refused_receivers_are_limited(stopped: House, alice: ApiClient, clock: Stopped) -> None:
    """After twenty refusals of a receiver nobody is looked up for the rest of the hour, by either dialect."""
    wrong = transfer() | {"toUser": "nobody", "receiverUsername": "nobody"}
    for n in range(20):
        reply = alice.post(TRANSFER if n % 2 else SEND, wrong)
        check_refusal(reply, 400, 28, "BADREQUEST: Receiver not found")
        clock.pass_s(1)
    with unchanged(stopped):
        for path in (TRANSFER, SEND):
            reply = alice.post(path, transfer())
            check_refusal(reply, *LIMITED)
            assert 3500 < int(reply.headers["retry-after"]) <= 3600
    assert stopped.client("alice-sub1").post(TRANSFER, transfer()).status_code == 200
    clock.pass_s(3600)
    assert alice.post(TRANSFER, transfer()).status_code == 200


def test_tiers(stopped: House, clock: Stopped) -> None:
    """A key's tier has numbers of its own, and may have none."""
    fast, free = stopped.client("bob", tier="fast"), stopped.client("bob", tier="free")
    body = transfer() | {"toUser": "alice", "toUserMail": mail_of("alice")}
    use_up(lambda: fast.post(TRANSFER, body), 12)
    check_limited(fast.post(TRANSFER, body), 12, 1)
    for _ in range(40):
        reply = free.post(TRANSFER, body)
        assert (reply.status_code, "x-ratelimit-limit" in reply.headers) == (200, False)


def test_the_limit_comes_before_the_form(stopped: House, alice: ApiClient) -> None:
    """A malformed request counts, and beyond the limit is refused for that; a missing permission comes before it."""
    for _ in range(10):
        assert alice.post(TRANSFER, b"{").status_code == 400
    check_limited(alice.post(TRANSFER, b"{"), 10, 1)
    weak = stopped.client("alice", permissions=1)
    assert weak.post(TRANSFER, transfer()).status_code == 403
