"""Every signed endpoint of the wallet v1 dialect: fields, types, defaults, limits and oddities."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest

from strongroom.clock import DAY_MS
from support.client import V1, V3, ApiClient, check_refusal
from support.serving import House, mail_of
from support.shapes import answered, check_shape, enveloped

OUTSIDE = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"
RIPPLE_OUTSIDE = "rHJhVRJGWGDqVX6cX8Ca1nPZMrkARE2VVx"


def history(client: ApiClient, **query: Any) -> list[dict[str, Any]]:
    """Return a user's history."""
    rows = enveloped(client.get(V1 + "user/walletHistory", query))
    for row in rows:
        check_shape("v1 user/walletHistory", row)
    return rows


def test_user_assets(house: House, bob: ApiClient) -> None:
    """Every asset has a row with its balances, what can be done with it, and its open networks."""
    rows = enveloped(bob.get(V1 + "user/assets"))
    for row in rows:
        check_shape("v1 user/assets", row)
        check_shape("v1 user/assets networks", row["cryptoNetwork"])
    by_code = {row["asset"]: row for row in rows}
    everything = ["CONVERT", "TRANSFER", "WITHDRAW", "DEPOSIT", "SEND_TO"]
    assert by_code["BTC"] == {
        "asset": "BTC",
        "type": "CRYPTO",
        "totalAmount": "10",
        "availableAmount": "10",
        "availableActions": everything,
        "cryptoNetwork": {"depositNetworks": ["BITCOIN"], "withdrawalNetworks": ["BITCOIN"]},
    }
    assert by_code["USD"]["availableActions"] == ["CONVERT", "TRANSFER", "SEND_TO"]
    assert by_code["GEM"]["availableActions"] == ["TRANSFER", "SEND_TO"]
    assert by_code["OLD"]["availableActions"] == []
    with house.settings("BTC", withdrawals=False):
        btc = enveloped(bob.get(V1 + "user/assets"))[0]
    assert btc["availableActions"] == ["CONVERT", "TRANSFER", "DEPOSIT", "SEND_TO"]
    assert btc["cryptoNetwork"] == {"depositNetworks": ["BITCOIN"], "withdrawalNetworks": []}


@pytest.mark.parametrize("by", ["receiverUsername", "receiverUid"])
def test_send_to(house: House, alice: ApiClient, bob: ApiClient, by: str) -> None:
    """Money is sent to a user by name or id, and only what named the receiver is echoed."""
    name = {"receiverUsername": "bob", "receiverUid": str(house.uid("bob"))}[by]
    sent = enveloped(alice.post(V1 + "user/assets/sendTo", {"asset": "usdt", "amount": "1.50", by: name}))
    ref = sent.pop("transactionRef")
    assert sent == {"asset": "USDT", "amount": "1.5", by: name}
    out, into = history(alice, asset="USDT")[0], history(bob, asset="USDT")[0]
    assert (out["type"], out["transactionRef"], out["amount"], out["netAmount"]) == ("SEND", ref, "1.5", "-1.5")
    assert (into["type"], into["amount"], into["netAmount"]) == ("RECEIVE", "1.5", "1.5")
    assert (out["status"], out["walletName"], out["confirmTimes"]) == ("COMPLETED", "SPOT@", "")


def test_send_to_an_id_that_is_a_number(house: House, alice: ApiClient) -> None:
    """An id may come as a JSON number."""
    body = {"asset": "USDT", "amount": 1, "receiverUid": house.uid("bob")}
    assert enveloped(alice.post(V1 + "user/assets/sendTo", body))["receiverUid"] == str(house.uid("bob"))


def test_both_names_must_agree(house: House, alice: ApiClient) -> None:
    """Name and id together must be the same user's, and at least one must be there."""
    body = {"asset": "USDT", "amount": "1", "receiverUsername": "bob", "receiverUid": str(house.uid("bob"))}
    assert enveloped(alice.post(V1 + "user/assets/sendTo", body)).items() >= body.items()
    wrong = body | {"receiverUid": str(house.uid("alice-sub1"))}
    check_refusal(alice.post(V1 + "user/assets/sendTo", wrong), 400, 28, "BADREQUEST: Receiver not found")
    reply = alice.post(V1 + "user/assets/sendTo", {"asset": "USDT", "amount": "1"})
    check_refusal(reply, 400, -2, "BADREQUEST: receiverUsername parameter is mandatory")


def test_convert(alice: ApiClient) -> None:
    """A conversion answers both legs with their references, which the history has."""
    body = {"fromAsset": "eth", "toAsset": "USDT", "amount": "2.0"}
    done = enveloped(alice.post(V1 + "user/assets/convert", body))
    check_shape("v1 user/assets/convert", done)
    assert (done["fromAsset"], done["fromAmount"]) == ("ETH", "2")
    assert (done["toAsset"], done["toAmount"], done["rate"]) == ("USDT", "5994.999", "2997.4995")
    given, got = history(alice, asset="ETH")[0], history(alice, asset="USDT")[0]
    assert (given["type"], given["transactionRef"], given["netAmount"]) == ("CONVERT", done["fromTransactionRef"], "-2")
    assert (got["type"], got["transactionRef"], got["netAmount"]) == ("CONVERT", done["toTransactionRef"], "5994.999")


@pytest.mark.parametrize("amount", ["123456789012345", "1.12345678901", "1.123456789"])
def test_convert_amounts_are_bounded(alice: ApiClient, amount: str) -> None:
    """More than 14 integer digits, 10 decimals, or what the ledger keeps, is refused."""
    body = {"fromAsset": "USD", "toAsset": "EUR", "amount": amount}
    reply = alice.post(V1 + "user/assets/convert", body)
    assert (reply.status_code, reply.json()["code"]) == (400, -2)


def test_addresses_without_a_tag(house: House) -> None:
    """An address is created, listed and deleted, by query and by body, its extension null."""
    house.open_user("dora")
    dora = house.client("dora")
    path, asked = V1 + "user/crypto/address", {"crypto": "USDT", "network": "ERC20"}
    assert enveloped(dora.get(path, asked)) == []
    created = enveloped(dora.post(path, asked | {"webhookUrl": ""}))
    check_shape("v1 user/crypto/address", created)
    assert re.fullmatch("0x[0-9a-fA-F]{40}", created["address"])
    assert (created["addressExtensionTypeName"], created["addressExtension"]) == (None, None)
    assert abs(int(created["createTime"]) - time.time() * 1000) < 5_000
    second = enveloped(dora.post(path, {"crypto": "usdt", "network": "ethereum"}))
    assert enveloped(dora.get(path, asked)) == [second, created]
    assert enveloped(dora.delete(path, asked | {"address": second["address"].lower()})) == second
    check_refusal(dora.delete(path, asked | {"address": second["address"]}), 400, -2, "BADREQUEST: address is unknown")
    assert enveloped(dora.send("DELETE", path, asked | {"address": created["address"]})) == created


def test_both_dialects_see_the_same_addresses(house: House) -> None:
    """An address that one dialect made is listed by the other, with the tag in one string or in a field."""
    house.open_user("dina")
    dina = house.client("dina")
    made = enveloped(dina.post(V1 + "user/crypto/address", {"crypto": "XRP", "network": "RIPPLE"}))
    assert made["addressExtensionTypeName"] == "tag"
    [row] = answered(dina.get(V3 + "user/wallet/address", {"currency": "XRP"}))
    assert row["address"] == f"{made['address']}:{made['addressExtension']}"
    assert row["created"] == made["createTime"][:-3]
    query = {"crypto": "XRP", "network": "RIPPLE", "address": made["address"]}
    assert dina.delete(V1 + "user/crypto/address", query).status_code == 400
    query["addressExtension"] = made["addressExtension"]
    assert enveloped(dina.delete(V1 + "user/crypto/address", query)) == made


def test_ten_unused_addresses_are_enough(house: House) -> None:
    """Ten unused addresses may exist; asking for more answers the newest; ten are listed."""
    house.open_user("tina")
    tina, path, asked = house.client("tina"), V1 + "user/crypto/address", {"crypto": "BTC", "network": "BITCOIN"}
    made = [enveloped(tina.post(path, asked)) for _ in range(10)]
    assert len({row["address"] for row in made}) == 10
    check_refusal(tina.post(path, asked), 400, 3528, f"BADREQUEST: {made[-1]['address']}")
    assert enveloped(tina.get(path, asked)) == made[::-1]


def test_unpaid_addresses_are_capped(house: House) -> None:
    """Deleted addresses that were never paid count to the hundred that a user may have of an asset and network."""
    house.open_user("hugo")
    hugo, path, asked = house.client("hugo"), V1 + "user/crypto/address", {"crypto": "ETH", "network": "ERC20"}
    for _ in range(100):
        made = enveloped(hugo.post(path, asked))
        assert hugo.delete(path, asked | {"address": made["address"]}).status_code == 200
    check_refusal(hugo.post(path, asked), 400, -2, "BADREQUEST: more than 100 addresses without a deposit")
    assert hugo.post(path, {"crypto": "USDT", "network": "ERC20"}).status_code == 200


@pytest.mark.parametrize("missing", ["crypto", "network"])
def test_v1_addresses_need_both_names(bob: ApiClient, missing: str) -> None:
    """Neither asset nor network has a default here."""
    asked = {"crypto": "BTC", "network": "BITCOIN"}
    del asked[missing]
    for reply in (bob.get(V1 + "user/crypto/address", asked), bob.post(V1 + "user/crypto/address", asked)):
        check_refusal(reply, 400, -2, f"BADREQUEST: {missing} parameter is mandatory")


def test_withdraw(alice: ApiClient) -> None:
    """A withdrawal answers what the receiver gets, the fee and both references."""
    body = {"crypto": "XRP", "network": "RIPPLE", "address": RIPPLE_OUTSIDE, "addressExtension": "533973779"}
    done = enveloped(alice.post(V1 + "user/crypto/withdraw", body | {"amount": "20"}))
    check_shape("v1 user/crypto/withdraw", done)
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", done["orderId"])
    assert done.items() >= (body | {"amountToAddress": "19.75", "fees": "0.25"}).items()
    row = history(alice, asset="XRP")[0]
    assert (row["type"], row["transactionRef"], row["status"]) == ("WITHDRAW", done["transactionRef"], "PROCESSING")
    assert (row["amount"], row["netAmount"], row["fees"], row["confirmTimes"]) == ("20", "-20", "0.25", "(0/1)")
    assert (row["cryptoNetwork"], row["toAddress"]) == ("RIPPLE", RIPPLE_OUTSIDE + ":533973779")


def test_withdraw_without_a_tag(alice: ApiClient) -> None:
    """Where the network has no tags the extension is null, and the fee may be added instead of taken out."""
    body = {"crypto": "btc", "network": "bitcoin", "address": OUTSIDE, "amount": 0.01, "amountIncludeFee": "false"}
    done = enveloped(alice.post(V1 + "user/crypto/withdraw", body))
    assert (done["addressExtension"], done["amountToAddress"], done["fees"]) == (None, "0.01", "0.0005")
    assert history(alice, asset="BTC")[0]["netAmount"] == "-0.0105"


@pytest.mark.parametrize("path", ["user/crypto/withdraw", "user/crypto/address"])
def test_webhooks_are_refused(alice: ApiClient, path: str) -> None:
    """A webhook URL that is not allow-listed is refused before anything is done."""
    body = {"crypto": "BTC", "network": "BITCOIN", "address": OUTSIDE, "amount": "1", "webhookUrl": "https://a.example"}
    check_refusal(alice.post(V1 + path, body), 400, -2, "BADREQUEST: webhookUrl is not on the allow-list")


def test_history_needs_an_asset(alice: ApiClient) -> None:
    """The spot wallet's history needs an asset; other wallets are empty."""
    message = "Request parameter is error, 'asset' is required in spot wallet history query"
    for query in ({}, {"walletType": "SPOT"}, {"asset": ""}):
        check_refusal(alice.get(V1 + "user/walletHistory", query), 400, 11000001, message)
    assert history(alice, walletType="ISOLATED") == []
    assert history(alice, walletType="spot", asset="BTC") == history(alice, asset="btc") != []


def test_history_types(alice: ApiClient) -> None:
    """Types are a JSON array, matched without case; unknown ones match nothing, and an empty array is no filter."""
    sent = {"asset": "EUR", "amount": "1", "receiverUsername": "bob"}
    assert alice.post(V1 + "user/assets/sendTo", sent).status_code == 200
    both = history(alice, asset="EUR", historyTypes='["SEND","EXPRESS_BUY"]')
    assert [row["type"] for row in both] == ["SEND", "EXPRESS_BUY"]
    assert [row["type"] for row in history(alice, asset="EUR", historyTypes='["send","NOPE"]')] == ["SEND"]
    assert history(alice, asset="EUR", historyTypes='["NOPE"]') == []
    for no_filter in ("", "[]"):
        assert history(alice, asset="EUR", historyTypes=no_filter) == both
    for text in ("SEND", '{"a":1}', "[1]", '["a'):
        reply = alice.get(V1 + "user/walletHistory", {"asset": "EUR", "historyTypes": text})
        assert (reply.status_code, reply.json()["code"]) == (400, -2)


def test_history_pages(house: House) -> None:
    """Pages are 1-based, 50 rows by default and 500 at most."""
    house.open_user("page")
    for _ in range(52):
        house.fund("page", USD="1")
    client = house.client("page")
    rows = history(client, asset="USD", pageSize=500)
    assert len(rows) == 52
    assert history(client, asset="USD") == rows[:50]
    assert history(client, asset="USD", page=2) == rows[50:]
    assert history(client, asset="USD", page=3, pageSize=10) == rows[20:30]
    assert history(client, asset="USD", page=1000000) == []
    for query in ({"pageSize": "0"}, {"pageSize": "501"}, {"page": "0"}):
        reply = client.get(V1 + "user/walletHistory", {"asset": "USD"} | query)
        assert (reply.status_code, reply.json()["code"]) == (400, -2)


def test_history_periods(house: House) -> None:
    """Without bounds there are the last seven days, with an end only the seven before it, and none is too old."""
    house.open_user("past")
    client, clock_ms = house.client("past"), house.clock.now_ms
    house.fund("past", USD="1")
    [row] = history(client, asset="USD")
    at_ms = int(row["transactionTime"])
    assert history(client, asset="USD", startTime=at_ms) == [row]
    assert history(client, asset="USD", startTime=at_ms, endTime=at_ms + 1) == [row]
    assert history(client, asset="USD", startTime=at_ms, endTime=at_ms) == []
    assert history(client, asset="USD", endTime=at_ms) == []
    assert history(client, asset="USD", endTime=at_ms + 7 * DAY_MS) == [row]
    assert history(client, asset="USD", endTime=at_ms + 7 * DAY_MS + 1) == []
    assert history(client, asset="USD", startTime=clock_ms() - 400 * DAY_MS) == [row]
    assert history(client, asset="USD", startTime=0, endTime=1) == []


def test_family_types(house: House, alice: ApiClient) -> None:
    """A transfer to a sub-account has this dialect's own types."""
    body = {"asset": "USD", "amount": "2", "receiverUsername": "alice-sub1"}
    assert alice.post(V1 + "user/assets/sendTo", body).status_code == 200
    sub = house.client("alice-sub1")
    back = {"asset": "USD", "amount": "1", "toUser": "alice", "toUserMail": mail_of("alice")}
    assert sub.post(V3 + "user/wallet/transfer", back).status_code == 200
    assert [row["type"] for row in history(alice, asset="USD", pageSize=2)] == [
        "SUB_ACCOUNT_TRANSFER_IN",
        "SUB_ACCOUNT_TRANSFER_OUT",
    ]
