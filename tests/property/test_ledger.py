"""The ledger under any sequence of deeds: money is neither made nor lost, and every store keeps the same books."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any, Final

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from strongroom.engine.settle import Outcome
from strongroom.records.history import LineType, Thread
from strongroom.store.memory import MemoryStore
from strongroom.wallet.bookings import BOOKABLE
from strongroom.wallet.verification import verify
from support.deeds import COIN, NAMES, Deed, House, check_books
from support.world import BTC, USDT, new_store, opened

EXAMPLES: Final = settings().max_examples
USERS: Final = NAMES[:3]
names = st.sampled_from(USERS)
codes = st.sampled_from(["BTC", "usdt", "ETH", "USD", "XYZ"])
units = st.integers(1, 4 * COIN) | st.just(1 << 61)
texts = st.sampled_from(
    ["0.00000001", "0.1", "0.5", "1", "2.50000000", "50", "100000", "46116860184", "0", "1e3", "-1", "0.000000001", ""]
)

bookings = st.tuples(
    st.just("book"), st.sampled_from(NAMES), st.sampled_from([BTC, USDT]), st.sampled_from(sorted(BOOKABLE)), units
)
transfers = st.tuples(st.just("transfer"), names, codes, texts, st.sampled_from(NAMES))
conversions = st.tuples(st.just("convert"), names, codes, codes, texts)
withdrawals = st.tuples(st.just("withdraw"), names, texts, st.booleans())
verdicts = st.tuples(st.just("decide"), st.sampled_from(["approve", "reject", "cancel"]))
debts = st.tuples(st.just("owe"), names, st.sampled_from([BTC, USDT]), st.integers(1, COIN))
marks = st.tuples(st.just("mark"), names, st.booleans(), st.just(True))
openings = st.tuples(st.just("open_user"), st.sampled_from(NAMES[2:4]), st.none() | names)
fundings = st.tuples(st.just("fund_inventory"), st.sampled_from([BTC, USDT]), units)
waits = st.tuples(st.just("wait"), st.sampled_from([1, 6_000, 40_000, 86_400_000]))
repeats = st.just(("again",))
customers_deeds = st.one_of(transfers, conversions, withdrawals, transfers, conversions)
deeds = st.one_of(
    customers_deeds, bookings, verdicts, debts, marks, openings, fundings, waits, repeats, customers_deeds
)


class Ledger(RuleBasedStateMachine):
    """A house in memory that anything may happen to."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.opening = opened(MemoryStore())
        self.house = House(self.run(self.opening.__aenter__()))

    def run(self, doing: Any) -> Any:
        """Wait for what is being done."""
        return self.loop.run_until_complete(doing)

    @initialize()
    def furnish(self) -> None:
        """Open the first users and give the house its inventory."""
        self.run(self.house.furnish())

    @rule(deed=deeds)
    def one_deed(self, deed: Deed) -> None:
        """A deed is done or refused; refused, it leaves every balance as it was."""
        before = sorted(self.house.world.store.balances())
        outcome: Outcome = self.run(self.house.do(deed))
        if outcome.refusal is not None:
            assert sorted(self.house.world.store.balances()) == before

    @rule(together=st.lists(deeds.filter(lambda deed: deed[0] not in {"wait", "open_user"}), min_size=2, max_size=6))
    def deeds_of_one_batch(self, together: list[Deed]) -> None:
        """Deeds that wait together are decided one after the other, each over what the one before left."""
        self.run(self.house.do_together(together))

    @invariant()
    def books_hold(self) -> None:
        """Sums, bounds and balances are right."""
        check_books(self.house.world)

    def teardown(self) -> None:
        """Verify the journal as an auditor would, then close the house."""
        report = verify(self.house.world.store)
        self.run(self.opening.__aexit__(None, None, None))
        self.loop.close()
        assert report.findings == []


def test_money_is_neither_made_nor_lost_whatever_happens() -> None:
    """After every deed sums, bounds and balances hold, a refusal changes nothing, and in the end the books verify."""
    run_state_machine_as_test(Ledger, settings=settings(max_examples=EXAMPLES // 2, stateful_step_count=30))


def told(outcome: Outcome) -> tuple[Any, ...]:
    """Return all that a client could tell of an outcome."""
    refusal = outcome.refusal
    return outcome.at_ms, outcome.result, refusal and (refusal.error.name, refusal.message), outcome.item


async def live(kind: str, folder: Path, steps: list[list[Deed]]) -> tuple[Any, ...]:
    """Do steps, each of them one batch, in a new house, and return everything that can be compared."""
    async with opened(new_store(kind, folder)) as world:
        house = House(world)
        await house.furnish()
        outcomes = [told(outcome) for step in steps for outcome in await house.do_together(step)]
        store = world.store
        threads = [store.row(Thread, uid, 0, 0) for uid in house.uids.values()]
        items = [(sealed.number, sealed.text) for sealed in store.journal(1, 10**6)]
        assert verify(store).findings == []
        return outcomes, sorted(store.balances()), threads, items


@settings(max_examples=EXAMPLES // 4)
@given(st.lists(st.lists(deeds, min_size=1, max_size=5), max_size=12))
def test_every_store_keeps_the_same_books(steps: list[list[Deed]]) -> None:
    """The same deeds have the same outcomes, balances, histories and journal in memory and in a file."""
    with tempfile.TemporaryDirectory() as folder:
        in_memory = asyncio.run(live("memory", Path(folder), steps))
        in_a_file = asyncio.run(live("sqlite", Path(folder), steps))
    assert in_memory == in_a_file


def test_the_deeds_are_of_every_kind() -> None:
    """The strategies above reach what they are meant for: each kind of deed succeeds at least once."""

    async def each_kind() -> list[Outcome]:
        async with opened(MemoryStore()) as world:
            house = House(world)
            await house.furnish()
            done = [
                await house.do(deed)
                for deed in (
                    ("transfer", "alice", "BTC", "0.1", "bob"),
                    ("convert", "alice", "BTC", "usdt", "0.00000001"),
                    ("withdraw", "alice", "1", True),
                    ("decide", "approve"),
                    ("book", "bob", USDT, LineType.DEPOSIT, 5),
                    ("owe", "bob", USDT, 7),
                    ("mark", "bob", True, True),
                    ("open_user", "carol", None),
                    ("fund_inventory", BTC, 5),
                )
            ]
            check_books(world)
            return done

    assert [outcome.refusal for outcome in asyncio.run(each_kind())] == [None] * 9
