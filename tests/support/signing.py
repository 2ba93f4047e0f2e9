"""A signer with its socket beside a house that pays out, and rows of the books that lie."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import msgspec

from strongroom.clock import SetClock
from strongroom.crashpoints import reach
from strongroom.custody.chain import Payee
from strongroom.custody.families import NETWORKS
from strongroom.custody.networks.simulated_signing import SimulatedScheme
from strongroom.custody.policy import Caps, Judge
from strongroom.custody.remote_signer import RemoteSigner
from strongroom.custody.sender import PaymentTerms, Sender
from strongroom.custody.signed_log import SignedLog
from strongroom.custody.signing_service import SigningService, signing_socket
from strongroom.custody.xpubs import public_keys_of
from strongroom.engine.command import NOBODY, Command, Decision, View
from strongroom.records.kept import Kept, Key
from strongroom.records.withdrawals import Payment, Withdrawal
from strongroom.store.sqlite.snapshot import SqliteSnapshot
from strongroom.wallet.payments import Draft, next_nonce, outgoing, prepare_reservation
from support.paying import COIN, Payouts
from support.world import BITCOIN, NOW_MS

SEED = bytes(range(64))
"""The seed that the house's node knows the public keys of."""

CAPS = {
    "BITCOIN": Caps(20_000, {"": 5 * COIN}),
    "ERC20": Caps(10**15, {"": 10**18, "USDT": 50 * 10**6}),
    "RIPPLE": Caps(100, {"": 100 * 10**6}),
}


class Lie(Command, frozen=True):
    """Put rows into the books, as whoever controls the store could."""

    rows: tuple[Any, ...]

    def needs(self) -> list[Key]:
        """The rows."""
        return [row.key() for row in self.rows]

    def decide(self, view: View, now_ms: int) -> Decision:
        """Write them."""
        return Decision(rows=list(self.rows))


def judge_of(folder: Path, log: SignedLog, crash_points: Callable[[str], None] = reach) -> Judge:
    """Return a judge over a folder's books."""
    schemes = {network.id: SimulatedScheme(network, SEED) for network in NETWORKS.values() if network.id != "LITECOIN"}
    return Judge(lambda: SqliteSnapshot(folder), schemes, CAPS, log, SetClock(NOW_MS), crash_points)


class Desk:
    """A house whose payments another process would sign, and the signer itself."""

    def __init__(self, payouts: Payouts, folder: Path) -> None:
        self.payouts = payouts
        self.folder = folder
        self.clock = SetClock(NOW_MS)
        self.log = SignedLog(folder / "signer")
        self.signer = RemoteSigner(self.socket, public_keys_of(SEED, NETWORKS.values()), 10)

    @property
    def socket(self) -> Path:
        """Return where the signer listens."""
        return self.folder / "socket" / "s"

    @property
    def lines(self) -> list[bytes]:
        """Return what the signer has counted, as it lies on the disk."""
        return (self.folder / "signer" / "signed.jsonl").read_bytes().splitlines()

    def judge(self) -> Judge:
        """Return a judge with this desk's clock."""
        schemes = {network.id: SimulatedScheme(network, SEED) for network in NETWORKS.values()}
        return Judge(lambda: SqliteSnapshot(self.folder), schemes, CAPS, self.log, self.clock)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Listen."""
        with closing(self.log):
            async with signing_socket(self.socket, SigningService(self.judge())):
                yield

    def sender(self, network: int = BITCOIN, terms: PaymentTerms | None = None) -> Sender:
        """Return a sender that asks the signer."""
        payouts = self.payouts
        return Sender(payouts.world.context, payouts.chain(network), self.signer, network, terms=terms)

    async def reserved(self, *amounts: str, fee: int = 1_000, **asked: Any) -> Payment:
        """Ask for withdrawals and return the payment that the books reserve for them."""
        payouts = self.payouts
        withdrawals = [await payouts.withdraw(amount, **asked) for amount in amounts]
        await payouts.do(lambda: prepare_reservation(payouts.world.context, withdrawals, self.draft(withdrawals, fee)))
        return payouts.payment(withdrawals[0])

    def draft(self, withdrawals: Sequence[Withdrawal], fee: int = 1_000, nonce: int | None = None) -> Draft:
        """Return a draft that pays withdrawals as they are."""
        context, network = self.payouts.world.context, withdrawals[0].network
        payees: list[Payee] = []
        for withdrawal in withdrawals:
            token, units = outgoing(context.catalogue, withdrawal)
            payees.append(Payee(withdrawal.address, withdrawal.tag, token, units))
        nonce = next_nonce(context, network) if nonce is None else nonce
        return self.payouts.chain(network).draft_with(payees, nonce, fee)

    async def lie(self, *rows: Kept) -> None:
        """Put rows into the books."""
        await self.payouts.do(lambda: Lie(NOBODY, rows))

    async def change(self, row: Kept, **changes: Any) -> None:
        """Change a row of the books."""
        await self.lie(msgspec.structs.replace(row, **changes))

    async def sign(self, payment: Payment, network: str = "BITCOIN") -> bytes:
        """Ask for a payment's signature."""
        return await self.signer.sign(network, payment.ref, payment.body)
