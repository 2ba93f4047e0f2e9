"""A house that anything may happen to, on either store, with the six invariants looked at after every step."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any, ClassVar, Final

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from strongroom.engine.settle import Outcome
from strongroom.records.history import LineType
from strongroom.wallet.bookings import BOOKABLE
from strongroom.wallet.verification import verify
from support.deeds import COIN, NAMES, Deed
from support.whole_ledger import CHAINS, Auditor, WholeHouse, digest
from support.world import BITCOIN, BTC, ERC20, ETH, USDT, new_store, opened

names = st.sampled_from(NAMES[:3])
codes = st.sampled_from(["BTC", "usdt", "ETH", "BTC", "ETH", "USD", "XYZ"])
assets = st.sampled_from([BTC, ETH, USDT])
networks = st.sampled_from(sorted(CHAINS))
which = st.integers(0, 5)
units = st.integers(1, 4 * COIN) | st.just(1 << 61)
texts = st.sampled_from(
    ["0.00000001", "0.1", "0.5", "1", "2.5", "2.9", "3", "50", "46116860184", "0", "1e3", "-1", "0.000000001", ""]
)

transfers = st.tuples(st.just("transfer"), names, codes, texts, st.sampled_from(NAMES))
conversions = st.tuples(st.just("convert"), names, codes, codes, texts)
parts = st.sampled_from(["0.1", "0.4", "0.5", "0.50000001", "1", "2.5", "3.9", "0.0000000001", "50", "0"])
requests = st.tuples(st.just("pay_out"), names, networks, parts, st.booleans(), st.integers(0, 3))
customers_deeds = st.one_of(transfers, conversions, requests, transfers)
keyed = st.tuples(st.just("keyed"), st.sampled_from(["one", "two"]), customers_deeds)
repeats = st.sampled_from([("again",), ("retry",)])

arrivals = st.tuples(st.just("arrive"), networks, st.integers(0, 3), st.integers(1, 3 * COIN), st.booleans())
confirmations = st.tuples(st.just("confirm"), which)
turns = st.tuples(
    st.just("follow"), which, st.sampled_from(["place", "displace", "drop", "credit", "reverse", "reverse"])
)
blocks = st.tuples(st.just("mine"), networks)
reservations = st.tuples(st.just("reserve"), which)
payments = st.tuples(st.just("pay"), st.integers(0, 2), st.integers(1, 5))
moods = st.tuples(st.just("carry"), which, st.sampled_from(["sign", "redraft", "mine", "unmine", "revert", "void"]))

bookings = st.tuples(st.just("book"), st.sampled_from(NAMES), assets, st.sampled_from(sorted(BOOKABLE)), units)
verdicts = st.tuples(st.just("decide"), st.sampled_from(["approve", "reject", "cancel"]))
debts = st.tuples(st.just("owe"), names, assets, st.integers(1, COIN))
marks = st.tuples(st.just("mark"), names, st.sampled_from([*[False] * 5, True]), st.just(True))
openings = st.tuples(st.just("open_user"), st.sampled_from(NAMES[2:4]), st.none() | names)
fundings = st.tuples(st.just("fund_inventory"), assets, units)
waits = st.one_of(st.tuples(st.just("wait"), st.sampled_from([1, 40_000, 86_400_000])), st.just(("expire",)))

at_once = st.one_of(
    customers_deeds, requests, keyed, repeats, customers_deeds, bookings, verdicts, debts, marks, fundings, arrivals,
    turns, reservations, moods, customers_deeds, requests, keyed,
)  # fmt: skip
"""Deeds that may wait together: none that lets time pass, or looks at the chain before it acts."""

deeds = st.one_of(
    at_once, at_once, customers_deeds, confirmations, payments, payments, payments, openings, blocks, waits
)

SAME: Final = "a refused operation leaves everything as it was"
ANSWERED: Final = "what was answered is what the journal says"
ONCE: Final = "a request is carried out once"
WHOLE: Final = "what is kept is what the journal says"


def leaves_all_as_it_was(outcome: Outcome) -> bool:
    """Say whether an outcome promises that nothing was done."""
    return outcome.refusal is not None or outcome.repeated or outcome.stale


class Ledger(RuleBasedStateMachine):
    """A house on a store that anything may happen to."""

    KIND: ClassVar[str] = "memory"

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.place = tempfile.TemporaryDirectory()
        folder = Path(self.place.name)
        self.opening = opened(new_store(self.KIND, folder))
        self.house = WholeHouse(self.run(self.opening.__aenter__()))
        self.folder = folder if self.KIND == "sqlite" else None
        self.auditor = Auditor(self.house.world)
        self.is_broken = False

    def run(self, doing: Any) -> Any:
        """Wait for what is being done."""
        return self.loop.run_until_complete(doing)

    @initialize()
    def furnish(self) -> None:
        """Open the first users, give them addresses, and the house its inventory."""
        self.run(self.house.furnish())

    @rule(deed=deeds)
    def one_deed(self, deed: Deed) -> None:
        """A deed is done or refused; refused, it leaves everything as it was."""
        self._watched([deed])

    @rule(together=st.lists(at_once, min_size=2, max_size=8))
    def deeds_of_one_batch(self, together: list[Deed]) -> None:
        """Deeds that wait together are decided one after the other, each over what the one before left."""
        self._watched(together)

    @rule(
        name=names,
        network=networks,
        parts=st.lists(
            st.tuples(st.sampled_from([10, 34, 50, 51, 100]), st.sampled_from(["bob", "alice-sub1", "outside"])),
            min_size=2,
            max_size=6,
        ),
    )
    def run_on_one_account(self, name: str, network: int, parts: list[tuple[int, str]]) -> None:
        """Requests that together want more than one account has are carried out while it lasts."""
        self._watched([("spend", name, network, percent, to) for percent, to in parts])

    @rule(key=st.sampled_from(["", "one", "two"]), name=names, network=networks, to=st.sampled_from(["bob", "outside"]))
    def one_request_three_times(self, key: str, name: str, network: int, to: str) -> None:
        """What is sent again as it was, and once more under its key, waits beside the first."""
        spend = ("spend", name, network, 10, to)
        self._watched([("keyed", key, spend), ("again",), ("retry",)] if key else [spend, ("again",), ("again",)])

    def _watched(self, together: list[Deed]) -> None:
        world = self.house.world
        items = world.store.last()[0]
        before = digest(world, items, self.folder)
        outcomes: list[Outcome] = self.run(self.house.do_together(together))
        if all(map(leaves_all_as_it_was, outcomes)) and together[0][0] not in {"confirm", "expire", "pay"}:
            effects = [i for i in world.store.items(items + 1, 100) if i.postings or i.lines or i.rows]
            self._expect(SAME, digest(world, items, self.folder) == before and not effects)
        self._expect(ANSWERED, all(map(self._is_in_the_journal, outcomes)))
        self._expect(ONCE, not self.house.doubled)

    def _is_in_the_journal(self, outcome: Outcome) -> bool:
        if not outcome.item:
            return True
        [item] = self.house.world.store.items(outcome.item, 1)
        return item.refusal == (outcome.refusal.error.name if outcome.refusal else "")

    def _expect(self, rule: str, holds: bool) -> None:
        self.is_broken = self.is_broken or not holds
        assert holds, rule

    @invariant()
    def books_hold(self) -> None:
        """All that must hold at any time does."""
        broken = sorted(self.auditor.audit())
        self._expect("; ".join(broken), not broken)

    def teardown(self) -> None:
        """Verify the journal as an auditor would, unless it is known to be broken, then close the house."""
        findings = [] if self.is_broken else verify(self.house.world.store).findings
        self.run(self.opening.__aexit__(None, None, None))
        self.loop.close()
        self.place.cleanup()
        assert not findings, WHOLE


class LedgerOnDisk(Ledger):
    """The same on SQLite, where the rows of the file are looked at as well."""

    KIND = "sqlite"


def run_ledger(machine: type[Ledger], examples: int, steps: int = 30) -> None:
    """Let anything happen to so many houses."""
    run_state_machine_as_test(machine, settings=settings(max_examples=examples, stateful_step_count=steps))


def find_bug(machine: type[Ledger], examples: int = 200, steps: int = 20) -> None:
    """Look for a bug that was planted: the same examples each time, and the first that fails is told as it is."""
    looking = settings(
        max_examples=examples,
        stateful_step_count=steps,
        phases=[Phase.generate],
        derandomize=True,
        database=None,
        report_multiple_bugs=False,
    )
    run_state_machine_as_test(machine, settings=looking)


EACH_KIND: Final[tuple[Deed, ...]] = (
    ("transfer", "alice", "BTC", "0.1", "bob"),
    ("convert", "alice", "BTC", "usdt", "0.00000001"),
    ("withdraw", "alice", "1", True),
    ("decide", "cancel"),
    ("book", "bob", USDT, LineType.DEPOSIT, 5),
    ("owe", "bob", USDT, 7),
    ("mark", "bob", False, True),
    ("open_user", "carol", "alice"),
    ("fund_inventory", BTC, 5),
    ("pay_out", "alice", BITCOIN, "0.1", True, 3),
    ("pay_out", "alice", BITCOIN, "1", False, 2),
    ("decide", "reject"),
    ("pay_out", "alice", ERC20, "1", True, 0),
    ("pay", 0, 3),
    ("pay", 0, 1),
    ("pay_out", "alice", BITCOIN, "1", True, 0),
    ("pay", 0, 3),
    ("carry", 1, "void"),
    ("pay_out", "alice", BITCOIN, "0.1", True, 0),
    ("reserve", 0),
    ("pay_out", "alice", BITCOIN, "0.1", True, 0),
    ("arrive", BITCOIN, 1, 5, False),
    ("arrive", BITCOIN, 2, 5, False),
    ("confirm", 6),
    ("follow", 7, "drop"),
    ("arrive", BITCOIN, 2, COIN, True),
    ("arrive", ERC20, 0, COIN, False),
    ("follow", 1, "reverse"),
    ("keyed", "one", ("transfer", "alice", "BTC", "0.1", "alice-sub1")),
    ("retry",),
)
"""Deeds that each succeed, one after the other."""
