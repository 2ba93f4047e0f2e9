"""Courses of deposits, and of what the house moves between its own addresses: sweeps, and the cold address."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, ClassVar, Final

from strongroom.admin.cold import give_up_cold, hurry_cold, import_cold, prepare_cold
from strongroom.admin.protocol import GiveUpCold, HurryCold, ImportCold, PrepareCold
from strongroom.custody import offline
from strongroom.custody.families import NETWORKS
from strongroom.ledger.accounts import Purpose, available, house, owed
from strongroom.ledger.entries import Posting
from strongroom.records.deposits import Deposit, DepositState
from strongroom.records.withdrawals import Payment, PaymentState
from strongroom.wallet.pots import due_pots
from support.cold_coins import Coins
from support.courses import FINAL, PAID, VOIDED, WATCHED, Course
from support.paying import COIN, OURS, THEIRS, Payouts, book
from support.restored import House
from support.world import BITCOIN, BTC, ERC20, ETH, USDT

AT: Final = 3
"""The position of the deposit address."""

ETHER: Final = 10**18
DUST: Final = 10**15
"""What a sweep leaves for a dearer one, and more."""

MOVED: Final = ("commit move", *PAID[1:])
"""What every move comes by."""

ARRIVED: Final = ("commit note", "commit credit")


class Arrived(Course):
    """A deposit that is credited and spent, and then taken back and gone for good."""

    steps = (*ARRIVED, *WATCHED, "commit take back", "commit drop")
    payments: ClassVar[list[PaymentState]] = []

    def __init__(self) -> None:
        super().__init__()
        self.txid = ""

    async def begin(self, payouts: Payouts) -> None:
        """Let alice be paid."""
        await self.endow(payouts)
        address = (await payouts.give(payouts.alice, BTC, BITCOIN, AT)).address
        await payouts.chain().watch([address])
        self.txid = await payouts.node.faucet("BITCOIN", address, "", "", COIN)

    async def turn(self, house: House) -> bool:
        """Spend it and take it back once it is credited."""
        payouts = house.payouts
        [deposit] = payouts.reads.rows(Deposit, {}, 2) or [Deposit(0)]
        if deposit.state == DepositState.CREDITED and self.first("reorganisation"):
            spent = Posting(available(payouts.alice, BTC), -COIN), Posting(available(payouts.bob, BTC), COIN)
            await payouts.do(lambda: book(*spent))
            await self.reorganise(house, 3, drop=[self.txid])
        if deposit.state == DepositState.DROPPED:
            return True
        await self.mine(house)
        return False

    def expected(self, payouts: Payouts) -> list[tuple[str, str, int]]:
        """Return nothing."""
        return []

    async def check_balances(self, payouts: Payouts) -> None:
        """See that who has spent it owes it."""
        assert (payouts.available(payouts.alice), payouts.available(payouts.bob)) == (0, COIN)
        assert payouts.balance(owed(payouts.alice, BTC)) == -COIN


class Swept(Course):
    """What arrives at a deposit address is swept to the hot wallet."""

    steps = (*ARRIVED, *MOVED, *WATCHED)
    network, swept = ERC20, True
    asset: ClassVar[int] = ETH

    async def begin(self, payouts: Payouts) -> None:
        """Let alice be paid."""
        await self.endow(payouts, ETH)
        address = (await payouts.give(payouts.alice, self.asset, ERC20, AT)).address
        units = ETHER if self.asset == ETH else 10_000_000
        await payouts.node.faucet("ERC20", address, "", "" if self.asset == ETH else "USDT", units)

    def is_done(self, house: House) -> bool:
        """Say whether nothing is left that is worth a sweep."""
        [deposit] = house.payouts.reads.rows(Deposit, {}, 2) or [Deposit(0)]
        left = [it for it in due_pots(house.payouts.reads, ERC20) if it.asset != ETH or int(it.chain_units) > DUST]
        return deposit.state == DepositState.CREDITED and not left and super().is_done(house)

    def expected(self, payouts: Payouts) -> list[tuple[str, str, int]]:
        """Return what was moved."""
        final = payouts.reads.rows(Payment, {"network": ERC20, "state": FINAL}, 10)
        return [(it.address, "", int(it.units)) for it in final]

    async def check_balances(self, payouts: Payouts) -> None:
        """See that alice has her deposit, and the hot wallet all of it but fees."""
        had = 10 * COIN if self.asset == ETH else 0
        assert payouts.available(payouts.alice, self.asset) == had + (COIN if self.asset == ETH else 10 * COIN)
        swept = [it for it in payouts.reads.rows(Payment, {"state": FINAL}, 10) if it.source]
        assert [int(it.units) > 9 * ETHER // 10 if self.asset == ETH else it.units == "10000000" for it in swept] == [
            True
        ]


class SweptToken(Swept):
    """Tokens at a deposit address are swept, which gets gas for it first."""

    asset = USDT
    payments: ClassVar[list[PaymentState]] = [FINAL, FINAL]


class SweepUndone(Swept):
    """A sweep is undone by its block, for its fee, and made again."""

    steps = (*Swept.steps, "commit revert")
    payments: ClassVar[list[PaymentState]] = [VOIDED, FINAL]

    async def begin(self, payouts: Payouts) -> None:
        """Have the first one undone."""
        await super().begin(payouts)
        payouts.node.undo_next("ERC20")


class SweptAgain(Swept):
    """A reorganisation goes past a sweep's end and past its deposit's credit, and both are mined again."""

    steps = (*Swept.steps, "commit reopen", "commit take back")

    async def ended(self, house: House) -> bool:
        """Replace its blocks once."""
        if not self.first("reorganisation"):
            return True
        await self.reorganise(house, 8)
        return False


class SweepGone(Swept):
    """A reorganisation goes past a sweep's end, whose nonce something else has spent: it is swept anew."""

    steps = (*Swept.steps, "commit reopen", "commit void")
    payments: ClassVar[list[PaymentState]] = [VOIDED, FINAL]

    async def ended(self, house: House) -> bool:
        """Replace its blocks once."""
        if not self.first("reorganisation"):
            return True
        await self.reorganise(house, 4, drop=self.all_payments(house)[0].candidates)
        return False


# -- the cold address


class Cold(Course):
    """Money goes to the cold address, signed elsewhere."""

    steps = ("commit cold", *PAID[3:], *WATCHED)
    network, swept, cold = ERC20, True, THEIRS[ERC20].address
    moved: ClassVar[int] = COIN

    async def begin(self, payouts: Payouts) -> None:
        """Have something that can be moved."""
        await self.endow(payouts, ETH)

    async def turn(self, house: House) -> bool:
        """Let the operator have it signed once it is prepared."""
        if not self.all_payments(house):
            await self.bring(house)
            return False
        return await super().turn(house)

    async def bring(self, house: House) -> None:
        """Prepare it, have it signed and take it back."""
        office = self.office(house)
        await self.sign(house, await prepare_cold(office, PrepareCold("ERC20", "ETH", "1")))

    async def sign(self, house: House, unsigned: Any) -> None:
        """Have a file signed elsewhere and take it back."""
        signature = await house.payouts.signer.sign("ERC20", 0, offline.decode(unsigned.file.encode()).body)
        _ = await import_cold(self.office(house), ImportCold(int(unsigned.ref), signature.hex().encode()))

    def office(self, house: House) -> Any:
        """Return the house as the operator's commands know it."""
        treasury = SimpleNamespace(
            keepers={"ERC20": house.keeper}, senders={"ERC20": house.sender}, spec=lambda code: NETWORKS[code]
        )
        return SimpleNamespace(context=house.context, store=house.payouts.reads, treasury=treasury)

    def expected(self, payouts: Payouts) -> list[tuple[str, str, int]]:
        """Return what went to the cold address, or to ourselves."""
        return [(self.cold, "", ETHER)] if self.moved else [(OURS[ERC20][0].address, "", 1)]

    async def check_balances(self, payouts: Payouts) -> None:
        """See that it is the house's still, there."""
        assert payouts.balance(house(Purpose.COLD, ETH)) == -self.moved
        assert payouts.available(payouts.alice, ETH) == 10 * COIN


class ColdHurried(Cold):
    """It waits too long, and a dearer one is signed elsewhere as well."""

    async def turn(self, house: House) -> bool:
        """Hurry it while it waits."""
        payments = self.all_payments(house)
        if payments and payments[0].state == PaymentState.SIGNED and len(payments[0].candidates) == 1:
            await self.sign(house, await hurry_cold(self.office(house), HurryCold(payments[0].ref)))
            return False
        return await super().turn(house)

    async def check_balances(self, payouts: Payouts) -> None:
        """See that the dearer one was mined."""
        await super().check_balances(payouts)
        [payment] = payouts.reads.rows(Payment, {}, 2)
        assert payment.txid == payment.candidates[1]


class ColdGivenUp(Cold):
    """It waits too long and is given up: the hot wallet spends its nonce."""

    steps = (*Cold.steps, "signature", "commit sign")
    moved = 0

    async def turn(self, house: House) -> bool:
        """Give it up while it waits."""
        [payment] = self.all_payments(house) or [Payment(0)]
        if payment.state == PaymentState.SIGNED and not payment.filling:
            await self.refuse(house)
            _ = await give_up_cold(self.office(house), GiveUpCold(payment.ref))
            return False
        return await super().turn(house)

    async def refuse(self, house: House) -> None:
        """Let the node take what fills its nonce."""


class ColdSentAfterAll(ColdGivenUp):
    """It is given up, and the chain mines it all the same."""

    moved = COIN

    async def refuse(self, house: House) -> None:
        """Let the node refuse what is to fill its nonce, once it has the payment."""
        assert await house.payouts.chain(ERC20).mempool()
        await self.register(house.payouts, other=True)


class ColdNeverBack(Cold):
    """It is given up while it is away, and whoever has signed it sends it himself: the chain has it."""

    steps = ("commit cold", "commit rival", "signature", "commit sign", "commit mine", "commit finish", *WATCHED)
    more = ("before broadcast",)
    moved = COIN

    def __init__(self) -> None:
        super().__init__()
        self.blob = b""

    async def bring(self, house: House) -> None:
        """Have it signed, and give it up; from now on the node refuses what is to fill its nonce."""
        office = self.office(house)
        unsigned = await prepare_cold(office, PrepareCold("ERC20", "ETH", "1"))
        body = offline.decode(unsigned.file.encode()).body
        signature = await house.payouts.signer.sign("ERC20", 0, body)
        self.blob = house.payouts.chain(ERC20).assemble(body, signature).blob
        await self.register(house.payouts, other=True)
        _ = await give_up_cold(office, GiveUpCold(int(unsigned.ref)))

    async def turn(self, house: House) -> bool:
        """Send it from elsewhere, once it was given up."""
        if self.all_payments(house) and self.first("sending"):
            await self.register(house.payouts)
            _ = await house.payouts.chain(ERC20).broadcast(self.blob)
            await self.register(house.payouts, other=True)
        return await super().turn(house)


class ColdCoin(Course):
    """Somebody pays to the cold address of a chain of coins."""

    steps = ("commit cold coin", *WATCHED)
    cold = THEIRS[BITCOIN].address
    payments: ClassVar[list[PaymentState]] = []

    async def open(self, payouts: Payouts) -> None:
        """Make it a chain of coins."""
        payouts.node._chains["BITCOIN"] = Coins(payouts.chain())  # pyright: ignore[reportArgumentType]

    async def begin(self, payouts: Payouts) -> None:
        """Pay what the books say is there."""
        await self.endow(payouts)
        sent = Posting(house(Purpose.COLD, BTC), -2 * COIN), Posting(house(Purpose.INVENTORY, BTC), 2 * COIN)
        await payouts.do(lambda: book(*sent))
        _ = await payouts.node.faucet("BITCOIN", self.cold, "", "", 2 * COIN)

    async def turn(self, house: House) -> bool:
        """Mine it."""
        if not self.first("block"):
            return True
        await self.mine(house)
        return False

    def expected(self, payouts: Payouts) -> list[tuple[str, str, int]]:
        """Return nothing: strangers have paid it."""
        return []

    async def check_balances(self, payouts: Payouts) -> None:
        """See that nobody has anything of it."""
        assert payouts.available(payouts.alice) == 0


MOVES: Final[tuple[type[Course], ...]] = (
    Arrived,
    Swept,
    SweptToken,
    SweepUndone,
    SweptAgain,
    SweepGone,
    Cold,
    ColdHurried,
    ColdGivenUp,
    ColdSentAfterAll,
    ColdNeverBack,
    ColdCoin,
)
