"""Every refusal of the contract's table: status, code, exact message, body of its dialect, and untouched books."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import httpx
import pytest

from support.client import V1, V3, ApiClient, check_refusal
from support.serving import House, mail_of, unchanged

OUTSIDE = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"
EVM = "0xc48fd69d0f4B521B7200345A67641aB4076828f2"
RIPPLE = "rHJhVRJGWGDqVX6cX8Ca1nPZMrkARE2VVx"
HUGE = "9" * 19


def transfer(**changes: Any) -> dict[str, Any]:
    """Return a transfer that would be done, with changes; None takes a member away."""
    return _changed({"amount": "1", "asset": "BTC", "toUser": "bob", "toUserMail": mail_of("bob")}, changes)


def send_to(**changes: Any) -> dict[str, Any]:
    """Return the same of wallet v1."""
    return _changed({"asset": "BTC", "amount": "1", "receiverUsername": "bob"}, changes)


def convert(**changes: Any) -> dict[str, Any]:
    """Return a conversion that would be done, with changes; both dialects read it."""
    return _changed({"amount": "1", "fromAsset": "BTC", "toAsset": "USDT"}, changes)


def withdraw(**changes: Any) -> dict[str, Any]:
    """Return a withdrawal that would be done, with changes."""
    return _changed({"currency": "BTC-Bitcoin", "address": OUTSIDE, "tag": "", "amount": "1"}, changes)


def withdraw_v1(**changes: Any) -> dict[str, Any]:
    """Return the same of wallet v1."""
    return _changed({"crypto": "BTC", "network": "BITCOIN", "address": OUTSIDE, "amount": "1"}, changes)


def eth(**changes: Any) -> dict[str, Any]:
    """Return a withdrawal of ETH."""
    return withdraw(**{"currency": "ETH-ERC20", "address": EVM} | changes)


def xrp(**changes: Any) -> dict[str, Any]:
    """Return a withdrawal of XRP."""
    return withdraw(**{"currency": "XRP-RIPPLE", "address": RIPPLE, "tag": "1", "amount": "20"} | changes)


def _changed(body: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in (body | changes).items() if value is not None}


TRANSFER, SEND = V3 + "user/wallet/transfer", V1 + "user/assets/sendTo"
CONVERT, CONVERT_V1 = V3 + "user/wallet/convert", V1 + "user/assets/convert"
WITHDRAW, WITHDRAW_V1 = V3 + "user/wallet/withdraw", V1 + "user/crypto/withdraw"
ADDRESS, ADDRESS_V1 = V3 + "user/wallet/address", V1 + "user/crypto/address"


class Case(NamedTuple):
    """A request, and how it is refused."""

    path: str
    body: Any
    code: int
    message: str
    method: str = "POST"


MANDATORY = [
    *((TRANSFER, transfer, name) for name in ("amount", "asset", "toUser", "toUserMail")),
    *((SEND, send_to, name) for name in ("amount", "asset", "receiverUsername")),
    *((CONVERT, convert, name) for name in ("amount", "fromAsset", "toAsset")),
    *((CONVERT_V1, convert, name) for name in ("amount", "fromAsset", "toAsset")),
    *((WITHDRAW, withdraw, name) for name in ("currency", "address", "amount")),
    *((WITHDRAW_V1, withdraw_v1, name) for name in ("crypto", "network", "address", "amount")),
]

TOO_MANY = "amount has too many decimals"
ABOVE_0 = "amount must be greater than 0"
NO_NUMBER = "amount is not a decimal number"
TOO_LARGE = "amount is too large"
TOO_LITTLE = "Insufficient wallet balance"
NO_RECEIVER = "Receiver not found"
ROUNDS_TO_0 = "amount is too small: the settlement rounds to 0"

PAYMENTS = ((TRANSFER, transfer), (SEND, send_to))
CONVERSIONS = ((CONVERT, convert), (CONVERT_V1, convert))
WITHDRAWALS = ((WITHDRAW, withdraw), (WITHDRAW_V1, withdraw_v1))

Asks = tuple[tuple[str, Callable[..., Any]], ...]


def each(asks: Asks, code: int, message: str, **changes: Any) -> list[Case]:
    """Return a case for each of several requests, all changed the same way."""
    return [Case(path, body(**changes), code, message) for path, body in asks]


def tries(
    path: str, body: Callable[..., Any], name: str, values: tuple[Any, ...], code: int, message: str
) -> list[Case]:
    """Return a case for each of several values of one parameter."""
    return [Case(path, body(**{name: value}), code, message) for value in values]


NO_AMOUNTS = (
    "-1",
    "+1",
    "1e3",
    "1,5",
    ".5",
    "5.",
    " 1",
    "x",
    "１",
    "1٠",
    "0x10",
    "NaN",
    "Infinity",
    "1_000",
    "1" * 300,
)
NO_WITHDRAWALS = ("0", "0.000999", "1.000000001", 0, -1)
NO_ADDRESSES = ("x", EVM, OUTSIDE[:-1] + "q", OUTSIDE.replace("bcrt", "bc"), OUTSIDE + ":1", " " + OUTSIDE, "é")
NO_TAGS = ("", "x", "4294967296", "01", "-1", "1.0", "١")

WRONG_PARAMETERS = [
    *each(PAYMENTS, -2, ABOVE_0, amount="0"),
    *each(CONVERSIONS, -2, ABOVE_0, amount="0.000"),
    *each((*PAYMENTS, *CONVERSIONS), -2, TOO_MANY, amount="1.000000001"),
    *each((*PAYMENTS, *CONVERSIONS[:1], *WITHDRAWALS), -2, TOO_LARGE, amount=HUGE),
    *each(PAYMENTS, -2, "amount parameter must be a decimal number", amount=["1"]),
    *each(WITHDRAWALS, -2, "amount parameter must be a decimal number", amount=True),
    *tries(TRANSFER, transfer, "amount", NO_AMOUNTS, -2, NO_NUMBER),
    *tries(TRANSFER, transfer, "amount", (0, -1), -2, ABOVE_0),
    *tries(TRANSFER, transfer, "asset", (1, {"a": 1}, False), -2, "asset parameter must be a text"),
    Case(TRANSFER, b'{"amount":-0.0,"asset":"BTC","toUser":"bob","toUserMail":"bob@example.com"}', -2, ABOVE_0),
    Case(TRANSFER, b'{"amount":1e400,"asset":"BTC","toUser":"bob","toUserMail":"bob@example.com"}', -2, TOO_LARGE),
    Case(TRANSFER, transfer(asset="GEM", amount="0.001"), -2, TOO_MANY),
    Case(TRANSFER, transfer(toUser="b" * 129), -2, "toUser parameter is longer than 128 characters"),
    Case(TRANSFER, transfer(useNewSymbolNaming=1), -2, "useNewSymbolNaming parameter must be true or false"),
    Case(WITHDRAW, withdraw(includeWithdrawFee="no"), -2, "includeWithdrawFee parameter must be true or false"),
    Case(WITHDRAW, withdraw(amount="x"), -2, NO_NUMBER),
    Case(WITHDRAW_V1, withdraw_v1(amountIncludeFee=0), -2, "amountIncludeFee parameter must be true or false"),
    *each(CONVERSIONS, -2, "an asset is not converted into itself", toAsset="btc"),
    *each(CONVERSIONS, -2, ROUNDS_TO_0, fromAsset="USD", toAsset="BTC", amount="0.00000001"),
    Case(ADDRESS, {"currency": "BTC", "address": OUTSIDE}, -2, "address is unknown", "DELETE"),
    Case(ADDRESS_V1, {"crypto": "BTC", "network": "BITCOIN", "address": "x"}, -2, "address is unknown", "DELETE"),
    Case(ADDRESS, {"currency": "BTC"}, -2, "address parameter is mandatory", "DELETE"),
]

WRONG_NAMES = [
    *each(PAYMENTS, 11, "Invalid currency NOPE", asset="NOPE"),
    *each(PAYMENTS, 11, "Invalid currency OLD", asset="OLD"),
    *each(CONVERSIONS, 11, "Invalid currency GEM", fromAsset="GEM"),
    *each(CONVERSIONS, 11, "Invalid currency old", toAsset="old"),
    *tries(WITHDRAW, withdraw, "currency", ("USD", "USD-Bitcoin"), 11, "Invalid currency USD"),
    Case(WITHDRAW, withdraw(currency="NOPE-BTC"), 11, "Invalid currency NOPE"),
    Case(WITHDRAW_V1, withdraw_v1(crypto="USD"), 11, "Invalid currency USD"),
    Case(ADDRESS, {"currency": "USD"}, 11, "Invalid currency USD"),
    Case(ADDRESS_V1, {"crypto": "OLD", "network": "BITCOIN"}, 11, "Invalid currency OLD"),
    *each(CONVERSIONS, 17, "No rate for BTC to GOLD", toAsset="GOLD"),
    *each(CONVERSIONS, 17, "Rate for EUR to JPY is too old", fromAsset="EUR", toAsset="JPY"),
    *each(CONVERSIONS, 17, "Inventory is short", fromAsset="USD", toAsset="EUR", amount="5000"),
    *tries(TRANSFER, transfer, "toUser", ("nobody", "inactive", mail_of("bob")), 28, NO_RECEIVER),
    *tries(TRANSFER, transfer, "toUserMail", (mail_of("nobody"), mail_of("alice"), "bob"), 28, NO_RECEIVER),
    Case(TRANSFER, transfer(toUser="inactive", toUserMail=mail_of("inactive")), 28, NO_RECEIVER),
    *tries(SEND, send_to, "receiverUsername", ("nobody", "inactive", mail_of("bob")), 28, NO_RECEIVER),
    Case(SEND, send_to(receiverUsername=None, receiverUid="1"), 28, NO_RECEIVER),
    Case(SEND, send_to(receiverUsername=None, receiverUid="x"), 28, NO_RECEIVER),
    Case(TRANSFER, transfer(toUser="alice", toUserMail=mail_of("alice")), 28, "Receiver is the sender"),
    Case(SEND, send_to(receiverUsername="alice"), 28, "Receiver is the sender"),
    *tries(WITHDRAW, withdraw, "currency", ("BTC-ERC20", "BTC-", "BTC-Bitcoin-X"), 3505, "Invalid protocol"),
    Case(WITHDRAW_V1, withdraw_v1(network="NOPE"), 3505, "Invalid protocol"),
    Case(ADDRESS, {"currency": "BTC", "network": "RIPPLE"}, 3505, "Invalid protocol"),
    Case(ADDRESS, {"currency": "BTC", "network": "NOPE"}, 3505, "Invalid protocol", "GET"),
    Case(ADDRESS_V1, {"crypto": "BTC", "network": "ERC20"}, 3505, "Invalid protocol"),
]

WRONG_MOVEMENTS = [
    *tries(WITHDRAW, withdraw, "amount", NO_WITHDRAWALS, 3506, "Invalid withdraw amount"),
    *tries(WITHDRAW_V1, withdraw_v1, "amount", NO_WITHDRAWALS, 3506, "Invalid withdraw amount"),
    Case(WITHDRAW, eth(amount="0.01"), 3506, "Invalid withdraw amount"),
    Case(WITHDRAW, eth(currency="USDT", amount="6"), 3506, "Invalid withdraw amount"),
    Case(WITHDRAW, eth(currency="USDT", amount="20.0000001"), 3506, "Invalid withdraw amount"),
    *tries(WITHDRAW, withdraw, "address", NO_ADDRESSES, 3507, "Invalid withdraw address"),
    *tries(WITHDRAW_V1, withdraw_v1, "address", NO_ADDRESSES, 3507, "Invalid withdraw address"),
    *tries(WITHDRAW, xrp, "tag", NO_TAGS, 3507, "Invalid withdraw address"),
    Case(WITHDRAW, eth(address=EVM.replace("4B", "4b")), 3507, "Invalid withdraw address"),
    Case(WITHDRAW, withdraw(tag="1"), 3507, "Invalid withdraw address"),
    Case(WITHDRAW_V1, withdraw_v1(addressExtension="1"), 3507, "Invalid withdraw address"),
    Case(WITHDRAW, eth(amount="5.1"), 3508, "Withdraw failed: Daily limit exceeded"),
    *each((*PAYMENTS, *CONVERSIONS, *WITHDRAWALS), 51523, TOO_LITTLE, amount="10.00000001"),
    Case(WITHDRAW, withdraw(amount="10", includeWithdrawFee=False), 51523, TOO_LITTLE),
    Case(WITHDRAW_V1, withdraw_v1(amount="10", amountIncludeFee=False), 51523, TOO_LITTLE),
]


@pytest.fixture(scope="module")
def steady(house: House) -> Callable[[], list[Any]]:
    """An inactive user, and a way to see the wallets of all others as well as the books."""
    house.open_user("inactive")
    house.mark("inactive", active=False)
    clients = [house.client(name) for name in ("alice", "bob", "alice-sub1")]
    return lambda: [client.get(V3 + "user/wallet").json() for client in clients]


def ask(client: ApiClient, case: Case) -> httpx.Response:
    """Send a case's request."""
    if case.method == "POST":
        return client.post(case.path, case.body)
    return client.send(case.method, case.path, query=case.body)


def name_of(case: Case) -> str:
    """Return a case's name."""
    return f"{case.code} {case.path.rsplit('/', 2)[-1]} {str(case.body)[:70]}"


@pytest.mark.parametrize("case", [*WRONG_PARAMETERS, *WRONG_NAMES, *WRONG_MOVEMENTS], ids=name_of)
def test_a_refusal_says_why_and_changes_nothing(
    house: House, alice: ApiClient, steady: Callable[[], list[Any]], case: Case
) -> None:
    """What cannot be done is refused with its own status, code and message, and leaves every balance as it was."""
    wallets = steady()
    with unchanged(house):
        check_refusal(ask(alice, case), 400, case.code, f"BADREQUEST: {case.message}")
    assert steady() == wallets


@pytest.mark.parametrize(("path", "body", "name"), MANDATORY)
@pytest.mark.parametrize("absence", ["absent", "null", "empty"])
def test_what_is_mandatory(
    house: House, alice: ApiClient, path: str, body: Callable[..., Any], name: str, absence: str
) -> None:
    """A mandatory parameter that is absent, null or empty is named."""
    asked = body(**{name: None})
    if absence != "absent":
        asked |= {name: None if absence == "null" else ""}
    with unchanged(house):
        reply = alice.post(path, asked)
    check_refusal(reply, 400, -2, f"BADREQUEST: {name} parameter is mandatory")


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"{", "the body is not valid JSON (character 1)"),
        (b"", "amount parameter is mandatory"),
        (b"[]", "the body is not a JSON object"),
        (b"1", "the body is not a JSON object"),
        (b"{}{}", "the body is not valid JSON (character 2)"),
        (b'{"amount":NaN}', "the body has NaN, which is not a JSON number"),
        (b'{"x":-Infinity}', "the body has -Infinity, which is not a JSON number"),
        (b'{"amount":"1","amount":"1"}', "amount parameter is repeated"),
        (b'{"x":{"a":1,"a":2}}', "a parameter is repeated"),
        (b'{"toUser":"a\\u0000b"}', "the body has a NUL character"),
        (b'{"toUser":"\\ud800"}', "the body has half of a surrogate pair"),
        (b'{"toUser":"\xff"}', "the body is not UTF-8"),
        (b"\xef\xbb\xbf{}", "the body starts with a byte order mark"),
        (b'{"x":' + b"[" * 50 + b"]" * 50 + b"}", "the body is nested deeper than 32 levels"),
        (b'{"x":' + b"[" * 30_000, "the body is nested deeper than 32 levels"),
    ],
)
@pytest.mark.parametrize("path", [TRANSFER, CONVERT_V1])
def test_a_body_that_is_no_object(house: House, alice: ApiClient, path: str, raw: bytes, message: str) -> None:
    """A body that is not one JSON object with each name once is refused before its parameters are looked at."""
    with unchanged(house):
        reply = alice.post(path, raw)
    if not raw and path == CONVERT_V1:
        message = "fromAsset parameter is mandatory"
    check_refusal(reply, 400, -2, f"BADREQUEST: {message}")


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("currency=BTC&currency=BTC", "currency parameter is repeated"),
        ("currency=%ff", "the query is not UTF-8"),
        ("currency=%zz", "the query has a malformed percent escape"),
        ("currency=%00", "the query has a NUL character"),
        ("&".join(f"x{n}=1" for n in range(101)), "the query has more than 100 parameters"),
    ],
)
def test_a_query_that_is_none(alice: ApiClient, query: str, message: str) -> None:
    """A known parameter twice and broken escapes are refused."""
    check_refusal(alice.get(V3 + "user/wallet_history", query), 400, -2, f"BADREQUEST: {message}")


def test_unknown_parameters_are_ignored(alice: ApiClient) -> None:
    """What nobody knows is ignored in bodies and queries, also twice."""
    assert alice.get(V3 + "user/wallet_history", "x=1&x=2&count=1").status_code == 200
    assert alice.post(TRANSFER, transfer(amount="0.001", extra=[{"deep": 1}])).status_code == 200


def test_body_and_query_must_not_contradict(alice: ApiClient) -> None:
    """A parameter in body and query with different values is refused; a change by POST reads its body only."""
    path = V3 + "user/wallet_history"
    reply = alice.send("GET", path, {"currency": "BTC", "count": 1}, query={"currency": "ETH"})
    check_refusal(reply, 400, -2, "BADREQUEST: currency parameter differs between the body and the query")
    same = alice.send("GET", path, {"currency": "BTC", "count": 1}, query={"currency": "BTC", "count": "1"})
    assert len(same.json()) == 1
    reply = alice.post(TRANSFER, query=transfer())
    check_refusal(reply, 400, -2, "BADREQUEST: amount parameter is mandatory")
    assert alice.post(TRANSFER, transfer(amount="0.001"), query={"amount": "9"}).json()["amount"] == "0.001"


def test_the_query_and_body_of_a_deletion(alice: ApiClient) -> None:
    """A deletion whose body and query name different addresses deletes neither."""
    path, asked = V1 + "user/crypto/address", {"crypto": "BTC", "network": "BITCOIN"}
    made = alice.post(path, asked).json()["data"]["address"]
    reply = alice.send("DELETE", path, asked | {"address": made}, query=asked | {"address": OUTSIDE})
    check_refusal(reply, 400, -2, "BADREQUEST: address parameter differs between the body and the query")
    assert alice.get(path, asked).json()["data"][0]["address"] == made


def test_an_unused_address_is_told_to_its_owner_only(house: House, alice: ApiClient) -> None:
    """The address in a refusal stands in the reply, and neither in the journal nor in the metrics."""
    body = {"currency": "ETH", "network": "ERC20"}
    [made] = alice.post(ADDRESS, body).json()
    before = house.ask(house.application.store.last)[0]
    check_refusal(alice.post(ADDRESS, body), 400, 3528, f"BADREQUEST: {made['address']}")
    [(_, text, _)] = house.ask(lambda: house.application.store.journal(before + 1, 10))
    address = made["address"].lower()
    assert '"refusal":"address_unused"' in text.decode()
    assert address not in text.decode().lower()
    assert address not in alice.http.get("/metrics").text.lower()


ORDER = [
    (transfer(asset="NOPE", amount="x", toUser="nobody"), TRANSFER, 11),
    (transfer(amount="x", toUser="nobody"), TRANSFER, -2),
    (transfer(amount="99", toUser="nobody"), TRANSFER, 28),
    (withdraw(currency="NOPE-NOPE", amount="x", address="x"), WITHDRAW, 11),
    (withdraw(currency="BTC-NOPE", amount="0", address="x"), WITHDRAW, 3505),
    (withdraw(amount="0", address="x"), WITHDRAW, 3506),
    (eth(amount="6", address="x"), WITHDRAW, 3507),
    (eth(amount="999"), WITHDRAW, 3508),
    (withdraw(amount="999"), WITHDRAW, 51523),
    (withdraw_v1(network="NOPE", amount="0", address="x"), WITHDRAW_V1, 3505),
    (withdraw_v1(amount="0", address="x", webhookUrl="https://x.example"), WITHDRAW_V1, -2),
    (convert(fromAsset="NOPE", toAsset="NOPE", amount="x"), CONVERT, 11),
    (convert(amount="999", toAsset="GOLD"), CONVERT, 17),
]


@pytest.mark.parametrize(("body", "path", "code"), ORDER)
def test_the_first_of_two_reasons(house: House, alice: ApiClient, body: dict[str, Any], path: str, code: int) -> None:
    """Where two refusals apply the contract's order decides."""
    with unchanged(house):
        assert alice.post(path, body).json()["code"] == code


@pytest.mark.parametrize(
    ("path", "name"), [(V3 + "user/wallet_history", "currency"), (V1 + "user/walletHistory", "asset")]
)
def test_a_period_is_judged_before_the_asset(alice: ApiClient, path: str, name: str) -> None:
    """A period that ends before it starts is malformed whatever asset it is asked for, in both dialects."""
    reply = alice.get(path, {name: "NOPE", "startTime": "2", "endTime": "1"})
    check_refusal(reply, 400, -2, "BADREQUEST: startTime must not be later than endTime")


def test_a_suspended_network(house: House, alice: ApiClient) -> None:
    """While a network is suspended for an action, that is refused as an invalid protocol before the amount is read."""
    with house.settings("BTC", withdrawals=False), unchanged(house):
        for path, body in ((WITHDRAW, withdraw(amount="0")), (WITHDRAW_V1, withdraw_v1(address="x"))):
            check_refusal(alice.post(path, body), 400, 3505, "BADREQUEST: Invalid protocol")


def test_a_daily_limit_adds_up(house: House, alice: ApiClient) -> None:
    """What was withdrawn today counts towards the limit, whichever dialect asked for it."""
    assert alice.post(WITHDRAW, eth(amount="3")).status_code == 200
    body = withdraw_v1(crypto="ETH", network="Ethereum", address=EVM)
    with unchanged(house):
        reply = alice.post(WITHDRAW_V1, body | {"amount": "2.1"})
    check_refusal(reply, 400, 3508, "BADREQUEST: Withdraw failed: Daily limit exceeded")
    assert alice.post(WITHDRAW_V1, body | {"amount": "2"}).status_code == 200


def test_the_largest_amount_there_is(house: House, alice: ApiClient) -> None:
    """A balance cannot go beyond the ledger's range."""
    house.open_user("rich")
    house.fund("rich", GOLD="46116860100")
    house.give("alice", GOLD="100")
    body = transfer(asset="GOLD", toUser="rich", toUserMail=mail_of("rich"), amount="99")
    with unchanged(house):
        reply = alice.post(TRANSFER, body)
    check_refusal(reply, 400, -2, "BADREQUEST: amount is beyond the ledger's range")
    assert alice.post(TRANSFER, body | {"amount": "84"}).status_code == 200


def test_the_books_are_whole(house: House) -> None:
    """After all refusals the books agree with themselves."""
    assert house.verify().is_whole
