"""Numbers and bodies that odd clients send, over HTTP: each is read exactly or refused as the contract says."""

from __future__ import annotations

import pytest

from support.client import V3, ApiClient
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
