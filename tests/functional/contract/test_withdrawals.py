"""Withdrawals from end to end: held, paid on the chain or inside the house, settled, or released."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from strongroom.engine.command import NOBODY
from strongroom.wallet.addresses import house_address
from strongroom.wallet.approvals import expire_due, prepare_approval, prepare_rejection
from support.client import V1, V3, ApiClient, check_refusal
from support.serving import House, eventually, opened, unchanged
from support.shapes import answered, enveloped

OUTSIDE = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"
EVM = "0xc48fd69d0f4B521B7200345A67641aB4076828f2"
RIPPLE = "rHJhVRJGWGDqVX6cX8Ca1nPZMrkARE2VVx"
WITHDRAW, WITHDRAW_V1 = V3 + "user/wallet/withdraw", V1 + "user/crypto/withdraw"
BAD_ADDRESS = (400, 3507, "BADREQUEST: Invalid withdraw address")


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A house whose hot wallets have coins."""
    with opened(tmp_path_factory.mktemp("withdrawals")) as house:
        for network, asset, amount in (("BITCOIN", "BTC", "50"), ("ERC20", "ETH", "50"), ("RIPPLE", "XRP", "5000")):
            house.fill_hot_wallet(network, asset, amount)
        house.fill_hot_wallet("ERC20", "USDT", "500000")
        yield house


def balance(client: ApiClient, asset: str) -> tuple[Decimal, Decimal]:
    """Return available and total."""
    rows = answered(client.get(V3 + "user/wallet"))
    return next((Decimal(row["available"]), Decimal(row["total"])) for row in rows if row["currency"] == asset)


def row_of(client: ApiClient, asset: str, ref: str) -> dict[str, Any]:
    """Return a row by its reference."""
    rows = enveloped(client.get(V1 + "user/walletHistory", {"asset": asset, "pageSize": 20}))
    return next(row for row in rows if row["transactionRef"] == ref)


def becomes(client: ApiClient, asset: str, ref: str, status: str, confirmations: str = "") -> dict[str, Any]:
    """Return a row once it has a status, and this many confirmations if they are given."""

    def row() -> dict[str, Any] | None:
        found = row_of(client, asset, ref)
        is_so = found["status"] == status and confirmations in {"", found["confirmTimes"]}
        return found if is_so else None

    return eventually(row)


def broadcast(house: House, network: str, address: str) -> None:
    """Wait until a payment to an address waits to be mined."""
    assert house.application.treasury.node
    chain = house.application.treasury.node.chain(network)
    eventually(lambda: address in [output.address for output in house.run(chain.mempool())])


def paid(house: House, network: str, address: str) -> list[tuple[str, int]]:
    """Return what the two newest blocks of a chain pay to an address: tag and chain units."""
    assert house.application.treasury.node
    chain = house.application.treasury.node.chain(network)

    async def outputs() -> list[tuple[str, int]]:
        tip, found = await chain.tip(), []
        for height in (tip.height - 1, tip.height):
            block = await chain.block_at(height)
            assert block
            found += [(o.tag, o.amount) for o in await chain.outputs_in(block.hash) if o.address == address]
        return found

    return house.run(outputs())


@pytest.mark.parametrize(
    ("include", "held", "received"),
    [(None, Decimal("0.5"), 49_950_000), (True, Decimal("0.5"), 49_950_000), (False, Decimal("0.5005"), 50_000_000)],
)
def test_a_withdrawal_from_request_to_settlement(
    house: House, alice: ApiClient, include: bool | None, held: Decimal, received: int
) -> None:
    """Money is held at once, leaves with the last confirmation, and the receiver gets what the fee leaves."""
    available, total = balance(alice, "BTC")
    more = {} if include is None else {"includeWithdrawFee": include}
    ref = answered(alice.post(WITHDRAW, {"currency": "BTC", "address": OUTSIDE, "amount": "0.5"} | more))["withdrawId"]
    assert balance(alice, "BTC") == (available - held, total)
    sent = row_of(alice, "BTC", ref)
    assert (sent["status"], sent["confirmTimes"]) == ("PROCESSING", "(0/2)")
    assert (sent["amount"], Decimal(sent["netAmount"]), sent["fees"]) == ("0.5", -held, "0.0005")
    broadcast(house, "BITCOIN", OUTSIDE)
    waiting = row_of(alice, "BTC", ref)
    assert (len(waiting["txId"]), waiting["confirmTimes"]) == (64, "(0/2)")
    house.mine("BITCOIN")
    mined = becomes(alice, "BTC", ref, "PROCESSING", "(1/2)")
    assert mined["txId"] == waiting["txId"]
    assert balance(alice, "BTC") == (available - held, total)
    house.mine("BITCOIN")
    done = becomes(alice, "BTC", ref, "COMPLETED", "(2/2)")
    assert (done["txId"], done["transactionTime"]) == (mined["txId"], sent["transactionTime"])
    assert balance(alice, "BTC") == (available - held, total - held)
    assert paid(house, "BITCOIN", OUTSIDE) == [("", received)]
    assert house.verify().is_whole


def test_a_withdrawal_with_a_tag(house: House, alice: ApiClient) -> None:
    """A tag goes to the chain, whether it came in its own field or behind the address."""
    bodies = [{"address": RIPPLE, "tag": "77"}, {"address": RIPPLE + ":77"}, {"address": RIPPLE, "tag": 77}]
    for body in bodies:
        asked = {"currency": "XRP-Ripple", "amount": "10"} | body
        ref = answered(alice.post(WITHDRAW, asked))["withdrawId"]
        broadcast(house, "RIPPLE", RIPPLE)
        house.mine("RIPPLE", 2)
        done = becomes(alice, "XRP", ref, "COMPLETED")
        assert done["toAddress"] == RIPPLE + ":77"
        assert paid(house, "RIPPLE", RIPPLE) == [("77", 9_750_000)]


@pytest.mark.parametrize("spelling", [EVM, EVM.lower(), "0x" + EVM[2:].upper()])
def test_spellings_of_an_address(alice: ApiClient, spelling: str) -> None:
    """Lower case, upper case and the checksum's mixed case are one address."""
    body = {"crypto": "ETH", "network": "ERC20", "address": spelling, "amount": "0.1"}
    done = enveloped(alice.post(WITHDRAW_V1, body))
    assert done["address"] == EVM


def test_the_formula_of_the_fee(alice: ApiClient) -> None:
    """The fee is the larger of minimum and rate, and what comes on top, of the amount that was asked for."""
    body = {"crypto": "USDT", "network": "ERC20", "address": EVM}
    for amount, include, fees, received in (
        ("100", True, "6", "94"),
        ("10000", True, "11", "9989"),
        ("10000", False, "11", "10000"),
        ("7000.000001", True, "8.000001", "6992"),
    ):
        done = enveloped(alice.post(WITHDRAW_V1, body | {"amount": amount, "amountIncludeFee": include}))
        assert (done["fees"], done["amountToAddress"]) == (fees, received)


def test_a_withdrawal_that_fails(house: House, alice: ApiClient) -> None:
    """A payment that can never be mined fails, and all of the money comes back."""
    node = house.application.treasury.node
    assert node
    before = balance(alice, "BTC")
    house.ask(lambda: node.fail_next("BITCOIN"))
    ref = answered(alice.post(WITHDRAW, {"currency": "BTC", "address": OUTSIDE, "amount": "0.3"}))["withdrawId"]
    eventually(lambda: not node.chain("BITCOIN").doom_next)
    house.mine("BITCOIN", 3)
    row = becomes(alice, "BTC", ref, "FAILURE")
    assert (row["amount"], row["netAmount"], row["fees"]) == ("0.3", "0", "0")
    assert balance(alice, "BTC") == before


def ask_for_much(alice: ApiClient) -> str:
    """Ask for a withdrawal that needs approval."""
    body = {"currency": "XRP", "address": RIPPLE, "tag": "5", "amount": "600"}
    ref = answered(alice.post(WITHDRAW, body))["withdrawId"]
    assert row_of(alice, "XRP", ref)["status"] == "PENDING"
    return ref


def test_a_withdrawal_that_is_approved(house: House, alice: ApiClient) -> None:
    """A large withdrawal waits for the operator, and goes on when he approves it."""
    available, total = balance(alice, "XRP")
    ref = ask_for_much(alice)
    assert balance(alice, "XRP") == (available - 600, total)
    house.do(lambda: prepare_approval(house.application.context, NOBODY, int(ref)))
    broadcast(house, "RIPPLE", RIPPLE)
    house.mine("RIPPLE")
    becomes(alice, "XRP", ref, "COMPLETED", "(1/1)")
    assert balance(alice, "XRP") == (available - 600, total - 600)


def test_a_withdrawal_that_is_rejected(house: House, alice: ApiClient) -> None:
    """A withdrawal that the operator rejects is cancelled, and the money comes back."""
    before = balance(alice, "XRP")
    ref = ask_for_much(alice)
    house.do(lambda: prepare_rejection(house.application.context, NOBODY, int(ref)))
    assert row_of(alice, "XRP", ref)["status"] == "CANCELLED"
    assert balance(alice, "XRP") == before


def test_a_withdrawal_that_expires(house: House, alice: ApiClient) -> None:
    """A withdrawal that nobody approves in time expires, and the money comes back."""
    before = balance(alice, "XRP")
    ref = ask_for_much(alice)
    with house.snapshot(approval_expires_ms=0):
        assert house.run(expire_due(house.application.context)) == 1
    assert row_of(alice, "XRP", ref)["status"] == "EXPIRED"
    assert balance(alice, "XRP") == before


def given(client: ApiClient, asset: str, network: str) -> dict[str, Any]:
    """Return an address of a user by wallet v1."""
    return enveloped(client.post(V1 + "user/crypto/address", {"crypto": asset, "network": network}))


@pytest.mark.parametrize("shape", ["v3", "v1", "v3 with its tag in the address"])
def test_a_withdrawal_inside_the_house(house: House, alice: ApiClient, bob: ApiClient, shape: str) -> None:
    """To another user's deposit address money moves at once, without the chain, and neither side is named."""
    made, before = given(bob, "XRP", "RIPPLE"), (balance(alice, "XRP"), balance(bob, "XRP"))
    address, tag = made["address"], made["addressExtension"]
    with_tag = {"v3": (address, tag), "v3 with its tag in the address": (f"{address}:{tag}", "")}.get(shape)
    if with_tag:
        body = {"currency": "XRP", "address": with_tag[0], "tag": with_tag[1], "amount": "20"}
        ref = answered(alice.post(WITHDRAW, body))["withdrawId"]
    else:
        body = {"crypto": "XRP", "network": "RIPPLE", "address": address, "addressExtension": tag, "amount": "20"}
        ref = enveloped(alice.post(WITHDRAW_V1, body))["transactionRef"]
    out, into = (enveloped(c.get(V1 + "user/walletHistory", {"asset": "XRP"}))[0] for c in (alice, bob))
    assert (out["transactionRef"], out["type"], out["netAmount"], out["fees"]) == (ref, "WITHDRAW", "-20", "0.25")
    assert (into["type"], into["amount"], into["netAmount"], into["fees"]) == ("DEPOSIT", "19.75", "19.75", "0")
    for row in (out, into):
        assert (row["status"], row["description"], row["txId"]) == ("COMPLETED", "internal", "")
        assert "alice" not in str(row)
        assert "bob" not in str(row)
    v3 = answered(bob.get(V3 + "user/wallet_history", {"count": 1}))[0]
    assert (v3["type"], v3["description"], v3["status"]) == ("Deposit", "internal", "COMPLETED")
    assert balance(alice, "XRP") == (before[0][0] - 20, before[0][1] - 20)
    assert balance(bob, "XRP")[0] == before[1][0] + Decimal("19.75")


def test_inside_the_house_without_the_deposits_terms(house: House, alice: ApiClient, bob: ApiClient) -> None:
    """The withdrawal's fee applies inside the house, the deposit's fee does not."""
    made = given(bob, "USDT", "ERC20")
    body = {"crypto": "USDT", "network": "ERC20", "address": made["address"].lower(), "amount": "10"}
    done = enveloped(alice.post(WITHDRAW_V1, body | {"amountIncludeFee": False}))
    assert (done["fees"], done["amountToAddress"], done["address"]) == ("6", "10", made["address"])
    row = enveloped(bob.get(V1 + "user/walletHistory", {"asset": "USDT"}))[0]
    assert (row["netAmount"], row["fees"], row["toAddress"]) == ("10", "0", made["address"])


def test_a_large_payment_inside_the_house_waits_too(house: House, alice: ApiClient, bob: ApiClient) -> None:
    """A withdrawal inside the house that needs approval is held, and handed over when it is approved."""
    made, before = given(bob, "XRP", "RIPPLE"), (balance(alice, "XRP"), balance(bob, "XRP"))
    body = {"crypto": "XRP", "network": "RIPPLE", "address": made["address"], "amount": "600"}
    body["addressExtension"] = made["addressExtension"]
    ref = enveloped(alice.post(WITHDRAW_V1, body))["transactionRef"]
    assert row_of(alice, "XRP", ref)["status"] == "PENDING"
    assert balance(alice, "XRP") == (before[0][0] - 600, before[0][1])
    assert balance(bob, "XRP") == before[1]
    house.do(lambda: prepare_approval(house.application.context, NOBODY, int(ref)))
    row = row_of(alice, "XRP", ref)
    assert (row["status"], row["description"], row["txId"]) == ("COMPLETED", "internal", "")
    assert balance(alice, "XRP") == (before[0][0] - 600, before[0][1] - 600)
    assert balance(bob, "XRP")[1] == before[1][1] + Decimal("599.75")


def test_a_withdrawal_to_ones_own_address(alice: ApiClient) -> None:
    """Who withdraws to an address of their own pays the fee and has the rest again."""
    made, (available, total) = given(alice, "BTC", "BITCOIN"), balance(alice, "BTC")
    asked = {"currency": "BTC", "address": made["address"].upper(), "amount": "0.1"}
    assert alice.post(WITHDRAW, asked).status_code == 200
    fee = Decimal("0.0005")
    assert balance(alice, "BTC") == (available - fee, total - fee)
    rows = enveloped(alice.get(V1 + "user/walletHistory", {"asset": "BTC", "pageSize": 2}))
    assert {row["type"] for row in rows} == {"WITHDRAW", "DEPOSIT"}


def test_an_internal_payment_uses_the_address(alice: ApiClient, house: House) -> None:
    """An address that was paid inside the house is used: v3 gives its owner another one."""
    house.open_user("paid")
    client, path = house.client("paid"), V3 + "user/wallet/address"
    [first] = answered(client.post(path, {"currency": "BTC"}))
    assert client.post(path, {"currency": "BTC"}).status_code == 400
    assert alice.post(WITHDRAW, {"currency": "BTC", "address": first["address"], "amount": "0.01"}).status_code == 200
    assert client.post(path, {"currency": "BTC"}).status_code == 200


def test_addresses_of_the_house_and_unknown_tags(house: House, alice: ApiClient, bob: ApiClient) -> None:
    """Nobody can withdraw to the house's own addresses, to ones not given out, or to a tag that is nobody's."""
    reads, made = house.application.store, given(bob, "XRP", "RIPPLE")
    own = house.ask(lambda: (house_address(reads, 1), house_address(reads, 3)))
    assert own[1].address == made["address"]
    free = house.ask(lambda: house.application.treasury.pools._free[1].addresses[0])
    with unchanged(house):
        for address in (own[0].address, free.address):
            check_refusal(alice.post(WITHDRAW, {"currency": "BTC", "address": address, "amount": "1"}), *BAD_ADDRESS)
        for tag in (own[1].tag, "4000000000"):
            body = {"currency": "XRP", "address": made["address"], "tag": tag, "amount": "20"}
            check_refusal(alice.post(WITHDRAW, body), *BAD_ADDRESS)


def test_a_withdrawal_survives_a_restart(house: House, alice: ApiClient) -> None:
    """A withdrawal that was under way when the server stopped is paid once and settled after it starts again."""
    ref = answered(alice.post(WITHDRAW, {"currency": "BTC", "address": OUTSIDE, "amount": "0.7"}))["withdrawId"]
    broadcast(house, "BITCOIN", OUTSIDE)
    house.restart()
    again = house.client(credentials=alice.credentials)
    house.mine("BITCOIN", 2)
    becomes(again, "BTC", ref, "COMPLETED", "(2/2)")
    assert paid(house, "BITCOIN", OUTSIDE).count(("", 69_950_000)) == 1
    assert house.verify().is_whole
