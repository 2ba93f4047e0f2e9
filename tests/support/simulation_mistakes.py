"""Servers with a known mistake in them, to see that the simulation finds it: one or two for every rule."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from strongroom.api import wallet_cache
from strongroom.custody import pool, sender, sightings, watcher
from strongroom.custody.chain import Unreachable
from strongroom.engine import settle, writer
from strongroom.engine.command import NOBODY, Decision
from strongroom.engine.state import Effects, Item
from strongroom.ledger import entries
from strongroom.ledger.accounts import Purpose, available, house
from strongroom.ledger.entries import Posting
from strongroom.records.deposits import Deposit, DepositState
from strongroom.records.withdrawals import Payment, PaymentState, Withdrawal, WithdrawalState
from strongroom.store.sqlite import batches, store
from strongroom.wallet import (
    addresses,
    approvals,
    conversions,
    deposits,
    payments,
    reversals,
    settlements,
    transfers,
    users,
    withdrawals,
)
from support.effects import Do
from support.simulation_coin_mistakes import WITH_COINS
from support.simulation_late_mistakes import LATE
from support.simulation_planting import MISTAKES as PLANTED
from support.simulation_planting import mistake, replaced

# -- the writer: nobody is answered, not even with a refusal, before what the answer depends on is durable


@mistake
def _answers_before_the_commit() -> Iterator[None]:
    right = writer.Writer._commit

    async def commit(self: Any, lane: Any, decided: Any) -> None:
        for waiting, outcome in zip(decided.batch, decided.outcomes, strict=True):
            waiting.answer(outcome)
        await right(self, lane, decided)

    with replaced((writer.Writer, "_commit", commit)):
        yield


@mistake
def _answers_the_wrong_one() -> Iterator[None]:
    right = writer.Writer._take

    async def take(self: Any) -> Any:
        batch = await right(self)
        if len(batch) == 2:
            one, other = batch
            batch = [one._replace(answer=other.answer), other._replace(answer=one.answer)]
        return batch

    with replaced((writer.Writer, "_take", take)):
        yield


@mistake
def _takes_in_doubt_for_not_done() -> Iterator[None]:
    right = writer.Writer._until_known

    async def until_known(self: Any, lane: Any, trouble: str) -> bool:
        await right(self, lane, trouble)
        return False

    with replaced((writer.Writer, "_until_known", until_known)):
        yield


@mistake
def _takes_in_doubt_for_done() -> Iterator[None]:
    right = writer.Writer._until_known

    async def until_known(self: Any, lane: Any, trouble: str) -> bool:
        await right(self, lane, trouble)
        return True

    with replaced((writer.Writer, "_until_known", until_known)):
        yield


# -- the store: memory is what is on disk, and a restart works out the rest


@mistake
def _folds_before_the_commit() -> Iterator[None]:
    async def commit(self: Any, state: Any) -> None:
        if not state.is_empty:
            written = self._write(state)
            self._fold(written)
            await self._in_thread(lambda: self._commit(written))

    with replaced((store.SqliteStore, "commit", commit)):
        yield


@mistake
def _folds_nothing_after_a_doubt() -> Iterator[None]:
    async def resolve(self: Any) -> bool:
        kept = await self._in_thread(self._settle_doubt)
        self._doubt = None
        return kept

    with replaced((store.SqliteStore, "resolve", resolve)):
        yield


@mistake
def _does_not_wait_for_the_disk() -> Iterator[None]:
    right = store.run

    def run(connection: Any, sql: str, values: Any = ()) -> Any:
        if sql == "COMMIT":
            right(connection, "COMMIT; PRAGMA synchronous=OFF")
            return None
        return right(connection, sql, values)

    with replaced((store, "run", run)):
        yield


@mistake
def _recovers_nothing() -> Iterator[None]:
    with replaced((store, "unswept", lambda connection: {})):
        yield


@mistake
def _serves_old_wallets() -> Iterator[None]:
    with replaced((wallet_cache.WalletCache, "_drop", lambda self, state: None)):
        yield


# -- guards: a signature is good once, a key means one request


@mistake
def _forgets_signatures() -> Iterator[None]:
    with replaced((store, "nonce_statements", lambda row: [])):
        yield


@mistake
def _keeps_the_signature_of_a_refusal() -> Iterator[None]:
    def refuse(command: Any, state: Any, now_ms: int, refusal: Any) -> Any:
        item = Item(state.next_item(), now_ms, command, refusal.error.name) if command.JOURNALED else None
        state.apply(Effects(item))
        return settle.Outcome(now_ms, refusal=refusal, item=item.number if item else 0)

    with replaced((settle, "_refuse", refuse)):
        yield


@mistake
def _forgets_replies() -> Iterator[None]:
    right = batches.insertions

    def insertions(verb: str, table: str, *rest: Any) -> Any:
        return [] if table == "reply" else right(verb, table, *rest)

    with replaced((batches, "insertions", insertions)):
        yield


# -- the ledger: nothing below zero, nothing lost, everything in its place


@mistake
def _lets_balances_fall_below_zero() -> Iterator[None]:
    with replaced((entries, "_check_bounds", lambda packed, after: None)):
        yield


@mistake
def _loses_a_posting() -> Iterator[None]:
    right = settle.book_entry

    def book_entry(postings: Any, head: Any) -> Any:
        booked = right(postings, head)
        return booked[:-1] if len(booked) > 4 else booked

    with replaced((settle, "book_entry", book_entry)):
        yield


@mistake
def _credits_whoever_owes() -> Iterator[None]:
    def credit(view: Any, owner: int, asset: int, amount: int) -> tuple[Posting, ...]:
        return (Posting(available(owner, asset), amount),)

    modules = (transfers, conversions, deposits, withdrawals)
    with replaced(*((module, "credit", credit) for module in modules)):
        yield


@mistake
def _overlooks_who_receives() -> Iterator[None]:
    right = withdrawals.payout

    def payout(*arguments: Any) -> Any:
        postings, rows, _ = right(*arguments)
        return postings, rows, []

    with replaced((withdrawals, "payout", payout), (approvals, "payout", payout)):
        yield


# -- withdrawals: held until they end, released once, paid once


@mistake
def _keeps_the_hold() -> Iterator[None]:
    right = withdrawals.release

    def release(*arguments: Any) -> Any:
        return [], right(*arguments)[1]

    with replaced((approvals, "release", release), (payments, "release", release)):
        yield


@mistake
def _releases_twice() -> Iterator[None]:
    with replaced((approvals, "_awaiting", lambda withdrawal: withdrawal)):
        yield


@mistake
def _holds_no_fee() -> Iterator[None]:
    with replaced((Withdrawal, "held", property(lambda self: self.to_address))):
        yield


@mistake
def _books_no_fee() -> Iterator[None]:
    right = settlements._settlement

    def settlement(*arguments: Any) -> Any:
        postings, *rest = right(*arguments)
        fees = {house(Purpose.FEES, posting.account.asset): posting.account.asset for posting in postings}
        moved = [
            Posting(house(Purpose.DUST, posting.account.asset), posting.amount) if posting.account in fees else posting
            for posting in postings
        ]
        return moved, *rest

    with replaced((settlements, "_settlement", settlement)):
        yield


@mistake
def _forgets_what_the_chain_takes() -> Iterator[None]:
    right = settlements._settlement

    def settlement(view: Any, catalogue: Any, withdrawals: Any, payment: Any, fee_asset: int) -> Any:
        free = msgspec.structs.replace(payment, chain_fee_units="0")
        return right(view, catalogue, withdrawals, free, fee_asset)

    with replaced((settlements, "_settlement", settlement)):
        yield


@mistake
def _broadcasts_before_it_reserves() -> Iterator[None]:
    async def start(self: Any, withdrawals: Any, tip: Any) -> None:
        draft = await self._chain.draft([self._payee(withdrawals[0])], self._funds())
        command = payments.prepare_reservation(self._context, withdrawals, draft)
        signature = await self._signer.sign(self._chain.network, 0, draft.body)
        await self._chain.broadcast(self._chain.assemble(draft.body, signature).blob)
        await self._commit("reserve", lambda: command)

    with replaced((sender.Sender, "_start", start)):
        yield


@mistake
def _pays_again_when_unsure() -> Iterator[None]:
    right = sender.Sender._broadcast

    async def broadcast(self: Any, payment: Payment) -> None:
        try:
            await right(self, payment)
        except Unreachable:
            voided = msgspec.structs.replace(payment, state=PaymentState.VOIDED)
            row = self._context.reads.row(Withdrawal, payment.withdrawals[0])
            approved = msgspec.structs.replace(row, state=WithdrawalState.APPROVED, payment=0)
            await self._commit("void", lambda: Do(NOBODY, kept=(voided, approved)))
            raise

    with replaced((sender.Sender, "_broadcast", broadcast)):
        yield


@mistake
def _fails_what_is_not_seen() -> Iterator[None]:
    with replaced((sender.Sender, "_is_final", lambda self, status, tip: status.block is None)):
        yield


# -- deposits: booked once, as long as the chain has them


@mistake
def _credits_again_after_a_reorganisation() -> Iterator[None]:
    def decide(self: Any, view: Any, now_ms: int) -> Decision:
        deposit = view.get(Deposit, self.ref)
        return Decision(rows=[msgspec.structs.replace(deposit, state=DepositState.REVERSED, height=0, block="")])

    with replaced((reversals.ReverseDeposit, "decide", decide)):
        yield


@mistake
def _takes_nothing_back() -> Iterator[None]:
    async def take_back(self: Any, orphan: str) -> None:
        pass

    with replaced((watcher.Watcher, "_take_back", take_back)):
        yield


@mistake
def _passes_blocks_before_it_reads_them() -> Iterator[None]:
    async def pass_blocks(self: Any) -> bool:
        tip = self._context.reads.row(watcher.Tip, self._network)
        blocks = await self._next_blocks(tip)
        if blocks:
            passed = [watcher.PassedBlock(block.height, block.hash) for block in blocks]
            await self._do([watcher.prepare_tip(self._network, tip.block, passed)])
        for block in blocks:
            await self._note(await self._chain.outputs_in(block.hash), block)
        return bool(blocks)

    with replaced((watcher.Watcher, "_pass_blocks", pass_blocks)):
        yield


@mistake
def _takes_a_block_for_the_deposit() -> Iterator[None]:
    right = sightings.Sightings._sighting

    def sighting(self: Any, *arguments: Any, **more: Any) -> Any:
        found = right(self, *arguments, **more)
        return found and found._replace(position=found.position + (int(found.block[-6:], 16) if found.block else 0))

    with replaced((sightings.Sightings, "_sighting", sighting)):
        yield


# -- customers and their addresses


@mistake
def _freezes_nobody() -> Iterator[None]:
    with replaced((users.MarkUser, "decide", lambda self, view, now_ms: Decision())):
        yield


@mistake
def _keeps_what_was_given_up() -> Iterator[None]:
    right = addresses.DeleteAddress.decide

    def decide(self: Any, view: Any, now_ms: int) -> Decision:
        return Decision(result=right(self, view, now_ms).result)

    with replaced((addresses.DeleteAddress, "decide", decide)):
        yield


@mistake
def _gives_an_address_twice() -> Iterator[None]:
    right = addresses.GiveAddress.decide

    class Free:
        """Rows as they are, but that every address is free."""

        def __init__(self, view: Any) -> None:
            self._view = view

        def get(self, kind: Any, *key: Any) -> Any:
            row = self._view.get(kind, *key)
            return msgspec.structs.replace(row, given_ms=0) if kind is addresses.Address else row

    def take(self: Any, network: int) -> Any:
        return next(iter(self._free[network].addresses), None)

    changes = (
        (addresses.GiveAddress, "decide", lambda self, view, now_ms: right(self, Free(view), now_ms)),
        (pool.AddressPools, "take", take),
    )
    with replaced(*changes):
        yield


MISTAKES: Final = PLANTED | LATE | WITH_COINS
