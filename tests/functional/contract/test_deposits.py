"""Deposits from end to end: an address is given, a stranger pays it, blocks are mined, and the money is there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from support.client import V1, V3, ApiClient
from support.serving import House, eventually, opened
from support.shapes import answered, enveloped


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A house of its own, for the chains are everybody's."""
    with opened(tmp_path_factory.mktemp("deposits")) as house:
        yield house


def newest(client: ApiClient, asset: str) -> dict[str, Any]:
    """Return the newest row of an asset by wallet v1, or nothing."""
    rows = enveloped(client.get(V1 + "user/walletHistory", {"asset": asset, "pageSize": 1}))
    return rows[0] if rows else {}


def v3_row(client: ApiClient, asset: str) -> dict[str, Any]:
    """Return the newest row of an asset by v3."""
    return answered(client.get(V3 + "user/wallet_history", {"currency": asset, "count": 1}))[0]


def balance(client: ApiClient, asset: str) -> tuple[str, str]:
    """Return available and total."""
    rows = answered(client.get(V3 + "user/wallet"))
    return next((row["available"], row["total"]) for row in rows if row["currency"] == asset)


def given(client: ApiClient, asset: str, network: str) -> tuple[str, str]:
    """Return a new address and its tag."""
    made = enveloped(client.post(V1 + "user/crypto/address", {"crypto": asset, "network": network}))
    return made["address"], made["addressExtension"] or ""


def name_of(request: pytest.FixtureRequest) -> str:
    """Return the name of a test's own user."""
    return request.node.name.removeprefix("test_")[:60]


@pytest.fixture
def owner(house: House, request: pytest.FixtureRequest) -> ApiClient:
    """A user who has nothing yet, one for each test."""
    house.open_user(name_of(request))
    return house.client(name_of(request))


def arrived(client: ApiClient, asset: str, status: str, confirmations: str) -> dict[str, Any]:
    """Return the newest row once it has a status and this many confirmations."""

    def row() -> dict[str, Any] | None:
        found = newest(client, asset)
        return found if (found.get("status"), found.get("confirmTimes")) == (status, confirmations) else None

    return eventually(row)


def test_a_deposit_from_first_sight_to_credit(house: House, owner: ApiClient) -> None:
    """A deposit is seen at once, its confirmations count up, and then it is in the balance, all under one reference."""
    address, _ = given(owner, "BTC", "BITCOIN")
    txid = house.pay("BITCOIN", address, "BTC", "0.12345678")
    seen = arrived(owner, "BTC", "PROCESSING", "(0/2)")
    assert (seen["type"], seen["txId"], seen["toAddress"]) == ("DEPOSIT", txid, address)
    assert (seen["cryptoNetwork"], seen["amount"], seen["description"]) == ("BITCOIN", "0.12345678", "")
    house.mine("BITCOIN")
    first = arrived(owner, "BTC", "PROCESSING", "(1/2)")
    assert balance(owner, "BTC") == ("0", "0")
    house.mine("BITCOIN")
    done = arrived(owner, "BTC", "COMPLETED", "(2/2)")
    assert balance(owner, "BTC") == ("0.12345678", "0.12345678")
    for row in (first, done):
        same = {"transactionRef", "transactionTime", "txId", "amount", "netAmount", "fees"}
        assert {name: row[name] for name in same} == {name: seen[name] for name in same}
    old = v3_row(owner, "BTC")
    assert (old["orderId"], old["timestamp"]) == (done["transactionRef"], done["transactionTime"])
    assert (old["type"], old["status"], old["txid"], old["txId"]) == ("Deposit", "COMPLETED", txid, txid)
    assert (old["amount"], old["currencyNetwork"], old["toAddress"]) == ("0.12345678", "BITCOIN", address)
    house.mine("BITCOIN", 5)
    assert newest(owner, "BTC") == done


def test_a_deposit_in_a_block_at_once(house: House, owner: ApiClient) -> None:
    """A deposit that was never seen waiting is found in its block, and credited when it is deep enough."""
    address, _ = given(owner, "ETH", "ERC20")
    house.pay("ERC20", address, "ETH", "1.5")
    house.mine("ERC20", 3)
    arrived(owner, "ETH", "COMPLETED", "(3/3)")
    assert balance(owner, "ETH") == ("1.5", "1.5")


def test_the_fee_of_a_deposit(house: House, owner: ApiClient) -> None:
    """A deposit's fee is shown, and the rest credited; one that does not cover it fails."""
    address, _ = given(owner, "USDT", "ERC20")
    house.pay("ERC20", address, "USDT", "10.5")
    house.mine("ERC20", 3)
    row = arrived(owner, "USDT", "COMPLETED", "(3/3)")
    assert (row["amount"], row["netAmount"], row["fees"]) == ("10.5", "9.5", "1")
    house.pay("ERC20", address, "USDT", "1")
    house.mine("ERC20", 3)
    eventually(lambda: newest(owner, "USDT")["status"] == "FAILURE")
    assert balance(owner, "USDT") == ("9.5", "9.5")


def test_a_deposit_below_the_minimum(house: House, owner: ApiClient) -> None:
    """A deposit below the minimum fails and credits nothing."""
    address, _ = given(owner, "BTC", "BITCOIN")
    house.pay("BITCOIN", address, "BTC", "0.00009999")
    house.mine("BITCOIN", 2)
    row = eventually(lambda: r if (r := newest(owner, "BTC")).get("status") == "FAILURE" else None)
    assert (row["amount"], row["netAmount"], row["fees"]) == ("0.00009999", "0", "0")
    assert balance(owner, "BTC") == ("0", "0")
    assert house.verify().is_whole


def test_tags_tell_owners_apart(house: House, owner: ApiClient, bob: ApiClient) -> None:
    """Two users share an address, and each is credited what comes with its own tag."""
    address, tag = given(owner, "XRP", "RIPPLE")
    shared, other = given(bob, "XRP", "RIPPLE")
    assert (address, tag != other) == (shared, True)
    for amount, which in (("5", tag), ("7.000001", other)):
        house.pay("RIPPLE", address, "XRP", amount, which)
    house.mine("RIPPLE")
    row = arrived(owner, "XRP", "COMPLETED", "(1/1)")
    assert (row["amount"], row["toAddress"]) == ("5", f"{address}:{tag}")
    eventually(lambda: newest(bob, "XRP").get("amount") == "7.000001")


def test_another_asset_at_an_address(house: House, owner: ApiClient) -> None:
    """A token that comes to an address of another asset of its network is credited as what it is."""
    address, _ = given(owner, "ETH", "ERC20")
    house.pay("ERC20", address, "USDT", "25")
    house.mine("ERC20", 3)
    row = arrived(owner, "USDT", "COMPLETED", "(3/3)")
    assert (row["asset"], row["netAmount"]) == ("USDT", "24")
    assert (balance(owner, "USDT"), balance(owner, "ETH")) == (("24", "24"), ("0", "0"))


def test_a_paid_address_makes_room_for_another(house: House, owner: ApiClient) -> None:
    """Once its newest address was paid, v3 gives the user another one."""
    path = V3 + "user/wallet/address"
    [first] = answered(owner.post(path, {"currency": "BTC"}))
    assert owner.post(path, {"currency": "BTC"}).status_code == 400
    house.pay("BITCOIN", first["address"], "BTC", "1")
    eventually(lambda: newest(owner, "BTC"))
    [second] = answered(owner.post(path, {"currency": "BTC"}))
    assert second["address"] != first["address"]
    assert answered(owner.get(path, {"currency": "BTC"})) == [second, first]


def test_at_most_ten_addresses_are_listed(house: House, owner: ApiClient) -> None:
    """Of eleven addresses the ten newest are listed, newest first, by both dialects."""
    path, made = V3 + "user/wallet/address", []
    for _ in range(11):
        [row] = answered(owner.post(path, {"currency": "BTC"}))
        house.pay("BITCOIN", row["address"], "BTC", "0.001")
        made.append(row["address"])
        eventually(lambda: newest(owner, "BTC").get("toAddress") == made[-1])
    assert [row["address"] for row in answered(owner.get(path, {"currency": "BTC"}))] == made[:0:-1]
    query = {"crypto": "BTC", "network": "BITCOIN"}
    assert [row["address"] for row in enveloped(owner.get(V1 + "user/crypto/address", query))] == made[:0:-1]


def test_a_deleted_address_credits_its_frozen_owner(
    house: House, owner: ApiClient, request: pytest.FixtureRequest
) -> None:
    """A deleted address is watched for ever, and credits its owner even when the account is frozen."""
    address, _ = given(owner, "BTC", "BITCOIN")
    query = {"crypto": "BTC", "network": "BITCOIN", "address": address}
    assert owner.delete(V1 + "user/crypto/address", query).status_code == 200
    house.mark(name_of(request), frozen=True)
    house.pay("BITCOIN", address, "BTC", "0.5")
    house.mine("BITCOIN", 2)
    arrived(owner, "BTC", "COMPLETED", "(2/2)")
    assert balance(owner, "BTC") == ("0.5", "0.5")
    assert enveloped(owner.get(V1 + "user/crypto/address", {"crypto": "BTC", "network": "BITCOIN"})) == []


def test_a_deposit_that_goes_away(house: House, owner: ApiClient) -> None:
    """A deposit whose transaction can never be mined is cancelled, and nothing was ever credited."""
    address, _ = given(owner, "BTC", "BITCOIN")
    txid = house.pay("BITCOIN", address, "BTC", "3")
    arrived(owner, "BTC", "PROCESSING", "(0/2)")
    assert house.application.treasury.node
    house.run(house.application.treasury.node.void("BITCOIN", txid))
    house.mine("BITCOIN", 3)
    row = eventually(lambda: r if (r := newest(owner, "BTC"))["status"] == "CANCELLED" else None)
    assert (row["amount"], row["netAmount"]) == ("3", "0")
    assert balance(owner, "BTC") == ("0", "0")


def test_a_deposit_moves_to_another_block(house: House, owner: ApiClient) -> None:
    """After a reorganisation a deposit's confirmations start again, and it is credited once."""
    address, _ = given(owner, "BTC", "BITCOIN")
    house.pay("BITCOIN", address, "BTC", "2")
    house.mine("BITCOIN")
    arrived(owner, "BTC", "PROCESSING", "(1/2)")
    assert house.application.treasury.node
    house.run(house.application.treasury.node.reorg("BITCOIN", 1))
    arrived(owner, "BTC", "PROCESSING", "(1/2)")
    house.mine("BITCOIN")
    arrived(owner, "BTC", "COMPLETED", "(2/2)")
    assert balance(owner, "BTC") == ("2", "2")
    assert len(enveloped(owner.get(V1 + "user/walletHistory", {"asset": "BTC"}))) == 1


def test_more_decimals_than_the_ledger_has(house: House, owner: ApiClient) -> None:
    """What is finer than the ledger is not credited to the customer and not lost from the books."""
    address, _ = given(owner, "ETH", "ERC20")
    assert house.application.treasury.node
    wei = 1_234_567_890_123_456_789
    house.run(house.application.treasury.node.faucet("ERC20", address, "", "", wei))
    house.mine("ERC20", 3)
    row = arrived(owner, "ETH", "COMPLETED", "(3/3)")
    assert row["amount"] == "1.23456789"
    assert balance(owner, "ETH") == ("1.23456789", "1.23456789")
    assert house.verify().is_whole


def test_deposits_survive_a_restart(house: House, owner: ApiClient) -> None:
    """A deposit that was under way when the server stopped is credited after it starts again."""
    address, _ = given(owner, "BTC", "BITCOIN")
    house.pay("BITCOIN", address, "BTC", "4")
    house.mine("BITCOIN")
    arrived(owner, "BTC", "PROCESSING", "(1/2)")
    house.restart()
    again = house.client(credentials=owner.credentials)
    house.mine("BITCOIN")
    arrived(again, "BTC", "COMPLETED", "(2/2)")
    assert balance(again, "BTC") == ("4", "4")
    assert house.verify().is_whole
