"""What anybody may ask: networks, assets, rates, markets and the time."""

from __future__ import annotations

import re
import time
from decimal import Decimal

import pytest

from support.client import MARKETS, V1, V3, ApiClient, Credentials, check_refusal
from support.serving import House
from support.shapes import answered, check_shape, enveloped

V32 = "/api/v3.2/"


@pytest.mark.parametrize("path", [V3, V32, "/api/v3.3/", "/spot/api/v3.2/"])
def test_networks_of_an_asset(nobody: ApiClient, path: str) -> None:
    """The networks of an asset are listed by short name, under both mounts and versions, marked as deprecated."""
    reply = nobody.get(path + "availableCurrencyNetworks", {"currency": "usdt"})
    assert answered(reply) == ["Ethereum"]
    assert re.fullmatch(r"@\d{10}", reply.headers["deprecation"])
    assert reply.headers["sunset"] == "Wed, 30 Jul 2025 00:00:00 GMT"
    assert reply.headers["link"] == '</public-api/wallet/v1/crypto/networks>; rel="successor-version"'


@pytest.mark.parametrize(
    ("action", "codes"),
    [
        ("CONVERT", ["BTC", "ETH", "USDT", "XRP", "USD", "EUR", "JPY", "GOLD"]),
        ("withdraw", ["BTC", "ETH", "USDT", "XRP"]),
        ("Send", ["BTC", "ETH", "USDT", "XRP", "USD", "EUR", "JPY", "GOLD", "GEM"]),
    ],
)
def test_assets_for_an_action(nobody: ApiClient, action: str, codes: list[str]) -> None:
    """The enabled assets that are offered for an action are listed, whatever the action's case."""
    assert answered(nobody.get(V3 + "availableCurrencies", {"action": action})) == codes


def test_the_old_exchange_rate(nobody: ApiClient) -> None:
    """V3's rate stands in an envelope as a number, marked as deprecated."""
    reply = nobody.get(V32 + "exchangeRate", {"srcCurrency": "btc", "targetCurrency": "usd"})
    assert enveloped(reply) == "59940"
    assert reply.headers["link"] == '</public-api/wallet/v1/assets/exchangeRate>; rel="successor-version"'
    assert {"deprecation", "sunset"} <= set(reply.headers)


def test_the_exchange_rate(nobody: ApiClient) -> None:
    """Wallet v1's rate is a text with at least eight significant digits, the spread taken."""
    rate = enveloped(
        nobody.get(V1 + "assets/exchangeRate", {"baseCurrency": "eur", "amount": "2", "quoteCurrency": "eth"})
    )
    check_shape("v1 assets/exchangeRate", rate)
    assert abs(Decimal(rate["rate"]) - Decimal("1.1") / Decimal("3000.5") * Decimal("0.999")) < Decimal("1e-12")
    assert len(rate["rate"].removeprefix("0.").lstrip("0")) >= 8


def test_networks_with_fees(nobody: ApiClient) -> None:
    """An asset's networks have all of the reference's fields, the extension's name only where there is one."""
    [usdt] = enveloped(nobody.get(V1 + "crypto/networks", {"crypto": "usdt"}))
    check_shape("v1 crypto/networks", usdt)
    assert usdt | {} == {
        "network": "ERC20",
        "name": "Ethereum (ERC20)",
        "depositEnable": True,
        "withdrawEnable": True,
        "confirmationTime": "3",
        "depositAmtMin": "0",
        "depositFeeMin": "1",
        "depositFeeRate": "0",
        "depositExtFees": "0",
        "depositExtFeeRate": "0",
        "needAddressExtension": False,
        "withdrawAmtMin": "0",
        "withdrawFeeMin": "5",
        "withdrawFeeRate": "0.001",
        "withdrawExtFees": "1",
        "withdrawExtFeeRate": "0",
    }
    [xrp] = enveloped(nobody.get(V1 + "crypto/networks", {"crypto": "XRP"}))
    check_shape("v1 crypto/networks", xrp, "addressExtensionTypeName")
    assert (xrp["needAddressExtension"], xrp["addressExtensionTypeName"]) == (True, "tag")


def test_a_suspended_network_is_told_to_all(house: House, nobody: ApiClient) -> None:
    """The flags of a network are false for everybody once the operator suspends it."""
    with house.settings("BTC", deposits=False, withdrawals=False):
        [btc] = enveloped(nobody.get(V1 + "crypto/networks", {"crypto": "BTC"}))
    assert (btc["depositEnable"], btc["withdrawEnable"]) == (False, False)


def test_flags_of_an_account(house: House, nobody: ApiClient, bob: ApiClient) -> None:
    """A frozen account with Read sees that it cannot withdraw; without Read, or unsigned, it sees the public answer."""
    blind = house.client("bob", permissions=2)
    house.mark("bob", frozen=True)
    try:
        flags = [
            enveloped(client.get(V1 + "crypto/networks", {"crypto": "BTC"}))[0]["withdrawEnable"]
            for client in (bob, blind, nobody)
        ]
    finally:
        house.mark("bob")
    assert flags == [False, True, True]


def test_all_assets(nobody: ApiClient) -> None:
    """Assets are listed with kind, decimals and networks; disabled ones are not, and the crypto list has no fiat."""
    rows = enveloped(nobody.get(V1 + "assets"))
    for row in rows:
        check_shape("v1 assets", row)
    assert [row["asset"] for row in rows] == ["BTC", "ETH", "USDT", "XRP", "USD", "EUR", "JPY", "GOLD", "GEM"]
    assert rows[0] == {"asset": "BTC", "name": "Bitcoin", "type": "CRYPTO", "decimals": "8", "networks": ["BITCOIN"]}
    assert {row["decimals"] for row in rows if row["asset"] == "GEM"} == {"2"}
    crypto = enveloped(nobody.get(V1 + "crypto/list"))
    assert crypto == [row for row in rows if row["type"] == "CRYPTO"]


def test_markets(nobody: ApiClient) -> None:
    """Every asset that can be converted appears in a market, each with all fields."""
    rows = enveloped(nobody.get(MARKETS))["symbols"]
    for row in rows:
        check_shape("markets", row)
    named = {row[side] for row in rows for side in ("baseCurrency", "quoteCurrency")}
    assert named == {"BTC", "ETH", "USDT", "XRP", "USD", "EUR", "JPY", "GOLD"}
    assert len({row["symbol"] for row in rows}) == len(rows)


@pytest.mark.parametrize("version", ["v3.1", "v3.2", "v3.3"])
@pytest.mark.parametrize("mount", ["", "/spot"])
def test_market_summary(nobody: ApiClient, mount: str, version: str) -> None:
    """The summary is a bare array of numbers, in every version under both mounts."""
    rows = answered(nobody.get(f"{mount}/api/{version}/market_summary"))
    for row in rows:
        check_shape("v3 market_summary", row)
    assert [row["last"] for row in rows if row["symbol"] == "BTC-USDT"] == ["59940"]
    [one] = answered(nobody.get(f"{mount}/api/{version}/market_summary", {"symbol": "BTC-USDT"}))
    assert one["symbol"] == "BTC-USDT"


@pytest.mark.parametrize("version", ["v3.1", "v3.2", "v3.3"])
def test_the_time(nobody: ApiClient, version: str) -> None:
    """The time is told as ISO 8601 with milliseconds, and in seconds."""
    now = answered(nobody.get(f"/spot/api/{version}/time"))
    check_shape("v3 time", now)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", now["iso"])
    assert abs(int(now["epoch"]) - time.time()) < 5


OPEN = [MARKETS, "/api/v3.3/time", "/spot/api/v3.1/market_summary"]


@pytest.mark.parametrize("path", OPEN)
def test_what_clients_load_first_ignores_authentication(house: House, path: str) -> None:
    """A client with a wrong key or clock still gets the markets and the time."""
    client = house.client(credentials=Credentials("0" * 64, "wrong"))
    reply = client.get(path, nonce="1")
    assert reply.status_code == 200
    assert "cache-control" not in reply.headers


PUBLIC = [
    (V3 + "availableCurrencies", {"action": "SEND"}),
    (V3 + "availableCurrencyNetworks", {"currency": "BTC"}),
    (V3 + "exchangeRate", {"srcCurrency": "BTC", "targetCurrency": "USD"}),
    (V1 + "crypto/networks", {"crypto": "BTC"}),
    (V1 + "crypto/list", {}),
    (V1 + "assets", {}),
    (V1 + "assets/exchangeRate", {"baseCurrency": "BTC", "amount": "1", "quoteCurrency": "USD"}),
]


@pytest.mark.parametrize(("path", "query"), PUBLIC)
def test_a_signature_on_a_public_endpoint_is_verified(house: House, path: str, query: dict[str, str]) -> None:
    """A wrong signature is refused where none is needed, and a valid key without Read gets the public answer."""
    key = house.make_key("bob", permissions=4)
    good, bad = house.client(credentials=key), house.client(credentials=Credentials(key.key, "wrong"))
    reply = good.get(path, query)
    assert reply.status_code == 200
    assert reply.headers["cache-control"] == "no-store"
    check_refusal(bad.get(path, query), 401, 10002, "UNAUTHORIZED: Signature verification failed")
    half = good.http.get(path, params=query, headers={"request-api": key.key})
    check_refusal(half, 401, 10002, "UNAUTHORIZED: api parameter is mandatory")


@pytest.mark.parametrize(
    ("path", "query", "code", "message"),
    [
        (V3 + "availableCurrencies", {}, -2, "action parameter is mandatory"),
        (V3 + "availableCurrencies", {"action": "EAT"}, -2, "action parameter must be one of CONVERT, WITHDRAW, SEND"),
        (V3 + "availableCurrencyNetworks", {}, -2, "currency parameter is mandatory"),
        (V3 + "availableCurrencyNetworks", {"currency": "USD"}, 11, "Invalid currency USD"),
        (V3 + "exchangeRate", {"srcCurrency": "BTC"}, -2, "targetCurrency parameter is mandatory"),
        (V3 + "exchangeRate", {"srcCurrency": "OLD", "targetCurrency": "BTC"}, 11, "Invalid currency OLD"),
        (V3 + "exchangeRate", {"srcCurrency": "BTC", "targetCurrency": "GOLD"}, 17, "No rate for BTC to GOLD"),
        (V3 + "exchangeRate", {"srcCurrency": "EUR", "targetCurrency": "JPY"}, 17, "Rate for EUR to JPY is too old"),
        (V1 + "crypto/networks", {"crypto": "NOPE"}, 11, "Invalid currency NOPE"),
        (V1 + "crypto/networks", {"crypto": ""}, -2, "crypto parameter is mandatory"),
        (
            V1 + "assets/exchangeRate",
            {"baseCurrency": "BTC", "quoteCurrency": "USD"},
            -2,
            "amount parameter is mandatory",
        ),
    ],
)
def test_public_refusals(nobody: ApiClient, path: str, query: dict[str, str], code: int, message: str) -> None:
    """What is missing, unknown or without a rate is refused with its own code and message."""
    check_refusal(nobody.get(path, query), 400, code, f"BADREQUEST: {message}")
