"""Whatever is sent, signed and well-formed HTTP, the answer is one of the contract's, and money moves only on a 200."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.client import V1, V3, ApiClient
from support.serving import House, mail_of

OUTSIDE = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"

GOOD: dict[str, dict[str, Any]] = {
    V3 + "user/wallet/transfer": {"amount": "0.001", "asset": "BTC", "toUser": "bob", "toUserMail": mail_of("bob")},
    V3 + "user/wallet/convert": {"amount": "0.001", "fromAsset": "BTC", "toAsset": "USD"},
    V3 + "user/wallet/withdraw": {"currency": "BTC", "address": OUTSIDE, "tag": "", "amount": "0.001"},
    V3 + "user/wallet/address": {"currency": "BTC", "network": "BITCOIN", "address": OUTSIDE},
    V1 + "user/assets/sendTo": {"asset": "BTC", "amount": "0.001", "receiverUsername": "bob", "receiverUid": "1"},
    V1 + "user/assets/convert": {"fromAsset": "BTC", "toAsset": "USD", "amount": "0.001"},
    V1 + "user/crypto/withdraw": {
        "crypto": "XRP",
        "network": "RIPPLE",
        "address": OUTSIDE,
        "addressExtension": "1",
        "amount": "1",
        "amountIncludeFee": True,
    },
    V1 + "user/crypto/address": {"crypto": "XRP", "network": "RIPPLE", "address": OUTSIDE, "addressExtension": "1"},
    V3 + "subaccount/wallet/history": {"page": "1", "pageSize": "10", "startTime": 0, "endTime": 1},
}
READS = {
    V3 + "user/wallet_history": ("currency", "startTime", "endTime", "count", "useNewSymbolNaming"),
    V3 + "subaccount/wallet/history": ("page", "pageSize", "startTime", "endTime"),
    V3 + "availableCurrencies": ("action",),
    V3 + "exchangeRate": ("srcCurrency", "targetCurrency"),
    V1 + "user/walletHistory": ("walletType", "asset", "historyTypes", "startTime", "endTime", "pageSize", "page"),
    V1 + "user/crypto/address": ("crypto", "network"),
    V1 + "assets/exchangeRate": ("baseCurrency", "amount", "quoteCurrency"),
}

TEXTS = st.one_of(
    st.text(max_size=20),
    st.sampled_from(["", "0", "-0", "1", "1e400", "NaN", "9" * 19, "0.000000001", "\x00", "١", "BTC", "usd", "[]"]),
    st.sampled_from(["9007199254740993", "99999999999999999999", '["DEPOSIT"]', "BTC-", "x" * 5000, "😀", "%00", "+"]),
)
LEAVES = st.one_of(TEXTS, st.none(), st.booleans(), st.integers(), st.floats())
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3))

quickly = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


def check(house: House, reply: Any, before: list[Any]) -> None:
    """Check that a reply is an answer, and that the books are as they were unless it is a success."""
    assert reply.status_code in {200, 400}, reply.text
    body = reply.json()
    if reply.status_code == 400:
        assert (body["success"], body["data"]) == (False, None)
        assert isinstance(body["code"], int)
        assert body["msg"]
        assert house.books() == before


DELETIONS = [("DELETE", path) for path in GOOD if path.endswith("/address")]


@pytest.mark.parametrize(("method", "path"), [*(("POST", path) for path in GOOD), *DELETIONS])
def test_no_body_breaks_anything(house: House, alice: ApiClient, method: str, path: str) -> None:
    """A body with any values in the places of good ones is answered, and is no mistake of ours."""

    @quickly
    @given(changes=st.dictionaries(st.sampled_from(sorted(GOOD[path])), VALUES, min_size=1, max_size=3))
    def try_out(changes: dict[str, Any]) -> None:
        before = house.books()
        body = json.dumps(GOOD[path] | changes, ensure_ascii=True).encode()
        check(house, alice.send(method, path, body), before)

    try_out()


@pytest.mark.parametrize("path", [V3 + "user/wallet/transfer", V1 + "user/crypto/withdraw"])
def test_no_bytes_break_anything(house: House, alice: ApiClient, path: str) -> None:
    """Any bytes at all are answered as a body."""

    @quickly
    @given(start=st.sampled_from([b"", b"{", b'{"amount":', b'{"asset":"']), rest=st.binary(max_size=200))
    def try_out(start: bytes, rest: bytes) -> None:
        before = house.books()
        check(house, alice.post(path, start + rest), before)

    try_out()


@pytest.mark.parametrize("path", READS)
def test_no_query_breaks_anything(house: House, alice: ApiClient, path: str) -> None:
    """Any values of known parameters in a query are answered."""

    @quickly
    @given(query=st.dictionaries(st.sampled_from(READS[path]), TEXTS.map(_encodable)))
    def try_out(query: dict[str, str]) -> None:
        before = house.books()
        check(house, alice.get(path, query), before)

    try_out()


def _encodable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def test_the_books_are_whole(house: House) -> None:
    """After all of that the books agree with themselves."""
    assert house.verify().is_whole
