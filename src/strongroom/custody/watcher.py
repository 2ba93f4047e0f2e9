"""The watcher: follows a chain block by block, and books what arrives at addresses of ours.

Each round makes the books agree with the chain as it is now, in this order:

    orphans     the tip goes back to the fork; then what was booked by blocks that the chain gave up is taken back
    blocks      each new block's outputs are noted; then the tip advances; then what is deep enough is credited
    mempool     what waits to be mined is noted early
    open ones   deposits whose transaction is gone are dropped

After a restore from a backup, until the network is reconciled, the payments in each block that the books do not know
are adopted before its outputs are noted (`restoration`). On a chain of accounts, one to the cold address always is.

Every step is one command, a compare-and-set. A step that a crash or another watcher has left half done is done
again, and what was done already has no effect.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Final, TypeVar

import msgspec
import structlog

from strongroom.crashpoints import reach
from strongroom.custody.chain import Block, Chain, ChainError, Fate, Output, TransactionStatus
from strongroom.custody.restoration import Restoration
from strongroom.custody.sightings import Report, Sightings, no_report
from strongroom.engine.command import Command
from strongroom.engine.port import StoreError
from strongroom.errors import InvariantBroken, Refused
from strongroom.ledger.accounts import owed
from strongroom.records.addresses import Address
from strongroom.records.chains import REMEMBERED_BLOCKS, Tip
from strongroom.records.coins import Sent
from strongroom.records.deposits import Deposit, DepositState
from strongroom.records.heads import Head
from strongroom.records.withdrawals import Payment, PaymentState
from strongroom.wallet.addresses import house_address
from strongroom.wallet.cold import prepare_cold_coin
from strongroom.wallet.context import Context
from strongroom.wallet.deposits import (
    CREDITED,
    confirmations_needed,
    prepare_credit,
    prepare_drop,
    prepare_placing,
)
from strongroom.wallet.foreseen import Foreseen
from strongroom.wallet.reopenings import prepare_reopening
from strongroom.wallet.reversals import prepare_reversal
from strongroom.wallet.tips import PassedBlock, left_blocks, passed_block, prepare_tip

BLOCKS_AT_ONCE: Final = 50
"""So many blocks are worked through before the tip advances over them and deposits are credited."""

IDLE_S: Final = 30.0
"""Without any news there is a round so often, so that a network that is quiet is not taken for one that is away."""

UNKNOWN_GRACE_MS: Final = 3_600_000
"""A deposit whose transaction the node does not know is dropped this long after it was first seen."""

_FIRST_PAUSE_S: Final = 0.05
_LONGEST_PAUSE_S: Final = 5.0
_AT_ONCE: Final = 100
_LOOKED_AT_A_TURN: Final = 500
"""After so many outputs requests are answered; that takes some milliseconds."""

Thing = TypeVar("Thing")

_MAX_OPEN: Final = 10_000

log = structlog.get_logger("watcher")


class NodeBehind(ChainError):
    """The node has the books' chain, but not its newest blocks yet: nothing is taken back for that."""


class OtherChain(ChainError):
    """The node's chain has none of the blocks that the books know: another chain, or too deep a reorganisation."""


class _Behind(Exception):
    """The books or the chain moved while a round was under way: it begins again."""


class NetworkStatus(msgspec.Struct):
    """How a network's watcher fares: `error` is empty when its latest round succeeded; times in Unix milliseconds.

    `reversed` counts booked deposits that the chain took back, `reopened` payments whose end it took back.
    """

    network: str
    last_success_ms: int = 0
    height: int = 0
    error: str = ""
    reversed: int = 0
    reopened: int = 0


class Watcher:
    """Follows one network; several may follow the same one, for each step is carried out once.

    The very first start begins at the block at height `start`, or with None at the chain's tip of that moment.
    """

    def __init__(
        self,
        context: Context,
        chain: Chain,
        network: int,
        *,
        start: int | None = 0,
        report: Report = no_report,
        idle_s: float = IDLE_S,
        cold_address: str = "",
    ) -> None:
        """Without any news there is a round every `idle_s` seconds; what reaches `cold_address` is noted, and is the
        house's still."""
        self._cold = cold_address
        self.status = NetworkStatus(chain.network)
        self._context = context
        self._chain = chain
        self._network = network
        self._start = start
        self._idle_s = idle_s
        self.restoration = Restoration(context, chain, network, cold_address)
        self._sightings = Sightings(context, network, chain.network, report)
        self._noted: set[str] = set()
        self._spends: dict[str, Sequence[str]] = {}
        self._finished: int | None = None
        self._round_ended = asyncio.Event()

    @property
    def unbooked(self) -> int:
        """How many outputs reached an address of ours and could not be booked for anybody."""
        return self._sightings.unbooked

    async def run(self) -> None:
        """Follow the chain until cancelled; what goes wrong is told by `status`, and tried again."""
        pause_s = _FIRST_PAUSE_S
        while True:
            seen = await self._chain.wait_change(-1, 0)
            if await self.try_round():
                self._finished = seen
                self._round_ended.set()
                self._round_ended = asyncio.Event()
                pause_s = _FIRST_PAUSE_S
                idle_s = _LONGEST_PAUSE_S if self.restoration.is_waiting else self._idle_s
                _ = await self._chain.wait_change(seen, idle_s)
            else:
                await asyncio.sleep(_FIRST_PAUSE_S)
                _ = await self._chain.wait_change(seen, pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def stand_by(self) -> None:
        """Look until cancelled whether the chain is followed by whoever does, as this node's own node shows it."""
        seen: int | None = None
        while True:
            try:
                newest = await self._chain.tip()
                tip = self._context.reads.row(Tip, self._network)
                self.status.height, self.status.error = tip.height, ""
                if seen is not None and tip.height >= seen:
                    self.status.last_success_ms = self._context.clock.now_ms()
                seen = newest.height
            except (ChainError, StoreError) as problem:
                self.status.error = str(problem) or type(problem).__name__
            await asyncio.sleep(_LONGEST_PAUSE_S)

    async def settled(self) -> None:
        """Wait until a round has worked through all that the chain shows now."""
        # Asked first, compared then: a round that ends while the node is asked is not waited for again.
        while await self._chain.wait_change(-1, 0) != self._finished:
            _ = await self._round_ended.wait()

    async def try_round(self) -> bool:
        """Go one round and tell by `status` how it went; say whether it went through."""
        try:
            await self.go_round()
        except _Behind:
            return False
        except (ChainError, Refused, InvariantBroken, StoreError) as problem:
            if str(problem) != self.status.error:
                log.warning("chain_not_followed", network=self.status.network, problem=str(problem))
            self.status.error = str(problem) or type(problem).__name__
            return False
        self.status.error = ""
        self.status.last_success_ms = self._context.clock.now_ms()
        return True

    async def go_round(self) -> None:
        """Make the books agree with the chain. Raises `ChainError`, `Refused` UNAVAILABLE, `InvariantBroken`."""
        await self._chain.check_identity()
        if self.restoration.is_waiting and not self.restoration.is_prepared():
            raise _Behind
        await self._leave_orphans()
        while await self._pass_blocks():
            await self._credit()
        await self._credit()
        waiting = await self._chain.mempool()
        early = self._told_early(waiting)
        await self._note([output for output in early if output.txid not in self._noted], None)
        self._noted = {output.txid for output in early}
        await self._follow_open({output.txid for output in waiting})
        if self.restoration.is_waiting and (end := await self.restoration.end()) is not None:
            await self._do("end", [end])

    # -- orphans

    async def _leave_orphans(self) -> None:
        """Go back to the newest block that the chain still has, and take back what is booked by later ones.

        The tip goes back first: from then on nobody books anything by a block that the chain has left. What a crash
        leaves undone is found above the tip.
        """
        for orphan in reversed(left_blocks(self._context.reads, self._network, REMEMBERED_BLOCKS)):
            await self._take_back(orphan)
        tip = self._context.reads.row(Tip, self._network)
        if not tip.block:
            return
        await self._check_not_behind(tip)
        orphans: list[str] = []
        height, ours = tip.height, tip.block
        while not await self._is_at(height, ours):
            orphans.append(ours)
            height -= 1
            ours = passed_block(self._context.reads, self._network, height)
            if not ours:
                raise OtherChain(f"none of the newest {len(orphans)} blocks is on the node's chain")
        if orphans:
            log.warning("chain_reorganised", network=self.status.network, depth=len(orphans), height=height)
            await self._do("tip", [prepare_tip(self._network, tip.block, [PassedBlock(height, ours)])])
            for orphan in orphans:
                await self._take_back(orphan)

    async def _check_not_behind(self, tip: Tip) -> None:
        """Raise `NodeBehind` if the node's chain ends below the books' tip and on the way to it.

        A node that was replaced, or has lost its newest blocks, looks like that until it has them (again). What is
        another chain has another block somewhere.
        """
        newest = await self._chain.tip()
        if newest.height >= tip.height:
            return
        if passed_block(self._context.reads, self._network, newest.height) in (newest.hash, ""):
            raise NodeBehind(f"the node's newest block is {newest.height}, the books have worked through {tip.height}")

    async def _take_back(self, orphan: str) -> None:
        """Take every deposit out of a block, and every payment's end that goes by it."""
        where = {"network": self._network, "block": orphan}
        while found := self._context.reads.rows(Deposit, where, _AT_ONCE):
            back = [self._reversal(it) if it.state in CREDITED else prepare_placing(it) for it in found]
            await self._do("take back", back)
            for deposit in found:
                if deposit.state in CREDITED:
                    self._tell_reversal(deposit)
        for state in (PaymentState.FINAL, PaymentState.VOIDED):
            while ended := self._context.reads.rows(Payment, {**where, "state": state}, _AT_ONCE):
                await self._reopen(ended)

    def _reversal(self, deposit: Deposit) -> Command:
        return prepare_reversal(deposit, self._lies_at(deposit), coin=self._chain.spends_coins)

    async def _reopen(self, ended: Sequence[Payment]) -> None:
        """Take back the ends of payments, which are on their way again."""
        await self._do("reopen", [prepare_reopening(self._context, it) for it in ended])
        self.status.reopened += len(ended)
        for it in ended:
            was = PaymentState(it.state).name.lower()
            log.error("payment_reopened", network=self.status.network, ref=it.ref, was=was, txids=it.candidates)

    def _tell_reversal(self, deposit: Deposit) -> None:
        """Count and log a booked deposit that was taken back, and whether its owner owes the house now."""
        self.status.reversed += 1
        owes = -self._context.reads.row(Head, owed(deposit.owner, deposit.asset).pack()).after if deposit.owner else 0
        told = {"network": self.status.network, "ref": deposit.ref, "owner": deposit.owner, "units": deposit.amount}
        if owes:
            log.error("deposit_reversed", **told, owes=owes)
        else:
            log.warning("deposit_reversed", **told)

    # -- blocks

    async def _pass_blocks(self) -> bool:
        """Note what the next blocks hold, then advance over them; say whether there were any."""
        tip = self._context.reads.row(Tip, self._network)
        self.status.height = tip.height
        blocks = await self._next_blocks(tip)
        adopting = bool(blocks) and self.restoration.adopts
        if adopting:
            await self.restoration.begin()
        for block in blocks:
            outputs = await self._chain.outputs_in(block.hash)
            async for command in self.restoration.adoptions(block, outputs, everything=adopting):
                await self._do("adopt", [command])
            await self._revive(outputs)
            await self._note_cold(outputs, block)
            await self._note(outputs, block)
        if blocks:
            passed = [PassedBlock(block.height, block.hash) for block in blocks]
            await self._do("tip", [prepare_tip(self._network, tip.block, passed)])
            self.status.height = blocks[-1].height
        return bool(blocks)

    async def _next_blocks(self, tip: Tip) -> list[Block]:
        """Return the blocks after the tip, oldest first, at most as many as are worked through at once."""
        if not tip.block:
            first = await self._chain.tip() if self._start is None else await self._chain.block_at(self._start)
            return [] if first is None else [first]
        blocks: list[Block] = []
        parent, height = tip.block, tip.height
        while len(blocks) < BLOCKS_AT_ONCE and (block := await self._chain.block_at(height + 1)) is not None:
            if block.parent_hash != parent:
                raise _Behind
            blocks.append(block)
            parent, height = block.hash, block.height
        return blocks

    async def _revive(self, outputs: Sequence[Output]) -> None:
        """Take back that a payment was given up of which a block has a transaction after all."""
        reads = self._context.reads
        if not reads.rows(Payment, {"network": self._network, "state": PaymentState.VOIDED}, 1):
            return
        refs: set[int] = set()
        async for turn in _turns(list(dict.fromkeys(output.txid for output in outputs))):
            rows = Foreseen(reads, (Sent.at(self._network, txid) for txid in turn))
            refs.update(rows.row(Sent, self._network, txid).payment for txid in turn)
        payments = [reads.row(Payment, ref) for ref in sorted(refs - {0})]
        if voided := [it for it in payments if it.state == PaymentState.VOIDED]:
            await self._reopen(voided)

    async def _note_cold(self, outputs: Sequence[Output], block: Block) -> None:
        """Note what a block brings to the cold address, on a chain of coins: a chain of accounts can be asked."""
        if not self._cold or not self._chain.spends_coins:
            return
        reads, network = self._context.reads, self._network
        found = [
            prepare_cold_coin(reads, network, f"{it.txid}:{it.index}", it.amount, block.height)
            for it in outputs
            if it.address == self._cold
        ]
        await self._do("cold coin", [command for command in found if command is not None])

    def _told_early(self, waiting: Sequence[Output]) -> Sequence[Output]:
        """Return what is noted before it is mined: not what may be the change of a payment that is adopted later."""
        if not self.restoration.adopts:
            return waiting
        home = house_address(self._context.reads, self._network).address
        return [output for output in waiting if output.address != home]

    async def _note(self, outputs: Sequence[Output], block: Block | None) -> None:
        """Note every output to an address of ours, of a block or of those that wait."""
        commands: list[Command] = []
        async for turn in _turns([it for it in outputs if not it.ours]):
            bookable = [it for it in turn if it.txid not in self.restoration.not_adopted]
            commands += self._sightings.commands(bookable, block)
        await self._do("note", commands)

    async def _credit(self) -> None:
        """Credit the deposits that are deep enough, and take those out of their block that it turns out not to hold."""
        tip = self._context.reads.row(Tip, self._network)
        network = self._context.catalogue.network(self._network)
        commands: list[Command] = []
        for deposit in self._in_state(DepositState.CONFIRMING):
            depth = tip.height - deposit.height + 1
            if depth > 0 and not await self._is_passed(deposit):
                commands.append(prepare_placing(deposit))
            elif depth >= confirmations_needed(network, deposit):
                commands.append(prepare_credit(deposit, self._lies_at(deposit), coin=self._chain.spends_coins))
        await self._do("credit", commands)

    def _lies_at(self, deposit: Deposit) -> int:
        """Return the position of a deposit's address, by which its key is found; 0 where no address has money apart."""
        if not self._chain.spends_coins and not self._chain.needs_sweeps:
            return 0
        return self._context.reads.row(Address, deposit.network, deposit.address, deposit.tag).position

    async def _is_passed(self, deposit: Deposit) -> bool:
        """Say whether a deposit's block is on the best chain: as the books know it, or for an old one as the node."""
        passed = passed_block(self._context.reads, self._network, deposit.height)
        return passed == deposit.block if passed else await self._is_at(deposit.height, deposit.block)

    async def _is_at(self, height: int, block_hash: str) -> bool:
        """Say whether the node has that block at that height of its best chain."""
        block = await self._chain.block_at(height)
        return block is not None and block.hash == block_hash

    # -- open ones

    async def _follow_open(self, waiting: set[str]) -> None:
        """Look after the deposits that are in no block, and do not wait in the mempool either.

        What one spends is asked while it waits: by it the node finds the rival that was mined in its place.
        """
        commands: list[Command] = []
        spends: dict[str, Sequence[str]] = {}
        for deposit in (*self._in_state(DepositState.SEEN), *self._in_state(DepositState.REVERSED)):
            if deposit.txid in waiting:
                spends[deposit.txid] = self._spends.get(deposit.txid) or await self._chain.inputs_of(deposit.txid)
            else:
                spends[deposit.txid] = self._spends.get(deposit.txid, ())
                status = await self._chain.transaction(deposit.txid, spends[deposit.txid])
                if self._is_gone(deposit, status):
                    commands.append(prepare_drop(deposit))
                elif status.fate is Fate.MINED and status.block and self._has_passed(status.block):
                    # Another watcher, going by an older view of the chain, took it out of this block meanwhile.
                    commands.append(prepare_placing(deposit, status.block.height, status.block.hash))
        self._spends = spends
        await self._do("drop", commands)

    def _has_passed(self, block: Block) -> bool:
        return passed_block(self._context.reads, self._network, block.height) == block.hash

    def _is_gone(self, deposit: Deposit, status: TransactionStatus) -> bool:
        """Say whether a transaction will not be mined: it has a mined rival, or the node has long not known it.

        What was booked once is not given up before the rival is buried. Should a block have it after all, it is noted.
        """
        if status.fate is Fate.UNKNOWN:
            return self._context.clock.now_ms() - deposit.seen_ms > UNKNOWN_GRACE_MS
        if status.fate is not Fate.CONFLICTED:
            return False
        if status.block is None or deposit.state == DepositState.SEEN:
            return True
        tip = self._context.reads.row(Tip, self._network)
        return tip.height - status.block.height + 1 >= self._context.catalogue.network(self._network).confirmations

    # -- steps

    def _in_state(self, state: DepositState) -> list[Deposit]:
        return self._context.reads.rows(Deposit, {"network": self._network, "state": state}, _MAX_OPEN)

    async def _do(self, step: str, commands: Sequence[Command]) -> None:
        """Carry commands out, many in one batch. Raises `_Behind` if one of them was overtaken, once all are done."""
        overtaken = False
        for first in range(0, len(commands), _AT_ONCE):
            reach(f"before commit {step}")
            outcomes = await asyncio.gather(*map(self._context.submit, commands[first : first + _AT_ONCE]))
            reach(f"after commit {step}")
            for outcome in outcomes:
                if outcome.refusal is not None:
                    raise outcome.refusal
                overtaken = overtaken or outcome.stale
        if overtaken:
            raise _Behind


async def _turns(things: Sequence[Thing]) -> AsyncGenerator[Sequence[Thing]]:
    """Yield things, as many at a time as are looked at together; in between requests are answered."""
    for first in range(0, len(things), _LOOKED_AT_A_TURN):
        if first:
            await asyncio.sleep(0)
        yield things[first : first + _LOOKED_AT_A_TURN]
