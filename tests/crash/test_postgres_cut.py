"""A line to PostgreSQL that is cut: what was answered is there, what was "not done" is not, and nothing is twice."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

import pytest

from strongroom import crashpoints
from strongroom.clock import Ids, SetClock
from strongroom.engine import writer
from strongroom.engine.command import NOBODY, Command
from strongroom.engine.writer import IN_DOUBT
from strongroom.errors import UNAVAILABLE, InvariantBroken, Refused
from strongroom.store.postgres.connection import Limits
from strongroom.store.postgres.store import PostgresStore
from strongroom.wallet.transfers import Transfer, prepare_transfer
from strongroom.wallet.verification import verify
from support.culprit import Culprit
from support.fault_proxy import Mode
from support.nodes import wait_until
from support.postgres import database_through, shared_server
from support.proxied import Line, proxied
from support.world import BTC, NOW_MS, World, opened

COIN: Final = 100_000_000
LIMITS: Final = Limits(connect_s=2, answer_s=0.5, read_s=2.0, idle_ms=1_000, lock_ms=2_000)
PATIENCE_S: Final = 60
ROUNDS: Final = 20

BEFORE, WRITTEN = "transaction begun", "transaction written"


@pytest.fixture
def line() -> Iterator[Line]:
    """A line to the server, and no crash point armed when the test is over."""
    with proxied(shared_server().port) as line:
        yield line
        crashpoints.arm(None)


class House:
    """A house behind a line, in which alice has a bitcoin, and bob has nothing yet."""

    def __init__(self, world: World, alice: int, bob: int) -> None:
        self.world, self.alice, self.bob = world, alice, bob

    def asked(self, amount: int = 1) -> Transfer:
        """Return what alice asks for: that bob gets so many units."""
        text = f"0.{amount:08}"
        return prepare_transfer(self.world.context, self.world.guard(self.alice), "BTC", text, "bob")

    async def answer(self, command: Command) -> str:
        """Return how a command is answered: "done", or the refusal's name."""
        async with asyncio.timeout(PATIENCE_S):
            try:
                outcome = await self.world.context.submit(command)
            except Refused as refusal:
                return refusal.error.name
        return "done" if outcome.refusal is None else outcome.refusal.error.name

    async def calm(self) -> None:
        """Wait until commands are accepted again."""
        await until(lambda: not self.world.writer.trouble, "commands are accepted again")

    @property
    def got(self) -> int:
        """What bob has got by now, once the books are whole."""
        assert verify(self.world.store).findings == []
        return self.world.available(self.bob, BTC)


@asynccontextmanager
async def housed(folder: Path, line: Line, limits: Limits = LIMITS) -> AsyncIterator[House]:
    """Run such a house."""
    store = PostgresStore(database_through(folder, line.port), Ids(SetClock(NOW_MS)), limits)
    async with opened(store) as world:
        house = House(world, await world.user("alice"), await world.user("bob"))
        await world.fund(house.alice, BTC, COIN)
        yield house
        assert await house.answer(house.asked()) == "done"


@contextmanager
def at(point: str, line: Line, mode: Mode, about: bytes = b"") -> Iterator[list[str]]:
    """Let the line turn bad when the next batch has come to a point, once; the list tells that it has."""
    reached: list[str] = []

    def turn(name: str) -> None:
        if name == point and not reached:
            reached.append(name)
            line.turn(mode, about)

    crashpoints.arm(turn)
    yield reached
    crashpoints.arm(None)


async def test_a_commit_that_never_arrived_is_answered_not_done(tmp_path: Path, line: Line) -> None:
    """The line is cut before COMMIT has passed: the request may be sent again as it is, and is done then."""
    async with housed(tmp_path, line) as house:
        command = house.asked()
        with at(WRITTEN, line, Mode.CUT_QUESTION, b"COMMIT") as reached:
            doubted = asyncio.create_task(house.answer(command))
            await until_trouble(house, IN_DOUBT)
            line.turn(Mode.PASS)
            assert await doubted == UNAVAILABLE.name
        await house.calm()
        assert (reached, house.got) == ([WRITTEN], 0)
        assert await house.answer(command) == "done"
        assert house.got == 1


@pytest.mark.parametrize("mode", [Mode.CUT_ANSWER, Mode.SWALLOW], ids=["cut", "silent"])
async def test_a_commit_whose_answer_never_came_is_answered_done(tmp_path: Path, line: Line, mode: Mode) -> None:
    """The line is cut, or goes silent, behind COMMIT: the batch is found by its id, and answered."""
    async with housed(tmp_path, line) as house:
        command = house.asked()
        with at(WRITTEN, line, mode, b"COMMIT"):
            doubted = asyncio.create_task(house.answer(command))
            await until_trouble(house, IN_DOUBT)
            assert await house.answer(Culprit(NOBODY)) == UNAVAILABLE.name
            line.turn(Mode.PASS)
            assert await doubted == "done"
        assert house.got == 1


async def test_what_began_behind_a_commit_in_doubt_is_turned_away_undecided(tmp_path: Path, line: Line) -> None:
    """The next batch waits for the journal already when the line is cut: nothing in it is done, and then all of it."""
    async with housed(tmp_path, line) as house:
        first, second = house.asked(), house.asked()
        behind: list[asyncio.Task[str]] = []

        def turn(name: str) -> None:
            if name == "batch decided" and not behind:
                behind.append(asyncio.create_task(house.answer(second)))
            elif name == WRITTEN:
                line.turn(Mode.CUT_ANSWER, b"COMMIT")

        crashpoints.arm(turn)
        doubted = asyncio.create_task(house.answer(first))
        await until_trouble(house, IN_DOUBT)
        crashpoints.arm(None)
        line.turn(Mode.PASS)
        assert (await doubted, await behind[0]) == ("done", UNAVAILABLE.name)
        await house.calm()
        assert house.got == 1
        assert await house.answer(second) == "done"
        assert house.got == 2


async def test_what_began_behind_a_silent_commit_does_not_wait_for_it(
    tmp_path: Path, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who shares no batch with it is told soon that nothing was done, and it is not done later either."""
    monkeypatch.setattr(writer, "STALLED_AFTER_S", 0.1)
    patient = LIMITS._replace(answer_s=PATIENCE_S, idle_ms=1_000 * PATIENCE_S, lock_ms=1_000 * PATIENCE_S)
    async with housed(tmp_path, line, patient) as house:
        first, second = house.asked(), house.asked()
        behind: list[asyncio.Task[str]] = []

        def turn(name: str) -> None:
            if name == "batch decided" and not behind:
                behind.append(asyncio.create_task(house.answer(second)))
            elif name == WRITTEN:
                line.turn(Mode.SWALLOW, b"COMMIT")

        crashpoints.arm(turn)
        silent = asyncio.create_task(house.answer(first))
        await until(lambda: bool(behind), "the first one is decided")
        assert await behind[0] == UNAVAILABLE.name
        assert not silent.done()
        crashpoints.arm(None)
        line.turn(Mode.PASS)
        line.cut()
        assert await silent == "done"
        await house.calm()
        assert house.got == 1
        assert await house.answer(second) == "done"
        assert house.got == 2


async def test_a_commit_that_is_held_up_somewhere_is_one_or_the_other(tmp_path: Path, line: Line) -> None:
    """While the line stalls nobody is answered; when it moves again, the answer is what the books say."""
    async with housed(tmp_path, line) as house:
        command = house.asked()
        with at(WRITTEN, line, Mode.STALL):
            doubted = asyncio.create_task(house.answer(command))
            await until_trouble(house, IN_DOUBT)
            line.turn(Mode.PASS)
            told = await doubted
        assert told in {"done", UNAVAILABLE.name}
        assert house.got == (told == "done")


@pytest.mark.parametrize("point", ["batch taken", "batch decided", BEFORE])
async def test_a_line_that_is_cut_before_the_commit_leaves_nothing(tmp_path: Path, line: Line, point: str) -> None:
    """Nothing of the batch is kept; it is turned away, and everybody else until there is a line again."""
    async with housed(tmp_path, line) as house:
        first, second = house.asked(), house.asked()
        with at(point, line, Mode.REFUSE):
            told = asyncio.create_task(house.answer(first))
            await until_trouble(house, "Ledger")
            assert await house.answer(second) == UNAVAILABLE.name
            line.turn(Mode.PASS)
            assert await told == UNAVAILABLE.name
        await house.calm()
        assert house.got == 0


async def test_a_line_that_was_cut_while_nothing_happened_is_not_noticed(tmp_path: Path, line: Line) -> None:
    """A restart of the server between two batches costs a new connection, and nobody an answer."""
    async with housed(tmp_path, line) as house:
        line.cut()
        assert await house.answer(house.asked()) == "done"
        assert house.world.events.troubles == []
        assert house.got == 1


async def test_cuts_at_any_moment_lose_nothing_and_double_nothing(tmp_path: Path, line: Line) -> None:
    """However often the line is cut under load, bob has got what was answered, and each request was done once."""
    chance = random.Random(20261127)
    async with housed(tmp_path, line) as house:
        done = 0
        for _ in range(ROUNDS):
            commands = [house.asked() for _ in range(chance.randrange(1, 20))]
            answers = [asyncio.create_task(house.answer(command)) for command in commands]
            await asyncio.sleep(chance.random() * 0.02)
            line.turn(chance.choice([Mode.REFUSE, Mode.CUT_ANSWER]))
            await asyncio.sleep(chance.random() * 0.02)
            line.turn(Mode.PASS)
            told = [await each for each in answers]
            await house.calm()
            again = [await house.answer(command) for command, was in zip(commands, told, strict=True) if was != "done"]
            assert set(again) <= {"done"}
            done += len(commands)
        assert house.got == done


@pytest.mark.parametrize(
    "culprit",
    [
        Culprit(NOBODY, height=1 << 63),
        Culprit(NOBODY, block="\ud800"),
        Culprit(NOBODY, block="a\0b"),
        Culprit(NOBODY, network=1 << 70),
    ],
    ids=["too-large-a-number", "no-text", "a-nul", "too-large-a-key"],
)
async def test_a_command_that_cannot_be_kept_fails_alone(tmp_path: Path, line: Line, culprit: Command) -> None:
    """Whoever shared its batch is served, nobody is told to come again with it, and the server goes on."""
    async with housed(tmp_path, line) as house:
        before, after = house.asked(), house.asked()
        asked = [asyncio.create_task(house.answer(command)) for command in (before, culprit, after)]
        with pytest.raises(InvariantBroken, match="Culprit"):
            await asked[1]
        assert [await asked[0], await asked[2]] == ["done", "done"]
        assert len(house.world.events.failures) == 1
        assert house.world.events.troubles == []
        assert house.got == 2


async def until_trouble(house: House, trouble: str) -> None:
    """Wait until the writer is in trouble of a kind."""
    await until(lambda: house.world.writer.trouble.startswith(trouble), f"the writer says {trouble}")


async def until(is_so: Callable[[], bool], what: str) -> None:
    """Wait until something is so."""

    async def asked() -> bool:
        return is_so()

    await wait_until(asked, what, PATIENCE_S)
