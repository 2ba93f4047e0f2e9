"""Restoration: brings a network's books that were restored from a backup to its chain, before anything is paid there.

    addresses   those that may have been given out after the backup are derived first, so that nothing to them is missed
    blocks      what each block spends of ours and the books do not know is adopted, before its outputs are noted
    the end     once the tip is reached, nothing is unexplained and nothing of ours is on its way, payments go on

While a payment is left that nobody is named for, the operator has the last word: some customer's balance is too high
by it, and would be paid once more.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from typing import Final, cast

import structlog

from strongroom.clock import DAY_MS
from strongroom.custody.chain import Block, Chain, Fate, Output, Spending, Unreachable
from strongroom.custody.families import NATIVE
from strongroom.custody.keeper import Sweepable
from strongroom.custody.reconciliation import MAX_COINS, MAX_OPEN, reconcile
from strongroom.engine.command import Command
from strongroom.records.addresses import Address
from strongroom.records.coins import Coin, Sent
from strongroom.records.deposits import Deposit
from strongroom.records.epochs import Epoch, Reconciled
from strongroom.records.withdrawals import Payment, PaymentPurpose
from strongroom.wallet.addresses import HOUSE_POSITION, house_address, next_behind
from strongroom.wallet.adoptions import AdoptCandidate, Found, Moved, NotAdopted, Paid, prepare_adoption
from strongroom.wallet.context import Context
from strongroom.wallet.deposits import OPEN, outpoint_of
from strongroom.wallet.epochs import EndWaiting, prepare_end, waits
from strongroom.wallet.payments import open_payments, position_of
from strongroom.wallet.settlements import Change

DERIVING: Final = "the addresses that may have been given out after the backup are being derived"
READING: Final = "the blocks since the backup are being read"

ADOPTED_MS: Final = 14 * DAY_MS
"""For so long after a restore began, what was sent before it may be mined: Bitcoin's nodes keep a transaction for two
weeks, and whoever is paid by one may show it to them again."""

log = structlog.get_logger("restoration")


class Restoration:
    """One network's way back to its chain; `reason` says why its payments still wait, empty where they do not."""

    def __init__(self, context: Context, chain: Chain, network: int, cold_address: str = "") -> None:
        """Make it; what was paid to `cold_address` is the house's own still."""
        self._context = context
        self._chain = chain
        self._network = network
        self._cold = cold_address
        self._spendable: set[str] = set()
        self.not_adopted: dict[str, None] = {}
        """The transactions of ours that could not be taken: whatever they pay us is no deposit."""
        self._reason = READING

    @property
    def is_waiting(self) -> bool:
        """Whether the network's payments wait."""
        return waits(self._context.reads, self._network)

    @property
    def adopts(self) -> bool:
        """Whether all that a block has of ours is taken into the books: while payments wait, and for `ADOPTED_MS`.

        A payment of the lost time that no node remembers cannot be waited for; it may come back all the same.
        """
        epoch = self._context.reads.row(Epoch, 0)
        return self.is_waiting or self._context.clock.now_ms() < epoch.began_ms + ADOPTED_MS

    @property
    def reason(self) -> str:
        """Why they wait, for the operator."""
        return self._reason if self.is_waiting else ""

    @property
    def has_read(self) -> bool:
        """Whether the chain's tip was reached since the start, so that all is adopted that the chain shows."""
        return self._reason not in (DERIVING, READING)

    def is_prepared(self) -> bool:
        """Say whether blocks may be read: every address is known that may have been given out."""
        if next_behind(self._context.reads, self._network) is None:
            return True
        self._tell(DERIVING)
        return False

    async def begin(self) -> None:
        """Find out what of ours can be spent, before blocks are read."""
        self._spendable = set()
        if self._chain.spends_coins:
            self._spendable = self._coins() | await self._change_of_open_payments()

    async def adoptions(self, block: Block, outputs: Sequence[Output], *, everything: bool) -> AsyncIterator[Command]:
        """Yield what takes a block's unknown payments into the books, each to be carried out before the next.

        `outputs` are the block's. Unless `everything` is unknown since the backup, those are looked at that have stayed
        in the house on a chain of accounts: what has gone to the cold address, whose signer may send a payment that the
        server has forgotten, and sweeps, of which one may be mined long after the operator let payments go on.
        """
        home = house_address(self._context.reads, self._network)
        sent = () if everything else self._sent_within(outputs, home.address)
        if not everything and not sent:
            return
        for spending in await self._chain.spends_in(block.hash, self._position_of):
            if everything or spending.txid in sent:
                command = self._adoption(spending, home.address)
                if command is not None and (everything or not self._is_given_up(command)):
                    yield command
                self._note_arrivals(spending, home.address)

    def _is_given_up(self, command: Command) -> bool:
        """Say whether it would be a candidate of a payment that was given up: the sender looks for that one itself."""
        return isinstance(command, AdoptCandidate) and self._context.reads.row(Payment, command.payment).filling

    def _sent_within(self, outputs: Sequence[Output], home: str) -> Collection[str]:
        """Return the transactions that the books do not know from the hot wallet to the cold address, and from whomever
        to the hot wallet: a deposit address, it may be."""
        if not self._chain.needs_sweeps:
            return ()
        sent = {it.txid for it in outputs if it.address == home or (it.ours and it.address == self._cold)}
        return {txid for txid in sent if not self._context.reads.row(Sent, self._network, txid).payment}

    async def end(self) -> EndWaiting | None:
        """Return what lets payments go on, once books and chain agree; None while they do not."""
        try:
            reason = await self._obstacle()
        except Unreachable as problem:
            reason = str(problem)
        self._tell(reason or "payments go on")
        return None if reason else prepare_end(self._context, self._network)

    def _tell(self, reason: str) -> None:
        if reason != self._reason:
            log.warning("restored_network", network=self._chain.network, state=reason)
        self._reason = reason

    # -- what is ours

    def _coins(self) -> set[str]:
        """Return the outpoints of the coins and the open deposits in the books that no final payment has spent."""
        reads, network = self._context.reads, self._network
        found = {coin.outpoint for coin in reads.rows(Coin, {"network": network, "payment": 0}, MAX_COINS)}
        for payment in open_payments(self._context.reads, self._network, MAX_OPEN):
            found.update(payment.spends)
        deposits = reads.rows(Deposit, {"network": network, "state": OPEN}, MAX_COINS * len(OPEN))
        return found | {outpoint_of(deposit) for deposit in deposits}

    async def _change_of_open_payments(self) -> set[str]:
        """Return the change of payments that are in a block, or wait for one, and are not final: after the backup it
        may have been spent."""
        home = house_address(self._context.reads, self._network).address
        waiting = await self._chain.mempool()
        found: set[str] = set()
        for payment in open_payments(self._context.reads, self._network, MAX_OPEN):
            for txid in payment.candidates:
                status = await self._chain.transaction(txid, payment.spends)
                if status.fate not in (Fate.MINED, Fate.MEMPOOL):
                    continue
                outputs = waiting if status.block is None else await self._chain.outputs_in(status.block.hash)
                found.update(f"{it.txid}:{it.index}" for it in outputs if (it.txid, it.address) == (txid, home))
        return found

    def _note_arrivals(self, spending: Spending, home: str) -> None:
        """Note what a transaction pays us: a later one of the same blocks may spend it."""
        if not self._chain.spends_coins:
            return
        for it in spending.outputs:
            if it.address == home or self._context.reads.row(Address, self._network, it.address, it.tag).ours:
                self._spendable.add(f"{it.txid}:{it.index}")

    # -- what is adopted

    def _adoption(self, spending: Spending, home: str) -> Command | None:
        """Return what takes a transaction into the books; None for one that is known, not ours, or cannot be taken."""
        ours = [outpoint in self._spendable for outpoint in spending.spends]
        coins = self._chain.spends_coins
        if (coins and not any(ours)) or self._context.reads.row(Sent, self._network, spending.txid).payment:
            return None
        try:
            if coins and not all(ours):
                raise NotAdopted("it also spends what the books do not know")
            apart = self._chain.needs_sweeps
            found = self._of_account(spending, home) if apart else _found(spending, self._network, home)
            command = prepare_adoption(self._context, found, coins=coins, cold=self._cold)
        except NotAdopted as problem:
            if spending.txid not in self.not_adopted:
                self.not_adopted[spending.txid] = None
                log.error("payment_not_adopted", network=self._chain.network, txid=spending.txid, reason=str(problem))
            return None
        log.warning("payment_adopted", network=self._chain.network, txid=spending.txid)
        return command

    def _position_of(self, address: str) -> int | None:
        """Return the position of an address of ours, None for any other."""
        if address == house_address(self._context.reads, self._network).address:
            return HOUSE_POSITION
        row = self._context.reads.row(Address, self._network, address, "")
        return row.position if row.ours else None

    def _of_account(self, spending: Spending, home: str) -> Found:
        """Return what a transaction of one of our addresses did, or was to do: it paid somebody, or moved money between
        addresses of ours. Raises `NotAdopted` for what the house never does."""
        [spends], source, undone = spending.spends, position_of(spending.spends[0]), spending.undone
        if len(spending.outputs) > 1:
            raise NotAdopted("it moves several amounts")
        paid = tuple(Paid(it.address, it.tag, it.asset_id, it.amount) for it in spending.outputs)
        token, units = (paid[0].token, paid[0].units) if paid else (NATIVE, 0)
        target = self._position_of(paid[0].address) if paid else HOUSE_POSITION
        if source != HOUSE_POSITION:
            if target != HOUSE_POSITION:
                raise NotAdopted("a deposit address has paid another address than the hot wallet's")
            moved = Moved(PaymentPurpose.SWEEP, token, units, home, source, HOUSE_POSITION)
            return Found(self._network, spending.txid, (spends,), (), moved=moved, undone=undone)
        if target is None:
            return Found(self._network, spending.txid, (spends,), paid, undone=undone)
        if target == HOUSE_POSITION:
            # It pays nobody: its fee is all that has gone.
            back = tuple(Change(f"{it.txid}:{it.index}", it.amount) for it in spending.outputs)
            return Found(self._network, spending.txid, (spends,), (), back, undone=undone)
        if token != NATIVE:
            raise NotAdopted("the hot wallet has sent a token to a deposit address")
        moved = Moved(PaymentPurpose.GAS, token, units, paid[0].address, HOUSE_POSITION, target)
        return Found(self._network, spending.txid, (spends,), (), moved=moved, undone=undone)

    # -- whether that is all

    async def _obstacle(self) -> str:
        """Return why payments may not go on yet, empty if they may."""
        unknown = self._context.reads.row(Reconciled, self._network).unknown
        if unknown:
            return f"{unknown} payments were found that nobody is named for"
        for found in await reconcile(self._context, self._chain, self._network):
            if found.unexplained_units:
                return f"books and chain differ by {found.unexplained_units} units of {found.asset} without a cause"
        if self._chain.spends_coins and (waiting := await self._spent_by_waiting()):
            return f"{len(waiting)} of our coins are spent by transactions that wait for their block"
        if self._chain.needs_sweeps and (unknown := await self._unknown_waiting()):
            return f"{unknown} transactions of ours that the books do not know wait for their block"
        return ""

    async def _unknown_waiting(self) -> int:
        """Return how many transactions of our addresses wait to be mined that the books do not know."""
        waiting = await cast(Sweepable, self._chain).waiting(self._position_of)
        return sum(not self._context.reads.row(Sent, self._network, txid).payment for txid in waiting)

    async def _spent_by_waiting(self) -> Collection[str]:
        """Return the coins that something spends which waits to be mined: a payment that nobody knows here.

        Besides those that are free they are such as the books do not have yet, and had before the loss: change of
        payments that are not final, and deposits whose block is not deep enough.
        """
        reads, network = self._context.reads, self._network
        coins = reads.rows(Coin, {"network": network, "payment": 0}, MAX_COINS)
        ours = {coin.outpoint for coin in coins if coin.height} | await self._change_of_open_payments()
        deposits = reads.rows(Deposit, {"network": network, "state": OPEN}, MAX_COINS * len(OPEN))
        ours.update(outpoint_of(deposit) for deposit in deposits if deposit.block)
        free = sorted(it for it in ours if not reads.row(Coin, network, it).payment)
        return set(free) - set(await self._chain.unspent(free, waiting=True))


def _found(spending: Spending, network: int, home: str) -> Found:
    """Return a transaction as the books take it; what it paid to the house's own address is change."""
    paid = tuple(Paid(it.address, it.tag, it.asset_id, it.amount) for it in spending.outputs if it.address != home)
    change = tuple(Change(f"{it.txid}:{it.index}", it.amount) for it in spending.outputs if it.address == home)
    return Found(network, spending.txid, spending.spends, paid, change, undone=spending.undone)
