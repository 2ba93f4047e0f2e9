"""Replays: a signature authorises one change, whatever is put round it, also across a restart."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from support.client import V1, V3, ApiClient, check_refusal, raw_body
from support.serving import House, mail_of, opened, unchanged

NONCE = (401, 401, "UNAUTHORIZED: Invalid nonce")
TRANSFER = V3 + "user/wallet/transfer"
ADDRESS = V3 + "user/wallet/address"
BODY = raw_body({"amount": "0.001", "asset": "BTC", "toUser": "bob", "toUserMail": mail_of("bob")})
Disguise = Callable[[dict[str, str]], dict[str, str]]


@pytest.fixture(scope="module")
def own_house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A house that may be restarted."""
    with opened(tmp_path_factory.mktemp("restarted")) as house:
        yield house


def resend(client: ApiClient, method: str, path: str, headers: dict[str, str], body: bytes = b"") -> httpx.Response:
    """Send a request with headers that were made before."""
    return client.http.request(method, path, content=body, headers=headers)


def as_alias(headers: dict[str, str]) -> dict[str, str]:
    """Return the headers under their older names."""
    return {name.replace("request-", "btse-"): value for name, value in headers.items()}


def in_upper_case(headers: dict[str, str]) -> dict[str, str]:
    """Return the headers with the signature in other hex digits."""
    return headers | {"request-sign": headers["request-sign"].upper()}


def as_they_are(headers: dict[str, str]) -> dict[str, str]:
    """Return the headers."""
    return headers


@pytest.mark.parametrize("path", [TRANSFER, TRANSFER.removeprefix("/spot"), TRANSFER + "?again=1"])
@pytest.mark.parametrize("disguise", [as_they_are, in_upper_case, as_alias])
def test_a_change_is_done_once(house: House, alice: ApiClient, path: str, disguise: Disguise) -> None:
    """A request that changed something changes nothing again, under another mount, hex case, header name or query."""
    headers = alice.headers(TRANSFER, BODY)
    assert resend(alice, "POST", TRANSFER, headers, BODY).status_code == 200
    with unchanged(house):
        check_refusal(resend(alice, "POST", path, disguise(headers), BODY), *NONCE)


def test_an_unsigned_header_does_not_make_it_another_request(house: House, alice: ApiClient) -> None:
    """A new Idempotency-Key, which nobody signed, does not let a request be done a second time."""
    headers = alice.headers(TRANSFER, BODY)
    assert resend(alice, "POST", TRANSFER, headers, BODY).status_code == 200
    keyed = alice.headers(TRANSFER, BODY)
    assert resend(alice, "POST", TRANSFER, keyed | {"idempotency-key": "one"}, BODY).status_code == 200
    with unchanged(house):
        for key in ("two", "three"):
            check_refusal(resend(alice, "POST", TRANSFER, headers | {"idempotency-key": key}, BODY), *NONCE)
            check_refusal(resend(alice, "POST", TRANSFER, keyed | {"idempotency-key": key}, BODY), *NONCE)
        check_refusal(resend(alice, "POST", TRANSFER, keyed, BODY), *NONCE)


def test_a_refusal_uses_up_the_signature(house: House, alice: ApiClient) -> None:
    """After a business refusal the same request is a replay, even if it could be done by then."""
    body = BODY.replace(b'"0.001"', b'"900"')
    headers = alice.headers(TRANSFER, body)
    check_refusal(resend(alice, "POST", TRANSFER, headers, body), 400, 51523, "BADREQUEST: Insufficient wallet balance")
    house.fund("alice", BTC="1000")
    check_refusal(resend(alice, "POST", TRANSFER, headers, body), *NONCE)


@pytest.mark.parametrize("body", [b"{", b"", b'{"asset":"NOPE","amount":"1","toUser":"bob","toUserMail":"b"}'])
def test_what_is_malformed_uses_up_the_signature(alice: ApiClient, body: bytes) -> None:
    """A request that is refused for its form or names is a replay the second time."""
    headers = alice.headers(TRANSFER, body)
    assert resend(alice, "POST", TRANSFER, headers, body).status_code == 400
    check_refusal(resend(alice, "POST", TRANSFER, headers, body), *NONCE)


def test_a_missing_permission_does_not_use_up_the_signature(house: House) -> None:
    """What is refused before it gets to the books may be sent again as it is, and is refused the same way."""
    client = house.client("alice", permissions=1)
    headers = client.headers(TRANSFER, BODY)
    for _ in range(2):
        reply = resend(client, "POST", TRANSFER, headers, BODY)
        check_refusal(reply, 403, 403, "FORBIDDEN: Transfer permission is required")


def test_reads_may_repeat_within_a_millisecond(house: House, bob: ApiClient) -> None:
    """Reads that were signed with one nonce, or are the very same, are all answered, also in parallel."""
    nonce = house.nonces.fresh()
    paths = [V3 + "user/wallet", V3 + "user/wallet_history", V1 + "user/assets", V3 + "user/wallet"] * 3
    with ThreadPoolExecutor(6) as pool:
        replies = list(pool.map(lambda path: bob.get(path, nonce=nonce), paths))
    assert [reply.status_code for reply in replies] == [200] * len(paths)


def test_changes_may_share_a_millisecond(house: House, alice: ApiClient) -> None:
    """Two different changes with one nonce have different signatures, and both are done."""
    nonce = house.nonces.fresh()
    for amount in (b'"0.002"', b'"0.003"'):
        assert alice.post(TRANSFER, BODY.replace(b'"0.001"', amount), nonce=nonce).status_code == 200


@pytest.mark.parametrize("path", [ADDRESS, V1 + "user/crypto/address"])
def test_a_get_never_authorises_a_deletion(house: House, bob: ApiClient, path: str) -> None:
    """A signature that was seen on a GET deletes nothing, though method and query are not signed."""
    asked = {"crypto": "BTC", "network": "BITCOIN", "currency": "BTC"}
    _ = bob.post(ADDRESS, asked)
    [created] = bob.get(ADDRESS, asked).json()
    query = asked | {"address": created["address"]}
    for seen_by in ("GET", "HEAD"):
        headers = bob.headers(path)
        assert bob.http.request(seen_by, path, params=asked, headers=headers).status_code == 200
        assert bob.http.request("GET", path, params=asked, headers=headers).status_code == 200
        check_refusal(bob.http.request("DELETE", path, params=query, headers=headers), *NONCE)
    assert bob.get(ADDRESS, asked).json() == [created]


def test_a_refused_get_is_remembered_too(bob: ApiClient) -> None:
    """A signature that was seen on a GET that was refused does not authorise a change either."""
    headers = bob.headers(ADDRESS)
    assert bob.http.get(ADDRESS, params={"currency": "NOPE"}, headers=headers).status_code == 400
    check_refusal(bob.http.request("DELETE", ADDRESS, params={"currency": "BTC"}, headers=headers), *NONCE)
    check_refusal(bob.http.request("POST", ADDRESS, params={"currency": "BTC"}, headers=headers), *NONCE)


def test_a_deletion_never_authorises_anything_again(house: House) -> None:
    """A signature that deleted an address is used up for every method of the path, and so is one that was refused."""
    house.open_user("ida")
    ida = house.client("ida")
    [created] = ida.post(ADDRESS, {"currency": "BTC"}).json()
    headers, query = ida.headers(ADDRESS), {"currency": "BTC", "address": created["address"]}
    assert ida.http.request("DELETE", ADDRESS, params=query, headers=headers).status_code == 200
    for method in ("DELETE", "GET", "POST"):
        check_refusal(ida.http.request(method, ADDRESS, params=query, headers=headers), *NONCE)
    refused = ida.headers(ADDRESS)
    assert ida.http.request("DELETE", ADDRESS, params=query, headers=refused).status_code == 400
    check_refusal(ida.http.request("GET", ADDRESS, params=query, headers=refused), *NONCE)


def test_the_other_dialect_has_another_signature(house: House) -> None:
    """The memory is by signature, so the same moment may create an address by each dialect."""
    house.open_user("ike")
    ike, nonce = house.client("ike"), house.nonces.fresh()
    assert ike.post(ADDRESS, {"currency": "BTC"}, nonce=nonce).status_code == 200
    body = {"crypto": "BTC", "network": "BITCOIN"}
    assert ike.post(V1 + "user/crypto/address", body, nonce=nonce).status_code == 200


def test_twins_at_once_are_done_once(house: House, alice: ApiClient, bob: ApiClient) -> None:
    """Of the same request many times at once, one is done and all others are replays."""
    headers = alice.headers(TRANSFER, BODY)
    before = bob.get(V3 + "user/wallet_history", {"count": 500}).json()
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda _: resend(alice, "POST", TRANSFER, headers, BODY), range(16)))
    assert sorted(reply.status_code for reply in replies) == [200] + [401] * 15
    assert len(bob.get(V3 + "user/wallet_history", {"count": 500}).json()) == len(before) + 1


def test_the_memory_survives_a_restart(own_house: House) -> None:
    """After a restart what was done or seen before is still used up."""
    alice = own_house.client("alice")
    done, seen = alice.headers(TRANSFER, BODY), alice.headers(ADDRESS)
    assert resend(alice, "POST", TRANSFER, done, BODY).status_code == 200
    assert alice.http.get(ADDRESS, params={"currency": "BTC"}, headers=seen).status_code == 200
    assert alice.credentials
    own_house.restart()
    again = own_house.client(credentials=alice.credentials)
    with unchanged(own_house):
        check_refusal(resend(again, "POST", TRANSFER, done, BODY), *NONCE)
        check_refusal(again.http.request("DELETE", ADDRESS, params={"currency": "BTC"}, headers=seen), *NONCE)
    assert again.post(TRANSFER, BODY).status_code == 200
    assert own_house.verify().is_whole
