"""What arrives in odd ways is found all the same: many at once, twice, far ahead, too little, or for nobody."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import cast

import msgspec
import pytest
from structlog.testing import capture_logs

from strongroom.admin import protocol
from strongroom.admin.commands import carry_out
from strongroom.config.settings import Config
from strongroom.custody.networks import utxo
from strongroom.engine.command import Guard
from strongroom.ledger.accounts import Purpose
from strongroom.ledger.accounts import house as account_of
from strongroom.records.addresses import Address, Branch, Placed
from strongroom.records.heads import Head
from strongroom.store.sqlite.store import SqliteStore
from strongroom.wallet.addresses import AddressRule, GivenAddress, give_address, prepare_stock
from strongroom.wallet.context import perform_own
from support.coin_house import ASSET, NETWORK, V3, CoinHouse, coin_house, coin_settings
from support.nodes import Bitcoind
from support.server import Member

FAR = 10_000
MANY, EACH = 2_000, 10
STOCKED_AT_ONCE = 1_000


@pytest.fixture
async def house(tmp_path: Path, bitcoind: Bitcoind) -> AsyncIterator[CoinHouse]:
    """A server on it, which credits nothing below a thousandth."""
    async with coin_house(small_settings(tmp_path, bitcoind), bitcoind) as house:
        yield house


def small_settings(folder: Path, node: Bitcoind) -> Config:
    """Return the settings of a house with a least deposit."""
    config = coin_settings(folder, node, "bitcoin-regtest")
    offer = msgspec.structs.replace(config.offers["BTC"]["BITCOIN"], deposit_minimum="0.001")
    return msgspec.structs.replace(config, offers={"BTC": {"BITCOIN": offer}})


async def stock(house: CoinHouse, until: int) -> None:
    """Derive addresses up to a position, as the pool does when it runs low."""
    context, treasury = house.house.application.context, house.house.application.treasury
    source = treasury._sources[NETWORK]
    while (first := house.store.row(Branch, NETWORK, 0).derived) <= until:
        derived = source.branch.addresses(first, STOCKED_AT_ONCE)
        _ = await perform_own(context, lambda first=first, derived=derived: prepare_stock(NETWORK, first, derived))


class OnePlace:
    """A pool that has one address only."""

    def __init__(self, placed: Placed) -> None:
        self._placed = placed

    def take(self, network: int) -> Placed:
        """Return the address."""
        return self._placed

    def put_back(self, placed: Placed) -> None:
        """Do nothing."""


async def give(house: CoinHouse, member: Member, position: int) -> str:
    """Give a customer the address of a position."""
    application = house.house.application
    pool = OnePlace(house.store.row(Placed, NETWORK, position))
    guard = Guard(member.uid)
    outcome = await give_address(application.context, guard, pool, "BTC", None, AddressRule.TEN_UNUSED)
    return msgspec.json.decode(outcome.result, type=GivenAddress).address


async def test_an_output_far_ahead_is_credited(house: CoinHouse) -> None:
    """Whatever was derived and given out is found, ten thousand positions on as well as the first."""
    alice = await house.customer("alice")
    await stock(house, FAR)
    address = await give(house, alice, FAR)
    assert house.store.row(Placed, NETWORK, FAR).address == address
    await house.node.pay(address, "0.5")
    await house.mine_until_status(alice, "COMPLETED")
    assert await house.balance(alice) == (Decimal("0.5"), Decimal("0.5"))
    house.check_books()


async def test_thousands_of_outputs_of_one_transaction_are_credited(house: CoinHouse) -> None:
    """A payout of somebody else's to two thousand of our addresses is credited to the last unit."""
    members = await asyncio.gather(*(house.customer(f"customer{nth}") for nth in range(MANY // EACH)))
    await stock(house, MANY)
    places = {nth + 1: members[nth // EACH] for nth in range(MANY)}
    addresses = await asyncio.gather(*(give(house, member, position) for position, member in places.items()))
    _ = await house.node.stranger("sendmany", "", dict.fromkeys(addresses, Decimal("0.00123457")))
    _ = await house.node.mine(2)
    await house.worked_through()
    for member in members:
        assert (await house.balance(member))[0] == EACH * Decimal("0.00123457")
    house.check_books()


async def test_two_outputs_to_one_address_are_two_deposits(house: CoinHouse) -> None:
    """A transaction that pays the same address twice is credited twice."""
    alice = await house.customer("alice")
    address = await house.address(alice)
    [coin, *_] = await house.node.stranger("listunspent")
    spent, outputs = [{"txid": coin["txid"], "vout": coin["vout"]}], [{address: "0.25"}, {address: "0.5"}]
    # A node makes no such transaction by itself: the second output is put in by hand.
    first = await house.node.rpc("createrawtransaction", spent, outputs[:1])
    second = await house.node.rpc("createrawtransaction", spent, outputs[1:])
    change = await house.node.rpc(
        "createrawtransaction", spent, [{await house.node.stranger("getnewaddress"): coin["amount"] - Decimal("0.751")}]
    )
    raw = _with_outputs(first, [_output_of(first), _output_of(second), _output_of(change)])
    signed = await house.node.stranger("signrawtransactionwithwallet", raw)
    _ = await house.node.rpc("sendrawtransaction", signed["hex"])
    await house.mine_until_status(alice, "COMPLETED", "COMPLETED")
    assert await house.balance(alice) == (Decimal("0.75"), Decimal("0.75"))
    house.check_books()


def _output_of(raw: str) -> str:
    """Return the only output of an unsigned transaction of one input."""
    return raw[_BEFORE_OUTPUTS + 2 : -8]


def _with_outputs(raw: str, outputs: list[str]) -> str:
    """Return an unsigned transaction of one input with other outputs."""
    return f"{raw[:_BEFORE_OUTPUTS]}{len(outputs):02x}{''.join(outputs)}{raw[-8:]}"


_BEFORE_OUTPUTS = 2 * (4 + 1 + 36 + 1 + 4)


async def test_a_deleted_address_still_credits_its_owner(house: CoinHouse) -> None:
    """Whoever gave an address up has what is paid to it later."""
    alice = await house.customer("alice")
    address = await house.address(alice)
    path = f"{V3}wallet/address"
    answer = await house.house.client.request(
        "DELETE", path, params={"currency": "BTC", "address": address}, headers=alice.headers(path)
    )
    assert answer.status_code == 200, answer.text
    await house.node.pay(address, "0.5")
    await house.mine_until_status(alice, "COMPLETED")
    assert await house.balance(alice) == (Decimal("0.5"), Decimal("0.5"))


async def test_less_than_the_minimum_is_kept_for_the_operator(house: CoinHouse) -> None:
    """The customer sees it fail, the house holds it in suspense, and the operator can list it."""
    alice = await house.customer("alice")
    await house.node.pay(await house.address(alice), "0.0005")
    await house.mine_until_status(alice, "FAILURE")
    assert await house.balance(alice) == (0, 0)
    suspense = house.store.row(Head, account_of(Purpose.SUSPENSE, ASSET).pack()).after
    [listed] = await carry_out(house.house.application, protocol.ListDeposits("too_small"))
    assert (suspense, listed.user, listed.amount, listed.net) == (50_000, "alice", "0.0005", "0")
    house.check_books()


async def test_an_address_that_nobody_has_is_reported(house: CoinHouse) -> None:
    """What reaches an address of the stock is nobody's: told in the log and by a metric, and booked for nobody."""
    await house.worked_through()
    placed = house.store.row(Placed, NETWORK, 40)
    with capture_logs() as logged:
        txid = await house.node.pay(placed.address, "0.5")
        _ = await house.node.mine(1)
        await house.worked_through()
    told = [(line["txid"], line["reason"]) for line in logged if line["event"] == "output_not_booked"]
    assert told == [(txid, "the address is given to nobody")]
    metrics = (await house.house.client.get("/metrics")).text
    assert 'strongroom_unbooked_outputs{network="BITCOIN"} 1.0' in metrics


async def test_what_came_while_node_and_server_were_down_is_found(tmp_path: Path, bitcoind: Bitcoind) -> None:
    """The node was behind, then the server was: both catch up, and the deposit is credited once."""
    config = small_settings(tmp_path, bitcoind)
    async with Bitcoind(tmp_path / "other") as other:
        await bitcoind.connect(other)
        await bitcoind.agree(other)
        async with coin_house(config, bitcoind) as first:
            alice = await first.customer("alice")
            address = await first.address(alice)
            txid = await bitcoind.pay(address, "0.5")
            await first.until_status(alice, "PROCESSING")
            raw = await bitcoind.rpc("getrawtransaction", txid)
            await bitcoind.stop()
        miner = await other.stranger("getnewaddress")
        _ = await other.rpc("generateblock", miner, [raw])
        _ = await other.mine(3)
        await bitcoind.start()
        async with coin_house(config, bitcoind) as second:
            await bitcoind.connect(other)
            await bitcoind.agree(other)
            await second.until_status(alice, "COMPLETED")
            assert await second.balance(alice) == (Decimal("0.5"), Decimal("0.5"))
            second.check_books()


async def test_strangers_addresses_take_no_room_in_memory(house: CoinHouse) -> None:
    """Every output of a block is looked up, and what is nobody's here is not remembered."""
    away = [await house.node.stranger("getnewaddress") for _ in range(50)]
    _ = await house.node.stranger("sendmany", "", dict.fromkeys(away, Decimal("0.001")))
    _ = await house.node.mine(1)
    await house.worked_through()
    remembered = cast(SqliteStore, house.store)._cache.by_kind[Address].values()
    assert remembered
    assert all(isinstance(row, Address) and row.ours for row in remembered)


async def test_requests_are_answered_while_a_block_is_read(house: CoinHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """A block is read in turns, so that whoever waits for the server gets a turn as well."""
    monkeypatch.setattr(utxo, "TURN_S", 0)
    for _ in range(20):
        _ = await house.node.pay(await house.node.stranger("getnewaddress"), "0.001")
    [block] = await house.node.mine(1)
    await house.worked_through()
    chain = house.house.application.treasury.watchers["BITCOIN"]._chain
    turns = 0

    async def take_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    others = asyncio.create_task(take_turns())
    raw = await chain._node.call_raw("getblock", block, 2)  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setattr(chain, "_node", Told(raw))
    monkeypatch.setattr(chain, "_newest_read", ("", []))
    await asyncio.sleep(0)
    before = turns
    assert len({output.txid for output in await chain.outputs_in(block)}) == 21
    _ = others.cancel()
    assert turns - before >= 20


class Told:
    """A node that has answered already."""

    def __init__(self, answer: msgspec.Raw) -> None:
        self._answer = answer

    async def call_raw(self, *_: object) -> msgspec.Raw:
        """Return the answer."""
        return self._answer
