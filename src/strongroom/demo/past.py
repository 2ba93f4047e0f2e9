"""The demo's past: a week in which everything happened once that can happen to a customer's money.

Nothing is made up: coins arrive on the practice chains, withdrawals leave on them, and every line of history is the
work of the same use cases that serve clients. Only the clock is set back while it is written, that of nodes too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from strongroom.application import Application
from strongroom.clock import DAY_MS, SetClock
from strongroom.custody.watcher import UNKNOWN_GRACE_MS
from strongroom.demo.actors import Actors
from strongroom.demo.house import DemoUser
from strongroom.engine.command import NOBODY
from strongroom.errors import check
from strongroom.ledger.accounts import Purpose, house
from strongroom.records.deposits import Deposit
from strongroom.records.history import LineType
from strongroom.records.withdrawals import OPEN_WITHDRAWALS, Withdrawal
from strongroom.wallet.addresses import house_address
from strongroom.wallet.approvals import expire_due, prepare_rejection
from strongroom.wallet.conversions import prepare_conversion
from strongroom.wallet.deposits import OPEN as OPEN_DEPOSITS
from strongroom.wallet.transfers import prepare_transfer

PAST_MS: Final = 6 * DAY_MS
"""How long ago the past begins: all of it lies within the last week for a day more."""

INVENTORY: Final = {
    "BTC": "500",
    "ETH": "20000",
    "USDT": "30000000",
    "USDC": "30000000",
    "LTC": "8000",
    "XRP": "10000000",
    "USD": "30000000",
    "EUR": "30000000",
    "GBP": "30000000",
    "JPY": "4000000000",
    "HKD": "200000000",
    "SGD": "40000000",
}
"""What the house has of its own, to convert from."""

EQUITY: Final = {"USDT": "1000000"}
"""What of it is set aside for rewards."""

FUNDS: Final = {
    "BTC": "25",
    "ETH": "250",
    "USDT": "250000",
    "USDC": "150000",
    "LTC": "500",
    "XRP": "25000",
    "USD": "60000",
    "EUR": "50000",
    "GBP": "40000",
    "JPY": "6000000",
    "HKD": "400000",
    "SGD": "70000",
}
"""What alice and bob pay in."""

SMALL_FUNDS: Final = {"BTC": "2", "ETH": "20", "USDT": "20000", "XRP": "2000", "USD": "5000"}
"""What alice's sub-account pays in."""

STRANGERS: Final = {
    "BITCOIN": "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080",
    "ERC20": "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
    "RIPPLE": "rrrrrrrrrrrrrrrrrrrrBZbvji",
}
"""Addresses of nobody in the house: examples of BIP-173, EIP-55 and the XRP ledger."""

_BOOKED: Final = (
    (LineType.EXPRESS_BUY, "150"),
    (LineType.REFERRAL_EARNING, "12.5"),
    (LineType.STAKE_FREEZE, "1000"),
    (LineType.STRATEGY_INCOME, "31.4159"),
    (LineType.STRATEGY_PAY, "8.25"),
    (LineType.TOKEN_VOUCHER_IN, "50"),
    (LineType.TRIAL_FUND, "100"),
    (LineType.SPOT_FEE_REBATE, "1.75"),
    (LineType.FUTURES_FEE_REBATE, "2.25"),
    (LineType.GENERAL_FEE_REBATE, "0.5"),
    (LineType.TOKEN_VOUCHER_OUT, "20"),
    (LineType.STAKE_UNFREEZE, "1000"),
)
_TRANSFERS: Final = (
    ("alice", "bob", "500"),
    ("bob", "alice", "320.5"),
    ("alice", "alice-sub1", "2500"),
    ("alice-sub1", "alice", "1000"),
)
_CONVERSIONS: Final = (
    ("alice", "USDT", "BTC", "1000"),
    ("alice", "BTC", "EUR", "0.05"),
    ("bob", "ETH", "USDT", "2"),
    ("bob", "USDT", "JPY", "300"),
)
_MINUTE_MS: Final = 60_000
_COINS: Final = 10


class Past:
    """Writes the past of a fresh house that runs by a clock that is set back."""

    def __init__(self, application: Application, clock: SetClock) -> None:
        self._actors = Actors(application)
        self._context = application.context
        self._clock = clock
        self._began_ms = clock.at_ms

    async def write(self) -> list[DemoUser]:
        """Let the week happen, and return its users with their keys."""
        await self._fund_house()
        users = [
            await self._actors.open_user("alice"),
            await self._actors.open_user("bob"),
            await self._actors.open_user("alice-sub1", parent="alice"),
        ]
        await self._pay_in()
        await self._move()
        await self._convert()
        await self._reward()
        await self._withdraw()
        await self._go_wrong()
        self._check_nothing_is_open()
        return users

    async def _fund_house(self) -> None:
        """Day 0: the house's own coins and money arrive."""
        for code, amount in INVENTORY.items():
            asset = self._context.catalogue.asset(code)
            if asset.fiat:
                bank = house(Purpose.BANK, asset.number)
                await self._actors.fund_house(code, amount, bank, Purpose.INVENTORY)
            else:
                _, offer = self._actors.offer(code)
                own = house_address(self._context.reads, offer.network)
                for part in self._parts(code, amount):
                    _ = await self._actors.faucet(code, own.address, own.tag, part)
        await self._actors.bury()
        for code, amount in EQUITY.items():
            inventory = house(Purpose.INVENTORY, self._context.catalogue.asset(code).number)
            await self._actors.fund_house(code, amount, inventory, Purpose.EQUITY)

    def _parts(self, code: str, amount: str) -> list[str]:
        """Return how an amount is paid to the house: where it keeps coins, as several, so that several payments can be
        under way at once."""
        return [str(int(amount) // _COINS)] * _COINS if self._actors.keeps_coins(code) else [amount]

    async def _pay_in(self) -> None:
        """Day 1: everybody pays in, coins to addresses of their own and money to the house's bank.

        Where the house pays from another address than these, it moves the coins there.
        """
        self._turn_to_day(1)
        for username, funds in (("alice", FUNDS), ("bob", FUNDS), ("alice-sub1", SMALL_FUNDS)):
            self._pass_minutes()
            await self._pay_in_all(username, funds)
        await self._actors.bury()
        await self._actors.finish_moves()

    async def _pay_in_all(self, username: str, funds: Mapping[str, str]) -> None:
        for code, amount in funds.items():
            if self._context.catalogue.asset(code).fiat:
                await self._actors.book(username, code, LineType.DEPOSIT, amount)
            else:
                to = await self._actors.address(username, code)
                _ = await self._actors.faucet(code, to.address, to.tag, amount)

    async def _move(self) -> None:
        """Day 2: money moves inside the house; a large withdrawal waits for a word that nobody gives."""
        self._turn_to_day(2)
        _ = await self._actors.ask("alice", "XRP", "21000", STRANGERS["RIPPLE"], tag="7")
        for sender, receiver, amount in _TRANSFERS:
            self._pass_minutes()
            guard = self._actors.guard(sender)
            command = prepare_transfer(self._context, guard, "USDT", amount, receiver)
            _ = await self._actors.do(lambda it=command: it)

    async def _convert(self) -> None:
        """Day 3: both convert."""
        self._turn_to_day(3)
        for username, source, target, amount in _CONVERSIONS:
            self._pass_minutes()
            command = prepare_conversion(self._context, self._actors.guard(username), source, target, amount)
            _ = await self._actors.do(lambda it=command: it)

    async def _reward(self) -> None:
        """Day 4: stakes, rewards, rebates and vouchers."""
        self._turn_to_day(4)
        for username in ("alice", "bob"):
            for type_, amount in _BOOKED:
                self._pass_minutes()
                await self._actors.book(username, "USDT", type_, amount)

    async def _withdraw(self) -> None:
        """Day 5: withdrawals leave on the chains, and one goes to an address of bob's without touching any."""
        self._turn_to_day(5)
        to_bob = await self._actors.address("bob", "ETH")
        for username, code, amount, address, tag in (
            ("alice", "USDT", "400", STRANGERS["ERC20"], None),
            ("alice", "BTC", "0.1", STRANGERS["BITCOIN"], None),
            ("alice", "ETH", "1.5", to_bob.address, None),
            ("bob", "USDT", "750", STRANGERS["ERC20"], None),
            ("bob", "XRP", "120", STRANGERS["RIPPLE"], "42"),
        ):
            self._pass_minutes()
            await self._actors.settle(await self._actors.ask(username, code, amount, address, tag=tag))

    async def _go_wrong(self) -> None:
        """An hour later: what expires, is turned down, fails, is too small, or never gets into a block."""
        self._pass_minutes(60)
        _ = await expire_due(self._context)
        unwanted = await self._actors.ask("alice", "BTC", "22", STRANGERS["BITCOIN"])
        self._pass_minutes()
        _ = await self._actors.do(lambda: prepare_rejection(self._context, NOBODY, unwanted))
        self._actors.undo_next("ERC20")
        await self._actors.settle(await self._actors.ask("alice", "USDT", "99", STRANGERS["ERC20"]))
        to = await self._actors.address("alice", "BTC")
        _ = await self._actors.faucet("BTC", to.address, to.tag, "0.00005")
        await self._actors.bury()
        lost = await self._actors.faucet("BTC", to.address, to.tag, "0.3")
        await self._actors.follow()
        await self._actors.lose("BTC", lost)
        # A node does not say that something else was mined: what it does not know is given up after a while.
        self._clock.at_ms += UNKNOWN_GRACE_MS + _MINUTE_MS
        await self._actors.bury()

    def _turn_to_day(self, number: int) -> None:
        """Set the clock to a day of the past."""
        self._clock.at_ms = max(self._clock.at_ms, self._began_ms + number * DAY_MS)

    def _pass_minutes(self, count: int = 7) -> None:
        self._clock.at_ms += count * _MINUTE_MS

    def _check_nothing_is_open(self) -> None:
        reads = self._context.reads
        for kind, states in ((Withdrawal, OPEN_WITHDRAWALS), (Deposit, OPEN_DEPOSITS)):
            check(not reads.rows(kind, {"state": states}, 1), "nothing of the demo's past is open")
