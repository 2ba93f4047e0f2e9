"""Courses that a house's payments can take in the simulator, whoever dies on the way: what the world does meanwhile.

A course outlives the process: it remembers what the world has done already, and looks up in the books what the house
has. So it can be gone on with by another process, which knows nothing but its books.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Final

from strongroom.crashpoints import around
from strongroom.custody.cold_reconciliation import reconcile_cold
from strongroom.custody.derivation import Branch
from strongroom.custody.families import NETWORKS
from strongroom.custody.reconciliation import reconcile
from strongroom.custody.sender import PaymentTerms
from strongroom.ledger.accounts import Purpose, house
from strongroom.records.withdrawals import OPEN_WITHDRAWALS, Payment, PaymentState, WithdrawalState
from strongroom.store.memory import MemoryStore
from strongroom.wallet.payments import OPEN_PAYMENTS, prepare_void
from strongroom.wallet.verification import verify
from support.paying import _XPUBS, CODES, COIN, THEIRS, Payouts
from support.restored import House
from support.simulation_sweeps import SweptChain
from support.world import BITCOIN, BTC, ERC20, ETH, USDT, AnyStore

FINAL, VOIDED = PaymentState.FINAL, PaymentState.VOIDED
SETTLED, FAILED = WithdrawalState.SETTLED, WithdrawalState.FAILED
PAID: Final = ("commit reserve", "signature", "commit sign", "broadcast", "commit mine", "commit finish")
"""What every payment comes by that is paid."""

WATCHED: Final = ("commit tip",)
"""What every block comes by."""


def theirs(units: int, network: int = BITCOIN) -> tuple[str, str, int]:
    """Return what the chain has of a payment of so many of its units to a stranger."""
    return THEIRS[network].address, THEIRS[network].tag, units


class Course:
    """A withdrawal of bitcoin that is paid; each other course says in what it differs."""

    steps: ClassVar[tuple[str, ...]] = (*PAID, *WATCHED)
    more: ClassVar[tuple[str, ...]] = ()
    network: ClassVar[int] = BITCOIN
    swept: ClassVar[bool] = False
    forgets: ClassVar[bool] = False
    terms: ClassVar[PaymentTerms | None] = None
    cold: ClassVar[str] = ""
    end: ClassVar[WithdrawalState] = SETTLED
    payments: ClassVar[list[PaymentState]] = [FINAL]

    def __init__(self) -> None:
        self.store: AnyStore = MemoryStore()
        self._been: set[str] = set()
        self._moods = (False, False, False)
        self._refuses = False

    @classmethod
    def points(cls) -> tuple[str, ...]:
        """Return the crash points that it comes by: those around each of its `steps`, and `more`."""
        return (*around(*dict.fromkeys(cls.steps)), *cls.more)

    # -- before, meanwhile and afterwards

    async def found(self, folder: Path) -> None:
        """Bring the house to where the course begins."""

    async def begin(self, payouts: Payouts) -> None:
        """Let it begin."""
        await self.endow(payouts, BTC)
        _ = await payouts.withdraw("1.5")

    async def turn(self, house: House) -> bool:
        """Let the world go on by one step; say whether all is over."""
        if all(it.state not in OPEN_WITHDRAWALS for it in house.payouts.withdrawals()) and self.is_done(house):
            return await self.ended(house)
        await self.mine(house)
        return False

    async def ended(self, house: House) -> bool:
        """Say whether that is all, once every withdrawal is closed."""
        return True

    async def check(self, payouts: Payouts) -> None:
        """See that everything was paid once, or is released, and that the books are whole and the chain's."""
        assert [it.state for it in payouts.reads.rows(Payment, {"network": self.network}, 10)] == self.payments
        assert [it.state for it in payouts.withdrawals()] == [self.end] * len(payouts.withdrawals())
        assert sorted(await payouts.paid_on(self.network)) == sorted(self.expected(payouts))
        await self.check_balances(payouts)
        payouts.agree()
        assert verify(payouts.reads).findings == []
        found = await reconcile(payouts.world.context, payouts.chain(self.network), self.network)
        assert all(it.differences == () for it in found), found
        if self.cold:
            cold = {self.network: (payouts.chain(self.network), self.cold)}
            assert [it for it in await reconcile_cold(payouts.world.context, cold) if it.differences] == []

    def expected(self, payouts: Payouts) -> list[tuple[str, str, int]]:
        """Return what the chain is to have of the house's payments."""
        return [theirs(149_999_500)] if self.end is SETTLED else []

    async def check_balances(self, payouts: Payouts) -> None:
        """See what the customers have."""
        assert payouts.available(payouts.alice) == (850_000_000 if self.end is SETTLED else 10 * COIN)

    # -- what they share

    async def open(self, payouts: Payouts) -> None:
        """Let a process see the chain as the one before it has left it."""
        code = CODES[self.network]
        if self.swept:
            branch = Branch(NETWORKS[code], _XPUBS[code])
            payouts.node._chains[code] = SweptChain(
                payouts.node._store, NETWORKS[code], lambda position: branch.address(position).address
            )
        chain = payouts.chain(self.network)
        chain.doom_next, chain.undo_next, chain.lose_next_answer = self._moods
        await self.register(payouts, other=self._refuses)

    def leave(self, payouts: Payouts) -> None:
        """Remember what the chain is about to do: it does not end with a process."""
        chain = payouts.chain(self.network)
        self._moods = chain.doom_next, chain.undo_next, chain.lose_next_answer

    def house(self, payouts: Payouts) -> House:
        """Return a house that has just started."""
        return House(payouts, self.network, self.terms, self.cold)

    def first(self, what: str) -> bool:
        """Say whether something happens for the first time: what the world does once."""
        is_first = what not in self._been
        self._been.add(what)
        return is_first

    async def endow(self, payouts: Payouts, *assets: int) -> None:
        """Give alice ten of each asset, on the chain as well, and let the watcher begin behind that."""
        for asset in assets:
            await payouts.endow(payouts.alice, asset, self.network, 10 * COIN)
        watching = House(payouts, self.network)
        for _ in range(2):
            _ = await payouts.node.mine(CODES[self.network], 4)
            await watching.follow()

    async def mine(self, house: House) -> None:
        """Mine a block."""
        _ = await house.payouts.node.mine(CODES[self.network])

    async def reorganise(self, house: House, depth: int, **what: Any) -> None:
        """Replace the newest blocks."""
        _ = await house.payouts.node.reorg(CODES[self.network], depth, **what)

    def all_payments(self, house: House) -> list[Payment]:
        """Return the network's payments, oldest first."""
        return house.payouts.reads.rows(Payment, {"network": self.network}, 100)

    def is_done(self, house: House) -> bool:
        """Say whether no payment has a step before it."""
        return all(it.state not in OPEN_PAYMENTS for it in self.all_payments(house))

    async def register(self, payouts: Payouts, *, other: bool = False) -> None:
        """Have the node take the hot wallet's signatures, or only those of `other` keys, so that it refuses ours."""
        self._refuses = other
        code = CODES[self.network]
        key = CODES[BITCOIN if self.network == ERC20 else ERC20] if other else code
        payouts.node.register(code, await payouts.signer.public_key(key))


class Batch(Course):
    """Two customers' withdrawals in one transaction."""

    terms = PaymentTerms(batch=2)

    async def begin(self, payouts: Payouts) -> None:
        """Ask for both."""
        await payouts.endow(payouts.bob, BTC, BITCOIN, 10 * COIN)
        await super().begin(payouts)
        _ = await payouts.withdraw("2", owner=payouts.bob)

    def expected(self, payouts: Payouts) -> list[tuple[str, str, int]]:
        """Return both."""
        return [theirs(149_999_500), theirs(199_999_500)]

    async def check_balances(self, payouts: Payouts) -> None:
        """See that each has paid for one."""
        assert (payouts.available(payouts.alice), payouts.available(payouts.bob)) == (850_000_000, 8 * COIN)


class Token(Course):
    """A token, whose fee is the chain's own coin."""

    network = ERC20

    async def begin(self, payouts: Payouts) -> None:
        """Ask for tokens."""
        await self.endow(payouts, USDT, ETH)
        _ = await payouts.withdraw("8", THEIRS[ERC20].address, asset="USDT")

    def expected(self, payouts: Payouts) -> list[tuple[str, str, int]]:
        """Return what is left after our fee."""
        return [theirs(3_000_000, ERC20)]

    async def check_balances(self, payouts: Payouts) -> None:
        """See that the house pays the chain's fee."""
        assert (payouts.available(payouts.alice, USDT), payouts.available(payouts.alice, ETH)) == (2 * COIN, 10 * COIN)
        assert payouts.balance(house(Purpose.CHAIN_FEE, ETH)) < 0


class Shared(Course):
    """Books that several processes share, one after the other: what another has signed is proved before it is sent."""

    steps = (*Course.steps, "commit prove")
    forgets = True

    def __init__(self) -> None:
        super().__init__()
        self.store = SharedStore()

    async def begin(self, payouts: Payouts) -> None:
        """Lose the first answer."""
        await super().begin(payouts)
        payouts.node.lose_next_answer("BITCOIN")


class SharedStore(MemoryStore):
    """Books that say of themselves that others write them as well."""

    @property
    def is_shared(self) -> bool:
        """They do."""
        return True


class OlderWins(Course):
    """The fee is raised, and the first transaction is mined all the same."""

    steps = (*Course.steps, "commit redraft")
    terms = PaymentTerms(redraft_after_s=600)

    async def turn(self, house: House) -> bool:
        """Let the node refuse every dearer one, and mine once there is one."""
        candidates = max((len(it.candidates) for it in self.all_payments(house)), default=0)
        if candidates == 1 and await house.payouts.chain().mempool():
            await self.register(house.payouts, other=True)
            house.payouts.world.clock.at_ms += 600_000
            return False
        return await super().turn(house) if candidates > 1 else False

    async def check_balances(self, payouts: Payouts) -> None:
        """See that the fee is the first one's."""
        await super().check_balances(payouts)
        [payment] = payouts.reads.rows(Payment, {}, 2)
        assert payment.txid == payment.candidates[0]
        assert payouts.balance(house(Purpose.CHAIN_FEE, BTC)) == -2_820


class Failing(Course):
    """The chain never mines it."""

    steps = (*PAID[:4], "commit void", *WATCHED)
    end, payments = FAILED, [VOIDED]

    async def begin(self, payouts: Payouts) -> None:
        """Doom it."""
        await super().begin(payouts)
        payouts.node.fail_next("BITCOIN")


class Undone(Course):
    """Its block takes the fee and undoes it."""

    steps = (*PAID[:4], "commit revert", *WATCHED)
    end, payments = FAILED, [VOIDED]

    async def begin(self, payouts: Payouts) -> None:
        """Have it undone."""
        await super().begin(payouts)
        payouts.node.undo_next("BITCOIN")

    async def check_balances(self, payouts: Payouts) -> None:
        """See that the chain was paid once."""
        await super().check_balances(payouts)
        assert payouts.balance(house(Purpose.CHAIN_FEE, BTC)) == -2_820


class UndoneAgain(Undone):
    """A reorganisation takes the undoing back, and the next block undoes it again."""

    steps = (*Undone.steps, "commit reopen")

    async def ended(self, house: House) -> bool:
        """Replace its blocks once."""
        if not self.first("reorganisation"):
            return True
        await self.reorganise(house, 3)
        return False


class Mended(Undone):
    """A reorganisation takes the undoing back, and the next block has it done well."""

    steps = (*UndoneAgain.steps, "commit mine", "commit finish")
    end, payments = SETTLED, [FINAL]

    async def ended(self, house: House) -> bool:
        """Replace its blocks once."""
        if not self.first("reorganisation"):
            return True
        await self.reorganise(house, 3, mend=self.all_payments(house)[0].candidates)
        return False


class Dropped(Course):
    """A reorganisation takes it away before it is final."""

    steps = (*PAID[:5], "commit unmine", "commit void", *WATCHED)
    end, payments = FAILED, [VOIDED]

    async def turn(self, house: House) -> bool:
        """Drop it once, when it is in a block."""
        [payment] = self.all_payments(house) or [Payment(0)]
        if payment.state == PaymentState.MINED and self.first("reorganisation"):
            await self.reorganise(house, 1, drop=payment.candidates)
            return False
        return await super().turn(house)


class MinedAgain(Course):
    """A reorganisation goes past its settlement, and it is mined again."""

    steps = (*Course.steps, "commit reopen")
    ended = UndoneAgain.ended


class Gone(Course):
    """A reorganisation goes past its settlement, and something else has spent its nonce."""

    steps = (*MinedAgain.steps, "commit void")
    end, payments = FAILED, [VOIDED]

    async def ended(self, house: House) -> bool:
        """Replace its blocks once."""
        if not self.first("reorganisation"):
            return True
        await self.reorganise(house, 3, drop=self.all_payments(house)[0].candidates)
        return False


class GivenUp(Course):
    """A person gives it up, and the chain mines it after all."""

    steps = MinedAgain.steps

    async def turn(self, house: House) -> bool:
        """Give it up once, while it waits."""
        waiting = [it for it in self.all_payments(house) if it.state == PaymentState.SIGNED]
        if waiting and await house.payouts.chain().mempool() and self.first("giving up"):
            await house.payouts.do(lambda: prepare_void(house.context, waiting[0]))
            await self.mine(house)
            return False
        return await super().turn(house)


WITHDRAWALS: Final[tuple[type[Course], ...]] = (
    Course,
    Batch,
    Token,
    Shared,
    OlderWins,
    Failing,
    Undone,
    UndoneAgain,
    Mended,
    Dropped,
    MinedAgain,
    Gone,
    GivenUp,
)
