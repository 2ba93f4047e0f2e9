"""A node that fails: what is told, what stops, what goes on meanwhile, and that nothing is lost when it is back."""

from __future__ import annotations

import random
from decimal import Decimal
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from strongroom.chains import real_chains
from strongroom.config.settings import Config, ConfigError, Node
from support.coin_house import V3, coin_house, coin_settings
from support.fault_proxy import FaultProxy, Mode
from support.faulty import SUSPEND_AFTER_S, TERMS, FaultyHouse, faulty_house, fund, refuses_addresses
from support.nodes import Bitcoind, Litecoind
from support.server import transfer_to

STRANGER = Bitcoind.nobody
EVENTS = ("network_stale", "deposits_suspended", "network_followed_again")


@pytest.mark.parametrize("fault", [Mode.REFUSE, Mode.STALL], ids=["down", "silent"])
async def test_a_node_that_is_away_stops_deposits_and_nothing_else(
    tmp_path: Path, bitcoind: Bitcoind, fault: Mode
) -> None:
    """Its network is stale, then takes no deposits; customers go on, withdrawals wait, and all is made up for later."""
    async with faulty_house(tmp_path, bitcoind) as house:
        address = await fund(house)
        # A busy machine may take the first blocks for an outage: what is told counts from where none is.
        await house.until_told("stale", False)
        with capture_logs() as logged:
            await _go_through_an_outage(house, bitcoind, fault, address)
        ours = [line["event"] for line in logged if line["event"] in EVENTS]
        assert ours == list(EVENTS)


async def _go_through_an_outage(house: FaultyHouse, bitcoind: Bitcoind, fault: Mode, address: str) -> None:
    alice, bob = house.alice, await house.customer("bob")
    assert (await house.offer(), await house.actions()) == ((True, True), (True, ["BITCOIN"]))
    assert await house.metric("strongroom_network_stale") == 0
    house.line.mode = fault
    await house.until_told("stale", True)
    await house.until_told("deposits_suspended", True)
    assert "the node " in (await house.network())["watcher"]
    assert (await house.offer(), await house.actions()) == ((False, True), (False, []))
    for name in ("strongroom_network_stale", "strongroom_deposits_suspended"):
        assert await house.metric(name) == 1
    assert await house.metric("strongroom_network_age_seconds") >= SUSPEND_AFTER_S
    for member in (alice, bob):
        await refuses_addresses(house, member)
    path = f"{V3}wallet/address"
    listed = await house.house.client.get(path, params={"currency": "BTC"}, headers=alice.headers(path))
    assert [row["address"] for row in listed.json()] == [address]
    sent = await house.house.post(alice, f"{V3}wallet/transfer", transfer_to(bob, "0.25"))
    assert sent.status_code == 200
    await house.withdraw(alice, STRANGER, "0.5")
    assert await house.balance(alice) == (Decimal("0.75"), Decimal("0.25"))
    await bitcoind.pay(address, "0.125")
    _ = await bitcoind.mine(2)
    house.line.mode = Mode.PASS
    await house.until_told("stale", False)
    await house.until_told("deposits_suspended", False)
    assert (await house.offer(), await house.actions()) == ((True, True), (True, ["BITCOIN"]))
    assert await house.address(bob)
    await house.mine_until_status(alice, "COMPLETED", "COMPLETED", "COMPLETED", "COMPLETED")
    assert await bitcoind.paid_to(STRANGER) == Decimal("0.5")
    assert await house.balance(alice) == (Decimal("0.375"), Decimal("0.375"))
    assert (await house.reconciled()).differences == ()
    house.check_books()


async def test_an_outage_that_is_short_suspends_nothing(tmp_path: Path, bitcoind: Bitcoind) -> None:
    """A network that is stale is told as such, and takes deposits until it has been stale for too long."""
    async with faulty_house(tmp_path, bitcoind, suspend_deposits_after_s=600) as house:
        house.line.mode = Mode.REFUSE
        await house.until_told("stale", True)
        assert (await house.network())["deposits_suspended"] is False
        assert await house.offer() == (True, True)
        assert await house.address(house.alice)


async def test_a_server_that_starts_without_its_node_offers_no_deposits_at_first(
    tmp_path: Path, bitcoind: Bitcoind
) -> None:
    """Nobody can say for how long the node has been away: an old network is suspended until it is followed again."""
    async with faulty_house(tmp_path, bitcoind) as house:
        alice = house.alice
    await bitcoind.stop()
    async with FaultProxy(bitcoind.port) as line:
        config = coin_settings(tmp_path, bitcoind, "bitcoin-regtest", url=bitcoind.url_at(line.port), **TERMS)
        async with coin_house(config, bitcoind) as opened:
            house = FaultyHouse(opened.house, bitcoind)
            await house.until_told("deposits_suspended", True)
            await refuses_addresses(house, alice)
            await bitcoind.start()
            await house.until_told("deposits_suspended", False)
            assert await house.address(alice)


async def test_a_node_of_another_network_is_noticed_while_the_server_runs(tmp_path: Path, bitcoind: Bitcoind) -> None:
    """A Litecoin node at the Bitcoin node's address is not followed: nothing is booked, taken back or paid by it."""
    async with faulty_house(tmp_path, bitcoind) as house, Litecoind(tmp_path / "other") as other:
        _ = await fund(house)
        await other.copy_login(bitcoind)
        _ = await other.mine(3)
        house.line.turn_to(other.port)
        await house.until_told("watcher", "the node follows another chain (regtest) than bitcoin-regtest")
        await house.until_told("stale", True)
        await house.withdraw(house.alice, STRANGER, "0.5")
        assert await house.balance(house.alice) == (Decimal(1), Decimal("0.5"))
        house.line.turn_to(bitcoind.port)
        await house.mine_until_status(house.alice, "COMPLETED", "COMPLETED")
        assert await bitcoind.paid_to(STRANGER) == Decimal("0.5")
        house.check_books()


async def test_a_node_that_is_behind_takes_nothing_back(tmp_path: Path, bitcoind: Bitcoind) -> None:
    """A replacement that lacks the newest blocks is no reorganisation: what was credited stays."""
    async with Bitcoind(tmp_path / "other") as other:
        await other.copy_login(bitcoind)
        await bitcoind.connect(other)
        await bitcoind.agree(other)
        await bitcoind.disconnect(other)
        async with faulty_house(tmp_path, bitcoind) as house:
            _ = await fund(house)
            height = await bitcoind.height()
            house.line.turn_to(other.port)
            told = f"the node's newest block is {await other.height()}, the books have worked through {height}"
            await house.until_told("watcher", told)
            await house.until_told("stale", True)
            assert await house.balance(house.alice) == (Decimal(1), Decimal(1))
            await other.connect(bitcoind)
            await bitcoind.agree(other)
            await house.until_told("stale", False)
            assert await house.statuses(house.alice) == ["COMPLETED"]
            house.check_books()


async def test_a_node_that_says_it_is_behind_is_not_followed(tmp_path: Path, bitcoind: Bitcoind) -> None:
    """A node that knows of many more blocks than it has cannot tell what is deep enough: its network is stale."""
    async with Bitcoind(tmp_path / "other") as other, faulty_house(tmp_path, bitcoind) as house:
        await house.until_told("watcher", "")
        await other.connect(bitcoind)
        await bitcoind.agree(other)
        await bitcoind.disconnect(other)
        for block in await other.mine(10):
            await bitcoind.rpc("submitheader", await other.rpc("getblockheader", block, False))
        height = await bitcoind.height()
        await house.until_told("watcher", f"the node is behind: it has {height} blocks of {height + 10}")
        await house.until_told("stale", True)
        await other.connect(bitcoind)
        await bitcoind.agree(other)
        await house.until_told("stale", False)
        assert (await house.network())["height"] == height + 10


async def test_a_pruned_node_is_refused_with_its_reason(tmp_path: Path) -> None:
    """The operator reads that the node is pruned, and deposits are not offered."""
    async with Bitcoind(tmp_path / "node", "-txindex=0", "-prune=1") as node:
        _ = await node.mine(1)
        async with faulty_house(tmp_path, node) as house:
            pruned = "the node is pruned: it throws blocks away, and can have no index of transactions"
            await house.until_told("watcher", pruned)
            await house.until_told("deposits_suspended", True)
            await refuses_addresses(house, house.alice)


async def test_a_payment_whose_answer_never_came_is_paid_once(tmp_path: Path, bitcoind: Bitcoind) -> None:
    """The node took it and the time ran out: it is offered again, the same one, until the node says that it has it."""
    async with faulty_house(tmp_path, bitcoind) as house:
        _ = await fund(house)
        house.line.about, house.line.mode = b'"sendrawtransaction"', Mode.SWALLOW
        await house.withdraw(house.alice, STRANGER, "0.5")
        _ = await house.line.swallowed.wait()
        await house.until_told("sender", "the node has not answered in 0.5 s")
        [waiting] = await bitcoind.rpc("getrawmempool")
        house.line.mode = Mode.PASS
        await house.until_told("sender", "")
        assert await bitcoind.rpc("getrawmempool") == [waiting]
        await house.mine_until_status(house.alice, "COMPLETED", "COMPLETED")
        assert await bitcoind.paid_to(STRANGER) == Decimal("0.5")
        assert (await house.history(house.alice))[0]["txId"] == waiting
        assert (await house.reconciled()).differences == ()
        house.check_books()


async def test_a_slow_node_is_waited_for(tmp_path: Path, bitcoind: Bitcoind) -> None:
    """Answers that come in small pieces arrive: deposits and withdrawals only take longer."""
    async with faulty_house(tmp_path, bitcoind, answer_within_s=20) as house:
        _ = await fund(house)
        house.line.delay_s, house.line.slow_bytes, house.line.mode = 0.005, 1_024, Mode.SLOW
        await house.withdraw(house.alice, STRANGER, "0.5")
        await house.mine_until_status(house.alice, "COMPLETED", "COMPLETED")
        assert await bitcoind.paid_to(STRANGER) == Decimal("0.5")
        house.check_books()


async def test_errors_in_the_middle_of_anything_harm_nothing(tmp_path: Path, bitcoind: Bitcoind) -> None:
    """A line that breaks at random, for many rounds of deposits and withdrawals, loses, doubles and forgets nothing."""
    chance = random.Random(11)
    faults = [Mode.PASS, Mode.REFUSE, Mode.CUT_ANSWER, Mode.CUT_ANSWER]
    async with faulty_house(tmp_path, bitcoind) as house:
        address = await fund(house)
        for _ in range(20):
            house.line.mode, house.line.answer_bytes = chance.choice(faults), chance.choice([0, 50, 150, 1_000])
            await bitcoind.pay(address, "0.01")
            await house.withdraw(house.alice, STRANGER, "0.02")
            _ = await bitcoind.mine(1)
        house.line.mode = Mode.PASS
        await house.mine_until_status(house.alice, *["COMPLETED"] * 41)
        assert await bitcoind.paid_to(STRANGER) == Decimal("0.4")
        assert await house.balance(house.alice) == (Decimal("0.8"), Decimal("0.8"))
        assert (await house.reconciled()).differences == ()
        house.check_books()


def test_limits_that_contradict_each_other_are_refused() -> None:
    """A network whose deposits would be suspended before it is stale does not start."""
    node = Node(url="http://127.0.0.1:1", chain="bitcoin-regtest", stale_after_s=60, suspend_deposits_after_s=59)
    with pytest.raises(ConfigError, match=r"'nodes\.BITCOIN\.suspend_deposits_after_s' is below its stale_after_s"):
        _ = real_chains(Config(nodes={"BITCOIN": node}))
