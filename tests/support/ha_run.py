"""Rounds of a house that fails over, and the command `make ha`: `python -m support.ha_run --help`.

In each round customers are at work while something is killed or cut off; then all of it heals, and what the house shows
is held against every answer. At the end a control: without synchronous replication the same check must find losses.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from random import Random, SystemRandom
from typing import Final, NamedTuple

import pytest

from strongroom.store.postgres.following import BEHIND
from support.ha_cluster import WAIT_S, Cluster, Missing
from support.ha_faults import CONTROL, Fault, Field, deal
from support.ha_house import House
from support.ha_lines import Lines
from support.ha_load import FAMILIES, MONEY, TOLD, WORKERS, Clients, longest_gap_s
from support.ha_payer import Payer, chain
from support.harness_load import USERS
from support.harness_model import Deed, Model, Row, mark_of
from support.harness_rounds import Rounds
from support.house_nodes import on_anvil

ROUNDS: Final = 11
SERVED_S: Final = 120.0
"""So long after a fault the service is there again, before anything was healed."""

ROUND_S: Final = 600.0
MOST_SAID: Final = 2_000
HEADER: Final = "| round | fault | asked | acknowledged | turned away | unanswered | lost | doubled | without service |"


class Played(NamedTuple):
    """What became of a round; `problem` is what the check has found."""

    fault: str
    note: str
    asked: int
    acknowledged: int
    told: Counter[str]
    lost: int
    doubled: int
    gap_s: float
    problem: str = ""

    def row(self, number: int) -> str:
        """Return the round as a row of the table."""
        cells = [number, self.fault, self.asked, self.acknowledged, self.told["503"], self.told["unanswered"]]
        return "| " + " | ".join(map(str, [*cells, self.lost, self.doubled, f"{self.gap_s:.1f} s"])) + " |"


class HaRounds(Rounds):
    """A house over a cluster, and its customers, through many faults."""

    def __init__(self, house: House, payer: Payer | None, chance: Random) -> None:
        super().__init__(house.door, "")
        self.house = house
        self.payer = payer
        self.chance = chance
        self.customers = self.clients = Clients(house.door, chance)
        self.is_broken = False

    async def begin(self) -> None:
        """Start the nodes and open the accounts."""
        await self.house.start()
        await self.house.ready()
        for user in USERS:
            await self.house.open_account(user, MONEY, FAMILIES.get(user, ""))
        if self.payer is not None:
            await self.payer.settle_in()

    async def play_fault(self, fault: Fault, field: Field) -> Played:
        """Load, strike, heal, compare; then ask again for some of it, and compare again."""
        clients, since_ms = self.clients, time.time_ns() // 1_000_000
        clients.begin()
        model = Model(await clients.balances())
        began_s = time.monotonic()
        async with asyncio.timeout(ROUND_S):
            note = await self._load(model, fault, field)
            gap_s = longest_gap_s(began_s, clients.acknowledged_s, time.monotonic())
            if not fault.survived:
                # Nobody is let in any more; a node still shows what it has.
                self.server = clients.server = next(iter(self.house.nodes.values()))
            rows = await clients.history(since_ms)
            lost, doubled = tally(model.deeds, rows)
            told, asked, done = clients.told.copy(), len(model.deeds), sum(bool(deed.done) for deed in model.deeds)
            problem = ""
            try:
                assert set(told) <= TOLD, f"answered with none of {TOLD}: {told}"
                await self._hold_against(model, since_ms)
            except AssertionError as error:
                problem = str(error)[:MOST_SAID] or repr(error)
        return Played(fault.name, note, asked, done, told, lost, doubled, gap_s, problem)

    async def _load(self, model: Model, fault: Fault, field: Field) -> str:
        """Let everybody act at once while the fault strikes and heals; return what there is to say of it."""
        over = self.clients.over
        acting = [asyncio.create_task(self.clients.act(model)) for _ in range(WORKERS)]
        acting += [asyncio.create_task(self.payer.act(over))] if self.payer else []
        try:
            await self.clients.served_again(SERVED_S)
            note = await fault.strike(field, await field.cluster.whole())
            if fault.survived:
                await self.clients.served_again(SERVED_S)
                await field.heal()
                await self.house.ready()
                await self.clients.served_again(SERVED_S)
            else:
                await field.heal()
                await self.house.refuses(BEHIND)
        finally:
            over.set()
            async with asyncio.timeout(WAIT_S):
                _ = await asyncio.gather(*acting)
        return note

    async def _hold_against(self, model: Model, since_ms: int) -> None:
        """Raise `AssertionError` for whatever must not be."""
        happened, _ = await self._compare(model, {}, since_ms)
        await self._ask_again(model, happened)
        _ = await self._compare(model, {}, since_ms)
        await self.house.verify()
        if self.payer is not None:
            await self.payer.check()


def tally(deeds: Sequence[Deed], rows: Sequence[Row]) -> tuple[int, int]:
    """Return how many acknowledged deeds have no trace in history, and how many deeds of any kind stand there twice."""
    counts = Counter(mark_of(row) for row in rows)
    lost = sum(deed.done is not None and not all(counts[mark] for mark in deed.marks()) for deed in deeds)
    return lost, sum(any(counts[mark] > 1 for mark in deed.marks()) for deed in deeds)


@asynccontextmanager
async def rounds_over(chance: Random, *, synchronous: bool) -> AsyncGenerator[tuple[HaRounds, Field]]:
    """Run a cluster with a house on it until the block ends; its folder stays where anything went wrong."""
    async with AsyncExitStack() as stack:
        lines = stack.enter_context(Lines())
        cluster = Cluster(lines, synchronous=synchronous)
        stack.push_async_callback(cluster.stop)
        await cluster.start()
        anvil, more = None, ""
        try:
            # Where nobody is served any more, no withdrawal comes to its end.
            anvil = await stack.enter_async_context(chain(cluster.folder)) if synchronous else None
            more = on_anvil(anvil) if anvil else ""
        except pytest.skip.Exception as reason:
            say(f"without payments on a chain: {reason}")
        house = House(cluster, lines, more)
        stack.callback(house.stop)
        payer = Payer(house, anvil) if anvil else None
        if payer is not None:
            miner = asyncio.create_task(payer.mine())
            stack.callback(miner.cancel)
        rounds = HaRounds(house, payer, chance)
        await rounds.begin()
        await cluster.caught_up()
        yield rounds, Field(cluster, house, lines, chance, lambda: len(rounds.clients.acknowledged_s))
    if not (synchronous and rounds.is_broken):
        shutil.rmtree(cluster.folder)


async def play(faults: Sequence[Fault], seed: str, *, synchronous: bool = True) -> list[Played]:
    """Play a round for each fault, and stop at the first in which the check finds anything."""
    chance, played = Random(seed), []
    began_s = time.monotonic()
    async with rounds_over(chance, synchronous=synchronous) as (rounds, field):
        say(f"up after {time.monotonic() - began_s:.0f} s; logs are in {field.cluster.folder} meanwhile")
        for number, fault in enumerate(faults, 1):
            round_s = time.monotonic()
            say(f"round {number}: {fault.name}")
            played.append(it := await rounds.play_fault(fault, field))
            say(f"  {it.note}; {it.gap_s:.1f} s without service; round of {time.monotonic() - round_s:.0f} s")
            if it.problem:
                say(f"  FOUND: {it.problem}")
                rounds.is_broken = True
                break
    return played


def show(played: Sequence[Played]) -> None:
    """Print the table."""
    print(f"\n{HEADER}\n|{'---|' * (HEADER.count('|') - 1)}")
    for number, it in enumerate(played, 1):
        print(it.row(number))
    print(flush=True)


def say(text: str) -> None:
    """Print at once."""
    print(text, flush=True)


async def run(rounds: int, seed: str, only: str, *, control_only: bool) -> bool:
    """Play the rounds and the control; say whether all is as it must be. Told to end, it stops all that it started."""
    if (this := asyncio.current_task()) is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this.cancel)
    say(f"seed {seed}")
    right = True
    if not control_only:
        played = await play(deal(rounds, Random(seed), only), seed)
        show(played)
        right = not any(it.problem for it in played)
        say(
            f"{len(played)} rounds: {sum(it.acknowledged for it in played)} changes acknowledged; "
            f"{sum(it.lost for it in played)} lost, {sum(it.doubled for it in played)} doubled; "
            f"longest time without service {max(it.gap_s for it in played):.1f} s"
        )
    if right:
        say("control: without synchronous replication the same check must find losses")
        played = await play([CONTROL], seed, synchronous=False)
        show(played)
        right = bool(played[-1].problem) and played[-1].lost > 0
        say(
            f"control: {played[-1].lost} acknowledged changes were lost, and "
            f"{'the check has found it' if right else 'THE CHECK HAS FOUND NOTHING'}"
        )
    return right


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="make ha", description=__doc__)
    _ = parser.add_argument("--rounds", type=int, default=ROUNDS, help="how many rounds (%(default)s)")
    _ = parser.add_argument("--seed", default=str(SystemRandom().randrange(10**9)), help="repeats a run's choices")
    _ = parser.add_argument("--only", default="", help="only faults with these words in their names")
    _ = parser.add_argument("--async", action="store_true", dest="control_only", help="play the control only")
    options = parser.parse_args()
    try:
        right = asyncio.run(run(options.rounds, options.seed, options.only, control_only=options.control_only))
    except Missing as missing:
        sys.exit(f"ha: {missing}")
    except asyncio.CancelledError:
        sys.exit("ha: ended before its end")
    sys.exit(0 if right else 1)


if __name__ == "__main__":
    main()
