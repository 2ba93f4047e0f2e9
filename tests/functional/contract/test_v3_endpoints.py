"""Every signed endpoint of the v3 dialect: fields, types, defaults, limits and oddities."""

from __future__ import annotations

import time
from typing import Any

import pytest

from support.client import V3, ApiClient, check_refusal
from support.serving import House, mail_of, unchanged
from support.shapes import answered, check_shape, enveloped

OUTSIDE = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"
ALL_ASSETS = ["BTC", "ETH", "USDT", "XRP", "USD", "EUR", "JPY", "GOLD", "OLD", "GEM"]


def transfer(**changes: Any) -> dict[str, Any]:
    """Return the body of a transfer to bob."""
    return {"amount": "0.5", "asset": "BTC", "toUser": "bob", "toUserMail": mail_of("bob")} | changes


def history(client: ApiClient, **query: Any) -> list[dict[str, Any]]:
    """Return a user's history."""
    rows = answered(client.get(V3 + "user/wallet_history", query))
    for row in rows:
        check_shape("v3 user/wallet_history", row)
    return rows


@pytest.mark.parametrize("version", ["v3.1", "v3.2", "v3.3"])
@pytest.mark.parametrize("mount", ["", "/spot"])
def test_wallet(bob: ApiClient, mount: str, version: str) -> None:
    """The wallet has a row per asset in a stable order, zero rows included, in all versions under both mounts."""
    rows = answered(bob.get(f"{mount}/api/{version}/user/wallet"))
    for row in rows:
        check_shape("v3 user/wallet", row)
    assert [row["currency"] for row in rows] == ALL_ASSETS
    assert rows[1] == {"currency": "ETH", "total": "0", "available": "0"}


@pytest.mark.parametrize("mount", ["/api/v3.2/", "/api/v3.3/", "/spot/api/v3.2/", "/spot/api/v3.3/"])
def test_transfer(alice: ApiClient, bob: ApiClient, mount: str) -> None:
    """A transfer echoes the four strings, the amount normalised, and stands in both histories."""
    reply = answered(alice.post(mount + "user/wallet/transfer", transfer(amount="0.0500", asset="btc")))
    check_shape("v3 user/wallet/transfer", reply)
    assert reply == transfer(amount="0.05")
    out, into = history(alice, count=1)[0], history(bob, count=1)[0]
    assert (out["type"], out["amount"], out["fees"], out["username"]) == ("Transfer_Out", "0.05", "0", "alice")
    assert (into["type"], into["amount"], into["currency"], into["username"]) == ("Transfer_In", "0.05", "BTC", "bob")
    for row in (out, into):
        assert (row["status"], row["wallet"], row["description"]) == ("COMPLETED", "SPOT@", "")
        assert (row["txid"], row["txId"], row["toAddress"], row["currencyNetwork"]) == ("", "", "", "")


def test_transfer_names_match_without_case(alice: ApiClient) -> None:
    """The receiver is found whatever the case of its name and mail, which are echoed as sent."""
    body = transfer(toUser="BOB", toUserMail="Bob@Example.com")
    assert answered(alice.post(V3 + "user/wallet/transfer", body)) == body


def test_transfers_of_a_family(house: House, alice: ApiClient) -> None:
    """Between parent and sub-account a transfer is of its own type, either way, by any endpoint."""
    sub = house.client("alice-sub1")
    to_sub = transfer(toUser="alice-sub1", toUserMail=mail_of("alice-sub1"))
    to_parent = transfer(toUser="alice", toUserMail=mail_of("alice"), amount="0.25")
    assert alice.post(V3 + "user/wallet/transfer", to_sub).status_code == 200
    assert sub.post(V3 + "user/wallet/transfer", to_parent).status_code == 200
    assert [row["type"] for row in history(sub, count=2)] == ["Sub Account Transfer Out", "Sub Account Transfer In"]
    assert [row["type"] for row in history(alice, count=2)] == ["Sub Account Transfer In", "Sub Account Transfer Out"]


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("version", ["v3.2", "v3.3"])
def test_subaccount_history(house: House, alice: ApiClient, bob: ApiClient, method: str, version: str) -> None:
    """Transfers between parent and sub-accounts are paged from 1 on, by GET and by POST, the same for both sides."""
    for _ in range(2):
        body = transfer(toUser="alice-sub1", toUserMail=mail_of("alice-sub1"), amount="0.01")
        assert alice.post(V3 + "user/wallet/transfer", body).status_code == 200
    path = f"/spot/api/{version}/subaccount/wallet/history"

    def page(client: ApiClient, **asked: str) -> dict[str, Any]:
        reply = client.get(path, asked) if method == "GET" else client.post(path, asked)
        found = enveloped(reply)
        check_shape("v3 subaccount/wallet/history", found)
        return found

    whole = page(alice)
    assert (whole["pageSize"], whole["currentPage"]) == ("10", "1")
    for row in whole["data"]:
        check_shape("v3 subaccount/wallet/history row", row)
    newest = whole["data"][0]
    assert (newest["fromUser"], newest["receiver"], newest["amount"]) == ("alice", "alice-sub1", "0.01")
    assert page(house.client("alice-sub1"))["data"] == whole["data"]
    second = page(alice, page="2", pageSize="1")
    assert second["data"] == [whole["data"][1]]
    assert (second["totalRows"], second["totalPages"]) == (whole["totalRows"], whole["totalRows"])
    assert page(alice, startTime=newest["timestamp"], endTime=newest["timestamp"])["totalRows"] == "0"
    assert page(bob) == {"totalRows": "0", "pageSize": "10", "currentPage": "1", "totalPages": "0", "data": []}


@pytest.mark.parametrize("query", [{"pageSize": "51"}, {"pageSize": "0"}, {"page": "0"}, {"page": "x"}, {"page": "-1"}])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_subaccount_history_bounds(alice: ApiClient, method: str, query: dict[str, str]) -> None:
    """Page numbers and sizes out of range are refused, by either method."""
    path = V3 + "subaccount/wallet/history"
    reply = alice.get(path, query) if method == "GET" else alice.post(path, query)
    assert (reply.status_code, reply.json()["code"]) == (400, -2)


def test_history_is_newest_first_and_bounded(alice: ApiClient) -> None:
    """History comes newest first, start inclusive and end exclusive, at most as many rows as asked for."""
    for amount in ("1", "2", "3"):
        assert alice.post(V3 + "user/wallet/transfer", transfer(asset="XRP", amount=amount)).status_code == 200
        time.sleep(0.002)
    rows = history(alice, currency="xrp", count=3)
    assert [row["amount"] for row in rows] == ["3", "2", "1"]
    third, second, _ = rows
    assert history(alice, currency="XRP", startTime=second["timestamp"], endTime=third["timestamp"]) == [second]
    assert history(alice, currency="XRP", startTime=second["timestamp"]) == [third, second]
    assert history(alice, currency="XRP", startTime=third["timestamp"], endTime=third["timestamp"]) == []
    assert {row["currency"] for row in history(alice, count=500)} > {"XRP", "BTC"}
    assert all(len(row["orderId"]) >= 16 and row["orderId"].isdigit() for row in rows)
    assert all(row["orderId"].startswith(time.strftime("%Y%m%d", time.gmtime())) for row in rows)


def test_history_has_fifty_rows_by_default(house: House) -> None:
    """Without a count there are at most 50 rows, and with one at most 500."""
    house.open_user("busy")
    for _ in range(51):
        house.fund("busy", USD="1")
    busy = house.client("busy")
    assert len(history(busy)) == 50
    assert len(history(busy, count=500)) == 51
    assert {row["type"] for row in history(busy)} == {"express buy"}


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"count": "0"}, "count parameter must be an integer from 1 to 500"),
        ({"count": "501"}, "count parameter must be an integer from 1 to 500"),
        ({"count": "1.0"}, "count parameter must be an integer from 1 to 500"),
        ({"count": "١"}, "count parameter must be an integer from 1 to 500"),
        ({"startTime": "2", "endTime": "1"}, "startTime must not be later than endTime"),
        ({"startTime": "yesterday"}, "startTime parameter must be a time in milliseconds"),
        ({"useNewSymbolNaming": "yes"}, "useNewSymbolNaming parameter must be true or false"),
    ],
)
def test_history_bounds(alice: ApiClient, query: dict[str, str], message: str) -> None:
    """A count, time or flag that is none is refused with its name."""
    check_refusal(alice.get(V3 + "user/wallet_history", query), 400, -2, f"BADREQUEST: {message}")


def test_history_of_an_unknown_asset(alice: ApiClient) -> None:
    """An unknown asset has no history but a refusal."""
    check_refusal(
        alice.get(V3 + "user/wallet_history", {"currency": "NOPE"}), 400, 11, "BADREQUEST: Invalid currency NOPE"
    )


def test_new_symbol_naming_changes_nothing(alice: ApiClient) -> None:
    """While there are no futures, new symbol naming changes no row and no transfer."""
    assert history(alice, useNewSymbolNaming="true") == history(alice, useNewSymbolNaming="false") == history(alice)
    body = transfer(useNewSymbolNaming=True)
    assert answered(alice.post(V3 + "user/wallet/transfer", body))["asset"] == "BTC"


@pytest.mark.parametrize("path", ["/spot/api/v3.2/user/wallet/convert", "/api/v3.3/user/wallet/convert"])
def test_convert(nobody: ApiClient, alice: ApiClient, path: str) -> None:
    """A conversion answers five fields, at the published rate, rounded down, and makes two history rows."""
    reply = answered(alice.post(path, {"amount": "0.1000000", "fromAsset": "btc", "toAsset": "usdt"}))
    check_shape("v3 user/wallet/convert", reply)
    rate = enveloped(nobody.get(V3 + "exchangeRate", {"srcCurrency": "BTC", "targetCurrency": "USDT"}))
    assert reply == {
        "amount": "0.1",
        "settlementAmount": "5994",
        "amountCurrency": "BTC",
        "settlementCurrency": "USDT",
        "rate": rate,
    }
    rows = {row["currency"]: row for row in history(alice, count=2)}
    assert {row["type"] for row in rows.values()} == {"Convert fiat"}
    assert (rows["BTC"]["amount"], rows["USDT"]["amount"]) == ("0.1", "5994")
    for row in rows.values():
        assert (row["sourceCurrency"], row["sourceAmount"]) == ("BTC", "0.1")
        assert (row["targetCurrency"], row["targetAmount"], row["rate"]) == ("USDT", "5994", rate)
    assert rows["BTC"]["orderId"] != rows["USDT"]["orderId"]
    assert rows["BTC"]["timestamp"] == rows["USDT"]["timestamp"]


def test_a_settlement_is_rounded_down(alice: ApiClient) -> None:
    """What the rate makes beyond the target's last decimal stays with the house."""
    reply = answered(alice.post(V3 + "user/wallet/convert", {"amount": "0.01", "fromAsset": "USD", "toAsset": "ETH"}))
    assert reply["settlementAmount"] == "0.00000332"


def addresses(client: ApiClient, currency: str, **more: str) -> list[dict[str, Any]]:
    """Return the listed addresses."""
    rows = answered(client.get(V3 + "user/wallet/address", {"currency": currency} | more))
    for row in rows:
        check_shape("v3 user/wallet/address", row)
    return rows


@pytest.mark.parametrize("path", ["/spot/api/v3.2/user/wallet/address", "/api/v3.3/user/wallet/address"])
def test_addresses(house: House, path: str) -> None:
    """An address is created once, listed, refused again while unused, deleted once, and never given again."""
    house.open_user(f"owner{len(path)}")
    client = house.client(f"owner{len(path)}")
    asked = {"currency": "btc", "network": "bitcoin"}
    assert answered(client.get(path, asked)) == []
    [created] = answered(client.post(path, asked))
    check_shape("v3 user/wallet/address", created)
    assert created["address"].startswith("bcrt1q")
    assert abs(int(created["created"]) - time.time()) < 5
    assert answered(client.get(path, asked)) == [created]
    assert answered(client.get(path, {"currency": "BTC"})) == [created]
    check_refusal(client.post(path, asked), 400, 3528, f"BADREQUEST: {created['address']}")
    named = asked | {"address": created["address"]}
    assert answered(client.delete(path, named)) == [created]
    check_refusal(client.delete(path, named), 400, -2, "BADREQUEST: address is unknown")
    check_refusal(client.send("DELETE", path, named), 400, -2, "BADREQUEST: address is unknown")
    assert answered(client.get(path, asked)) == []
    [other] = answered(client.post(path, {"currency": "BTC"}))
    assert other["address"] != created["address"]
    assert answered(client.send("DELETE", path, {"currency": "BTC", "address": other["address"]})) == [other]


@pytest.mark.parametrize("network", ["ERC20", "erc20", "Ethereum", "ETHEREUM"])
def test_networks_by_id_or_short_name(bob: ApiClient, network: str) -> None:
    """A network is found by its id or short name in any case."""
    assert addresses(bob, "ETH", network=network) == addresses(bob, "eth")


def test_a_display_name_is_no_network(bob: ApiClient) -> None:
    """A network is not found by its display name."""
    reply = bob.get(V3 + "user/wallet/address", {"currency": "ETH", "network": "Ethereum (ERC20)"})
    check_refusal(reply, 400, 3505, "BADREQUEST: Invalid protocol")


def test_addresses_with_a_tag(bob: ApiClient) -> None:
    """Where the network has tags an address is one string of both, and is deleted by it."""
    [created] = answered(bob.post(V3 + "user/wallet/address", {"currency": "XRP", "network": "RIPPLE"}))
    address, _, tag = created["address"].partition(":")
    assert address.startswith("r")
    assert tag.isdigit()
    assert addresses(bob, "XRP") == [created]
    gone = bob.delete(V3 + "user/wallet/address", {"currency": "XRP", "address": created["address"]})
    assert answered(gone) == [created]


def test_no_new_address_while_suspended(house: House, bob: ApiClient) -> None:
    """While deposits are suspended an address is refused as an invalid network."""
    with house.settings("USDT", deposits=False):
        reply = bob.post(V3 + "user/wallet/address", {"currency": "USDT", "network": "ERC20"})
    check_refusal(reply, 400, 3505, "BADREQUEST: Invalid protocol")


def test_another_user_cannot_delete_an_address(alice: ApiClient, bob: ApiClient) -> None:
    """An address of somebody else is as unknown as one of nobody."""
    [created] = answered(alice.post(V3 + "user/wallet/address", {"currency": "ETH"}))
    for address in (created["address"], "0x" + "1" * 40, "nonsense"):
        reply = bob.delete(V3 + "user/wallet/address", {"currency": "ETH", "address": address})
        check_refusal(reply, 400, -2, "BADREQUEST: address is unknown")


@pytest.mark.parametrize("currency", ["BTC-Bitcoin", "btc-BITCOIN", "BTC"])
@pytest.mark.parametrize("tag", [{}, {"tag": None}, {"tag": ""}])
def test_withdraw(alice: ApiClient, currency: str, tag: dict[str, Any]) -> None:
    """A withdrawal answers its id under both names, and the history has it under the same one."""
    body = {"currency": currency, "address": OUTSIDE, "amount": "0.01"} | tag
    reply = answered(alice.post(V3 + "user/wallet/withdraw", body))
    check_shape("v3 user/wallet/withdraw", reply)
    assert reply["withdraw_id"] == reply["withdrawId"]
    row = history(alice, count=1)[0]
    assert (row["orderId"], row["type"], row["status"]) == (reply["withdrawId"], "Withdraw", "PROCESSING")
    assert (row["amount"], row["fees"], row["toAddress"], row["currencyNetwork"]) == (
        "0.01",
        "0.0005",
        OUTSIDE,
        "BITCOIN",
    )


def test_withdraw_under_the_older_version(alice: ApiClient) -> None:
    """Version 3.2 withdraws as 3.3 does."""
    body = {"currency": "BTC-Bitcoin", "address": OUTSIDE, "tag": "", "amount": "0.01"}
    check_shape("v3 user/wallet/withdraw", answered(alice.post("/api/v3.2/user/wallet/withdraw", body)))


def test_frozen_accounts_are_told_by_each_endpoint(house: House, bob: ApiClient) -> None:
    """A frozen account can do nothing with its money, and each endpoint says so in its own code."""
    convert = {"amount": "1", "fromAsset": "BTC", "toAsset": "USD"}
    withdraw = {"currency": "BTC", "address": OUTSIDE, "amount": "1"}
    to_alice = transfer(toUser="alice", toUserMail=mail_of("alice"))
    house.mark("bob", frozen=True)
    try:
        with unchanged(house):
            frozen = "BADREQUEST: Account is frozen"
            check_refusal(bob.post(V3 + "user/wallet/transfer", to_alice), 400, 28, frozen)
            check_refusal(bob.post(V3 + "user/wallet/convert", convert), 400, 17, frozen)
            reason = "BADREQUEST: Withdraw failed: Account is frozen"
            check_refusal(bob.post(V3 + "user/wallet/withdraw", withdraw), 400, 3508, reason)
    finally:
        house.mark("bob")
