"""The ledger under any sequence of deeds: money is neither made nor lost, and every store keeps the same books."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strongroom.engine.settle import Outcome
from strongroom.records.deposits import DepositState
from strongroom.records.history import LineType, Thread
from strongroom.records.withdrawals import PaymentState, WithdrawalState
from strongroom.wallet.verification import verify
from support.deeds import COIN, Deed
from support.ledger_machine import EACH_KIND, Ledger, LedgerOnDisk, at_once, leaves_all_as_it_was, run_ledger
from support.postgres import leave_databases
from support.whole_ledger import Auditor, WholeHouse, digest, states_of
from support.world import BITCOIN, BTC, ERC20, EVERY_STORE, USDT, World, new_store, opened

EXAMPLES: Final = settings().max_examples


def test_money_is_neither_made_nor_lost_whatever_happens() -> None:
    """After every deed the six invariants hold in memory, and in the end the books verify."""
    run_ledger(Ledger, EXAMPLES * 2 // 5)


def test_money_is_neither_made_nor_lost_on_disk() -> None:
    """After every deed the six invariants hold in a file, and what is refused leaves every row of it as it was."""
    run_ledger(LedgerOnDisk, EXAMPLES // 8)


def told(outcome: Outcome) -> tuple[Any, ...]:
    """Return all that a client could tell of an outcome."""
    refusal = outcome.refusal
    return outcome.at_ms, outcome.result, refusal and (refusal.error.name, refusal.message), outcome.item


async def live(kind: str, folder: Path, steps: list[list[Deed]]) -> tuple[Any, ...]:
    """Do steps, each of them one batch, in a new house, and return everything that can be compared."""
    async with opened(new_store(kind, folder)) as world:
        house = WholeHouse(world)
        await house.furnish()
        outcomes = [told(outcome) for step in steps for outcome in await house.do_together(step)]
        store = world.store
        threads = [store.row(Thread, uid, 0, 0) for uid in house.uids.values()]
        items = [sealed.text for sealed in store.journal(1, 10**6)]
        assert verify(store).findings == []
        return outcomes, sorted(store.balances()), threads, items


@settings(max_examples=EXAMPLES // 8)
@given(st.lists(st.lists(at_once, min_size=1, max_size=5), max_size=12))
def test_every_store_keeps_the_same_books(steps: list[list[Deed]]) -> None:
    """The same deeds have the same outcomes, balances, histories and journal in memory and in a file."""
    with tempfile.TemporaryDirectory() as folder:
        in_memory = asyncio.run(live("memory", Path(folder), steps))
        in_a_file = asyncio.run(live("sqlite", Path(folder), steps))
    assert in_memory == in_a_file


@settings(max_examples=EXAMPLES // 16)
@given(st.lists(st.lists(at_once, min_size=1, max_size=5), max_size=12))
def test_postgresql_keeps_the_same_books(steps: list[list[Deed]]) -> None:
    """The same deeds have the same outcomes, balances, histories and journal in memory and in PostgreSQL."""
    in_memory = asyncio.run(live("memory", Path(), steps))
    in_a_database = asyncio.run(live("postgres", Path("the same for every example"), steps))
    leave_databases()
    assert in_memory == in_a_database


async def test_the_deeds_are_of_every_kind() -> None:
    """The strategies reach what they are meant for: each kind of deed succeeds, and leads to nearly every state."""
    async with opened(new_store("memory", Path())) as world:
        house, auditor, seen = WholeHouse(world), Auditor(world), set[str]()
        await house.furnish()
        for deed in EACH_KIND:
            outcome = await house.do(deed)
            assert (deed, outcome.refusal, outcome.stale) == (deed, None, False)
            assert auditor.audit() == set()
            seen |= states_of(world)
        assert (await house.do(("again",))).repeated
        seen |= await after_expiry(house)
    states = {state.name for state in WithdrawalState} | {f"payment {state.name}" for state in PaymentState}
    never = {"deposit WITHHELD"}
    assert seen == states | {f"deposit {state.name}" for state in DepositState} - never


async def after_expiry(house: WholeHouse) -> set[str]:
    """Let a withdrawal wait for too long, and return the states that there are then."""
    await house.do(("book", "bob", BTC, LineType.DEPOSIT, 3 * COIN))
    await house.do(("book", "bob", USDT, LineType.DEPOSIT, COIN))
    asked = await house.do(("pay_out", "bob", BITCOIN, "1", True, 0))
    assert asked.refusal is None
    await house.do(("expire",))
    return states_of(house.world)


@pytest.mark.parametrize("kind", EVERY_STORE)
async def test_what_is_refused_among_others_leaves_nothing_of_itself(kind: str, tmp_path: Path) -> None:
    """A batch with a hundred refusals in it books the same entries as the batch without them."""
    ends: list[tuple[Any, ...]] = []
    for refused in (False, True):
        folder = tmp_path / str(refused)
        async with opened(new_store(kind, folder)) as world:
            house = WholeHouse(world)
            await house.furnish()
            good: list[Deed] = [
                ("transfer", "alice", "BTC", "0.1", "bob"),
                ("convert", "bob", "BTC", "usdt", "0.00001"),
            ]
            bad: list[Deed] = [("transfer", "alice", "BTC", "50", "bob"), ("pay_out", "bob", ERC20, "50", True, 0)]
            together = [deed for _ in range(10) for deed in (*good, *(bad * 5 if refused else ()))]
            outcomes = await house.do_together(together)
            assert sum(map(leaves_all_as_it_was, outcomes)) == (100 if refused else 0)
            ends.append((sorted(world.store.balances()), bare(world)))
    assert ends[0] == ends[1]


def bare(world: World) -> list[Any]:
    """Return what accepted items did, whatever number and reference they have."""
    accepted = [item for item in world.store.items(1, 10**6) if not item.refusal]
    return [[(p.account, p.amount, p.after, p.nth) for p in item.postings] for item in accepted]


async def test_a_repeated_request_leaves_everything_as_it_was(tmp_path: Path) -> None:
    """Under its Idempotency-Key a request is answered as the first time, and not one row of the file changes."""
    async with opened(new_store("sqlite", tmp_path)) as world:
        house = WholeHouse(world)
        await house.furnish()
        first = await house.do(("keyed", "one", ("transfer", "alice", "BTC", "0.1", "bob")))
        items = world.store.last()[0]
        before = digest(world, items, tmp_path)
        repeated = await house.do(("retry",))
        assert (repeated.result, repeated.repeated, world.store.last()[0]) == (first.result, True, items)
        assert digest(world, items, tmp_path) == before
