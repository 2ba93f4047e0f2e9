"""The sender: carries approved withdrawals out on one network, and survives being killed anywhere.

It keeps nothing that matters in memory: each step is a commit before its effect, and a restart goes on from the rows.

    approved    --reserve-->  a payment with a nonce       --sign-->  the blob is committed
    signed      --broadcast-> the same blob, until the node knows it
    in a block  --follow--->  mined, and final once buried; back when a reorganisation takes it out of its block
    conflicted  --follow--->  void, once the chain says for good that no candidate is ever mined
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
import structlog

from strongroom.crashpoints import SENDER_POINTS, reach
from strongroom.custody.chain import Block, Chain, Fate, Payee, Rejected, TransactionStatus, Unreachable
from strongroom.custody.signer import Signer
from strongroom.engine.command import NOBODY, Command
from strongroom.engine.state import State
from strongroom.errors import PARAMETER_INVALID, InvariantBroken, Refused, check
from strongroom.records.settings import NetworkSettings
from strongroom.records.withdrawals import Payment, PaymentState, Withdrawal, WithdrawalState
from strongroom.wallet.context import Context, perform_own
from strongroom.wallet.payments import (
    OPEN_PAYMENTS,
    MinePayment,
    SignPayment,
    UnminePayment,
    VoidPayment,
    nonce_of,
    outgoing,
    prepare_finish,
    prepare_reservation,
)

MAX_OPEN: Final = 2_000
"""A network has at most this many payments under way; further withdrawals wait for their turn."""

MAX_STARTED_AT_ONCE: Final = 64
"""One pass begins at most this many payments, so that those under way are looked after in between."""

IDLE_S: Final = 60
"""Without any news the sender looks again after so many seconds."""

BACK_OFF_S: Final = (0.5, 1, 2, 5, 10, 30)
"""Seconds between attempts while the node or the books do not answer; the last one from then on."""

CRASH_POINTS: Final = SENDER_POINTS
"""Where a test can kill the sender: before and after every commit, signature and broadcast."""

log = structlog.get_logger("sender")


class SenderStatus(msgspec.Struct):
    """How the sender of a network is doing.

    `trouble` says why nothing goes on at the moment; `stuck` why single payments do not, by their references.
    """

    network: str
    trouble: str = ""
    open_payments: int = 0
    stuck: dict[int, str] = {}


class Sender:
    """The loop that pays one network's withdrawals; at most one should run per network, but two do no harm."""

    def __init__(
        self,
        context: Context,
        chain: Chain,
        signer: Signer,
        network: int,
        crash_points: Callable[[str], None] = reach,
    ) -> None:
        self._context = context
        self._chain = chain
        self._signer = signer
        self._number = network
        self._at = crash_points
        self._handed: set[int] = set()
        self._asked = asyncio.Event()
        self.status = SenderStatus(chain.network)
        context.reads.subscribe(self._notice)

    async def run(self) -> None:
        """Pay until cancelled: work on every change of the chain and on every new withdrawal."""
        seen, failures, wait_s = -1, 0, IDLE_S
        while True:
            seen = await self._news(seen, wait_s)
            self._asked.clear()
            failures = 0 if await self.step() else failures + 1
            wait_s = BACK_OFF_S[min(failures, len(BACK_OFF_S)) - 1] if failures else IDLE_S

    async def step(self) -> bool:
        """Take every payment as far as it goes now; return False if the node or the books did not answer."""
        try:
            tip = await self._chain.tip()
            payments = self._open_payments()
            for payment in payments:
                await self._guarded(payment.ref, self._advance(payment, tip))
            approved = self._approved(MAX_OPEN - len(payments))
            for withdrawal in approved:
                await self._guarded(withdrawal.ref, self._start(withdrawal, tip))
        except (Unreachable, Refused) as trouble:
            self._tell(str(trouble))
            return False
        self._tell("")
        self._count([withdrawal.ref for withdrawal in approved])
        return True

    @property
    def _network(self) -> NetworkSettings:
        return self._context.catalogue.network(self._number)

    def _notice(self, state: State) -> None:
        """Wake the loop when a commit changed a withdrawal."""
        if any(key[0] is Withdrawal for key in state.rows):
            self._asked.set()

    async def _news(self, seen: int, timeout_s: float) -> int:
        """Wait for a change of the chain or a withdrawal; return the chain's change number as far as it is known."""
        change = asyncio.ensure_future(self._chain.wait_change(seen, timeout_s))
        asked = asyncio.ensure_future(self._asked.wait())
        try:
            _ = await asyncio.wait((change, asked), return_when=asyncio.FIRST_COMPLETED)
            return change.result() if change.done() else seen
        finally:
            for waiting in (change, asked):
                _ = waiting.cancel()
            _ = await asyncio.gather(change, asked, return_exceptions=True)

    def _tell(self, trouble: str) -> None:
        if trouble and trouble != self.status.trouble:
            log.warning("sender waits", network=self._chain.network, reason=trouble)
        self.status.trouble = trouble

    def _count(self, tried: list[int]) -> None:
        """Bring the status up to date, and forget what is not open any more."""
        refs = [payment.ref for payment in self._open_payments()]
        self.status.open_payments = len(refs)
        self.status.stuck = {ref: self.status.stuck[ref] for ref in (*refs, *tried) if ref in self.status.stuck}
        self._handed.intersection_update(refs)

    def _open_payments(self) -> list[Payment]:
        found: list[Payment] = []
        for state in OPEN_PAYMENTS:
            equal = {"network": self._number, "state": state}
            found += self._context.reads.rows(Payment, equal, MAX_OPEN)
        return found

    def _approved(self, room: int) -> list[Withdrawal]:
        limit = min(MAX_STARTED_AT_ONCE, room)
        if limit <= 0:
            return []
        equal = {"network": self._number, "state": WithdrawalState.APPROVED}
        return self._context.reads.rows(Withdrawal, equal, limit)

    async def _guarded(self, ref: int, work: Awaitable[None]) -> None:
        """Do one payment's work; what stops this one alone is told, and stops no other."""
        try:
            await work
        except (Rejected, InvariantBroken) as error:
            self._stick(ref, str(error))
        except Refused as refusal:
            if refusal.error is not PARAMETER_INVALID:
                raise
            self._stick(ref, refusal.message)
        else:
            _ = self.status.stuck.pop(ref, None)

    def _stick(self, ref: int, reason: str) -> None:
        if self.status.stuck.get(ref) != reason:
            log.warning("payment waits", network=self._chain.network, ref=ref, reason=reason)
        self.status.stuck[ref] = reason

    async def _start(self, withdrawal: Withdrawal, tip: Block) -> None:
        """Reserve a payment for a withdrawal and take it as far as it goes; one that may not be paid now waits."""
        payee = self._payee(withdrawal)
        node_nonce, fee = await self._chain.next_nonce(), await self._chain.estimate_fee([payee])
        await self._commit("reserve", lambda: prepare_reservation(self._context, withdrawal, node_nonce, fee))
        ref = self._context.reads.row(Withdrawal, withdrawal.ref).payment
        if ref:
            await self._guarded(ref, self._advance(self._context.reads.row(Payment, ref), tip))
        else:
            log.warning("withdrawal awaits approval again", network=self._chain.network, ref=withdrawal.ref)

    async def _advance(self, payment: Payment, tip: Block) -> None:
        """Take a payment from where its row says it is as far as it goes."""
        if payment.state == PaymentState.RESERVED:
            payment = await self._sign(payment)
        refusal: Rejected | None = None
        if payment.state == PaymentState.SIGNED and payment.ref not in self._handed:
            try:
                await self._broadcast(payment)
            except Rejected as error:
                refusal = error
        await self._follow(payment, tip)
        if refusal is not None and self._context.reads.row(Payment, payment.ref).state == PaymentState.SIGNED:
            raise refusal

    async def _sign(self, payment: Payment) -> Payment:
        """Sign a payment: the same row gives the same bytes. The candidate is durable before anybody sees it."""
        withdrawal = self._context.reads.row(Withdrawal, payment.withdrawal)
        fee = int(payment.chain_fee_units)
        body = await self._chain.build([self._payee(withdrawal)], nonce_of(payment), fee)
        self._at("before signature")
        signature = await self._signer.sign(self._chain.network, body)
        self._at("after signature")
        candidate = self._chain.assemble(body, signature)
        command = SignPayment(NOBODY, payment.ref, candidate.txid, candidate.blob)
        await self._commit("sign", lambda: command)
        return self._context.reads.row(Payment, payment.ref)

    async def _broadcast(self, payment: Payment) -> None:
        self._at("before broadcast")
        txid = await self._chain.broadcast(payment.blob)
        self._at("after broadcast")
        check(txid in payment.candidates, "the node names a transaction as we do")
        self._handed.add(payment.ref)
        log.info("payment broadcast", network=self._chain.network, ref=payment.ref, txid=txid)

    async def _follow(self, payment: Payment, tip: Block) -> None:
        """Bring the row to what the chain says of its candidates."""
        statuses = {txid: await self._chain.transaction(txid) for txid in payment.candidates}
        for txid, status in statuses.items():
            if status.fate is Fate.MINED and status.block is not None:
                return await self._mined(payment, txid, status.block, status.fee, tip)
        if payment.state == PaymentState.MINED:
            command = UnminePayment(NOBODY, payment.ref, payment.withdrawal)
            return await self._commit("unmine", lambda: command)
        if all(self._is_final(status, tip) for status in statuses.values()):
            return await self._void(payment)
        if not any(status.fate is Fate.MEMPOOL for status in statuses.values()):
            self._handed.discard(payment.ref)
        return None

    async def _mined(self, payment: Payment, txid: str, block: Block, fee: int, tip: Block) -> None:
        """Note the block, and settle once it is buried deep enough."""
        withdrawal = self._context.reads.row(Withdrawal, payment.withdrawal)
        if (payment.height, withdrawal.txid) != (block.height, txid):
            command = MinePayment(NOBODY, payment.ref, payment.withdrawal, txid, block.height, str(fee))
            await self._commit("mine", lambda: command)
        if tip.height - block.height + 1 >= self._network.confirmations:
            await self._commit("finish", lambda: prepare_finish(self._context, payment, tip.height))
            log.info("withdrawal settled", network=self._chain.network, ref=payment.withdrawal, txid=txid)

    async def _void(self, payment: Payment) -> None:
        command = VoidPayment(NOBODY, payment.ref, self._context.reads.row(Withdrawal, payment.withdrawal))
        await self._commit("void", lambda: command)
        log.warning("withdrawal failed", network=self._chain.network, ref=payment.withdrawal)

    def _is_final(self, status: TransactionStatus, tip: Block) -> bool:
        """Say whether the chain's word that a candidate is never mined is its last: its rival, if any, is buried."""
        if status.fate is not Fate.CONFLICTED:
            return False
        return status.block is None or tip.height - status.block.height + 1 >= self._network.confirmations

    def _payee(self, withdrawal: Withdrawal) -> Payee:
        token, units = outgoing(self._context.catalogue, withdrawal)
        return Payee(withdrawal.address, withdrawal.tag, token, units)

    async def _commit(self, step: str, prepare: Callable[[], Command]) -> None:
        self._at(f"before commit {step}")
        _ = await perform_own(self._context, prepare)
        self._at(f"after commit {step}")
