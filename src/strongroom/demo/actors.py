"""What can be done in a demo's house by hand: users, coins from the faucet, blocks, requests, and waiting for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec

from strongroom.application import Application
from strongroom.custody.families import Family
from strongroom.custody.outside import Outside
from strongroom.demo.house import DemoUser
from strongroom.engine.command import NOBODY, Command, Guard
from strongroom.engine.settle import Outcome
from strongroom.errors import InvariantBroken
from strongroom.ledger.accounts import Account, Purpose
from strongroom.money import parse_amount
from strongroom.records.history import LineType
from strongroom.records.keys import Permission
from strongroom.records.settings import AssetSettings, OfferSettings
from strongroom.records.withdrawals import OPEN_WITHDRAWALS, Payment, Withdrawal
from strongroom.wallet.addresses import AddressRule, GivenAddress, give_address
from strongroom.wallet.bookings import FundHouse, prepare_booking
from strongroom.wallet.context import perform_own
from strongroom.wallet.holdings import chain_units
from strongroom.wallet.keys import KeyTerms, prepare_key
from strongroom.wallet.payments import OPEN_PAYMENTS
from strongroom.wallet.users import prepare_user
from strongroom.wallet.withdrawals import WithdrawalRequested, prepare_withdrawal

_MAX_ROUNDS: Final = 50
"""What has not come to its end after its confirmations were mined so many times never will."""

_MOMENT_S: Final = 0.015


class Actors:
    """The customers, the operator and the outside world of one house, by the customers' names."""

    def __init__(self, application: Application) -> None:
        self.context = application.context
        self._house = application
        self._box = application.box
        self._treasury = application.treasury
        self._uids: dict[str, int] = {}
        self._committed = asyncio.Event()
        self.context.reads.subscribe(lambda _: self._committed.set())

    async def do(self, prepare: Callable[[], Command]) -> Outcome:
        """Carry out a command. Raises `Refused`."""
        return await perform_own(self.context, prepare)

    def guard(self, username: str) -> Guard:
        """Return the guard of a request that a user makes without a signature."""
        return Guard(self._uids[username])

    async def open_user(self, username: str, parent: str = "") -> DemoUser:
        """Open a user with a key that may do everything."""
        mail = f"{username}@example.com"
        opening = prepare_user(self.context, NOBODY, username, mail, self._uids.get(parent, 0))
        _ = await self.do(lambda: opening)
        self._uids[username] = opening.uid
        making, secret = prepare_key(self.context, NOBODY, self._box, opening.uid, KeyTerms(label="demo"))
        _ = await self.do(lambda: making)
        permissions = [str(permission.name).capitalize() for permission in Permission]
        return DemoUser(username, mail, str(opening.uid), making.text, secret, permissions, parent or None)

    async def fund_house(self, code: str, amount: str, source: Account, purpose: Purpose) -> None:
        """Book money of the house's own."""
        asset = self.context.catalogue.asset(code)
        command = FundHouse(NOBODY, asset.number, parse_amount(amount, asset.scale), source, purpose)
        _ = await self.do(lambda: command)

    async def book(self, username: str, code: str, type_: LineType, amount: str) -> None:
        """Book what the operator books by hand: money that came to the bank, rewards, stakes."""
        asset = self.context.catalogue.asset(code)
        units, uid = parse_amount(amount, asset.scale), self._uids[username]
        _ = await self.do(lambda: prepare_booking(self.context, NOBODY, uid, asset.number, type_, units))

    async def address(self, username: str, code: str) -> GivenAddress:
        """Return a new deposit address of a user on the asset's default network."""
        guard, rule = self.guard(username), AddressRule.TEN_UNUSED
        outcome = await give_address(self.context, guard, self._treasury.pools, code, None, rule)
        if outcome.refusal is not None:
            raise outcome.refusal
        return msgspec.json.decode(outcome.result, type=GivenAddress)

    async def faucet(self, code: str, address: str, tag: str, amount: str) -> str:
        """Let a stranger pay coins to an address, and return the txid."""
        asset, offer = self.offer(code)
        units = chain_units(parse_amount(amount, asset.scale), offer, asset)
        network = self.context.catalogue.network(offer.network).code
        return await self._outside(network).faucet(network, address, tag, offer.token, units)

    async def lose(self, code: str, txid: str) -> None:
        """Let a stranger take a payment back before it is in a block, and what took its place be buried."""
        network = self.context.catalogue.network(self.offer(code)[1].network).code
        await self._outside(network).void(network, txid)
        await self.bury()

    def offer(self, code: str) -> tuple[AssetSettings, OfferSettings]:
        """Return an asset and its default network's offer."""
        asset = self.context.catalogue.crypto(code)
        return asset, self.context.catalogue.offers_of(asset.number)[0]

    async def bury(self) -> None:
        """Mine every network until what waits has its confirmations, and let the books follow."""
        for network in self.context.catalogue.snapshot.networks:
            _ = await self._outside(network.code).mine(network.code, network.confirmations)
        await self.follow()

    def keeps_coins(self, code: str) -> bool:
        """Say whether what is paid in an asset is a coin of its own, and spent whole."""
        network = self.context.catalogue.network(self.offer(code)[1].network)
        return network.family == Family.BITCOIN.value and not self._treasury.is_simulated(network.code)

    async def finish_moves(self) -> None:
        """Mine until the house has moved all its own money to where it pays from. Raises `InvariantBroken`."""
        for _ in range(_MAX_ROUNDS):
            await self._pause()
            if not self._is_moving():
                return
            await self.bury()
        raise InvariantBroken("the house's own money does not come to rest")

    def _is_moving(self) -> bool:
        return bool(self.context.reads.rows(Payment, {"state": OPEN_PAYMENTS}, 1))

    def undo_next(self, network: str) -> None:
        """Have the block of the next payment on a network of accounts take its fee and pay nobody."""
        self._outside(network).undo_next(network)

    async def follow(self) -> None:
        """Wait until the books know all that the chains show."""
        for watcher in self._treasury.watchers.values():
            await watcher.settled()

    async def ask(self, username: str, code: str, amount: str, address: str, *, tag: str | None = None) -> int:
        """Ask for a withdrawal and return its reference."""
        guard, uuid = self.guard(username), self.context.ids.uuid()
        outcome = await self.do(
            lambda: prepare_withdrawal(
                self.context, guard, code, None, address, tag, amount, include_fee=True, uuid=uuid
            )
        )
        return msgspec.json.decode(outcome.result, type=WithdrawalRequested).ref

    async def settle(self, ref: int) -> None:
        """Mine until a withdrawal has ended, well or badly. Raises `InvariantBroken` if it does not."""
        network = self.context.catalogue.network(self.withdrawal(ref).network)
        for _ in range(_MAX_ROUNDS):
            if self.withdrawal(ref).state not in OPEN_WITHDRAWALS:
                return
            await self._pause()
            _ = await self._outside(network.code).mine(network.code, network.confirmations)
            await self._treasury.watchers[network.code].settled()
        raise InvariantBroken(f"withdrawal {ref} does not end")

    def _outside(self, network: str) -> Outside:
        """Return who plays the world outside on a network. Raises `InvariantBroken` where nobody does."""
        outside = self._house.outside(network)
        if outside is None:
            raise InvariantBroken("a demo's chains are for practice")
        return outside

    async def _pause(self) -> None:
        """Let the sender take its next steps: until nothing has been committed for a moment."""
        try:
            while True:
                self._committed.clear()
                async with asyncio.timeout(_MOMENT_S):
                    _ = await self._committed.wait()
        except TimeoutError:
            return

    def withdrawal(self, ref: int) -> Withdrawal:
        """Return a withdrawal as it is now."""
        return self.context.reads.row(Withdrawal, ref)
