"""Who signed a request: vectors, headers, nonces, permissions, allow-lists, expiry and revocation."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from strongroom.api.authentication import Authenticator, Claim
from strongroom.api.client_address import UNKNOWN
from strongroom.clock import SetClock
from strongroom.errors import SIGNATURE_INVALID, Refused
from strongroom.records.keys import ApiKey
from strongroom.records.users import User
from support.client import V1, V3, ApiClient, Credentials, check_refusal, sign
from support.serving import House, opened, unchanged

VECTORS = json.loads((Path(__file__).parents[2] / "data" / "signature_vectors.json").read_text("utf-8"))
WALLET, SIGNED = V3 + "user/wallet", "/api/v3.3/user/wallet"

MISSING = (401, 10002, "UNAUTHORIZED: api parameter is mandatory")
UNKNOWN_KEY = (401, 10002, "UNAUTHORIZED: Authentication Failed")
WRONG = (401, 10002, "UNAUTHORIZED: Signature verification failed")
NONCE = (401, 401, "UNAUTHORIZED: Invalid nonce")


class OneKey:
    """Committed rows: one key and its user."""

    def row(self, kind: type, *key: Any) -> ApiKey | User:
        """Return one of them."""
        return ApiKey("key", 1, 7, created_ms=1) if kind is ApiKey else User(7, created_ms=1, active=True)

    is_current = True

    def subscribe(self, listener: Any) -> None:
        """Nothing changes."""


def verify_vector(vector: dict[str, str]) -> None:
    """Verify a vector as a request of its own time."""
    clock = SetClock(int(vector["nonce"]))
    authenticator = Authenticator(cast(Any, OneKey()), clock, lambda sealed, text: vector["secret"])
    claim = Claim("key", vector["nonce"].encode(), bytes.fromhex(vector["signature"]))
    caller = authenticator.verify(claim, vector["path"], vector["body"].encode(), UNKNOWN)
    assert caller.user.uid == 7


@pytest.mark.parametrize("vector", VECTORS["vectors"], ids=lambda v: v["path"])
def test_published_signatures_verify(vector: dict[str, str]) -> None:
    """Every published signature is the one we expect for its secret, path, nonce and body."""
    assert sign(vector["secret"], vector["path"], vector["nonce"], vector["body"].encode()) == vector["signature"]
    verify_vector(vector)


def test_the_vector_that_was_published_wrong_does_not_verify() -> None:
    """The one published signature that is of another path is refused."""
    with pytest.raises(Refused) as caught:
        verify_vector(VECTORS["wrong"])
    assert caught.value.error is SIGNATURE_INVALID


def headers_of(client: ApiClient, *, nonce: str | None = None, body: bytes = b"") -> tuple[str, str, str]:
    """Return key, nonce and signature of a signed wallet request."""
    return tuple(client.headers(WALLET, body, nonce).values())  # pyright: ignore[reportReturnType]


def ask(client: ApiClient, headers: list[tuple[str, str]]) -> Any:
    """Return the reply to a wallet request with these headers only."""
    return client.http.get(WALLET, headers=headers)


@pytest.mark.parametrize("family", ["request", "btse", "REQUEST", "Btse"])
def test_both_families_of_header_names(bob: ApiClient, family: str) -> None:
    """The older header names are aliases, and names have no case."""
    key, nonce, signature = headers_of(bob)
    headers = [(f"{family}-api", key), (f"{family}-nonce", nonce), (f"{family}-sign", signature)]
    assert ask(bob, headers).status_code == 200


def test_families_may_be_mixed_or_agree(bob: ApiClient) -> None:
    """One header may come by its old name, empty ones do not count, and the same value under both is no conflict."""
    key, nonce, signature = headers_of(bob)
    mixed = [("btse-api", key), ("request-nonce", nonce), ("btse-sign", signature)]
    assert ask(bob, mixed).status_code == 200
    assert ask(bob, [*mixed, ("request-api", ""), ("btse-nonce", "")]).status_code == 200
    assert ask(bob, [*mixed, ("request-api", key), ("request-sign", signature)]).status_code == 200


@pytest.mark.parametrize("name", ["request-api", "request-nonce", "request-sign"])
@pytest.mark.parametrize("problem", ["absent", "empty", "repeated", "twice the same", "in conflict with its alias"])
def test_headers_that_do_not_say_one_thing(bob: ApiClient, name: str, problem: str) -> None:
    """A header that is absent, empty, repeated or in conflict with its alias is a 401."""
    names = ("request-api", "request-nonce", "request-sign")
    headers: dict[str, str] = dict(zip(names, headers_of(bob), strict=True))
    value = headers[name]
    other = value[:-1] + ("1" if value[-1] != "1" else "2")
    rest = [(n, v) for n, v in headers.items() if n != name]
    ways = {
        "absent": rest,
        "empty": [*rest, (name, "")],
        "repeated": [*rest, (name, value), (name, other)],
        "twice the same": [*rest, (name, value), (name, value)],
        "in conflict with its alias": [*rest, (name, value), (name.replace("request", "btse"), other)],
    }
    check_refusal(ask(bob, ways[problem]), *MISSING)


def test_nothing_at_all(nobody: ApiClient) -> None:
    """An unsigned request of either dialect is told that authentication is mandatory."""
    check_refusal(nobody.get(WALLET), *MISSING)
    check_refusal(nobody.get(V1 + "user/assets"), *MISSING)


@pytest.mark.parametrize("signature", ["", "0", "zz" * 48, "00" * 47, "00" * 49, "0x" + "00" * 47])
def test_a_malformed_signature(bob: ApiClient, signature: str) -> None:
    """A signature that is not 96 hex digits is as good as none."""
    key, nonce, _ = headers_of(bob)
    check_refusal(ask(bob, [("request-api", key), ("request-nonce", nonce), ("request-sign", signature)]), *MISSING)


@pytest.mark.parametrize("key", ["k" * 129, "k" * 16_000, "a key"])
def test_a_malformed_key(bob: ApiClient, key: str) -> None:
    """A key is up to 128 visible characters: what nobody can have is not looked up, and not remembered either."""
    _, nonce, signature = headers_of(bob)
    check_refusal(ask(bob, [("request-api", key), ("request-nonce", nonce), ("request-sign", signature)]), *MISSING)


@pytest.mark.parametrize("change", [str.upper, str.lower])
def test_the_case_of_hex_does_not_matter(bob: ApiClient, change: Any) -> None:
    """A signature may be in upper or lower case."""
    key, nonce, signature = headers_of(bob)
    headers = [("request-api", key), ("request-nonce", nonce), ("request-sign", change(signature))]
    assert ask(bob, headers).status_code == 200


@pytest.mark.parametrize("form", ["{0:.12}", "{0}0", "0{0}", "+{0:.12}", "{0:.9}.{0:.3}", "-{0:.12}", "{0:.12}x"])
def test_a_nonce_is_thirteen_digits(house: House, bob: ApiClient, form: str) -> None:
    """A nonce with fewer or more digits, a sign or a point is malformed, however it was signed."""
    nonce = form.format(house.nonces.fresh())
    check_refusal(bob.get(WALLET, nonce=nonce), *MISSING)


def test_a_nonce_has_ascii_digits(house: House, bob: ApiClient) -> None:
    """Digits of other scripts are malformed."""
    nonce = "".join(chr(ord("٠") + int(digit)) for digit in house.nonces.fresh())
    key, _, signature = headers_of(bob, nonce=nonce)
    raw = [(b"request-api", key.encode()), (b"request-nonce", nonce.encode()), (b"request-sign", signature.encode())]
    check_refusal(bob.http.get(WALLET, headers=raw), *MISSING)


@pytest.mark.parametrize("offset_ms", [-29_000, 29_000])
def test_inside_the_window(house: House, bob: ApiClient, offset_ms: int) -> None:
    """A nonce up to half a minute off, either way, is taken."""
    assert bob.get(WALLET, nonce=str(house.clock.now_ms() + offset_ms)).status_code == 200


@pytest.mark.parametrize("offset_ms", [-31_000, 31_000, -86_400_000])
def test_outside_the_window(house: House, bob: ApiClient, offset_ms: int) -> None:
    """A nonce further off is refused with a code of its own, in both dialects."""
    nonce = str(house.clock.now_ms() + offset_ms)
    check_refusal(bob.get(WALLET, nonce=nonce), *NONCE)
    check_refusal(bob.get(V1 + "user/assets", nonce=nonce), *NONCE)


def test_neither_mount_nor_query_is_signed(bob: ApiClient) -> None:
    """The signed path has neither the mount nor the query string."""
    headers = bob.headers(SIGNED)
    for target in (WALLET, SIGNED, WALLET + "?a=1&a=2", SIGNED + "?"):
        assert bob.http.get(target, headers=headers).status_code == 200
    wrong = bob.headers("/x" + WALLET)
    check_refusal(bob.http.get(WALLET, headers=wrong), *WRONG)


def test_wallet_v1_signs_the_full_path(bob: ApiClient) -> None:
    """Wallet v1's signed path is the whole one."""
    path = V1 + "user/assets"
    assert bob.get(path).status_code == 200
    check_refusal(bob.http.get(path, headers=bob.headers("/user/assets")), *WRONG)


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": "), (" , ", " : ")])
@pytest.mark.parametrize("indent", [None, 2])
def test_the_body_is_signed_as_it_is(alice: ApiClient, separators: tuple[str, str], indent: int | None) -> None:
    """The raw bytes of a body are signed, with or without spaces and line ends."""
    body = {"asset": "USDT", "amount": "1", "receiverUsername": "bob"}
    raw = json.dumps(body, separators=separators, indent=indent).encode()
    assert alice.post(V1 + "user/assets/sendTo", raw).status_code == 200


def test_a_signature_over_another_body(house: House, alice: ApiClient) -> None:
    """A body that was changed on its way is refused, and nothing happens."""
    path = V1 + "user/assets/sendTo"
    body = b'{"asset":"USDT","amount":"1","receiverUsername":"bob"}'
    headers = alice.headers(path, body)
    with unchanged(house):
        for other in (body.replace(b'"1"', b'"2"'), body + b" ", b""):
            check_refusal(alice.http.post(path, content=other, headers=headers), *WRONG)


def test_a_get_signs_its_body_if_there_is_one(alice: ApiClient) -> None:
    """A GET with a body is signed with it, and is answered by it."""
    path, body = V3 + "user/wallet_history", b'{"currency":"USD","count":1}'
    reply = alice.send("GET", path, body)
    assert [row["currency"] for row in reply.json()] == ["USD"]
    unsigned = alice.http.request("GET", path, content=body, headers=alice.headers(path))
    check_refusal(unsigned, *WRONG)


@pytest.mark.parametrize("key", ["0" * 64, "x", "ключ", "a" * 128])
def test_an_unknown_key(house: House, key: str) -> None:
    """A key that nobody has is refused before its signature is judged."""
    client = house.client(credentials=Credentials(key, "secret"))
    headers = [(name.encode(), value.encode()) for name, value in client.headers(WALLET).items()]
    expected = UNKNOWN_KEY if key.isascii() else MISSING
    check_refusal(client.http.get(WALLET, headers=headers), *expected)


def test_a_wrong_secret(house: House, bob: ApiClient) -> None:
    """A known key with another secret is told that the signature is wrong."""
    assert bob.credentials
    client = house.client(credentials=Credentials(bob.credentials.key, "0" * 64))
    check_refusal(client.get(WALLET), *WRONG)
    check_refusal(client.get(WALLET, nonce="1000000000000"), *WRONG)


NEEDS = [
    ("Read", "GET", V3 + "user/wallet"),
    ("Read", "GET", V3 + "user/wallet_history"),
    ("Read", "GET", V3 + "subaccount/wallet/history"),
    ("Read", "POST", V3 + "subaccount/wallet/history"),
    ("Read", "GET", V1 + "user/assets"),
    ("Read", "GET", V1 + "user/walletHistory"),
    ("Wallet", "GET", V3 + "user/wallet/address"),
    ("Wallet", "POST", V3 + "user/wallet/address"),
    ("Wallet", "DELETE", V3 + "user/wallet/address"),
    ("Wallet", "POST", V3 + "user/wallet/convert"),
    ("Wallet", "GET", V1 + "user/crypto/address"),
    ("Wallet", "POST", V1 + "user/crypto/address"),
    ("Wallet", "DELETE", V1 + "user/crypto/address"),
    ("Wallet", "POST", V1 + "user/assets/convert"),
    ("Transfer", "POST", V3 + "user/wallet/transfer"),
    ("Transfer", "POST", V1 + "user/assets/sendTo"),
    ("Withdraw", "POST", V3 + "user/wallet/withdraw"),
    ("Withdraw", "POST", V1 + "user/crypto/withdraw"),
]
BITS = {"Read": 1, "Trading": 2, "Transfer": 4, "Wallet": 8, "Withdraw": 16}


@pytest.fixture(scope="module")
def limited_keys(house: House) -> dict[str, tuple[ApiClient, ApiClient]]:
    """Return by permission a client with all others, and one with it alone."""
    return {
        name: (house.client("bob", permissions=31 - bit), house.client("bob", permissions=bit))
        for name, bit in BITS.items()
    }


@pytest.mark.parametrize(("permission", "method", "path"), NEEDS)
def test_a_missing_permission_is_named(
    house: House, limited_keys: dict[str, tuple[ApiClient, ApiClient]], permission: str, method: str, path: str
) -> None:
    """Each endpoint needs one permission: without it it is a 403 that names it, with it alone it is none."""
    without, alone = limited_keys[permission]
    with unchanged(house):
        reply = without.send(method, path)
        check_refusal(reply, 403, 403, f"FORBIDDEN: {permission} permission is required")
        assert alone.send(method, path).status_code in {200, 400}


@pytest.mark.parametrize(
    ("networks", "allowed"),
    [
        (("127.0.0.1",), True),
        (("127.0.0.0/8",), True),
        (("::ffff:127.0.0.1",), True),
        (("10.0.0.0/8",), False),
        (("10.0.0.0/8", "127.0.0.1/32"), True),
    ],
)
def test_a_key_with_an_allow_list(house: House, networks: tuple[str, ...], allowed: bool) -> None:
    """A key with an allow-list works from there only, and a forwarded address of nobody's proxy does not count."""
    client = house.client("bob", networks=networks)
    for headers in ({}, {"x-forwarded-for": "10.1.2.3"}):
        reply = client.get(WALLET, headers=headers)
        if allowed:
            assert reply.status_code == 200
        else:
            check_refusal(reply, 403, 403, "FORBIDDEN: the address is not on the key's allow-list")


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiClient]:
    """A client whose key is for one address, of a house that trusts a proxy on its own machine."""
    with opened(tmp_path_factory.mktemp("proxied"), trusted_proxies=("127.0.0.0/8",)) as house:
        yield house.client("bob", networks=("198.51.100.7",))


@pytest.mark.parametrize(
    ("forwarded", "allowed"),
    [
        ("198.51.100.7", True),
        ("203.0.113.9, 198.51.100.7", True),
        ("198.51.100.7, 203.0.113.9", False),
        ("198.51.100.7, 127.0.0.1", True),
        ("::ffff:198.51.100.7", True),
        ("nonsense", False),
        ("", False),
    ],
)
def test_behind_a_trusted_proxy(proxied: ApiClient, forwarded: str, allowed: bool) -> None:
    """Behind a trusted proxy the right-most hop that is none is the client; no address at all is on no list."""
    reply = proxied.get(WALLET, headers={"x-forwarded-for": forwarded})
    if allowed:
        assert reply.status_code == 200
    else:
        check_refusal(reply, 403, 403, "FORBIDDEN: the address is not on the key's allow-list")


def test_a_key_expires(house: House) -> None:
    """A key works until its expiry and is unknown after it."""
    client = house.client("bob", expires_ms=house.clock.now_ms() + 60_000)
    assert client.get(WALLET).status_code == 200
    expired = house.client("bob", expires_ms=house.clock.now_ms())
    check_refusal(expired.get(WALLET), *UNKNOWN_KEY)


def test_a_revoked_key_fails_on_the_next_request(house: House) -> None:
    """From the request after its revocation on a key is unknown, also with a wrong signature."""
    client = house.client("bob", permissions=31)
    assert client.get(WALLET).status_code == 200
    assert client.credentials
    house.revoke(client.credentials)
    check_refusal(client.get(WALLET), *UNKNOWN_KEY)
    check_refusal(client.post(V1 + "user/assets/sendTo", {}), *UNKNOWN_KEY)


def test_keys_of_an_inactive_user(house: House) -> None:
    """The keys of a user who was made inactive work no more."""
    house.open_user("gone")
    client = house.client("gone")
    house.mark("gone", active=False)
    check_refusal(client.get(WALLET), *UNKNOWN_KEY)


def test_each_check_comes_in_its_turn(house: House) -> None:
    """Key, signature, window, allow-list and permission are judged in this order."""
    key = house.make_key("bob", permissions=2, networks=("10.0.0.1",))
    client, forger = house.client(credentials=key), house.client(credentials=Credentials(key.key, "wrong"))
    check_refusal(forger.get(WALLET, nonce="1000000000000"), *WRONG)
    check_refusal(client.get(WALLET, nonce="1000000000000"), *NONCE)
    check_refusal(client.get(WALLET), 403, 403, "FORBIDDEN: the address is not on the key's allow-list")
    house.revoke(key)
    check_refusal(forger.get(WALLET, nonce="1000000000000"), *UNKNOWN_KEY)


@pytest.mark.parametrize("length", [0, 1, 64, 127, 128, 129, 500])
def test_secrets_of_any_length_sign(length: int) -> None:
    """A signature verifies whether the secret is shorter than a block of the hash, as long, or longer."""
    secret, nonce = "s" * length, "1624984297330"
    vector = {"secret": secret, "nonce": nonce, "path": SIGNED, "body": "{}"}
    verify_vector(vector | {"signature": sign(secret, SIGNED, nonce, b"{}")})


@pytest.mark.parametrize(
    "spoil", [lambda s: f"{s[:50]}  {s[52:]}", lambda s: f"{s[:2]} {s[2:]}", lambda s: s[:-1] + "é"]
)
def test_a_signature_is_hexadecimal_digits_and_nothing_else(bob: ApiClient, spoil: Callable[[str], str]) -> None:
    """White space within the digits, or any other character, makes a signature malformed."""
    key, nonce, signature = headers_of(bob)
    signature = spoil(signature)
    raw = [
        ("request-api", key.encode()),
        ("request-nonce", nonce.encode()),
        ("request-sign", signature.encode("latin-1")),
    ]
    check_refusal(bob.http.get(WALLET, headers=raw), *MISSING)  # pyright: ignore[reportArgumentType]
