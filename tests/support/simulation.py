"""A simulation: one seed, one server with its customers and chains, several lives, and the final reckoning."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Final

import structlog

from strongroom.crashpoints import BATCH_POINTS, KEEPER_POINTS, SENDER_POINTS, WATCHER_POINTS
from strongroom.records.deposits import Deposit, DepositState
from strongroom.records.withdrawals import Withdrawal, WithdrawalState
from strongroom.store.sqlite.connection import DATABASE_FILE
from strongroom.wallet.epochs import epoch_of, waits
from support.harness_disk import END_OF_COMMIT, SYNC, WRITE
from support.simulation_backup import Backup, back_up, restored
from support.simulation_check import Checker
from support.simulation_clients import Customer, Wallets
from support.simulation_coin_check import coin_events
from support.simulation_coins import COINED
from support.simulation_deeds import Record
from support.simulation_house import BTC, NUMBERS, Template, hurried, template
from support.simulation_life import Ending, Life, Weather
from support.simulation_loop import Timeline
from support.simulation_outside import Operator, World

MEMORY: Final = Path("/dev/shm")
CUSTOMERS: Final = 3
TOLD: Final = 20
LONGEST: Final = 300
_NAMES: Final = re.compile(r"\b\d{6,}\b")
"""Amounts and references, by which a failure and the events before it name what they speak of."""

_IS_TURN: Final = re.compile(r"  (life \d|killed|power fails|stops)")

_COINED: Final = 0.4
"""In so many seeds one of the networks is of coins."""

_RUSH_S: Final = 1.2
_MOST_AT_ONCE: Final = 4
_BACKED_UP: Final = 0.6
"""In so many lives a backup is made."""

_LAST_S: Final = 0.8
_LAST_CUSTOMERS: Final = 2
_DEEP_ENOUGH: Final = 4
_MOST_ROUNDS: Final = 12
_RETURNS: Final = 2
"""In so many of them the operator brings cold money back, and books it."""

_LONGEST_BACK_OFF_S: Final = 31.0
"""After so many seconds everybody who waits out trouble has looked again."""


@dataclass
class Played:
    """What became of a seed: `failure` is empty when every rule held."""

    seed: int
    failure: str
    digest: str
    trace: list[str]
    counts: Counter[str]

    def story(self, lines: int = TOLD) -> str:
        """Return how to replay it, each event that names what went wrong, the last events, and what went wrong."""
        earlier, last = self.trace[:-lines], self.trace[-lines:]
        named = set(_NAMES.findall(self.failure))
        about = [event for event in earlier if named & set(_NAMES.findall(event)) or _IS_TURN.search(event)]
        told = [f"make simulate SEED={self.seed}", *about, *(["..."] if earlier else []), *last, self.failure]
        return "\n".join(event[:LONGEST] for event in told)


def play(seed: int) -> Played:
    """Play a seed; the same seed always goes the same way."""
    simulation = Simulation(seed)
    failure = ""
    folder = Path(tempfile.mkdtemp(prefix="strongroom-", dir=MEMORY if MEMORY.is_dir() else None))
    try:
        with hurried(coins=simulation.coins), logged(simulation.note, simulation.counts):
            simulation.play(folder)
    except Exception as error:  # noqa: BLE001 - whatever goes wrong, the seed that shows it is told
        failure = f"{type(error).__name__}: {error}"
    finally:
        shutil.rmtree(folder)
    digest = hashlib.sha256("\n".join([*simulation.trace, failure]).encode()).hexdigest()
    return Played(seed, failure, digest, simulation.trace, simulation.counts)


class Simulation:
    """One seed on its way."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.trace: list[str] = []
        self.counts: Counter[str] = Counter()
        self.timeline = Timeline()
        self.record = Record()
        self.backup: Backup | None = None
        self._chance = Random(f"{seed}/plan")
        self.moves = self._chance.random() < 0.4
        self.coins = Random(f"{seed}/coins").random() < _COINED
        self._life = 0
        self._is_alive = lambda: True

    def note(self, text: str) -> None:
        """Write an event into the trace."""
        if self._is_alive():
            self.trace.append(f"{self._life}  {self.timeline.now_s:10.6f}  {text}")

    def play(self, scratch: Path) -> None:
        """Go through every life, then settle and check."""
        house = template(scratch, coins=self.coins)
        self.counts["with coins"] += self.coins
        self.timeline.now_s = house.ended_s
        files = house.files
        weather = self._weather()
        for number in range(self._chance.choice((1, 1, 1, 2, 2, 3))):
            self._life = number + 1
            files = self._live(scratch, files, house, weather, self._ending())
            files = self._restored(scratch, files)
            self.timeline.now_s += self._chance.random() * 5
            self.timeline.skew_ms += self._chance.choice((0, 0, 0, -3_000, 2_000, -15_000, 15_000))
        self._life += 1
        self._live(scratch, files, house, Weather(), None)
        self.counts["deeds"] += len(self.record.deeds)

    def _restored(self, scratch: Path, files: dict[str, bytes]) -> dict[str, bytes]:
        """Return the files that the next life finds: now and then the house is lost, and comes back of its backup."""
        if self.backup is None or self._chance.random() < 0.2:
            return files
        self.note("the house is lost, and restored from its backup")
        self.counts["restored"] += 1
        self.counts["moves and a restore"] += self.moves
        files = restored(self.backup, scratch, files, self.timeline, f"{self.seed}/{self._life}")
        self.record.go_back_to(self.backup.record)
        self.backup = None
        return files

    def _live(
        self, scratch: Path, files: dict[str, bytes], house: Template, weather: Weather, ending: Ending | None
    ) -> dict[str, bytes]:
        """Live one life in a folder of its own, and return the files that it leaves."""
        folder = scratch / str(self._life)
        folder.mkdir()
        for name, content in files.items():
            (folder / name).write_bytes(content)
        seed = f"{self.seed}/{self._life}"
        ends = ending or Ending(0, orderly=True)
        life = Life(folder, self.timeline, seed, weather, ends, self.note, moves=self.moves, coins=self.coins)
        self._is_alive = lambda: not life.dead
        self.note(f"life {self._life}: {weather} {ending}")
        scene = Scene(self, house, life, seed)
        self.counts["lives"] += 1
        try:
            life.live(scene.settle if ending is None else scene.go_on)
        finally:
            self.counts.update(life.reached)
        left = {name: content for name, content in _read(folder).items() if not name.startswith(DATABASE_FILE)}
        shutil.rmtree(folder)
        return left | life.image

    # -- what the seed chooses

    def _weather(self) -> Weather:
        """Choose which troubles there are: each seed has some kinds of them only, so that they show alone too."""
        chance = self._chance
        some = lambda odds: odds if chance.random() < 0.4 else 0.0  # noqa: E731 - so much for each of them
        disk = {kind: odds for kind, odds in ((WRITE, 0.004), (SYNC, 0.04), (END_OF_COMMIT, 0.04)) if some(1)}
        return Weather(
            usual_s=chance.choice((0.0005, 0.002, 0.01)),
            stalls=some(0.01),
            refuses=some(0.02),
            error_after=some(0.04),
            disk=disk if chance.random() < 0.5 else None,
            power=some(0.02),
            checkpoint=chance.choice((4000, 4000, 20)),
            line=(some(0.2), some(0.1), some(0.1), some(0.2)),
        )

    def _ending(self) -> Ending:
        """Choose how a life ends."""
        after_s = self._chance.choice((0.05, 0.3, 0.6, 1, 2)) * (0.5 + self._chance.random())
        kind = self._chance.random()
        if kind < 0.2:
            return Ending(after_s, orderly=True)
        if kind < 0.5:
            return Ending(after_s)
        if kind < 0.8:
            return Ending(after_s, self._chance.choice(BATCH_POINTS), self._chance.randint(1, 30))
        points = (*SENDER_POINTS, *WATCHER_POINTS, *(KEEPER_POINTS * 3 if self.moves else ()))
        return Ending(after_s, self._chance.choice(points), self._chance.randint(1, 3))


class Scene:
    """What goes on around a server during one life."""

    def __init__(self, simulation: Simulation, house: Template, life: Life, seed: str) -> None:
        self._simulation = simulation
        self._house = house
        self._life = life
        self._wallets = Wallets(life, house.members, simulation.record, Random(f"{seed}/customers"))
        rough = Random(f"{seed}/rough").choice((0.2, 1.0, 3.0))
        self._world = World(life, self._wallets, Random(f"{seed}/world"), rough)
        self._chance = Random(f"{seed}/scene")
        chance = Random(f"{seed}/operator")
        self._operator = Operator(life, simulation.record, house.members, chance, moves=simulation.moves)

    async def go_on(self, life: Life) -> None:
        """Let everybody act until the end."""
        ends_s = life.timeline.now_s + life.ending.after_s
        is_backed_up = self._chance.random() < _BACKED_UP
        backup = self._back_up(life) if is_backed_up else asyncio.sleep(0)
        await self._act(CUSTOMERS, lambda: life.ending.orderly and life.timeline.now_s >= ends_s, backup)

    async def _act(
        self, customers: int, is_over: Callable[[], bool], besides: Coroutine[Any, Any, None] | None = None
    ) -> None:
        acting = [Customer(self._wallets, is_over).act() for _ in range(customers)]
        acting += [besides] if besides else []
        acting += [self._rush(is_over)] if self._simulation.coins else []
        await asyncio.gather(*acting, self._operator.work(is_over), self._world.turn(is_over))
        await self._world.clear_up()

    async def _rush(self, is_over: Callable[[], bool]) -> None:
        """Let many be paid in coins and ask for some at once, so that they share payments, and change is spent."""
        customer, chance = Customer(self._wallets, is_over), Random(f"{self._simulation.seed}/{self._life.seed}/rush")
        while not is_over():
            await asyncio.sleep(chance.random() * _RUSH_S)
            self._life.check_alive()
            await self._world.rush(COINED, chance.randrange(_MOST_AT_ONCE))
            users = chance.sample(sorted(self._house.members), chance.randint(1, len(self._house.members)))
            await asyncio.gather(*(customer.send_out(user, BTC) for user in users))

    async def _back_up(self, life: Life) -> None:
        """Make a backup at some moment."""
        await asyncio.sleep(self._chance.random() * life.ending.after_s * 0.7)
        life.check_alive()
        life.note("backup")
        self._simulation.counts["backups"] += 1
        self._simulation.backup = back_up(life.folder, self._simulation.record)
        await self._ask_for_addresses()

    async def _ask_for_addresses(self) -> None:
        """Let some customers have new addresses: those that a backup does not know, and those after a restore."""
        customer = Customer(self._wallets, lambda: False)
        for user in sorted(self._house.members)[: self._chance.randrange(4)]:
            await customer.ask_for_address(user)

    async def settle(self, life: Life) -> None:
        """Let the chains have their way once more, then bury everything; once the house has caught up, check it."""
        life.calm()
        ends_s = life.timeline.now_s + _LAST_S
        is_restored = epoch_of(life.application.store) > 0
        besides = self._ask_for_addresses() if is_restored else None
        await self._act(_LAST_CUSTOMERS, lambda: life.timeline.now_s >= ends_s, besides)
        customer = Customer(self._wallets, lambda: False)
        for number in range(_MOST_ROUNDS):
            await self._bury()
            if self._simulation.moves and number < _RETURNS:
                await self._operator.bring_back(number == 0)
            await self._operator.give_up_lost()
            if epoch_of(life.application.store):
                await self._reconcile(by_hand=number >= _MOST_ROUNDS // 2)
            if await self._is_quiet() and (number >= _RETURNS or not self._simulation.moves):
                break
        for user in self._house.members:
            await customer.look_at_balances(user)
        checker = Checker(life.application, self._house, self._simulation.record)
        happened = await checker.check()
        self._simulation.counts["happened"] += len(happened)
        if self._simulation.coins:
            self._simulation.counts.update(coin_events(life.application.store, NUMBERS[COINED]))
        self._simulation.note(f"whole: {life.application.store.frontier().root().hex()}")

    async def _bury(self) -> None:
        """Mine enough blocks to bury whatever waits, and let the house see them."""
        for network in NUMBERS:
            await self._world.node.mine(network, _DEEP_ENOUGH)
        await asyncio.sleep(_LONGEST_BACK_OFF_S)

    async def _reconcile(self, *, by_hand: bool) -> None:
        """Let the operator say all that there is to say after a restore."""
        await self._operator.name_somebody(everybody=True)
        for code, number in NUMBERS.items() if by_hand else ():
            if waits(self._life.application.store, number):
                reason = self._life.application.treasury.watchers[code].restoration.reason
                self._life.note(f"{code} waits: {reason}")
                self._simulation.counts["released by hand"] += 1
                await self._operator.release(number)

    async def _is_quiet(self) -> bool:
        """Say whether nothing is under way any more, neither on the chains nor in the house."""
        reads, node = self._life.application.store, self._world.node
        under_way = (
            (Withdrawal, (WithdrawalState.APPROVED, WithdrawalState.PAYING)),
            (Deposit, (DepositState.SEEN, DepositState.CONFIRMING)),
        )
        open_rows = any(reads.rows(kind, {"state": state}, 1) for kind, states in under_way for state in states)
        waiting = [
            any(map(node.chain(network).can_be_mined, node._store.waiting(network))) for network in sorted(NUMBERS)
        ]
        unnamed = epoch_of(reads) and reads.rows(Withdrawal, {"owner": 0, "state": WithdrawalState.SETTLED}, 1)
        held_up = any(waits(reads, network) for network in NUMBERS.values())
        return not open_rows and not any(waiting) and not unnamed and not held_up


def _read(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != "lock"}


@contextmanager
def logged(note: Any, counts: Counter[str]) -> Iterator[None]:
    """Write what the server logs into the trace, and count it by its name."""
    before = structlog.get_config()

    def keep(_logger: Any, method: str, event: Any) -> Any:
        told = " ".join(f"{name}={value!r}" for name, value in event.items() if name != "event")
        note(f"log {method}: {event['event']} {told}")
        counts[" ".join(("log", event["event"], event.get("was", ""))).rstrip()] += 1
        raise structlog.DropEvent

    # Every event of every level, whatever a command that ran in this process before has set.
    everything = structlog.make_filtering_bound_logger(logging.NOTSET)
    structlog.configure(processors=[keep], wrapper_class=everything, cache_logger_on_first_use=False)
    try:
        yield
    finally:
        structlog.configure(**before)
