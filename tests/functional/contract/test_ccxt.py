"""An unmodified ccxt, only its URLs pointed here, uses the whole wallet and raises what it has for each refusal."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, cast

import ccxt
import pytest

from strongroom.config.settings import Tier
from support.client import Credentials
from support.serving import House, config_of, eventually, mail_of

OUTSIDE = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"


def ccxt_of(house: House, credentials: Credentials | None = None) -> Any:
    """Return ccxt as it comes, pointed at the house."""
    options: dict[str, Any] = {"enableRateLimit": False}
    if credentials is not None:
        options |= {"apiKey": credentials.key, "secret": credentials.secret}
    exchange: Any = cast(Any, ccxt.btse)(options)
    exchange.urls["api"] = {"public": house.url, "private": house.url}
    exchange.session.trust_env = False
    return exchange


@pytest.fixture(scope="module")
def alice(house: House) -> Iterator[Any]:
    """Alice, by ccxt."""
    exchange = ccxt_of(house, house.make_key("alice"))
    yield exchange
    exchange.session.close()


def transfer(**changes: Any) -> dict[str, Any]:
    """Return the parameters of a transfer to bob."""
    return {"asset": "BTC", "amount": "0.1", "toUser": "bob", "toUserMail": mail_of("bob")} | changes


def withdrawal(**changes: Any) -> dict[str, Any]:
    """Return the parameters of a withdrawal."""
    return {"currency": "BTC-Bitcoin", "address": OUTSIDE, "tag": "", "amount": "0.1"} | changes


def test_markets_name_every_asset(alice: Any) -> None:
    """After loading markets ccxt knows every asset that can be converted."""
    markets = alice.load_markets()
    assert {"BTC/USDT", "ETH/USDT", "XRP/USDT", "BTC/USD", "BTC/EUR"} <= set(markets)
    assert {"BTC", "ETH", "USDT", "XRP", "USD", "EUR", "JPY", "GOLD"} <= set(alice.currencies)
    assert markets["BTC/USDT"]["precision"] == {"amount": 1e-08, "price": 1e-08}


def test_the_time_is_now(alice: Any) -> None:
    """The server's time is the time."""
    assert abs(alice.fetch_time() - time.time() * 1000) < 5_000


def test_the_balance_is_what_is_in_the_wallet(alice: Any) -> None:
    """The balance has free, used and total of every asset."""
    balance = alice.fetch_balance()
    assert balance["XRP"] == {"free": 10000.0, "used": 0.0, "total": 10000.0}
    assert balance["GOLD"]["total"] == 0.0


def test_a_deposit_and_a_withdrawal_stand_in_every_history(house: House, alice: Any) -> None:
    """A paid address and a withdrawal come back in deposits, withdrawals, both together, and the ledger."""
    [row] = alice.privatePostSpotApiV33UserWalletAddress({"currency": "BTC", "network": "BITCOIN"})
    txid = house.pay("BITCOIN", row["address"], "BTC", "2")
    house.mine("BITCOIN", 2)
    [deposit] = eventually(lambda: [d for d in alice.fetch_deposits("BTC") if d["status"] == "ok"])
    assert (deposit["txid"], deposit["address"], deposit["amount"]) == (txid, row["address"], 2.0)
    assert (deposit["type"], deposit["network"], deposit["fee"]["cost"]) == ("deposit", "BITCOIN", 0.0)

    answer = alice.privatePostSpotApiV33UserWalletWithdraw(withdrawal())
    assert answer["withdraw_id"] == answer["withdrawId"]
    [pending] = alice.fetch_withdrawals("BTC", since=alice.milliseconds() - 60_000, limit=10)
    assert (pending["id"], pending["status"], pending["address"]) == (answer["withdrawId"], "pending", OUTSIDE)
    assert alice.fetch_balance()["BTC"]["used"] == 0.1

    both = alice.fetch_deposits_withdrawals("BTC")
    assert [entry["type"] for entry in both] == ["deposit", "withdrawal"]
    ledger = {entry["id"]: entry for entry in alice.fetch_ledger("BTC")}
    assert {deposit["id"], pending["id"]} < set(ledger)
    assert ledger[pending["id"]]["direction"] == "out"


def test_v3_addresses(alice: Any) -> None:
    """Addresses are created, listed and deleted by v3's implicit methods."""
    eth = {"currency": "ETH", "network": "ERC20"}
    [created] = alice.privatePostSpotApiV33UserWalletAddress(eth)
    assert alice.privateGetSpotApiV33UserWalletAddress(eth) == [created]
    with pytest.raises(ccxt.ExchangeError, match=created["address"]):
        alice.privatePostSpotApiV33UserWalletAddress(eth)
    assert alice.privateDeleteSpotApiV33UserWalletAddress(eth | {"address": created["address"]}) == [created]
    with pytest.raises(ccxt.BadRequest):
        alice.privateDeleteSpotApiV33UserWalletAddress(eth | {"address": created["address"]})


def test_v1_addresses(alice: Any) -> None:
    """Addresses are created, listed and deleted by wallet v1's implicit methods."""
    xrp = {"crypto": "XRP", "network": "RIPPLE"}
    created = alice.privatePostPublicApiWalletV1UserCryptoAddress(xrp)["data"]
    assert created["addressExtensionTypeName"] == "tag"
    assert alice.privateGetPublicApiWalletV1UserCryptoAddress(xrp)["data"] == [created]
    named = {"address": created["address"], "addressExtension": created["addressExtension"]}
    assert alice.privateDeletePublicApiWalletV1UserCryptoAddress(xrp | named)["data"] == created


def test_v3_movements(alice: Any) -> None:
    """Transfers and conversions work by v3's implicit methods."""
    assert alice.privatePostSpotApiV33UserWalletTransfer(transfer()) == transfer()
    converted = alice.privatePostSpotApiV32UserWalletConvert({"amount": "1", "fromAsset": "BTC", "toAsset": "USDT"})
    assert (converted["amountCurrency"], converted["settlementCurrency"]) == ("BTC", "USDT")
    assert float(converted["settlementAmount"]) == 59940


def test_v1_movements(alice: Any) -> None:
    """Sending, converting and withdrawing work by wallet v1's implicit methods."""
    sent = alice.privatePostPublicApiWalletV1UserAssetsSendTo(
        {"asset": "USDT", "amount": "3", "receiverUsername": "bob"}
    )["data"]
    assert (sent["amount"], sent["receiverUsername"]) == ("3", "bob")
    converted = alice.privatePostPublicApiWalletV1UserAssetsConvert(
        {"fromAsset": "USDT", "toAsset": "USD", "amount": "10"}
    )["data"]
    assert converted["toAmount"] == "9.99"
    withdrawn = alice.privatePostPublicApiWalletV1UserCryptoWithdraw(
        {"crypto": "BTC", "network": "BITCOIN", "address": OUTSIDE, "amount": "0.01"}
    )["data"]
    assert (withdrawn["amountToAddress"], withdrawn["fees"]) == ("0.0095", "0.0005")


def test_the_remaining_reads(alice: Any) -> None:
    """Every other wallet endpoint that ccxt names answers."""
    assert alice.publicGetSpotApiV32AvailableCurrencyNetworks({"currency": "BTC"}) == ["Bitcoin"]
    rate = alice.publicGetSpotApiV32ExchangeRate({"srcCurrency": "BTC", "targetCurrency": "USDT"})
    assert float(rate["data"]) == 59940
    assert alice.publicGetPublicApiWalletV1CryptoNetworks({"crypto": "XRP"})["data"][0]["network"] == "RIPPLE"
    v1_rate = alice.publicGetPublicApiWalletV1AssetsExchangeRate(
        {"baseCurrency": "BTC", "amount": "2", "quoteCurrency": "USDT"}
    )
    assert float(v1_rate["data"]["rate"]) == 59940
    assert "BTC" in [row["asset"] for row in alice.publicGetPublicApiWalletV1CryptoList()["data"]]
    assert "USD" in [row["asset"] for row in alice.privateGetPublicApiWalletV1Assets()["data"]]
    assert {row["currency"] for row in alice.privateGetSpotApiV32UserWallet()} >= {"BTC", "USD"}
    assert alice.privateGetSpotApiV32UserWalletHistory({"currency": "BTC", "count": 1})[0]["currency"] == "BTC"
    assert "USDT" in alice.privateGetSpotApiV32AvailableCurrencies({"action": "CONVERT"})
    assert alice.privateGetSpotApiV32SubaccountWalletHistory({"page": 1, "pageSize": 5})["data"]["pageSize"] == 5
    assert alice.publicGetSpotApiV33MarketSummary()[0]["symbol"] == "BTC-USDT"


REFUSALS: dict[str, tuple[type[Exception], str, Any]] = {
    "beyond the balance": (
        ccxt.InsufficientFunds,
        "51523",
        lambda x: x.privatePostSpotApiV33UserWalletTransfer(transfer(amount="1000")),
    ),
    "beyond the balance, v1": (
        ccxt.InsufficientFunds,
        "51523",
        lambda x: x.privatePostPublicApiWalletV1UserAssetsConvert(
            {"fromAsset": "BTC", "toAsset": "USDT", "amount": "15"}
        ),
    ),
    "an unknown asset": (
        ccxt.BadRequest,
        "Invalid currency NOPE",
        lambda x: x.privatePostSpotApiV33UserWalletTransfer(transfer(asset="NOPE")),
    ),
    "a missing parameter": (
        ccxt.BadRequest,
        "toUser parameter is mandatory",
        lambda x: x.privatePostSpotApiV33UserWalletTransfer({"asset": "BTC", "amount": "1"}),
    ),
    "no rate": (
        ccxt.ExchangeError,
        '"code":17',
        lambda x: x.privatePostSpotApiV32UserWalletConvert({"amount": "1", "fromAsset": "BTC", "toAsset": "GOLD"}),
    ),
    "no such receiver": (
        ccxt.ExchangeError,
        "Receiver not found",
        lambda x: x.privatePostSpotApiV33UserWalletTransfer(transfer(toUser="nobody")),
    ),
    "an unknown network": (
        ccxt.BadRequest,
        "Invalid protocol",
        lambda x: x.privatePostSpotApiV33UserWalletWithdraw(withdrawal(currency="BTC-ERC20")),
    ),
    "an amount too small": (
        ccxt.BadRequest,
        "Invalid withdraw amount",
        lambda x: x.privatePostSpotApiV33UserWalletWithdraw(withdrawal(amount="0.00001")),
    ),
    "a bad address": (
        ccxt.BadRequest,
        "Invalid withdraw address",
        lambda x: x.privatePostSpotApiV33UserWalletWithdraw(withdrawal(address="nowhere")),
    ),
    "too much a day": (
        ccxt.BadRequest,
        "Withdraw failed: Daily limit exceeded",
        lambda x: x.privatePostSpotApiV33UserWalletWithdraw(
            withdrawal(currency="ETH", address="0x" + "1" * 40, amount="6")
        ),
    ),
    "v1 history without an asset": (
        ccxt.BadRequest,
        "11000001",
        lambda x: x.privateGetPublicApiWalletV1UserWalletHistory(),
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_refusal_raises_the_exception_ccxt_has_for_it(alice: Any, case: str) -> None:
    """Each refusal arrives as the exception class that ccxt maps its code or message to."""
    expected, text, call = REFUSALS[case]
    with pytest.raises(expected, match=text) as caught:
        call(alice)
    assert type(caught.value) is expected


def test_keys_that_do_not_serve(house: House) -> None:
    """An unknown key, a wrong secret and a missing permission each raise their own exception."""
    good, weak = house.make_key("bob"), house.make_key("bob", permissions=1)
    for credentials, expected, text in (
        (Credentials("0" * 64, good.secret), ccxt.AuthenticationError, "Authentication Failed"),
        (Credentials(good.key, "0" * 64), ccxt.AuthenticationError, "Signature verification failed"),
        (weak, ccxt.ExchangeError, "Transfer permission is required"),
    ):
        exchange = ccxt_of(house, credentials)
        with pytest.raises(expected, match=text):
            exchange.privatePostSpotApiV33UserWalletTransfer(transfer(toUser="alice", toUserMail=mail_of("alice")))
        exchange.session.close()


def test_a_clock_that_is_wrong(house: House) -> None:
    """A nonce outside the window raises InvalidNonce, and ccxt's own remedy cures it."""
    exchange = ccxt_of(house, house.make_key("bob"))
    exchange.options["timeDifference"] = 60_000
    with pytest.raises(ccxt.InvalidNonce):
        exchange.privateGetSpotApiV32UserWallet()
    exchange.load_time_difference()
    exchange.options["timeDifference"] = 0
    assert exchange.privateGetSpotApiV32UserWallet()
    exchange.session.close()


def test_a_server_that_is_about_to_stop(house: House, alice: Any) -> None:
    """While the server drains, ccxt says that the exchange is not available."""
    house.application.drain()
    try:
        with pytest.raises(ccxt.ExchangeNotAvailable, match="System draining"):
            alice.privatePostSpotApiV33UserWalletTransfer(transfer())
    finally:
        house.application.api.draining = False


def test_too_many_requests(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A rate limit raises RateLimitExceeded."""
    house = House(config_of(tmp_path_factory.mktemp("limited"), rate_limits={"default": Tier(operation_per_2s=1)}))
    house.start()
    house.open_user("alice")
    exchange = ccxt_of(house, house.make_key("alice"))
    assert exchange.privateGetSpotApiV32UserWallet()
    with pytest.raises(ccxt.RateLimitExceeded, match="303"):
        exchange.privateGetSpotApiV32UserWallet()
    exchange.session.close()
    house.stop()
