"""Numbers and texts: exact from the first byte in to the last byte out, in one spelling each."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from support.client import V1, V3, ApiClient, check_refusal
from support.serving import House, mail_of
from support.shapes import answered, enveloped

TRANSFER, SEND = V3 + "user/wallet/transfer", V1 + "user/assets/sendTo"


def raw_transfer(amount: str, asset: str = "BTC") -> bytes:
    """Return a transfer to bob whose amount is spelt just so."""
    body = '{"asset":"%s","amount":%s,"toUser":"bob","toUserMail":"%s","receiverUsername":"bob"}'
    return (body % (asset, amount, mail_of("bob"))).encode()


AMOUNTS = [
    ("2", "2"),
    ('"1.0"', "1"),
    ('"0.36000000"', "0.36"),
    ("1e-7", "0.0000001"),
    ("1E-8", "0.00000001"),
    ("1.5e0", "1.5"),
    ("0.01e+2", "1"),
    ("0.1", "0.1"),
    ("0.30000000000000000000", "0.3"),
    ('"0.10000000000000000000"', "0.1"),
    ('"0001.10"', "1.1"),
    ("0.12345678", "0.12345678"),
    ("1.10e-2", "0.011"),
]


@pytest.mark.parametrize(("sent", "echoed"), AMOUNTS)
@pytest.mark.parametrize("path", [TRANSFER, SEND])
def test_amounts_are_read_exactly(house: House, alice: ApiClient, path: str, sent: str, echoed: str) -> None:
    """An amount may be a text or a number, with zeros at its end or an exponent, and is answered in one spelling."""
    house.fund("alice", BTC="3")
    reply = alice.post(path, raw_transfer(sent))
    assert (enveloped(reply) if path == SEND else answered(reply))["amount"] == echoed
    row = answered(alice.get(V3 + "user/wallet_history", {"count": 1}))[0]
    assert row["amount"] == echoed
    assert enveloped(alice.get(V1 + "user/walletHistory", {"asset": "BTC", "pageSize": 1}))[0]["amount"] == echoed


@pytest.mark.parametrize("amount", ["1e400", "1e-400", "1e99999999999", "123456789012345678901234567890", "1e-9"])
def test_numbers_without_bounds(alice: ApiClient, amount: str) -> None:
    """However large or small a number is, it is read and refused at once."""
    reply = alice.post(TRANSFER, raw_transfer(amount))
    assert (reply.status_code, reply.json()["code"]) == (400, -2)


def test_sums_are_exact(house: House) -> None:
    """A tenth and two tenths are three tenths, and large sums keep their last digit, in both dialects."""
    house.open_user("exact")
    house.fund("exact", BTC="0.1", USD="9876543210.12345678")
    house.fund("exact", BTC="0.2", USD="0.00000001")
    client = house.client("exact")
    v3 = {row["currency"]: row for row in answered(client.get(V3 + "user/wallet"))}
    v1 = {row["asset"]: row for row in enveloped(client.get(V1 + "user/assets"))}
    for code, amount in (("BTC", "0.3"), ("USD", "9876543210.12345679"), ("ETH", "0")):
        assert (v3[code]["total"], v3[code]["available"]) == (amount, amount)
        assert (v1[code]["totalAmount"], v1[code]["availableAmount"]) == (amount, amount)


def test_the_smallest_unit(house: House, alice: ApiClient) -> None:
    """One unit is written in plain notation, never with an exponent."""
    house.open_user("tiny")
    body = {"asset": "BTC", "amount": "0.00000001", "toUser": "tiny", "toUserMail": mail_of("tiny")}
    assert alice.post(TRANSFER, body).status_code == 200
    reply = house.client("tiny").get(V3 + "user/wallet")
    assert b'{"currency":"BTC","total":0.00000001,"available":0.00000001}' in reply.content


def test_an_asset_of_two_decimals(alice: ApiClient) -> None:
    """An asset's own scale bounds its amounts, after zeros at the end."""
    assert answered(alice.post(TRANSFER, raw_transfer('"1.2500"', "GEM")))["amount"] == "1.25"
    check_refusal(
        alice.post(TRANSFER, raw_transfer('"1.251"', "GEM")), 400, -2, "BADREQUEST: amount has too many decimals"
    )


@pytest.mark.parametrize(("flag", "fee_inside"), [(True, True), ("true", True), (False, False), ("false", False)])
def test_booleans(alice: ApiClient, flag: Any, fee_inside: bool) -> None:
    """A boolean may be a JSON boolean or its text."""
    body = {"crypto": "BTC", "network": "BITCOIN", "address": "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"}
    done = enveloped(alice.post(V1 + "user/crypto/withdraw", body | {"amount": "0.01", "amountIncludeFee": flag}))
    assert done["amountToAddress"] == ("0.0095" if fee_inside else "0.01")


@pytest.mark.parametrize("flag", ["True", "TRUE", "1", 1, 0, "yes", [], {}])
def test_what_is_no_boolean(alice: ApiClient, flag: Any) -> None:
    """Anything else is none."""
    reply = alice.post(V1 + "user/crypto/withdraw", {"crypto": "BTC", "amountIncludeFee": flag, "network": "BITCOIN"})
    assert (reply.status_code, reply.json()["code"]) == (400, -2)


def test_texts_in_a_query(alice: ApiClient) -> None:
    """A plus is a space, escapes are read once, and an empty value counts as absent."""
    path = V3 + "user/wallet_history"
    check_refusal(alice.get(path, "currency=B+C"), 400, 11, "BADREQUEST: Invalid currency B C")
    check_refusal(alice.get(path, "currency=%2542"), 400, 11, "BADREQUEST: Invalid currency %42")
    assert alice.get(path, "currency=%42TC&count=").content == alice.get(path, "currency=btc").content
    assert alice.get(path, "currency=&startTime=&endTime").content == alice.get(path).content


def test_a_text_comes_back_as_it_was_sent(alice: ApiClient) -> None:
    """A text with quotes and other scripts is answered in JSON that holds it."""
    name = 'B"\\é漢😀'
    reply = alice.post(TRANSFER, {"asset": name, "amount": "1", "toUser": "bob", "toUserMail": mail_of("bob")})
    check_refusal(reply, 400, 11, f"BADREQUEST: Invalid currency {name}")


def test_what_was_answered_is_seen_by_every_later_read(house: House, alice: ApiClient) -> None:
    """While others move money too, each transfer is in the balance of the very next read."""
    house.fund("alice", EUR="1000")
    for name in ("first", "second", "third", "fourth"):
        house.open_user(name)
        house.fund(name, EUR="100")

    def move(name: str) -> list[str]:
        client, seen = house.client(name), []
        for _ in range(10):
            body = {"asset": "EUR", "amount": "0.1", "receiverUsername": "alice"}
            assert client.post(SEND, body).status_code == 200
            rows = answered(client.get(V3 + "user/wallet"))
            seen += [row["total"] for row in rows if row["currency"] == "EUR"]
        return seen

    expected = [f"99.{9 - n}" if n < 9 else "99" for n in range(10)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(move, ("first", "second", "third", "fourth"))) == [expected] * 4
    assert house.verify().is_whole
