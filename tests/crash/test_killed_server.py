"""A server that is killed under load, again and again: what was answered is there once, what was refused is not.

`STRONGROOM_CRASH_SEED` repeats a seed that a failure printed; `STRONGROOM_CRASH_ROUNDS` makes more of it.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest

from support import harness_controls
from support.demos import run
from support.harness import Server, Wire
from support.harness_load import Customers, together
from support.harness_model import Deed, Model

ROUNDS: Final = int(os.environ.get("STRONGROOM_CRASH_ROUNDS", "20"))
SEED: Final = os.environ.get("STRONGROOM_CRASH_SEED") or str(random.SystemRandom().randrange(10**9))
RETRIED: Final = 10
"""How many of a round's answered deeds are asked for again after the restart."""

MISTAKEN_ROUNDS: Final = 5
"""Within so many rounds a mistake is found; one is nearly always enough."""


class Rounds:
    """One folder and its customers through many crashes."""

    def __init__(self, server: Server, seed: str) -> None:
        self.server = server
        self.chance = random.Random(seed)
        self.customers = Customers(server, self.chance)
        self.orders: list[str] = []
        self.asked = self.unknown = 0

    async def play(self) -> None:
        """Load, kill, restart, compare; then ask again for some of it, and compare again."""
        since_ms = time.time_ns() // 1_000_000
        model = Model(await self.customers.balances())
        await together(self.customers, model, self.chance.uniform(0.2, 0.8))
        await self._restart()
        verifying = asyncio.create_task(verified(self.server.folder))
        try:
            happened = model.check(await self.customers.history(since_ms), await self.customers.balances())
            self.asked += len(model.deeds)
            self.unknown += sum(bool(deed.unanswered) for deed in model.deeds)
            await self._ask_again(model, happened)
            rows = await self.customers.history(since_ms)
            _ = model.check(rows, await self.customers.balances())
            self.orders += [row["orderId"] for row in rows]
        finally:
            await verifying

    async def play_all(self, count: int) -> None:
        """Play so many rounds."""
        for _ in range(count):
            await self.play()

    async def _restart(self) -> None:
        """Start the server again; now and then it is killed on the way, or the books are verified at rest."""
        if self.chance.random() < 0.25:
            self.server.begin()
            await asyncio.sleep(self.chance.uniform(0, 1))
            self.server.kill()
        if self.chance.random() < 0.25:
            await verified(self.server.folder)
        await self.server.start()

    async def _ask_again(self, model: Model, happened: Sequence[Deed]) -> None:
        """Ask again for all that had no answer and for some that had: by key where there is one, else as it was."""
        doubtful = [deed for deed in model.deeds if deed.unanswered]
        settled = [deed for deed in model.deeds if not deed.unanswered]
        settled = self.chance.sample(settled, min(RETRIED, len(settled)))
        async with self.server.connected() as wire:
            for deed in doubtful + settled:
                ask = self._by_key if deed.key else self._as_it_was
                await ask(wire, deed, happened=deed in happened)

    async def _by_key(self, wire: Wire, deed: Deed, *, happened: bool) -> None:
        """What was done is told again in the same words; what was not is done now."""
        before, deed.unanswered = deed.done, 0
        answer = await self.customers.attempt(wire, deed, self.customers.renewed(deed))
        assert answer.status in ({200} if happened else may_be_answered(deed)), f"{answer}: {deed}"
        assert (answer.headers.get("idempotency-replayed") == "true") is happened, f"{answer}: {deed}"
        assert before is None or answer.body == before.body, f"another answer: {deed}"

    async def _as_it_was(self, wire: Wire, deed: Deed, *, happened: bool) -> None:
        """What was used up is an invalid nonce; what never arrived is carried out now."""
        answered, deed.unanswered = bool(deed.answers), 0
        answer = await self.customers.attempt(wire, deed, deed.first)
        used_up = (answer.status, answer.json().get("code")) == (401, 401)
        if happened or answered:
            assert used_up, f"carried out again: {deed}"
        else:
            assert used_up or answer.status in may_be_answered(deed), f"{answer}: {deed}"
        # An invalid nonce says nothing of what the first attempt did.
        deed.unanswered = int(used_up and not answered)


def may_be_answered(deed: Deed) -> set[int]:
    """Return the statuses that a deed may meet when it is tried for the first time: money can be short."""
    return {400} if deed.doomed else {200, 400}


async def verified(folder: Path) -> None:
    """Let the auditor's command say that the books are whole."""
    ran = await asyncio.to_thread(run, "ledger", "verify", "--data", folder)
    assert ran.code == 0, ran.out + ran.err


@asynccontextmanager
async def rounds_on(folder: Path, seed: str) -> AsyncGenerator[Rounds]:
    """Serve a new folder to its customers until the block ends."""
    server = Server(folder)
    try:
        await server.start()
        rounds = Rounds(server, seed)
        await rounds.customers.settle_in()
        yield rounds
    finally:
        server.kill()


@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("rounds_count", [ROUNDS, pytest.param(10 * ROUNDS, marks=pytest.mark.soak)])
async def test_no_answer_is_lost_and_nothing_is_done_twice(tmp_path: Path, rounds_count: int) -> None:
    """Twenty times: customers at work, kill -9, a new start; every answer stands, everything else is whole."""
    print(f"STRONGROOM_CRASH_SEED={SEED}")
    began_ms, began_s = time.time_ns() // 1_000_000, time.monotonic()
    async with rounds_on(tmp_path / "house", SEED) as rounds:
        async with asyncio.timeout(60 + 12 * rounds_count):
            await rounds.play_all(rounds_count)
        listed = await rounds.customers.references(began_ms)
        assert sorted(listed) == sorted(rounds.orders), "both dialects list every order of every round"
        print(
            f"{ROUNDS} rounds in {time.monotonic() - began_s:.0f} s: {rounds.asked} deeds, {rounds.unknown} unanswered"
        )
        assert rounds.unknown


@pytest.mark.parametrize("mistake", harness_controls.MISTAKES)
async def test_a_server_that_breaks_its_word_is_found_out(tmp_path: Path, mistake: str) -> None:
    """The same rounds fail when answers come before the commit, or a guard or balance is in memory only."""
    async with rounds_on(tmp_path / "house", SEED) as rounds:
        rounds.server.kill()
        rounds.server.program = (sys.executable, str(Path(harness_controls.__file__)), mistake)
        await rounds.server.start()
        with pytest.raises(AssertionError) as found:
            await rounds.play_all(MISTAKEN_ROUNDS)
    print(f"{mistake}: {str(found.value)[:200]}")
