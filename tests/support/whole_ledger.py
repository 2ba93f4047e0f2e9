"""The whole ledger: every kind of deed a customer, the operator and the chains can do, and an auditor who looks on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import msgspec

from strongroom.clock import DAY_MS
from strongroom.custody.derivation import Branch, account_xpubs
from strongroom.custody.families import NETWORKS
from strongroom.engine.command import NOBODY, Command, Guard
from strongroom.engine.settle import REPLY_KEPT_MS, Outcome
from strongroom.ledger.accounts import CUSTOMER_PURPOSES, NEVER_NEGATIVE, NEVER_POSITIVE, Purpose, unpack
from strongroom.money import FeeFormula, format_amount
from strongroom.records.addresses import position_of
from strongroom.records.chains import REMEMBERED_BLOCKS, Holding, Passed, Tip
from strongroom.records.deposits import Deposit, DepositState
from strongroom.records.guards import Reply
from strongroom.records.history import Thread
from strongroom.records.kept import Kept
from strongroom.records.settings import OfferSettings
from strongroom.records.users import User
from strongroom.records.withdrawals import OPEN_WITHDRAWALS, Payment, PaymentState, Withdrawal, WithdrawalState
from strongroom.store.sqlite.connection import open_reader
from strongroom.store.tables import KINDS
from strongroom.wallet.addresses import AddressRule, GiveAddress, prepare_stock
from strongroom.wallet.approvals import expire_due, prepare_approval
from strongroom.wallet.context import perform, perform_own
from strongroom.wallet.deposits import Sighting, prepare_credit, prepare_drop, prepare_placing, prepare_sighting
from strongroom.wallet.holdings import chain_units
from strongroom.wallet.payments import (
    Draft,
    MinePayment,
    RedraftPayment,
    UnminePayment,
    next_nonce,
    nonce_text,
    outgoing,
    prepare_reservation,
    prepare_signing,
    prepare_void,
)
from strongroom.wallet.reversals import prepare_reversal
from strongroom.wallet.settings import prepare_settings
from strongroom.wallet.settlements import prepare_finish, prepare_revert
from strongroom.wallet.withdrawals import prepare_withdrawal
from support.deeds import COIN, NAMES, SETTINGS, Deed, House
from support.effects import Do
from support.world import BITCOIN, BTC, ERC20, ETH, World

CHAINS: Final = {BITCOIN: NETWORKS["BITCOIN"], ERC20: NETWORKS["ERC20"]}
COINS: Final = {BITCOIN: ("BTC", BTC), ERC20: ("ETH", ETH)}
XPUBS: Final = account_xpubs(bytes(64), CHAINS.values())
STRANGERS: Final = {n: Branch(chain, XPUBS[chain.id]).address(position_of(9, 1)).address for n, chain in CHAINS.items()}
PLACES: Final = {n: Branch(chain, XPUBS[chain.id]).addresses(0, 4) for n, chain in CHAINS.items()}
FEE_UNITS: Final = {BITCOIN: 1_000, ERC20: 21 * 10**12 + 1}


def offered(offer: OfferSettings) -> OfferSettings:
    """Return an offer with a deposit fee, a deposit minimum and a daily limit."""
    fee = FeeFormula(extra=70, extra_rate_e8=100_000)
    return msgspec.structs.replace(offer, deposit_minimum=COIN // 100, deposit_fee=fee, daily_limit=40 * COIN)


class WholeHouse(House):
    """A house with deposit addresses, two chains that are told of by hand, and requests that may be repeated.

    `doubled` tells of every request that was carried out again.
    """

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.context.formats = {chain.id: chain.format for chain in CHAINS.values()}
        self._key = self._print = ""
        self._keyed: Deed = ()
        self._replies: dict[tuple[int, str], tuple[str, Outcome]] = {}
        self.doubled: list[str] = []
        self._transactions = 0

    async def furnish(self) -> None:
        """Furnish the house, and give three users an address on each chain and coins that lie there."""
        await super().furnish()
        snapshot = msgspec.structs.replace(SETTINGS, offers=tuple(offered(offer) for offer in SETTINGS.offers))
        await perform_own(self.context, lambda: prepare_settings(self.context, NOBODY, snapshot))
        for network, places in PLACES.items():
            stock = prepare_stock(network, 0, places)
            await perform_own(self.context, lambda stock=stock: stock)
            for position, name in enumerate(NAMES[:3], 1):
                place, asset = places[position], COINS[network][1]
                rule = AddressRule.TEN_UNUSED
                owner = self.uids[name]
                await self.submit(GiveAddress(NOBODY, owner, asset, network, position, place.address, place.tag, rule))
            await self.mine(network)
            for position in (1, 2, 3):
                await self.arrive(network, position, 4 * COIN, mined=True)
        for nth in range(6):
            await self.confirm(nth)

    async def submit(self, command: Command) -> Outcome:
        """Submit a command once, as it was prepared."""
        return await self.context.submit(command)

    # -- customers

    async def keyed(self, key: str, deed: Deed) -> Outcome:
        """Do a customer's deed under an Idempotency-Key."""
        self._keyed = ("keyed", key, deed)
        self._key, self._print = key, repr(deed)
        try:
            return await self.do(deed)
        finally:
            self._key = self._print = ""

    async def again(self) -> Outcome:
        """Send the newest customer's request once more, as it was signed."""
        sent = self._again is not None
        outcome = await super().again()
        if sent and outcome.refusal is None and not outcome.repeated:
            self.doubled.append("a signature was good for two requests")
        return outcome

    async def retry(self) -> Outcome:
        """Send the newest keyed request once more, freshly signed."""
        return await self.do(self._keyed) if self._keyed else Outcome(0)

    async def pay_out(self, name: str, network: int, amount: str, include_fee: bool, to: int) -> Outcome:
        """Withdraw a chain's coin to a stranger, or to the address of a user of the house by its position."""
        address = PLACES[network][to].address if to else STRANGERS[network]
        uuid = self.context.ids.uuid()
        asset = COINS[network][0]

        def prepare(guard: Guard) -> Command:
            return prepare_withdrawal(
                self.context, guard, asset, None, address, None, amount, include_fee=include_fee, uuid=uuid
            )

        return await self._asked(name, prepare)

    async def spend(self, name: str, network: int, percent: int, to: str) -> Outcome:
        """Send a part of what a user has of a chain's coin by now to somebody else, or to a stranger outside."""
        code, asset = COINS[network]
        amount = format_amount(self.world.available(self.uids[name], asset) * percent // 100, 8)
        if to == "outside":
            return await self.pay_out(name, network, amount, True, 0)
        return await self.transfer(name, code, amount, to)

    async def _asked(self, name: str, prepare: Callable[[Guard], Command]) -> Outcome:
        uid, key, fingerprint = self.uids[name], self._key, self._print
        guard = self.world.guard(uid, key, fingerprint)
        self._again = lambda: perform(self.context, guard, lambda: prepare(guard))
        outcome: Outcome = await self._again()
        if key and outcome.refusal is None:
            self._note_reply(uid, key, fingerprint, outcome)
        return outcome

    def _note_reply(self, uid: int, key: str, fingerprint: str, outcome: Outcome) -> None:
        """Compare a reply under a key with the one before it, while that is remembered: a day at least."""
        before, now_ms = self._replies.get((uid, key)), self.world.clock.now_ms()
        if before is not None and before[1].at_ms + DAY_MS > now_ms:
            asked, first = before
            same = (outcome.result, outcome.at_ms, outcome.repeated) == (first.result, first.at_ms, True)
            if asked != fingerprint or not same:
                self.doubled.append(f"the key {key} was good for two requests")
        elif outcome.repeated and (before is None or before[1].at_ms + REPLY_KEPT_MS <= now_ms):
            self.doubled.append(f"the key {key} has a reply to nothing")
        self._replies[uid, key] = (fingerprint, outcome)

    # -- the operator and time

    async def expire(self) -> Outcome:
        """Let what awaits approval wait for too long."""
        self.world.clock.at_ms += 3 * DAY_MS
        await expire_due(self.context)
        return Outcome(0)

    # -- deposits

    async def mine(self, network: int) -> Outcome:
        """Let a chain have one more block."""
        height = self.world.store.row(Tip, network).height + 1
        passed = Passed(network, height % REMEMBERED_BLOCKS, height, f"{network}-{height}")
        return await self.submit(Do(NOBODY, kept=(Tip(network, height, passed.block), passed)))

    async def arrive(self, network: int, position: int, units: int, mined: bool) -> Outcome:
        """Let coins arrive at an address: at the house's own (position 0) or a user's."""
        self._transactions += 1
        tip, place, asset = self.world.store.row(Tip, network), PLACES[network][position], COINS[network][1]
        offer = self.context.catalogue.offer_at(asset, network)
        assert offer is not None
        exact = chain_units(units, offer, self.context.catalogue.assets[asset]) + units % 7 * (network == ERC20)
        block = (tip.height, tip.block) if mined else (0, "")
        txid = f"t{self._transactions}"
        command = prepare_sighting(
            self.context, Sighting(network, txid, 0, place.address, place.tag, asset, exact, *block)
        )
        assert command is not None
        return await self.submit(command)

    async def follow(self, which: int, step: str) -> Outcome:
        """Do something to one of the deposits that came from a chain."""
        deposits = [row for row in self.world.store.rows(Deposit, {}, 1000) if not row.internal]
        if not deposits:
            return Outcome(0)
        deposit = deposits[which % len(deposits)]
        tip = self.world.store.row(Tip, deposit.network)
        commands = {
            "place": lambda: prepare_placing(deposit, tip.height, tip.block),
            "displace": lambda: prepare_placing(deposit),
            "drop": lambda: prepare_drop(deposit),
            "credit": lambda: prepare_credit(deposit),
            "reverse": lambda: prepare_reversal(deposit),
        }
        return await self.submit(commands[step]())

    async def confirm(self, which: int) -> Outcome:
        """Let a deposit go the way most go: into a block, buried, and booked."""
        await self.follow(which, "place")
        for network in CHAINS:
            for _ in range(3):
                await self.mine(network)
        return await self.follow(which, "credit")

    # -- payments

    async def reserve(self, which: int) -> Outcome:
        """Begin the payment of an approved withdrawal."""
        approved = self.world.store.rows(Withdrawal, {"state": WithdrawalState.APPROVED}, 1000)
        if not approved:
            return Outcome(0)
        withdrawal = approved[which % len(approved)]
        return await self.submit(self._reservation(withdrawal))

    def _reservation(self, withdrawal: Withdrawal) -> Command:
        """Return the command that pays a withdrawal with the next nonce."""
        spends = (nonce_text(next_nonce(self.context, withdrawal.network)),)
        draft = Draft(spends, b"body", FEE_UNITS[withdrawal.network])
        return prepare_reservation(self.context, [withdrawal], draft)

    async def carry(self, which: int, step: str) -> Outcome:
        """Do something to one of the payments; none is final that pays more than is there."""
        payments = self.world.store.rows(Payment, {}, 1000)
        if not payments:
            return Outcome(0)
        payment = payments[which % len(payments)]
        withdrawal = self.world.store.row(Withdrawal, payment.withdrawals[0])
        height, txid = self.world.store.row(Tip, payment.network).height, f"{payment.ref}.{len(payment.candidates)}"
        mined = payment.candidates[-1] if payment.candidates else txid
        fee_units = str(FEE_UNITS[payment.network])
        if step in {"finish", "revert"} and not self._is_covered(withdrawal):
            return Outcome(0)
        commands: dict[str, Callable[[], Command]] = {
            "sign": lambda: prepare_signing(payment, txid, txid.encode()),
            "redraft": lambda: RedraftPayment(NOBODY, payment.ref, payment.body, self._raised(payment)),
            "mine": lambda: MinePayment(NOBODY, payment.ref, payment.withdrawals, mined, height, fee_units),
            "unmine": lambda: UnminePayment(NOBODY, payment.ref, payment.withdrawals),
            "finish": lambda: prepare_finish(self.context, payment, height + 3),
            "revert": lambda: prepare_revert(self.context, payment, height, FEE_UNITS[payment.network], height + 3),
            "void": lambda: prepare_void(self.context, payment),
        }
        return await self.submit(commands[step]())

    @staticmethod
    def _raised(payment: Payment) -> Draft:
        """Return the draft of a payment for a higher fee."""
        return Draft(payment.spends, payment.body + b"+", int(payment.chain_fee_units) + 1)

    def _is_covered(self, withdrawal: Withdrawal) -> bool:
        """Say whether the chain can have paid a withdrawal: it mines nothing that spends what is not there."""
        needed = outgoing(self.context.catalogue, withdrawal).chain_units + FEE_UNITS[withdrawal.network]
        return int(self.world.store.row(Holding, withdrawal.network, withdrawal.asset).chain_units) >= needed

    async def pay(self, which: int, steps: int) -> Outcome:
        """Let an open withdrawal go some steps of the way most go."""
        for _ in range(steps - 1):
            await self._pay(which)
        return await self._pay(which)

    async def _pay(self, which: int) -> Outcome:
        is_open = [row for row in self.world.store.rows(Withdrawal, {}, 1000) if row.state in OPEN_WITHDRAWALS]
        if not is_open:
            return Outcome(0)
        withdrawal = is_open[which % len(is_open)]
        if withdrawal.state == WithdrawalState.AWAITING:
            return await self._own(lambda: prepare_approval(self.context, NOBODY, withdrawal.ref))
        if withdrawal.state == WithdrawalState.APPROVED:
            return await self.submit(self._reservation(withdrawal))
        payments = self.world.store.rows(Payment, {}, 1000)
        place = next(i for i, row in enumerate(payments) if row.ref == withdrawal.payment)
        steps = {PaymentState.RESERVED: "sign", PaymentState.SIGNED: "mine", PaymentState.MINED: "finish"}
        return await self.carry(place, steps[PaymentState(payments[place].state)])


def digest(world: World, items: int, folder: Path | None = None) -> str:
    """Return a hash of everything that is kept, of the journal the first `items` only.

    Left out is what a refusal is meant to leave: its own journal item, and the signature it used up. So are replies
    whose time is over, which any commit may forget. With a folder, the rows of its database are read as well.
    """
    store, now_ms = world.store, max(world.clock.now_ms(), world.store.last()[1])
    kept: list[Kept] = [row for kind in KINDS if kind is not Reply for row in store.each(kind)]
    kept += [row for row in store.each(Reply) if row.expires_ms > now_ms]
    threads = [store.row(Thread, row.uid, 0, 0) for row in kept if isinstance(row, User)]
    told = sha256(repr((kept, threads, sorted(store.balances()), store.journal(1, items))).encode())
    if folder is not None:
        told.update(repr(rows_on_disk(folder, items, now_ms)).encode())
    return told.hexdigest()


def rows_on_disk(folder: Path, items: int, now_ms: int) -> list[Any]:
    """Return every row that a plain SQL client finds, but for bookkeeping: signatures, seals, what is swept behind."""
    bookkeeping = {"nonce", "batch", "progress", "folio", "item", "reply"}
    # By the library that the store itself uses: a second one in the same process, Python's own, would give up the
    # store's locks when it closes the file, and could take the log from under it.
    connection = open_reader(folder)
    try:
        names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name").fetchall()
        tables = [name for (name,) in names if name not in bookkeeping]
        found = [connection.execute(f"SELECT * FROM {name}").fetchall() for name in tables]
        found.append(connection.execute("SELECT * FROM item WHERE number <= ? ORDER BY number", (items,)).fetchall())
        found.append(connection.execute("SELECT * FROM reply WHERE expires_ms > ?", (now_ms,)).fetchall())
        found.append(connection.execute("SELECT * FROM balance ORDER BY account").fetchall())
        return found
    finally:
        connection.close()


class Auditor:
    """Reads the journal on from where it was, adds up amounts on its own, and compares with all that is kept."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._items = 0
        self._counted: defaultdict[int, tuple[int, int]] = defaultdict(lambda: (0, 0))

    def audit(self) -> set[str]:
        """Return the names of the invariants that do not hold; none is the only good answer."""
        return {name for name, holds in self._read().items() if not holds}

    def _read(self) -> dict[str, bool]:
        within, follows, sums = self._count()
        kept = {account: (after, count) for account, after, count in self._world.store.balances()}
        totals: defaultdict[int, int] = defaultdict(int)
        for account, (after, _) in kept.items():
            totals[unpack(account).asset] += after
        customers = [after for account, (after, _) in kept.items() if unpack(account).purpose in CUSTOMER_PURPOSES]
        return {
            "conservation": not any(sums) and not any(totals.values()) and not sum(totals.values()),
            "no customer below zero": all(after >= 0 for after in customers),
            "balances are the postings": follows and kept == {k: v for k, v in self._counted.items() if v[1]},
            "no overdraft": within,
            "holds are the open withdrawals": self._holds(kept) == self._open(),
            "no mistakes": not self._world.events.failures,
        }

    def _count(self) -> tuple[bool, bool, Collection[int]]:
        """Return whether each entry left all accounts in bounds and followed the one before, and all entries' sums.

        Bounds go by the amounts alone, in the order of the journal: what was decided at once counts one by one.
        """
        within, follows, sums = True, True, list[int]()
        for item in self._world.store.items(self._items + 1, 10**6):
            self._items = item.number
            by_asset: defaultdict[int, int] = defaultdict(int)
            for posting in item.postings:
                before, count = self._counted[posting.account]
                self._counted[posting.account] = (before + posting.amount, count + 1)
                follows = follows and self._counted[posting.account] == (posting.after, posting.nth)
                by_asset[unpack(posting.account).asset] += posting.amount
            sums += by_asset.values()
            within = within and all(map(self._is_within, {posting.account for posting in item.postings}))
        return within, follows, sums

    def _is_within(self, account: int) -> bool:
        after, purpose = self._counted[account][0], unpack(account).purpose
        return (after >= 0 or purpose not in NEVER_NEGATIVE) and (after <= 0 or purpose not in NEVER_POSITIVE)

    def _holds(self, kept: dict[int, tuple[int, int]]) -> dict[tuple[int, int], int]:
        accounts = [(unpack(account), after) for account, (after, _) in kept.items()]
        return {(a.owner, a.asset): after for a, after in accounts if a.purpose == Purpose.HELD and after}

    def _open(self) -> dict[tuple[int, int], int]:
        held: defaultdict[tuple[int, int], int] = defaultdict(int)
        for row in self._world.store.each(Withdrawal):
            if row.state in OPEN_WITHDRAWALS:
                held[row.owner, row.asset] += row.held
        return dict(held)


def states_of(world: World) -> set[str]:
    """Return the state of every withdrawal, payment and deposit, by name."""
    found = {WithdrawalState(row.state).name for row in world.store.each(Withdrawal)}
    found |= {f"payment {PaymentState(row.state).name}" for row in world.store.each(Payment)}
    return found | {f"deposit {DepositState(row.state).name}" for row in world.store.each(Deposit)}
