"""Deeds: steps that a test makes up and a house carries out by its real use cases, the same on every store."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

import msgspec

from strongroom.clock import Clock, Ids
from strongroom.custody.derivation import Branch, account_xpubs
from strongroom.custody.families import BITCOIN as BITCOIN_CHAIN
from strongroom.engine.command import NOBODY, Command, Guard
from strongroom.engine.settle import Outcome
from strongroom.errors import Refused
from strongroom.ledger.accounts import NEVER_NEGATIVE, NEVER_POSITIVE, Purpose, house, owed, staked, unpack
from strongroom.ledger.entries import Posting
from strongroom.rates.book import RateBook
from strongroom.rates.table import TableSource
from strongroom.records.heads import Head
from strongroom.records.history import LineType
from strongroom.records.withdrawals import Withdrawal, WithdrawalState
from strongroom.wallet.approvals import prepare_approval, prepare_cancellation, prepare_rejection
from strongroom.wallet.bookings import FundHouse, prepare_booking
from strongroom.wallet.context import perform, perform_own
from strongroom.wallet.conversions import prepare_conversion
from strongroom.wallet.settings import prepare_settings
from strongroom.wallet.transfers import prepare_transfer
from strongroom.wallet.users import MarkUser, prepare_user
from strongroom.wallet.withdrawals import prepare_withdrawal
from support.effects import Do
from support.world import BTC, NOW_MS, SNAPSHOT, USDT, World

COIN = 100_000_000
NAMES = ("alice", "bob", "alice-sub1", "carol", "nobody")
STRANGER = Branch(BITCOIN_CHAIN, account_xpubs(bytes(64), [BITCOIN_CHAIN])["BITCOIN"]).address(1).address
SETTINGS = msgspec.structs.replace(
    SNAPSHOT, offers=(msgspec.structs.replace(SNAPSHOT.offers[0], approve_above=COIN // 2), *SNAPSHOT.offers[1:])
)
PRICES = {"BTC/USDT": "50000.1", "ETH/USDT": "3000.07"}

Deed = tuple[Any, ...]
"""The name of a method of `House`, and what it is called with."""


class SameIds(Ids):
    """Ids that come out the same each time, so that two houses can be compared."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self._chance = Random(1)

    def uid(self) -> int:
        """Return the next user id."""
        return self._chance.randrange(10**9, 10**10)

    def uuid(self) -> str:
        """Return the next UUID."""
        return f"{self._chance.getrandbits(128):032x}"


class House:
    """A world with prices, an inventory, and users by name, where deeds are done."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.context = world.context
        self.context.ids = SameIds(world.clock)
        self.context.formats = {"BITCOIN": BITCOIN_CHAIN.format}
        prices = TableSource(PRICES, NOW_MS, max_age_ms=10**9)
        self.context.rates = RateBook((prices,), spread_e4=30)
        self.uids: dict[str, int] = {}
        self._again: Callable[[], Any] | None = None

    async def furnish(self) -> None:
        """Declare the settings, open three users, and give the house its inventory."""
        await perform_own(self.context, lambda: prepare_settings(self.context, NOBODY, SETTINGS))
        for name, parent in (("alice", None), ("bob", None), ("alice-sub1", "alice")):
            await self.open_user(name, parent)
        for asset in (BTC, USDT):
            await self.fund_inventory(asset, 20 * COIN)
        await self.book("alice", BTC, LineType.DEPOSIT, 3 * COIN)

    async def do(self, deed: Deed) -> Outcome:
        """Do a deed and return what became of it; a refusal of the house's own is an outcome too."""
        try:
            return await getattr(self, deed[0])(*deed[1:])
        except Refused as refusal:
            return Outcome(0, refusal=refusal)

    async def do_together(self, deeds: list[Deed]) -> list[Outcome]:
        """Do deeds that wait in the queue together."""
        return await asyncio.gather(*map(self.do, deeds))

    async def open_user(self, name: str, parent: str | None) -> Outcome:
        """Open a user, or a sub-account."""
        command = prepare_user(self.context, NOBODY, name, f"{name}@example.com", self.uids.get(parent or "", 0))
        outcome = await perform_own(self.context, lambda: command)
        self.uids[name] = command.uid
        return outcome

    async def fund_inventory(self, asset: int, amount: int) -> Outcome:
        """Let the house buy more of an asset."""
        command = FundHouse(NOBODY, asset, amount, house(Purpose.BANK, asset), Purpose.INVENTORY)
        return await perform_own(self.context, lambda: command)

    async def book(self, name: str, asset: int, type_: LineType, amount: int) -> Outcome:
        """Book something for a customer by hand; no more is unstaked than is staked."""
        uid = self.uids.get(name, 404)
        if type_ == LineType.STAKE_UNFREEZE:
            amount = min(amount, self.world.store.row(Head, staked(uid, asset).pack()).after)
        return await self._own(lambda: prepare_booking(self.context, NOBODY, uid, asset, type_, amount))

    async def owe(self, name: str, asset: int, amount: int) -> Outcome:
        """Let a customer owe the house something, as a reorganisation would."""
        uid = self.uids[name]
        postings = (Posting(owed(uid, asset), -amount), Posting(house(Purpose.EQUITY, asset), amount))
        return await self._own(lambda: Do(NOBODY, postings))

    async def transfer(self, name: str, asset: str, amount: str, to: str) -> Outcome:
        """Send money to a user by name."""
        return await self._asked(name, lambda guard: prepare_transfer(self.context, guard, asset, amount, to))

    async def convert(self, name: str, from_asset: str, to_asset: str, amount: str) -> Outcome:
        """Convert money."""
        return await self._asked(
            name, lambda guard: prepare_conversion(self.context, guard, from_asset, to_asset, amount)
        )

    async def withdraw(self, name: str, amount: str, include_fee: bool) -> Outcome:
        """Withdraw bitcoin to a stranger."""
        uuid = self.context.ids.uuid()
        return await self._asked(
            name,
            lambda guard: prepare_withdrawal(
                self.context, guard, "BTC", None, STRANGER, None, amount, include_fee=include_fee, uuid=uuid
            ),
        )

    async def decide(self, verdict: str) -> Outcome:
        """Approve, reject or cancel the oldest withdrawal that waits for it; nothing where none does."""
        waiting = self.world.store.rows(Withdrawal, {"state": WithdrawalState.AWAITING}, 1)
        prepare = {"approve": prepare_approval, "reject": prepare_rejection, "cancel": prepare_cancellation}[verdict]
        ref = waiting[0].ref if waiting else 0
        return await self._own(lambda: prepare(self.context, NOBODY, ref))

    async def mark(self, name: str, frozen: bool, active: bool) -> Outcome:
        """Freeze a user, or close it."""
        return await self._own(lambda: MarkUser(NOBODY, self.uids.get(name, 404), frozen, active))

    async def again(self) -> Outcome:
        """Send the newest customer's request once more, as it was signed."""
        return await self._again() if self._again else Outcome(0)

    async def wait(self, milliseconds: int) -> Outcome:
        """Let time pass."""
        self.world.clock.at_ms += milliseconds
        return Outcome(0)

    async def _own(self, prepare: Callable[[], Command]) -> Outcome:
        return await perform_own(self.context, prepare)

    async def _asked(self, name: str, prepare: Callable[[Guard], Command]) -> Outcome:
        guard = self.world.guard(self.uids[name])
        self._again = lambda: perform(self.context, guard, lambda: prepare(guard))
        return await self._again()


def check_books(world: World) -> None:
    """Check what must hold at any time: sums, bounds, and balances that are what the postings say."""
    balances = {account: after for account, after, _ in world.store.balances()}
    posted, sums = Counter[int](), Counter[int]()
    for item in world.store.items(1, 10**6):
        for booked in item.postings:
            posted[booked.account] += booked.amount
    assert posted == Counter(balances)
    for packed, after in balances.items():
        account = unpack(packed)
        sums[account.asset] += after
        assert after >= 0 or account.purpose not in NEVER_NEGATIVE
        assert after <= 0 or account.purpose not in NEVER_POSITIVE
    assert not any(sums.values())
    assert not world.events.failures
