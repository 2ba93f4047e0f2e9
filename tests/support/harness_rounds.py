"""Rounds: customers at work, a kill, a new start, and a comparison with everything that was answered."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, NamedTuple

from strongroom.crashpoints import SENDER_POINTS
from support.demos import STRONGROOM, run
from support.harness import Server, Wire
from support.harness_addresses import Listed, check_addresses, given
from support.harness_load import UNAVAILABLE, WORKERS, Customers
from support.harness_model import FAILED, GIVE_UP, MAKE, Deed, Model, Row
from support.harness_outside import Outside, payments_for, payments_of
from support.harness_strikes import PLACES, Fault, Plan, Strike

SEED: Final = os.environ.get("STRONGROOM_CRASH_SEED") or str(random.SystemRandom().randrange(10**9))
ROUNDS: Final = int(os.environ.get("STRONGROOM_CRASH_ROUNDS", "20"))
"""Ten times as many are played in a soak."""

RETRIED: Final = 10
"""How many of a round's answered deeds are asked for again after the restart."""

REACHED_WITHIN_S: Final = 20.0
"""A place that the server has not come to after so long is not on its way."""

FAULTS: Final = tuple(Fault(operation, kind) for operation in ("write", "sync") for kind in ("error", "full", "hang"))
ROUGH: Final = frozenset(
    f"{side} commit {step}" for side in ("before", "after") for step in ("unmine", "revert", "void")
)
"""Places that are reached only where the chains are unkind."""


class Blow(NamedTuple):
    """What a round's server has to take: perhaps a bad disk for a while, and then its end at a place or a moment.

    `to_the_end`: the disk stays bad until then.
    """

    place: str = ""
    nth: int = 1
    share: float = 0.5
    after_s: float = 0.5
    fault: Fault | None = None
    to_the_end: bool = False

    def __str__(self) -> str:
        at = f"{self.nth}. {self.place}" if self.place else f"after {self.after_s:.2f} s"
        return f"{at}, {self.fault.name}{' to the end' * self.to_the_end}" if self.fault else at

    @property
    def is_planned(self) -> bool:
        """Whether the server itself must take part in it."""
        return bool(self.place or self.fault)


def blow_at(place: str, chance: random.Random) -> Blow:
    """Return a blow at a place, as many visits later as it may be visited in a second or so."""
    rare = 2 if place in ROUGH else 3 if place in SENDER_POINTS else 10 if place.endswith("database") else 0
    return Blow(place, chance.randint(1, rare or 60), chance.random())


def any_blow(chance: random.Random) -> Blow:
    """Return a blow: at any moment, at a place on the usual way, or at a moment after a time with a bad disk."""
    kind = chance.choice(("moment", "moment", "place", "disk"))
    if kind == "place":
        return blow_at(chance.choice([place for place in PLACES if place not in ROUGH]), chance)
    fault = chance.choice(FAULTS) if kind == "disk" else None
    return Blow(after_s=chance.uniform(0.2, 0.8), fault=fault, to_the_end=chance.random() < 0.5)


class Rounds:
    """One folder and its customers through many crashes."""

    def __init__(self, server: Server, seed: str) -> None:
        self.server = server
        self.chance = random.Random(seed)
        self.plan = Plan(server.folder.with_name(f"{server.folder.name}.plan"))
        self.usual: Sequence[str] = STRONGROOM
        self.planned: Sequence[str] = self.plan.program
        self.customers = Customers(server, self.chance)
        self.outside = Outside(self.customers)
        self.orders: list[str] = []
        self.struck: Counter[str] = Counter()
        self.kinds: Counter[str] = Counter()
        self.asked = self.unknown = 0
        self._paid_before: Counter[tuple[str, str, str, int]] = Counter()
        self._paid_out: list[Deed] = []

    async def begin(self) -> None:
        """Start the server and settle in."""
        await self.server.start()
        await self.customers.settle_in()
        await self.outside.settle()
        self._paid_before = payments_of(self.server.folder)

    async def play_all(self, blows: Sequence[Blow]) -> None:
        """Play a round for each blow; whatever goes wrong is told with the round it was in."""
        for number, blow in enumerate(blows):
            try:
                await self.play(blow, following=blows[number + 1] if number + 1 < len(blows) else Blow())
            except BaseException as error:
                error.add_note(f"in round {number + 1} of {self.server.folder.name}: {blow}")
                raise
        await self._check_chains()

    async def play(self, blow: Blow, following: Blow = Blow()) -> None:  # noqa: B008 - it never changes
        """Load, kill, restart, compare; then ask again for some of it, and compare again."""
        rough = blow.place in ROUGH
        if blow.is_planned and self.server.program != self.planned:
            await self._start_again(blow)
        if rough:
            await self.outside.settle()
        since_ms = time.time_ns() // 1_000_000
        model, listed = Model(await self.customers.balances()), await self.customers.addresses()
        self.customers.listed = listed
        await self._load(model, blow, rough=rough)
        await self._restart(following)
        verifying = asyncio.create_task(self._perhaps_verified())
        try:
            await self.outside.bury(since_ms)
            if rough:
                await self.outside.settle()
            happened, _ = await self._compare(model, listed, since_ms)
            self.asked += len(model.deeds)
            self.unknown += sum(bool(deed.unanswered) for deed in model.deeds)
            self.kinds.update(deed.kind for deed in happened)
            await self._ask_again(model, happened)
            happened, rows = await self._compare(model, listed, since_ms)
            self._note(happened, rows)
        finally:
            await verifying

    async def _load(self, model: Model, blow: Blow, *, rough: bool) -> None:
        """Let everybody act at once until the server is gone."""
        acting = [asyncio.create_task(self.customers.act(model)) for _ in range(WORKERS)]
        acting.append(asyncio.create_task(self.outside.act(model, rough=rough)))
        if blow.place:
            self.plan.aim(Strike(blow.place, blow.nth, blow.share))
            _ = await self.server.ended(REACHED_WITHIN_S)
            self.struck[blow.place] += self.plan.struck
        else:
            await asyncio.sleep(blow.after_s / 2)
            if blow.fault:
                self.plan.fail(blow.fault)
                await asyncio.sleep(blow.after_s / 2)
                self.struck[blow.fault.name] += self.plan.met
            if not blow.to_the_end:
                self.plan.heal()
            await asyncio.sleep(blow.after_s / 2)
        self.server.kill()
        self.plan.forget()
        await asyncio.gather(*acting)

    async def _restart(self, following: Blow) -> None:
        """Start the server again; now and then it is killed on the way, or the books are verified at rest."""
        if self.chance.random() < 0.25:
            self.server.begin()
            await asyncio.sleep(self.chance.uniform(0, 1))
            self.server.kill()
        await self._perhaps_verified()
        await self._start_again(following)

    async def _start_again(self, blow: Blow) -> None:
        self.server.kill()
        self.server.program = self.planned if blow.is_planned else self.usual
        await self.server.start()

    async def _perhaps_verified(self) -> None:
        if self.chance.random() < 0.25:
            await verified(self.server.folder)

    async def _compare(self, model: Model, listed: Listed, since_ms: int) -> tuple[list[Deed], list[Row]]:
        """Return what happened and the history of it; raise `AssertionError` for whatever must not be."""
        rows = await self.customers.history(since_ms)
        happened = model.check(rows, await self.customers.balances())
        return happened + check_addresses(listed, model.deeds, await self.customers.addresses()), rows

    def _note(self, happened: Iterable[Deed], rows: Iterable[Row]) -> None:
        """Keep what is compared at the very end."""
        failed = {row["orderId"] for row in rows if row["status"] == FAILED}
        self.orders += [row["orderId"] for row in rows]
        orders = {(row["username"], row["currency"], row["type"], row["amount"]): row["orderId"] for row in rows}
        for deed in happened:
            stranger = deed.kind == "withdraw" and not deed.receiver
            if stranger and orders[deed.marks()[0]] not in failed:
                self._paid_out.append(deed)

    async def _check_chains(self) -> None:
        """Every withdrawal to a stranger was paid once, or failed and was not; nothing else was paid."""
        await self.outside.settle()
        self.server.kill()
        await verified(self.server.folder)
        paid = payments_of(self.server.folder) - self._paid_before
        assert paid == payments_for(self._paid_out), "the chains have what the books say"
        await self._start_again(Blow())

    async def _ask_again(self, model: Model, happened: Sequence[Deed]) -> None:
        """Ask again for all that had no answer and for some that had: by key where there is one, else as it was."""
        requests = [deed for deed in model.deeds if deed.kind != "deposit"]
        doubtful = [deed for deed in requests if deed.unanswered]
        settled = [deed for deed in requests if not deed.unanswered]
        settled = self.chance.sample(settled, min(RETRIED, len(settled)))
        async with self.server.connected() as wire:
            for deed in doubtful + settled:
                ask = self._by_key if deed.key else self._as_it_was
                await ask(wire, deed, happened=deed in happened)

    async def _by_key(self, wire: Wire, deed: Deed, *, happened: bool) -> None:
        """What was done is told again in the same words; what was not is done now."""
        before, deed.unanswered = deed.done, 0
        answer = await self.customers.attempt(wire, deed, self.customers.renewed(deed))
        replayed = answer.headers.get("idempotency-replayed") == "true"
        assert answer.status in ({200} if happened else may_be_answered(deed)), f"{answer}: {deed}"
        if deed.kind != MAKE or happened:
            # Of two unanswered requests for an address nobody can tell which one came through.
            assert replayed is happened, f"{answer}: {deed}"
        assert before is None or answer.body == before.body, f"another answer: {deed}"
        assert deed.kind != MAKE or answer.status != 200 or given(deed), f"no address: {deed}"

    async def _as_it_was(self, wire: Wire, deed: Deed, *, happened: bool) -> None:
        """What was used up is an invalid nonce; what never arrived is carried out now."""
        answered = any(answer.status != UNAVAILABLE for answer in deed.answers)
        put_off, deed.unanswered = bool(deed.answers) and not answered, 0
        answer = await self.customers.attempt(wire, deed, deed.first)
        used_up = (answer.status, answer.json().get("code")) == (401, 401)
        if happened or answered:
            assert used_up, f"carried out again: {deed}"
        elif put_off:
            assert not used_up, f"put off, and yet used up: {deed}"
            assert answer.status in may_be_answered(deed), f"{answer}: {deed}"
        else:
            assert used_up or answer.status in may_be_answered(deed), f"{answer}: {deed}"
        # An invalid nonce says nothing of what the first attempt did.
        deed.unanswered = int(used_up and not answered)


def may_be_answered(deed: Deed) -> set[int]:
    """Return the statuses that a deed may meet when it is tried for the first time: money and stock can be short."""
    if deed.kind == GIVE_UP:
        return {200}
    if deed.kind == MAKE:
        return {200, 400, 503}
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
        rounds = Rounds(server, seed)
        await rounds.begin()
        yield rounds
    finally:
        server.kill()
