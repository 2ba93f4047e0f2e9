"""Courses of a house that is lost and comes back from a backup beside chains that have moved on."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Final

import msgspec

from strongroom.custody.derivation import Branch
from strongroom.custody.families import NETWORKS
from strongroom.engine.command import NOBODY
from strongroom.ledger.accounts import Purpose, house
from strongroom.records.addresses import Address, branch_of
from strongroom.records.deposits import Deposit, DepositState
from strongroom.records.withdrawals import Payment, PaymentState
from strongroom.store.memory import MemoryStore
from strongroom.wallet.addresses import AddressRule, GivenAddress, give_address
from strongroom.wallet.assignments import prepare_withdrawal_assignment
from strongroom.wallet.epochs import prepare_epoch, waits
from support.course_moves import ARRIVED, AT, ETHER, Cold
from support.courses import FINAL, PAID, SETTLED, WATCHED, Course, theirs
from support.paying import _STRANGERS, COIN, OURS, Payouts, paying
from support.restored import House, copied, paid, restored
from support.world import BITCOIN, BTC, ERC20, ETH

STRANGER: Final = Branch(NETWORKS["ERC20"], _STRANGERS["ERC20"]).address(2).address
"""Another one's address than the cold wallet's."""


class Restored(Course):
    """A backup is restored beside a chain that has moved on: nothing is paid twice, and a new payment only then."""

    steps = (*PAID, *WATCHED, "commit stock", "commit adopt", "commit end", *ARRIVED)
    payments: ClassVar[list[PaymentState]] = [FINAL, FINAL, FINAL]

    async def found(self, folder: Path) -> None:
        """Live, lose the house after its backup, and begin again from that."""

        async def ask(payouts: Payouts) -> None:
            _ = await payouts.give(payouts.bob, BTC, BITCOIN, AT)
            _ = await payouts.withdraw("1.5")

        async def go_on(payouts: Payouts) -> None:
            await paid(payouts, *payouts.withdrawals(), await payouts.withdraw("0.25"))
            await payouts.chain().watch([OURS[BITCOIN][AT].address])
            _ = await payouts.node.faucet("BITCOIN", OURS[BITCOIN][AT].address, "", "", 300)
            _ = await payouts.node.mine("BITCOIN", 3)

        async with restored("memory", folder, ask, go_on) as payouts:
            self.store = payouts.world.store

    async def begin(self, payouts: Payouts) -> None:
        """Ask for one more, which waits."""
        payouts.world._signatures = 10_000
        _ = await payouts.withdraw("0.125")
        assert waits(payouts.reads, BITCOIN)

    async def turn(self, house: House) -> bool:
        """Let it wait for the operator's word on what nobody is named for."""
        payouts = house.payouts
        unknown = [it for it in payouts.withdrawals() if not it.owner and it.state == SETTLED]
        if unknown:
            assert len(await payouts.paid_on()) == 2
            await payouts.do(
                lambda: prepare_withdrawal_assignment(house.context, NOBODY, unknown[0].ref, payouts.alice)
            )
            return False
        return await super().turn(house)

    def expected(self, payouts: Payouts) -> list[tuple[str, str, int]]:
        """Return what was paid before the loss, and after it."""
        return [theirs(units - 500) for units in (150_000_000, 25_000_000, 12_500_000)]

    async def check_balances(self, payouts: Payouts) -> None:
        """See that alice has paid for all but one of our fees, bob has what arrived, and addresses are new."""
        assert payouts.available(payouts.alice) == 10 * COIN - 187_500_000 + 500
        assert payouts.available(payouts.bob) == 300
        home, rule = self.house(payouts), AddressRule.TEN_UNUSED
        await home.stock()
        outcome = await give_address(home.context, payouts.world.guard(payouts.bob), home.pools, "BTC", None, rule)
        given = msgspec.json.decode(outcome.result, type=GivenAddress)
        assert branch_of(payouts.reads.row(Address, BITCOIN, given.address, given.tag).position) == 1


class RestoredMoves(Cold):
    """Since the backup a deposit was swept, money went to the cold address, and a customer was paid."""

    steps = (*PAID, *WATCHED, "commit stock", "commit adopt", "commit end")
    payments: ClassVar[list[PaymentState]] = [FINAL, FINAL, FINAL, FINAL]

    async def found(self, folder: Path) -> None:
        """Live, and begin again from a copy of what the books were before the moves."""
        first, backup = MemoryStore(), MemoryStore()
        async with paying(first, folder) as payouts:
            await self.open(payouts)
            await self.endow(payouts, ETH)
            address = (await payouts.give(payouts.alice, ETH, ERC20, AT)).address
            _ = await payouts.withdraw("2", STRANGER, asset="ETH", owner=payouts.alice)
            home = self.house(payouts)
            _ = await payouts.node.faucet("ERC20", address, "", "", ETHER)
            for _ in range(5):
                await self.mine(home)
                await home.follow()
            backup = copied(first)
            await self.bring(home)
            for _ in range(12):
                await home.round()
                await self.mine(home)
            assert [it.state for it in self.all_payments(home)] == [FINAL, FINAL, FINAL]
        async with paying(backup, folder) as payouts:
            await payouts.do(lambda: prepare_epoch(payouts.world.context))
        self.store = backup

    async def begin(self, payouts: Payouts) -> None:
        """Ask for one more, which waits."""
        _ = await payouts.withdraw("3", STRANGER, asset="ETH")
        assert waits(payouts.reads, ERC20)

    turn = Course.turn

    def expected(self, payouts: Payouts) -> list[tuple[str, str, int]]:
        """Return what was moved and paid before the loss, and what was paid after it."""
        [swept] = [it for it in payouts.reads.rows(Payment, {"network": ERC20}, 10) if it.source]
        return [
            (OURS[ERC20][0].address, "", int(swept.units)),
            (self.cold, "", ETHER),
            *((STRANGER, "", ether * ETHER) for ether in (2, 3)),
        ]

    async def check_balances(self, payouts: Payouts) -> None:
        """See that alice has her deposit and has paid for both, and the house has its cold money."""
        assert payouts.balance(house(Purpose.COLD, ETH)) == -COIN
        assert payouts.available(payouts.alice, ETH) == (10 + 1 - 2 - 3) * COIN
        assert [it.state for it in payouts.reads.rows(Deposit, {}, 2)] == [DepositState.CREDITED]


RESTORES: Final[tuple[type[Course], ...]] = (Restored, RestoredMoves)
