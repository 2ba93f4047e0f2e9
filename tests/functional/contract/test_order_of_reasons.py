"""Which of several faults a client is told of: the same in both dialects, in the contract's order."""

from __future__ import annotations

import pytest

from support.client import V1, V3, ApiClient

CONVERSIONS = (V3 + "user/wallet/convert", V1 + "user/assets/convert")


@pytest.mark.parametrize("path", CONVERSIONS)
@pytest.mark.parametrize("amount", ["x", "1e-3", "9" * 15, "0.12345678901"])
def test_an_unknown_asset_is_told_before_a_bad_amount(alice: ApiClient, path: str, amount: str) -> None:
    """The asset is judged first (11), then the amount (-2), whatever is wrong with it."""
    unknown = alice.post(path, {"fromAsset": "NOPE", "toAsset": "USDT", "amount": amount})
    assert (unknown.status_code, unknown.json()["code"]) == (400, 11)
    known = alice.post(path, {"fromAsset": "BTC", "toAsset": "USDT", "amount": amount})
    assert (known.status_code, known.json()["code"]) == (400, -2)


@pytest.mark.parametrize("amount", ["0" * 14 + "1", "0.10000000000"])
def test_zeros_count_in_the_format_of_wallet_v1s_conversion(alice: ApiClient, amount: str) -> None:
    """At most 14 integer digits and 10 decimals as format, so also of a number that would be fine without zeros."""
    reply = alice.post(CONVERSIONS[1], {"fromAsset": "BTC", "toAsset": "USDT", "amount": amount})
    assert reply.json()["code"] == -2
    assert reply.json()["msg"] == "BADREQUEST: amount must have at most 14 integer digits and 10 decimals"
