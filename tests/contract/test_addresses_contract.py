"""Addresses on every store: one owner each, the rules of both dialects, and nothing that names them in the journal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from strongroom.custody.pool import AddressPools, Source
from strongroom.errors import (
    ADDRESS_UNUSED,
    INVALID_CURRENCY,
    INVALID_NETWORK,
    INVALID_NONCE,
    PARAMETER_INVALID,
    UNAVAILABLE,
    Refused,
)
from strongroom.records.addresses import Address, AddressBook
from strongroom.wallet.addresses import (
    MAX_UNPAID,
    AddressRule,
    addresses_of,
    give_address,
    house_address,
    prepare_address,
    prepare_deletion,
)
from strongroom.wallet.context import perform
from support.watching import BRANCHES, RIPPLE, XRP, Watched, watching
from support.world import BITCOIN, BTC, ERC20, ETH, STORES, new_store

NEWEST = AddressRule.NEWEST_UNUSED


@pytest.fixture(params=STORES)
async def house(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Watched]:
    """A house with stocked addresses on each store in turn."""
    async with watching(new_store(request.param, tmp_path), tmp_path / "chains.sqlite") as house:
        yield house


async def delete(house: Watched, owner: int, asset: str, address: str, tag: str | None = None) -> None:
    """Give an address up."""
    guard = house.world.guard(owner)
    outcome = await perform(
        house.context, guard, lambda: prepare_deletion(house.context, guard, asset, None, address, tag)
    )
    if outcome.refusal is not None:
        raise outcome.refusal


async def test_fifty_at_once_get_fifty_different_addresses(house: Watched) -> None:
    """However many ask together, no address has two owners, and none is lost from the pool."""
    users = [await house.world.user(f"user{i}") for i in range(25)]
    given = await asyncio.gather(*(house.address(user, "BTC") for user in users for _ in range(2)))
    assert len({address.address for address in given}) == 50
    owners = {row.address: row.owner for row in house.context.reads.rows(Address, {"network": BITCOIN}, 1000)}
    assert all(owners[address.address] == users[i // 2] for i, address in enumerate(given))


async def test_a_pool_that_ran_dry_fills_up_again(house: Watched) -> None:
    """Who finds no address ready is told to try again, used up nothing, and then gets one."""
    user = await house.world.user("alice")
    while house.pools.take(BITCOIN):
        pass
    guard = house.world.guard(user)
    with pytest.raises(Refused) as refused:
        await give_address(house.context, guard, house.pools, "BTC", None, NEWEST)
    assert refused.value.error is UNAVAILABLE
    assert refused.value.retry_after_s
    await house.pools.ready()
    outcome = await give_address(house.context, guard, house.pools, "BTC", None, NEWEST)
    assert outcome.refusal is None


async def test_the_newest_address_is_paid_before_there_is_another_by_v3s_rule(house: Watched) -> None:
    """The refusal tells the unused address; a deposit, or giving it up, makes way for the next."""
    user = await house.world.user("alice")
    first = await house.address(user, "BTC", rule=NEWEST)
    with pytest.raises(Refused) as refused:
        await house.address(user, "BTC", rule=NEWEST)
    assert refused.value.error is ADDRESS_UNUSED
    assert refused.value.message == f"BADREQUEST: {first.address}"
    await house.pay(BITCOIN, first, 1)
    await house.settled()
    second = await house.address(user, "BTC", rule=NEWEST)
    await delete(house, user, "BTC", second.address)
    third = await house.address(user, "BTC", rule=NEWEST)
    assert len({first.address, second.address, third.address}) == 3


async def test_after_the_newest_was_given_up_the_one_before_counts(house: Watched) -> None:
    """v3's rule looks at the newest that is listed."""
    user = await house.world.user("alice")
    first = await house.address(user, "BTC")
    second = await house.address(user, "BTC")
    await delete(house, user, "BTC", second.address)
    with pytest.raises(Refused) as refused:
        await house.address(user, "BTC", rule=NEWEST)
    assert refused.value.message.endswith(first.address)


async def test_ten_unused_addresses_are_enough_by_wallet_v1s_rule(house: Watched) -> None:
    """The eleventh is refused with the newest, until one is paid."""
    user = await house.world.user("alice")
    given = [await house.address(user, "BTC") for _ in range(10)]
    with pytest.raises(Refused) as refused:
        await house.address(user, "BTC")
    assert refused.value.error is ADDRESS_UNUSED
    assert refused.value.message.endswith(given[-1].address)
    await house.pay(BITCOIN, given[3], 1)
    await house.settled()
    assert await house.address(user, "BTC")


async def test_a_refusal_leaves_the_address_out_of_the_journal(house: Watched) -> None:
    """The journal keeps a refusal's name; the address stands in the reply only."""
    user = await house.world.user("alice")
    first = await house.address(user, "XRP", rule=NEWEST)
    guard = house.world.guard(user)
    outcome = await give_address(house.context, guard, house.pools, "XRP", None, NEWEST)
    assert outcome.refusal is not None
    assert outcome.refusal.message == f"BADREQUEST: {first.address}:{first.tag}"
    [item], [sealed] = house.context.reads.items(outcome.item, 1), house.context.reads.journal(outcome.item, 1)
    assert item.refusal == "address_unused"
    assert first.address.encode() not in sealed.text
    again = await give_address(house.context, guard, house.pools, "XRP", None, NEWEST)
    assert again.refusal is not None
    assert again.refusal.error is INVALID_NONCE


async def test_what_was_taken_in_vain_goes_back_to_the_pool(house: Watched) -> None:
    """Many requests of one user at once: one is served, and the others cost no address."""
    user = await house.world.user("alice")
    await asyncio.gather(*(house.address(user, "BTC", rule=NEWEST) for _ in range(30)), return_exceptions=True)
    [book] = house.context.reads.rows(AddressBook, {}, 10)
    assert len(book.listed) == 1
    await house.pools.ready()
    free = []
    while placed := house.pools.take(BITCOIN):
        free.append(placed.position)
    in_stock = house.context.reads.rows(Address, {"network": BITCOIN, "owner": 0}, 1000)
    assert sorted(free) == sorted(row.position for row in in_stock if not row.given_ms)


async def test_a_repeated_request_answers_the_same_address(house: Watched) -> None:
    """An idempotency key keeps a retry from using up a second address."""
    user = await house.world.user("alice")
    outcomes = [
        await give_address(
            house.context, house.world.guard(user, "key", "print"), house.pools, "BTC", None, AddressRule.TEN_UNUSED
        )
        for _ in range(2)
    ]
    assert outcomes[0].result == outcomes[1].result
    assert outcomes[1].repeated
    assert len(addresses_of(house.context, user, "BTC", None)) == 1


async def test_the_list_shows_the_ten_newest_that_were_not_given_up(house: Watched) -> None:
    """Newest first; a deleted one makes room for an older one, and a paid one stays."""
    user = await house.world.user("alice")
    given = [await house.address(user, "ETH") for _ in range(9)]
    await house.pay(ERC20, given[0], 1)
    await house.settled()
    given += [await house.address(user, "ETH") for _ in range(2)]
    listed = addresses_of(house.context, user, "eth", "Ethereum")
    assert listed == given[:0:-1]
    await delete(house, user, "ETH", given[5].address.lower())
    listed = addresses_of(house.context, user, "ETH", "ERC20")
    assert listed == [address for address in given[::-1] if address != given[5]]
    assert addresses_of(house.context, user, "USDT", None) == []


async def test_an_address_is_given_up_once_and_by_its_owner_only(house: Watched) -> None:
    """Unknown, somebody else's, of another asset, and deleted ones are all the same to who asks."""
    alice, bob = await house.world.user("alice"), await house.world.user("bob")
    mine, other = await house.address(alice, "ETH"), await house.address(bob, "ETH")
    in_pool = house.pools.take(ERC20)
    assert in_pool
    house_own = house_address(house.context.reads, ERC20)
    await delete(house, alice, "ETH", mine.address)
    for asset, address in [
        ("ETH", mine.address),
        ("ETH", other.address),
        ("ETH", in_pool.address),
        ("ETH", house_own.address),
        ("ETH", "0x0000000000000000000000000000000000000001"),
        ("ETH", "nonsense"),
        ("USDT", mine.address),
    ]:
        with pytest.raises(Refused) as refused:
            await delete(house, alice, asset, address)
        assert refused.value.error is PARAMETER_INVALID
        assert refused.value.message == "BADREQUEST: address is unknown"


async def test_a_tag_stands_behind_the_address_or_beside_it(house: Watched) -> None:
    """On a network with tags all share one address, and either spelling names one of them."""
    user = await house.world.user("alice")
    one, two = await house.address(user, "XRP"), await house.address(user, "XRP")
    assert one.address == two.address
    assert one.tag != two.tag
    await delete(house, user, "XRP", one.text)
    await delete(house, user, "XRP", two.address, two.tag)
    assert addresses_of(house.context, user, "XRP", None) == []
    for text in (one.address, f"{one.address}:", f"{one.address}:x", "a:b:c"):
        with pytest.raises(Refused):
            await delete(house, user, "XRP", text)


async def test_unpaid_addresses_are_capped_deleted_ones_included(house: Watched) -> None:
    """Asking and giving up in turn comes to an end."""
    user = await house.world.user("alice")
    for _ in range(MAX_UNPAID):
        await house.pools.ready()
        given = await house.address(user, "XRP", rule=NEWEST)
        await delete(house, user, "XRP", given.text)
    with pytest.raises(Refused) as refused:
        await house.address(user, "XRP", rule=NEWEST)
    assert refused.value.error is PARAMETER_INVALID
    assert len(house.context.reads.row(AddressBook, user, XRP, RIPPLE).unpaid) == MAX_UNPAID


async def test_what_is_not_offered_has_no_addresses(house: Watched) -> None:
    """Fiat, unknown names, another asset's network, and suspended deposits; a list is told all the same."""
    user = await house.world.user("alice")
    given = await house.address(user, "BTC")
    for asset, network, error in [
        ("USD", None, INVALID_CURRENCY),
        ("NOPE", None, INVALID_CURRENCY),
        ("BTC", "ERC20", INVALID_NETWORK),
        ("BTC", "nowhere", INVALID_NETWORK),
    ]:
        with pytest.raises(Refused) as refused:
            await house.address(user, asset, network)
        assert refused.value.error is error
    await house.change_offer(BTC, deposits=False)
    with pytest.raises(Refused) as refused:
        await house.address(user, "BTC")
    assert refused.value.error is INVALID_NETWORK
    assert addresses_of(house.context, user, "BTC", None) == [given]


async def test_a_suspension_meanwhile_is_noticed_by_the_decision(house: Watched) -> None:
    """A command prepared before the operator suspended deposits is refused all the same."""
    user = await house.world.user("alice")
    command = prepare_address(house.context, house.world.guard(user), house.pools, "ETH", None, NEWEST)
    await house.change_offer(ETH, deposits=False)
    outcome = await house.context.submit(command)
    assert outcome.refusal is not None
    assert outcome.refusal.error is INVALID_NETWORK


async def test_the_stock_is_told_to_the_node_and_survives_a_restart(tmp_path: Path) -> None:
    """What was derived before is given out afterwards, no address twice, and the house's own never."""
    given: set[str] = set()
    for _ in range(2):
        async with watching(new_store("sqlite", tmp_path), tmp_path / "chains.sqlite") as house:
            user = await house.world.user(f"user{len(given)}")
            for _ in range(10):
                given.add((await house.address(user, "BTC")).address)
            own = house_address(house.context.reads, BITCOIN)
    assert len(given) == 20
    assert own.address not in given


async def test_no_address_is_given_out_that_the_node_does_not_watch(house: Watched) -> None:
    """While the node is away the pool gives what was told to it before, and no more; afterwards it fills up."""
    house.node.pause("BITCOIN")
    before: set[int] = set()
    while placed := house.pools.take(BITCOIN):
        before.add(placed.position)
    changed = asyncio.Event()
    house.context.reads.subscribe(lambda _: changed.set())
    async with asyncio.timeout(60):
        while max(row.position for row in house.context.reads.rows(Address, {"network": BITCOIN}, 1000)) in before:
            await changed.wait()
            changed.clear()
    assert house.pools.take(BITCOIN) is None
    house.node.resume("BITCOIN")
    await house.pools.ready()
    placed = house.pools.take(BITCOIN)
    assert placed
    assert placed.position not in before


async def test_two_pools_over_the_same_books_never_give_one_address_twice(house: Watched) -> None:
    """Another process has the same free addresses; whoever comes second takes another."""
    sources = {BITCOIN: Source(BRANCHES[BITCOIN], house.node.chain("BITCOIN"))}
    other = AddressPools(house.context, sources)
    running = asyncio.create_task(other.run())
    await other.ready()
    users = [await house.world.user(f"user{i}") for i in range(10)]
    outcomes = await asyncio.gather(
        *(
            give_address(house.context, house.world.guard(user), pool, "BTC", None, AddressRule.TEN_UNUSED)
            for user in users
            for pool in (house.pools, other)
        )
    )
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert [outcome.refusal for outcome in outcomes] == [None] * 20
    assert len({outcome.result for outcome in outcomes}) == 20
