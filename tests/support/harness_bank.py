"""A bank: a server whose customers send each other money as fast as they can, and readers who add it all up."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from itertools import product
from pathlib import Path
from random import Random
from typing import Final

from strongroom.admin.protocol import AddUser, CreateKey, PayFromFaucet
from strongroom.ledger.accounts import NEVER_NEGATIVE, unpack
from strongroom.store.sqlite.snapshot import SqliteSnapshot
from support.demos import STRONGROOM
from support.harness import V3, Answer, Server, Wire

NAMES: Final = tuple(f"holder{number}" for number in range(6))
HOT: Final = NAMES[:2]
"""Half of all transfers have one of these at one end."""

EACH: Final = {"BTC": Decimal("0.01"), "XRP": Decimal(40)}
"""What everybody begins with."""

WHOLE: Final = {asset: amount * len(NAMES) for asset, amount in EACH.items()}
_SMALLEST: Final = {"BTC": Decimal("0.00000001"), "XRP": Decimal("0.000001")}
_LARGEST: Final = 1_000_000
"""In smallest units: as much as everybody begins with of Bitcoin, so that many transfers find too little."""

_INSUFFICIENT: Final = 51523
_QUIET_S: Final = 3_600
_DISK_READ_EVERY_S: Final = 0.02

Holding = tuple[str, str]
"""A holder and an asset."""


class Bank:
    """A running server, and what its customers were told."""

    def __init__(self, server: Server, seed: str) -> None:
        self.server = server
        self.seed = seed
        self.opening: dict[Holding, Decimal] = {}
        self.moved: defaultdict[Holding, Decimal] = defaultdict(Decimal)
        self.told: Counter[str] = Counter()
        self.readings: list[int] = []
        self.of_a_moment: list[int] = []

    async def open(self) -> None:
        """Open the holders' accounts and pay in."""
        for name in NAMES:
            await self.server.operate(AddUser(name, f"{name}@example.com"))
            made = await self.server.operate(CreateKey(name, ["all"]))
            self.server.users[name] = {"api_key": made["key"], "api_secret": made["secret"]}
            for asset, amount in EACH.items():
                paid = await self.server.operate(PayFromFaucet(name, asset, str(amount), mine=True, wait=True))
                assert paid["credited"], paid
        self.opening = {(name, asset): EACH[asset] for name, asset in product(NAMES, EACH)}

    async def move(self, number: int, ends_s: float) -> None:
        """Send somebody something, again and again; what is left to move decides whether it goes."""
        chance = Random(f"{self.seed}-{number}")
        async with self.server.connected() as wire:
            while time.monotonic() < ends_s:
                await self._send(wire, chance)

    async def _send(self, wire: Wire, chance: Random) -> None:
        sender, receiver = chance.sample(NAMES, 2)
        if chance.random() < 0.5 and sender not in HOT:
            receiver = chance.choice(HOT)
        asset = chance.choice(list(EACH))
        amount = chance.randint(1, _LARGEST) * _SMALLEST[asset]
        body = {"amount": f"{amount:f}", "asset": asset, "toUser": receiver, "toUserMail": f"{receiver}@example.com"}
        request = self.server.sign(sender, f"{V3}user/wallet/transfer", json.dumps(body).encode())
        answer = await wire.send("POST", request)
        if answer.status == 200:
            self.moved[sender, asset] -= amount
            self.moved[receiver, asset] += amount
            self.told["done"] += 1
        else:
            assert (answer.status, answer.json()["errorCode"]) == (400, _INSUFFICIENT), answer
            self.told["refused"] += 1

    async def look(self, ends_s: float) -> None:
        """Read everybody's wallet, again and again, and add up what is known to be of one moment."""
        readings = of_a_moment = 0
        async with self.server.connected() as wire:
            while time.monotonic() < ends_s:
                of_a_moment += await self._read(wire)
                readings += 1
        self.readings.append(readings)
        self.of_a_moment.append(of_a_moment)

    async def _read(self, wire: Wire) -> bool:
        """Read all wallets; say whether all of it is of one moment: nobody's newest order has changed meanwhile."""
        newest = [("GET", self.server.sign(name, f"{V3}user/wallet_history"), "?count=1") for name in NAMES]
        wallets = [("GET", self.server.sign(name, f"{V3}user/wallet"), "") for name in NAMES]
        again = [("GET", self.server.sign(name, f"{V3}user/wallet_history"), "?count=1") for name in NAMES]
        answers = await wire.send_together([*newest, *wallets, *again])
        before, shown, after = (answers[start : start + len(NAMES)] for start in range(0, len(answers), len(NAMES)))
        found = holdings(shown)
        assert min(found.values()) >= 0, f"somebody is below zero: {found}"
        if _orders(before) != _orders(after):
            return False
        for asset, whole in WHOLE.items():
            total = sum(amount for (_, of), amount in found.items() if of == asset)
            assert total == whole, f"{total} {asset} of {whole}"
        return True

    async def closing(self) -> dict[Holding, Decimal]:
        """Return what everybody has."""
        async with self.server.connected() as wire:
            wallets = [("GET", self.server.sign(name, f"{V3}user/wallet"), "") for name in NAMES]
            return holdings(await wire.send_together(wallets))


def holdings(wallets: Sequence[Answer]) -> dict[Holding, Decimal]:
    """Return what everybody has by their wallets; what can be spent is all there is."""
    found: dict[Holding, Decimal] = {}
    for name, wallet in zip(NAMES, wallets, strict=True):
        assert wallet.status == 200, wallet
        rows = {row["currency"]: row for row in wallet.json()}
        assert all(rows[asset]["available"] == rows[asset]["total"] for asset in EACH), rows
        found |= {(name, asset): Decimal(rows[asset]["available"]) for asset in EACH}
    return found


def _orders(histories: Sequence[Answer]) -> list[str]:
    assert all(history.status == 200 for history in histories), histories
    return [history.json()[0]["orderId"] for history in histories]


class Auditor(threading.Thread):
    """Reads the books from disk beside the server, again and again: each reading is whole, none goes back."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.readings = 0
        self.failure: BaseException | None = None
        self._stopping = threading.Event()
        self._folder = folder

    def run(self) -> None:
        """Read until stopped."""
        try:
            self._read()
        except BaseException as error:  # noqa: BLE001 - the test raises it
            self.failure = error

    async def stop(self) -> None:
        """Wait for the end of the latest reading; raise what it met."""
        self._stopping.set()
        await asyncio.to_thread(self.join)
        if self.failure is not None:
            raise self.failure

    def _read(self) -> None:
        newest = 0
        while not self._stopping.wait(_DISK_READ_EVERY_S):
            snapshot = SqliteSnapshot(self._folder)
            try:
                sums: Counter[int] = Counter()
                for packed, balance, _ in snapshot.balances():
                    account = unpack(packed)
                    sums[account.asset] += balance
                    assert balance >= 0 or account.purpose not in NEVER_NEGATIVE
                assert not any(sums.values())
                assert snapshot.last()[0] >= newest
                newest = snapshot.last()[0]
            finally:
                snapshot.close()
            self.readings += 1


@asynccontextmanager
async def bank_on(folder: Path, seed: str, program: Sequence[str] = STRONGROOM) -> AsyncGenerator[Bank]:
    """Run a bank in a new folder until the block ends; nothing but its customers moves money."""
    server = Server(folder, program, seconds_per_block=_QUIET_S)
    try:
        await server.start()
        bank = Bank(server, seed)
        await bank.open()
        yield bank
    finally:
        server.kill()
