"""Servers over one PostgreSQL that are killed under load: what any of them answered stands, and stands once.

`STRONGROOM_CRASH_SEED` repeats the choices of a run that failed.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from decimal import Decimal
from itertools import product
from pathlib import Path
from typing import Final

import pytest

from support.demos import invoke
from support.harness import V3, Unanswered
from support.harness_bank import EACH, NAMES, Bank, Holding
from support.harness_rounds import SEED
from support.house_nodes import Node, two_nodes

MOVERS: Final = 6
KILLS: Final = 2
REFUSED: Final = 400
SMALLEST: Final = Decimal("0.000001")


class Movers:
    """Customers who ask either node, and ask again with the same Idempotency-Key until they are answered."""

    def __init__(self, nodes: Sequence[Node], seed: str) -> None:
        self.nodes = nodes
        self.seed = seed
        self.moved: defaultdict[Holding, Decimal] = defaultdict(Decimal)
        self.told: Counter[str] = Counter()
        self.over = asyncio.Event()

    async def move(self, number: int) -> None:
        """Send somebody something, again and again, until it is over."""
        chance = random.Random(f"{self.seed}-{number}")
        deed = 0
        while not self.over.is_set():
            deed += 1
            sender, receiver = chance.sample(NAMES, 2)
            asset = chance.choice(list(EACH))
            amount = chance.randint(1, 9_999) * SMALLEST
            body = {
                "amount": f"{amount:f}",
                "asset": asset,
                "toUser": receiver,
                "toUserMail": f"{receiver}@example.com",
            }
            if await self._until_answered(chance, sender, json.dumps(body).encode(), f"{number}-{deed}"):
                self.moved[sender, asset] -= amount
                self.moved[receiver, asset] += amount

    async def _until_answered(self, chance: random.Random, sender: str, body: bytes, key: str) -> bool:
        """Say whether it was done; where one node is gone, another is asked."""
        async with asyncio.timeout(60):
            while True:
                node = chance.choice(self.nodes)
                request = node.sign(sender, f"{V3}user/wallet/transfer", body, {"idempotency-key": key})
                try:
                    async with node.connected() as wire:
                        answer = await wire.send("POST", request)
                except Unanswered:
                    self.told["unanswered"] += 1
                    await asyncio.sleep(0.05)
                    continue
                if answer.status in (200, REFUSED):
                    repeated = answer.headers.get("idempotency-replayed", "")
                    self.told[f"{answer.status} {repeated}".strip()] += 1
                    return answer.status == 200
                assert answer.status == 503, answer
                await asyncio.sleep(0.05)


async def kill_again_and_again(nodes: Sequence[Node], chance: random.Random, kills: int) -> None:
    """Kill one node or the other at random moments, and start it again."""
    for _ in range(kills):
        await asyncio.sleep(0.3 + chance.random())
        node = chance.choice(nodes)
        node.kill()
        await node.start()


async def look(bank: Bank, over: asyncio.Event) -> int:
    """Read all wallets at a node until it is over, past its deaths; return how many readings were of one moment."""
    readings = 0
    while not over.is_set():
        try:
            async with bank.server.connected() as wire:
                while not over.is_set():
                    readings += await bank._read(wire)
        except Unanswered:
            await asyncio.sleep(0.05)
    return readings


@pytest.mark.timeout(3_000)
@pytest.mark.parametrize("kills", [KILLS, pytest.param(20 * KILLS, marks=pytest.mark.soak)])
async def test_nothing_answered_is_lost_or_doubled_when_nodes_are_killed(tmp_path: Path, kills: int) -> None:
    """Customers of two nodes, each killed at random: every answer stands once, and every reading has all the money."""
    async with two_nodes(tmp_path) as nodes:
        bank = Bank(nodes[0], SEED)
        await bank.open()
        nodes[1].users |= nodes[0].users
        movers = Movers(nodes, SEED)
        async with asyncio.TaskGroup() as group:
            for number in range(MOVERS):
                _ = group.create_task(movers.move(number))
            readings = [group.create_task(look(Bank(node, SEED), movers.over)) for node in nodes]
            await kill_again_and_again(nodes, random.Random(f"{SEED}-kills"), kills)
            movers.over.set()
        expected = {(name, asset): EACH[asset] + movers.moved[name, asset] for name, asset in product(NAMES, EACH)}
        for node in nodes:
            assert await Bank(node, SEED).closing() == expected
        print(dict(movers.told), "readings of one moment:", [task.result() for task in readings])
        assert movers.told["200"]
        assert movers.told["unanswered"]
        verified = await asyncio.to_thread(invoke, "ledger", "verify", "--config", nodes[0].config)
        assert verified.code == 0, verified.err
