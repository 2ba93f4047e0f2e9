"""The sender: carries approved withdrawals out on one network, and survives being killed anywhere.

It keeps nothing that matters in memory: each step is a commit before its effect, and a restart goes on from the rows.

    approved    --reserve-->  a payment with its coins or nonce   --sign-->  the blob is committed
    signed      --broadcast-> the same blob, until the node knows it; --redraft--> the same again for a higher fee
    in a block  --follow--->  mined, and final once buried; back when a reorganisation takes it out of its block
    undone      --follow--->  void, and the fee booked, once the block that undid it is buried
    conflicted  --follow--->  void, once the chain says for good that no candidate is ever mined

After a restore from a backup it only follows what is on its way, and voids nothing, until the network is reconciled:
a payment may have candidates that the backup does not know.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from typing import Final

import msgspec
import structlog

from strongroom.crashpoints import SENDER_POINTS, reach
from strongroom.custody.chain import Block, Chain, Fate, Funds, Payee, Rejected, TransactionStatus, Unreachable
from strongroom.custody.signer import Signer
from strongroom.engine.command import NOBODY, Command
from strongroom.engine.port import StoreError
from strongroom.engine.state import State
from strongroom.errors import PARAMETER_INVALID, InvariantBroken, Refused, check
from strongroom.records.chains import Holding, Tip
from strongroom.records.coins import Coin
from strongroom.records.epochs import Reconciled
from strongroom.records.kept import Kept
from strongroom.records.settings import NetworkSettings
from strongroom.records.withdrawals import Payment, PaymentPurpose, PaymentState, Withdrawal, WithdrawalState
from strongroom.wallet.addresses import house_address
from strongroom.wallet.adoptions import AdoptCandidate
from strongroom.wallet.context import Context, perform_own
from strongroom.wallet.epochs import WAITS, waits
from strongroom.wallet.moves import prepare_move_finish, prepare_move_revert
from strongroom.wallet.payments import (
    Draft,
    MinePayment,
    OfferPayment,
    RedraftPayment,
    UnminePayment,
    free_coins,
    has_its_coins,
    has_its_pot,
    has_spent_change,
    next_nonce,
    offered_on,
    open_payments,
    outgoing,
    prepare_reservation,
    prepare_signing,
    prepare_void,
)
from strongroom.wallet.settlements import Change, prepare_finish, prepare_revert
from strongroom.wallet.tips import has_passed

MAX_OPEN: Final = 2_000
"""A network has at most this many payments under way; further withdrawals wait for their turn."""

MAX_STARTED_AT_ONCE: Final = 64
"""One pass begins at most this many payments, so that those under way are looked after in between."""

IDLE_S: Final = 60
"""Without any news the sender looks again after so many seconds."""

BACK_OFF_S: Final = (0.5, 1, 2, 5, 10, 30)
"""Seconds between attempts while the node or the books do not answer; the last one from then on."""

REDRAFT_AFTER_S: Final = 1_800
"""A payment that is in no block for so long is offered again for a higher fee."""

CRASH_POINTS: Final = SENDER_POINTS
"""Where a test can kill the sender: before and after every commit, signature and broadcast."""

SLOW: Final = "it was signed elsewhere for too low a fee, and waits for its block: hurry it, or give it up"

log = structlog.get_logger("sender")


class PaymentTerms(msgspec.Struct, frozen=True):
    """How a network's payments are made: at most `batch` withdrawals share a transaction where the chain can do that;
    one that was not mined `redraft_after_s` after its newest signature is offered for a higher fee."""

    batch: int = 1
    redraft_after_s: int = REDRAFT_AFTER_S


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
        *,
        terms: PaymentTerms | None = None,
        drafting: asyncio.Lock | None = None,
    ) -> None:
        """Make it; `drafting` is held while a payment is drafted and reserved, which the keeper does as well."""
        self._context = context
        self._chain = chain
        self._signer = signer
        self._number = network
        self._at = crash_points
        self._terms = terms or PaymentTerms()
        self._drafting = drafting or asyncio.Lock()
        self._handed: dict[int, int] = {}
        self._hurried: set[int] = set()
        self._proved: set[int] = set()
        self._asked = asyncio.Event()
        self._behind = False
        self._waited = True
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

    def wake(self) -> None:
        """Look at every payment soon."""
        self._asked.set()

    def hurry(self, ref: int) -> None:
        """Offer a payment for a higher fee at the next look, however long it has waited."""
        self._hurried.add(ref)
        self.wake()

    async def step(self) -> bool:
        """Take every payment as far as it goes now; return False if the node or the books did not answer."""
        self._behind = False
        try:
            self._waited = self._waits
            tip = await self._chain.tip()
            payments = self._open_payments()
            # What is on its way is followed first: a signer that is away holds up nothing but what is to be signed.
            for payment in sorted(payments, key=lambda payment: payment.state, reverse=True):
                await self._guarded(payment.ref, self._advance(payment, tip))
            approved = [] if self._waits else self._approved(MAX_OPEN - len(payments))
            for batch in self._batches(approved):
                await self._guarded(batch[0].ref, self._start(batch, tip))
            self._waited = self._waits
        except (Unreachable, Refused, StoreError) as trouble:
            self._tell(str(trouble))
            return False
        self._tell(WAITS if self._waited else "")
        self._count([withdrawal.ref for withdrawal in approved])
        return True

    @property
    def _network(self) -> NetworkSettings:
        return self._context.catalogue.network(self._number)

    @property
    def _waits(self) -> bool:
        """Whether nothing is reserved, signed, sent or given up: the network is not reconciled since a restore."""
        return waits(self._context.reads, self._number)

    def _notice(self, state: State) -> None:
        """Wake the loop when a commit changed a withdrawal, reserved a move, or brought what a restore or a settlement
        waits for."""
        kinds: tuple[type[Kept], ...] = (Withdrawal, Reconciled)
        # As the last look found it: in the middle of a commit nothing can be read.
        kinds += (Coin, Holding) if self._waited else ()
        kinds += (Tip,) if self._behind else ()
        if any(key[0] in kinds or _is_new_move(row) for key, row in state.rows.items()):
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
        self._handed = {ref: self._handed[ref] for ref in refs if ref in self._handed}
        self._proved.intersection_update(refs)

    def _open_payments(self) -> list[Payment]:
        return open_payments(self._context.reads, self._number, MAX_OPEN)

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

    def _batches(self, approved: Sequence[Withdrawal]) -> list[list[Withdrawal]]:
        """Share withdrawals out among transactions: of one asset each, and a customer's one at a time."""
        most = min(self._terms.batch, self._chain.payees_at_once)
        batches: list[list[Withdrawal]] = []
        for withdrawal in approved:
            for batch in batches:
                owners = {other.owner for other in batch}
                if len(batch) < most and batch[0].asset == withdrawal.asset and withdrawal.owner not in owners:
                    batch.append(withdrawal)
                    break
            else:
                batches.append([withdrawal])
        return batches

    async def _start(self, withdrawals: Sequence[Withdrawal], tip: Block) -> None:
        """Reserve a payment for withdrawals and take it as far as it goes; one that may not be paid now waits.

        Where they cannot be paid together each is tried alone, so that none waits for another's sake.
        """
        first, coins = withdrawals[0], self._chain.spends_coins
        payees = [self._payee(withdrawal) for withdrawal in withdrawals]
        try:
            async with self._drafting:
                draft = await self._chain.draft(payees, self._funds())
                await self._commit(
                    "reserve", lambda: prepare_reservation(self._context, withdrawals, draft, coins=coins)
                )
        except Rejected:
            if len(withdrawals) == 1:
                raise
            for withdrawal in withdrawals:
                await self._guarded(withdrawal.ref, self._start([withdrawal], tip))
            return
        ref = self._context.reads.row(Withdrawal, first.ref).payment
        if ref:
            await self._guarded(ref, self._advance(self._context.reads.row(Payment, ref), tip))
        else:
            log.warning("withdrawal awaits approval again", network=self._chain.network, ref=first.ref)

    def _funds(self) -> Funds:
        if self._chain.spends_coins:
            return Funds(coins=tuple(free_coins(self._context, self._number)))
        return Funds(nonce=next_nonce(self._context, self._number))

    async def _advance(self, payment: Payment, tip: Block) -> None:
        """Take a payment from where its row says it is as far as it goes."""
        if self._waits:
            return await self._follow(payment, tip)
        if self._is_due(payment):
            payment = await self._redraft(payment)
        if payment.state == PaymentState.RESERVED:
            if _is_signed_elsewhere(payment):
                return await self._follow(payment, tip)
            payment = await self._sign(payment)
        refusal: Rejected | None = None
        # One that was adopted may have no blob here: others have sent it.
        if payment.state == PaymentState.SIGNED and payment.blob and not self._is_handed(payment):
            try:
                await self._prove(payment)
                await self._broadcast(payment)
            except Rejected as error:
                refusal = error
        await self._follow(payment, tip)
        now = self._context.reads.row(Payment, payment.ref)
        if now.state != PaymentState.SIGNED:
            return None
        if _is_signed_elsewhere(now) and self._has_waited(now):
            raise Rejected(SLOW if refusal is None else f"{SLOW} ({refusal})")
        if refusal is not None:
            raise refusal
        return None

    def _is_handed(self, payment: Payment) -> bool:
        """Say whether the newest transaction of a payment was given to the node: another may have come back signed."""
        return self._handed.get(payment.ref) == hash(payment.blob)

    def _is_due(self, payment: Payment) -> bool:
        """Say whether a payment has waited so long that a higher fee may help. One whose change is to be spent already
        waits for a person's word: a dearer one has other change, and what spends the old one could never be mined."""
        hurried = payment.ref in self._hurried
        self._hurried.discard(payment.ref)
        is_ours = not _is_signed_elsewhere(payment) and bool(payment.body)
        if not is_ours or payment.state != PaymentState.SIGNED:
            return False
        return hurried or (self._has_waited(payment) and not has_spent_change(self._context.reads, payment))

    def _has_waited(self, payment: Payment) -> bool:
        """Say whether the newest candidate of a payment has waited for its block too long."""
        return self._context.clock.now_ms() - payment.signed_ms >= self._terms.redraft_after_s * 1_000

    async def _redraft(self, payment: Payment) -> Payment:
        """Draft a payment again for a higher fee, where the chain finds one that helps and may be paid."""
        newest = Draft(payment.spends, payment.body, int(payment.chain_fee_units))
        statuses = [await self._chain.transaction(txid, payment.spends) for txid in payment.candidates]
        if any(status.fate not in (Fate.MEMPOOL, Fate.UNKNOWN) for status in statuses):
            return payment
        draft = await self._chain.redraft(newest)
        if draft is None:
            return payment
        command = RedraftPayment(NOBODY, payment.ref, payment.body, draft)
        await self._commit("redraft", lambda: command)
        log.info("payment redrafted", network=self._chain.network, ref=payment.ref, fee_units=draft.fee_units)
        return self._context.reads.row(Payment, payment.ref)

    async def _sign(self, payment: Payment) -> Payment:
        """Sign a payment: the same row gives the same bytes. The candidate is durable before anybody sees it."""
        self._at("before signature")
        signature = await self._signer.sign(self._chain.network, payment.ref, payment.body)
        self._at("after signature")
        candidate = self._chain.assemble(payment.body, signature)
        command = prepare_signing(payment, candidate.txid, candidate.blob)
        await self._commit("sign", lambda: command)
        _ = self._handed.pop(payment.ref, None)
        self._proved.add(payment.ref)
        return self._context.reads.row(Payment, payment.ref)

    async def _prove(self, payment: Payment) -> None:
        """Before a broadcast, commit something behind what was read of a payment that another process has signed.

        A database that was cut off from its replicas may show a commit that they do not have, and that is gone after a
        failover. It answers none of our own without them: once one is answered, all before it are theirs too.
        """
        if self._context.reads.is_shared and payment.ref not in self._proved:
            command = OfferPayment(NOBODY, payment.ref, payment.candidates[-1])
            await self._commit("prove", lambda: command)
            self._proved.add(payment.ref)

    async def _broadcast(self, payment: Payment) -> None:
        self._at("before broadcast")
        txid = await self._chain.broadcast(payment.blob)
        self._at("after broadcast")
        check(txid in payment.candidates, "the node names a transaction as we do")
        self._handed[payment.ref] = hash(payment.blob)
        log.info("payment broadcast", network=self._chain.network, ref=payment.ref, txid=txid)

    async def _follow(self, payment: Payment, tip: Block) -> None:
        """Bring the row to what the chain says of its candidates, if it has any."""
        statuses = {txid: await self._chain.transaction(txid, payment.spends) for txid in payment.candidates}
        for txid, status in statuses.items():
            if status.fate is Fate.MINED and status.block is not None:
                return await self._mined(payment, txid, status.block, status.fee, tip)
            if status.fate is Fate.REVERTED and status.block is not None:
                return await self._reverted(payment, status.block, status.fee, tip)
        if not statuses:
            return None
        if payment.state == PaymentState.MINED:
            command = UnminePayment(NOBODY, payment.ref, payment.withdrawals)
            return await self._commit("unmine", lambda: command)
        if payment.filling and await self._take_rival(payment, statuses.values()):
            return None
        if not self._waits and all(self._is_final(status, tip) for status in statuses.values()):
            return await self._void(payment, next((it.block for it in statuses.values() if it.block), None))
        if not any(status.fate is Fate.MEMPOOL for status in statuses.values()):
            _ = self._handed.pop(payment.ref, None)
        return None

    async def _take_rival(self, payment: Payment, statuses: Iterable[TransactionStatus]) -> bool:
        """Take what was signed elsewhere and never came back, where the chain has it: it is the payment that was given
        up, and has spent the nonce before what was to fill it. Say whether that was so."""
        _, offer = offered_on(self._context.catalogue, payment.asset, payment.network)
        wanted = (payment.address, offer.token, int(payment.units))
        for status in statuses:
            if status.rival and status.block is not None:
                outputs = await self._chain.outputs_in(status.block.hash)
                paid = [(it.address, it.asset_id, it.amount) for it in outputs if it.txid == status.rival]
                if paid == [wanted]:
                    sent = AdoptCandidate(NOBODY, payment.ref, payment.network, status.rival)
                    await self._commit("rival", lambda sent=sent: sent)
                    log.warning("given up payment was sent", network=self._chain.network, ref=payment.ref)
                    self.wake()
                    return True
        return False

    async def _mined(self, payment: Payment, txid: str, block: Block, fee: int, tip: Block) -> None:
        """Note the block, and settle once it is buried deep enough."""
        if (payment.block, payment.txid) != (block.hash, txid):
            command = MinePayment(NOBODY, payment.ref, payment.withdrawals, txid, block.height, str(fee), block.hash)
            await self._commit("mine", lambda: command)
            payment = self._context.reads.row(Payment, payment.ref)
        coins = self._chain.spends_coins
        if self._is_settled(block, tip) and self._is_credited(payment):
            change = await self._change(txid, block) if coins else None
            finish = prepare_finish if payment.withdrawals else prepare_move_finish
            await self._commit("finish", lambda: finish(self._context, payment, tip.height, change))
            for ref in payment.withdrawals:
                log.info("withdrawal settled", network=self._chain.network, ref=ref, txid=txid)

    def _is_credited(self, payment: Payment) -> bool:
        """Say whether what a payment has spent is in the books: of one that was adopted the deposits may come later."""
        if self._chain.spends_coins:
            return has_its_coins(self._context, payment)
        return not self._waits or has_its_pot(self._context, payment)

    async def _change(self, txid: str, block: Block) -> list[Change]:
        """Return what a mined transaction of ours gave back to the house's own address."""
        home = house_address(self._context.reads, self._number).address
        outputs = await self._chain.outputs_in(block.hash)
        return [Change(f"{it.txid}:{it.index}", it.amount) for it in outputs if it.txid == txid and it.address == home]

    async def _reverted(self, payment: Payment, block: Block, fee: int, tip: Block) -> None:
        """Give a payment up whose transaction the chain has undone, once that is buried."""
        if self._is_settled(block, tip):
            height = block.height
            revert = prepare_revert if payment.withdrawals else prepare_move_revert
            await self._commit("revert", lambda: revert(self._context, payment, height, fee, tip.height, block.hash))
            log.warning("payment reverted", network=self._chain.network, ref=payment.ref)

    async def _void(self, payment: Payment, rival: Block | None) -> None:
        height, block = (rival.height, rival.hash) if rival else (0, "")
        freed: Collection[str] = ()
        if rival and self._chain.spends_coins:
            freed = await self._chain.unspent(payment.spends)
        await self._commit("void", lambda: prepare_void(self._context, payment, height, block, sorted(freed)))
        log.warning("withdrawals failed", network=self._chain.network, ref=payment.ref)

    def _is_buried(self, block: Block, tip: Block) -> bool:
        return tip.height - block.height + 1 >= self._network.confirmations

    def _is_settled(self, block: Block, tip: Block) -> bool:
        """Say whether a block is deep enough, and the watcher has worked through it: it takes back what goes by it."""
        buried = self._is_buried(block, tip)
        passed = has_passed(self._context.reads, self._number, block.height, block.hash)
        self._behind = self._behind or (buried and not passed)
        return buried and passed

    def _is_final(self, status: TransactionStatus, tip: Block) -> bool:
        """Say whether the chain's word that a candidate is never mined is its last: its rival, if any, is buried."""
        if status.fate is not Fate.CONFLICTED:
            return False
        return status.block is None or self._is_settled(status.block, tip)

    def _payee(self, withdrawal: Withdrawal) -> Payee:
        token, units = outgoing(self._context.catalogue, withdrawal)
        return Payee(withdrawal.address, withdrawal.tag, token, units)

    async def _commit(self, step: str, prepare: Callable[[], Command]) -> None:
        self._at(f"before commit {step}")
        _ = await perform_own(self._context, prepare)
        self._at(f"after commit {step}")


def _is_signed_elsewhere(payment: Payment) -> bool:
    return payment.purpose == PaymentPurpose.COLD and not payment.filling


def _is_new_move(row: Kept) -> bool:
    """Say whether a row is a move that was reserved, or is on its way again."""
    begins = (PaymentState.RESERVED, PaymentState.SIGNED)
    return isinstance(row, Payment) and row.state in begins and not row.withdrawals
