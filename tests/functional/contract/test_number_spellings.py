"""Numbers and bodies that odd clients send, over HTTP: each is read exactly or refused as the contract says."""

from __future__ import annotations

import pytest

from support.client import MARKETS, V1, V3, ApiClient
from support.serving import House, mail_of, unchanged

TRANSFER = V3 + "user/wallet/transfer"
FAR = "9" * 20


@pytest.mark.parametrize("number", [f"1e{FAR}", f"1e-{FAR}", f"0e{FAR}", f"-1E+{FAR}", f"0.0{'0' * 100}1e{FAR}"])
def test_an_exponent_beyond_every_number_is_refused_like_any_bad_amount(
    house: House, alice: ApiClient, number: str
) -> None:
    """The token is valid JSON, so it is an amount of the wrong size: a 400, code -2, and nothing is done."""
    body = f'{{"amount":{number},"asset":"BTC","toUser":"bob","toUserMail":"{mail_of("bob")}"}}'.encode()
    with unchanged(house):
        reply = alice.post(TRANSFER, body)
    assert (reply.status_code, reply.json()["errorCode"]) == (400, -2)


@pytest.mark.parametrize("path", [V3 + "user/wallet", V1 + "user/assets", V1 + "assets", MARKETS])
@pytest.mark.parametrize(("body", "coding"), [(b"{}", "gzip"), (b"{", ""), (b"[]", "identity")])
def test_a_bad_body_is_refused_also_where_no_parameter_is_read(
    alice: ApiClient, path: str, body: bytes, coding: str
) -> None:
    """A compressed body, and one that is no JSON object, are a 400 with code -2 on every operation."""
    reply = alice.send("GET", path, body, headers={"content-encoding": coding})
    assert (reply.status_code, reply.json()["code"]) == (400, -2)


@pytest.mark.parametrize("coding", ["", "identity", "Identity"])
def test_a_coding_that_changes_nothing_is_no_compression(alice: ApiClient, coding: str) -> None:
    """An empty header counts as absent, and `identity` in any case says that the body is as it is."""
    body = {"amount": "0.1", "asset": "BTC", "toUser": "bob", "toUserMail": mail_of("bob")}
    assert alice.post(TRANSFER, body, headers={"content-encoding": coding}).status_code == 200
    assert alice.get(V3 + "user/wallet", headers={"content-encoding": "gzip"}).status_code == 200
