"""Idempotency-Key: the first success is answered again, to whoever asks the same of the same user."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from support.client import V1, V3, ApiClient, check_refusal
from support.serving import House, mail_of, opened, unchanged
from support.shapes import answered, enveloped

TRANSFER, SEND = V3 + "user/wallet/transfer", V1 + "user/assets/sendTo"
OUTSIDE = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"
BODY = {"asset": "BTC", "amount": "0.001", "toUser": "bob", "toUserMail": mail_of("bob"), "receiverUsername": "bob"}
MISMATCH = (422, -2, "BADREQUEST: Idempotency-Key was used with another request")

CHANGES: list[tuple[str, str, dict[str, Any]]] = [
    ("POST", TRANSFER, BODY),
    ("POST", SEND, BODY),
    ("POST", V3 + "user/wallet/convert", {"amount": "0.01", "fromAsset": "BTC", "toAsset": "USD"}),
    ("POST", V1 + "user/assets/convert", {"amount": "0.01", "fromAsset": "BTC", "toAsset": "USD"}),
    ("POST", V3 + "user/wallet/withdraw", {"currency": "BTC", "address": OUTSIDE, "amount": "0.01"}),
    (
        "POST",
        V1 + "user/crypto/withdraw",
        {"crypto": "BTC", "network": "BITCOIN", "address": OUTSIDE, "amount": "0.01"},
    ),
    ("POST", V3 + "user/wallet/address", {"currency": "BTC"}),
    ("POST", V1 + "user/crypto/address", {"crypto": "XRP", "network": "RIPPLE"}),
]


def keyed(client: ApiClient, key: str, path: str = TRANSFER, body: Any = None, method: str = "POST") -> httpx.Response:
    """Send a change with an Idempotency-Key and a fresh nonce."""
    return client.send(method, path, BODY if body is None else body, headers={"idempotency-key": key})


def is_repeat(reply: httpx.Response) -> bool:
    """Say whether a reply is an earlier one."""
    return reply.headers.get("idempotency-replayed") == "true"


@pytest.mark.parametrize(("method", "path", "body"), CHANGES, ids=lambda v: v if isinstance(v, str) else "")
def test_the_first_reply_is_answered_again(
    house: House, alice: ApiClient, method: str, path: str, body: dict[str, Any]
) -> None:
    """Every change answers the very same bytes again, marked as such, and is done once."""
    first = keyed(alice, f"first {path}".replace(" ", "-"), path, body, method)
    assert (first.status_code, is_repeat(first)) == (200, False)
    with unchanged(house):
        for _ in range(2):
            again = keyed(alice, f"first {path}".replace(" ", "-"), path, body, method)
            assert (again.status_code, again.content, is_repeat(again)) == (200, first.content, True)


@pytest.mark.parametrize(
    ("path", "names"),
    [
        (V3 + "user/wallet/address", {"currency": "ETH"}),
        (V1 + "user/crypto/address", {"crypto": "ETH", "network": "ERC20"}),
    ],
)
def test_a_deletion_is_answered_again(house: House, path: str, names: dict[str, str]) -> None:
    """A deletion with a key is the same again, where without one it would be refused."""
    house.open_user("del" + str(len(names)))
    client = house.client("del" + str(len(names)))
    reply = client.post(path, names)
    created = enveloped(reply) if "crypto" in names else answered(reply)[0]
    query = names | {"address": created["address"]}
    first, again = (client.delete(path, query, headers={"idempotency-key": "delete"}) for _ in range(2))
    assert first.status_code == 200
    assert (again.content, is_repeat(again)) == (first.content, True)
    check_refusal(client.delete(path, query), 400, -2, "BADREQUEST: address is unknown")


def test_a_nonce_that_is_sent_again(house: House, alice: ApiClient) -> None:
    """With a key the request may be sent again as it is, its nonce too."""
    nonce = house.nonces.fresh()
    replies = [alice.post(TRANSFER, BODY, nonce=nonce, headers={"idempotency-key": "as-it-is"}) for _ in range(3)]
    assert [reply.status_code for reply in replies] == [200] * 3
    assert [is_repeat(reply) for reply in replies] == [False, True, True]
    check_refusal(alice.post(TRANSFER, BODY, nonce=nonce), 401, 401, "UNAUTHORIZED: Invalid nonce")


def test_another_request(house: House, alice: ApiClient) -> None:
    """A key that is known belongs to its method, path, query and body."""
    assert keyed(alice, "taken").status_code == 200
    with unchanged(house):
        check_refusal(keyed(alice, "taken", body=BODY | {"amount": "0.002"}), *MISMATCH)
        check_refusal(keyed(alice, "taken", SEND), *MISMATCH)
        check_refusal(keyed(alice, "taken", TRANSFER.replace("v3.3", "v3.2")), *MISMATCH)
        with_query = alice.post(TRANSFER, BODY, query="x=1", headers={"idempotency-key": "taken"})
        check_refusal(with_query, *MISMATCH)
        check_refusal(keyed(alice, "taken", body=b"{}"), *MISMATCH)
        assert is_repeat(keyed(alice, "taken", TRANSFER.removeprefix("/spot")))


def test_a_key_belongs_to_one_user(house: House, alice: ApiClient) -> None:
    """Another user's same key is another, and all keys of one user share theirs."""
    assert keyed(alice, "mine").status_code == 200
    sub = house.client("alice-sub1")
    assert not is_repeat(keyed(sub, "mine"))
    assert is_repeat(keyed(house.client("alice", permissions=31), "mine"))


def test_a_refusal_does_not_burn_the_key(house: House) -> None:
    """After a refusal the same key may ask again, the same or something else, until something is done."""
    house.open_user("poor")
    poor, short = house.client("poor"), (400, 51523, "BADREQUEST: Insufficient wallet balance")
    check_refusal(keyed(poor, "later"), *short)
    check_refusal(keyed(poor, "later", body=BODY | {"amount": "0.002"}), *short)
    check_refusal(keyed(poor, "later", body=b"{"), 400, -2, "BADREQUEST: the body is not valid JSON (character 1)")
    house.fund("poor", BTC="1")
    assert not is_repeat(keyed(poor, "later"))
    assert is_repeat(keyed(poor, "later"))


def test_twins_at_once(house: House, alice: ApiClient) -> None:
    """Of the same request many times at once one is done, and all answer the same."""
    before = house.books()
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda _: keyed(alice, "twins"), range(16)))
    assert {(reply.status_code, reply.content) for reply in replies} == {(200, replies[0].content)}
    assert sorted(map(is_repeat, replies)) == [False] + [True] * 15
    counts = [sum(count for _, _, count in books) for books in (before, house.books())]
    assert counts[1] == counts[0] + 2


@pytest.mark.parametrize("key", ["x", "!" * 255, "~a-B_9", '"quoted"', "{}", "," * 3])
def test_good_keys(alice: ApiClient, key: str) -> None:
    """A key is 1 to 255 visible ASCII characters."""
    assert not is_repeat(keyed(alice, key))
    assert is_repeat(keyed(alice, key))


@pytest.mark.parametrize("key", [b"", b"x" * 256, b"a b", b"\xc3\xa9", b"a\tb"])
def test_bad_keys(house: House, alice: ApiClient, key: bytes) -> None:
    """Anything else is refused, and so are two keys."""
    message = "BADREQUEST: Idempotency-Key must be given once, 1 to 255 visible ASCII characters"
    headers = [(name.encode(), value.encode()) for name, value in alice.headers(SEND, b"{}").items()]
    with unchanged(house):
        reply = alice.http.post(SEND, content=b"{}", headers=[*headers, (b"idempotency-key", key)])
        check_refusal(reply, 400, -2, message)
        twice = [("idempotency-key", "a"), ("idempotency-key", "b")]
        check_refusal(alice.post(SEND, BODY, headers=twice), 400, -2, message)


def test_reads_ignore_the_key(alice: ApiClient) -> None:
    """A key on a read is ignored."""
    for _ in range(2):
        reply = alice.get(V3 + "user/wallet", headers={"idempotency-key": "taken"})
        assert (reply.status_code, is_repeat(reply)) == (200, False)
    assert alice.get(V3 + "user/wallet", headers={"idempotency-key": "a b"}).status_code == 200


def test_a_repeat_needs_permission_and_signature(house: House, alice: ApiClient) -> None:
    """An earlier reply is not told to a key that may not ask, nor for a wrong signature."""
    assert keyed(alice, "secret").status_code == 200
    weak = house.client("alice", permissions=1)
    check_refusal(keyed(weak, "secret"), 403, 403, "FORBIDDEN: Transfer permission is required")


def test_a_reply_does_not_change_with_the_world(house: House, alice: ApiClient) -> None:
    """An earlier reply is the same bytes after the address it names was deleted."""
    asked = {"crypto": "USDT", "network": "ERC20"}
    path = V1 + "user/crypto/address"
    first = keyed(alice, "gone", path, asked)
    query = asked | {"address": enveloped(first)["address"]}
    assert alice.delete(path, query).status_code == 200
    assert keyed(alice, "gone", path, asked).content == first.content


@pytest.fixture(scope="module")
def own_house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A house that may be restarted."""
    with opened(tmp_path_factory.mktemp("restarted")) as house:
        yield house


def test_keys_survive_a_restart(own_house: House) -> None:
    """After a restart a known key still answers the same bytes, and still refuses another request."""
    alice = own_house.client("alice")
    first = keyed(alice, "kept", SEND)
    credentials = alice.credentials
    own_house.restart()
    again = own_house.client(credentials=credentials)
    with unchanged(own_house):
        reply = keyed(again, "kept", SEND)
        assert (reply.content, is_repeat(reply)) == (first.content, True)
        check_refusal(keyed(again, "kept", SEND, BODY | {"amount": "9"}), *MISMATCH)
