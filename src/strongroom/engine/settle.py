"""`settle`: the one function that turns a command into effects, for every store, the simulator and the tests alike."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from strongroom.clock import DAY_MS
from strongroom.engine.command import Command, Decision, Guard, Stale
from strongroom.engine.state import Item, State
from strongroom.errors import IDEMPOTENCY_MISMATCH, INVALID_NONCE, Refused, check
from strongroom.ledger.entries import Booked, book_entry
from strongroom.records.guards import Nonce, Reply
from strongroom.records.heads import Head
from strongroom.records.history import LINES_PER_ITEM, Entry, Line, Thread, threads_of
from strongroom.records.kept import Kept, Key

REPLY_KEPT_MS: Final = DAY_MS + DAY_MS // 24
"""How long a reply is remembered: the contract's 24 hours and one more, for clocks that differ."""

MAX_RESULT_BYTES: Final = 16_384


class Outcome(msgspec.Struct, frozen=True):
    """What became of a command: its refusal, or the encoded result; `item` is 0 where nothing was journaled.

    `repeated` says that the result is an earlier one, of the same Idempotency-Key, made at `at_ms`; `stale`
    that nothing was decided, because what the command was prepared from has changed.
    """

    at_ms: int
    result: bytes = b""
    refusal: Refused | None = None
    item: int = 0
    repeated: bool = False
    stale: bool = False


def needs_of(command: Command) -> list[Key]:
    """Return every address that settling the command may touch: what it declares, and its guards."""
    guard, keys = command.guard, list(command.needs())
    if guard.signature:
        keys.append((Nonce, guard.api_key, guard.signature))
    if guard.digest:
        keys.append((Reply, guard.owner, guard.digest))
    return keys


def settle(command: Command, needs: Sequence[Key], state: State, now_ms: int) -> Outcome:
    """Decide a command over the state and lay its effects on top.

    The order is the contract's: idempotency, replay, then the command's own decision. Whatever the outcome, a fresh
    signature is used up. Raises `InvariantBroken` for our own mistakes, and then leaves the state as it was.
    """
    guard = command.guard
    state.open_for(needs)
    earlier = _earlier_reply(guard, state, now_ms)
    if earlier is not None:
        state.apply(_used(guard))
        return earlier
    if _is_replayed(guard, state, now_ms):
        return Outcome(now_ms, refusal=INVALID_NONCE())
    try:
        decision = command.decide(state, now_ms)
        booked = book_entry(decision.postings, _balances(decision, state))
    except Stale:
        return Outcome(now_ms, stale=True)
    except Refused as refusal:
        return _refuse(command, state, now_ms, refusal)
    return _fold(command, state, now_ms, decision, booked)


def _earlier_reply(guard: Guard, state: State, now_ms: int) -> Outcome | None:
    if not guard.digest:
        return None
    reply = state.get(Reply, guard.owner, guard.digest)
    if reply.expires_ms <= now_ms:
        return None
    if reply.fingerprint != guard.fingerprint:
        return Outcome(now_ms, refusal=IDEMPOTENCY_MISMATCH())
    return Outcome(reply.at_ms, reply.result, repeated=True)


def _is_replayed(guard: Guard, state: State, now_ms: int) -> bool:
    """Say whether the signature was used, or its window closed while the command was waiting."""
    if not guard.signature:
        return False
    return guard.expires_ms < now_ms or bool(state.get(Nonce, guard.api_key, guard.signature).expires_ms)


def _used(guard: Guard) -> list[Kept]:
    """Return the row that uses up the guard's signature."""
    return [Nonce(guard.api_key, guard.signature, guard.expires_ms, spent=True)] if guard.signature else []


def _balances(decision: Decision, state: State) -> dict[int, tuple[int, int]]:
    balances: dict[int, tuple[int, int]] = {}
    for account, _ in decision.postings:
        head = state.get(Head, account.pack())
        balances[head.account] = (head.after, head.count)
    return balances


def _refuse(command: Command, state: State, now_ms: int, refusal: Refused) -> Outcome:
    """Note the refusal in the journal and use up the signature; the books stay as they are."""
    item = Item(state.next_item(), now_ms, command, refusal.error.name) if command.JOURNALED else None
    state.apply(_used(command.guard), item)
    # Its traceback would keep the whole batch in memory for as long as anybody holds the refusal.
    return Outcome(now_ms, refusal=refusal.with_traceback(None), item=item.number if item else 0)


def _fold(command: Command, state: State, now_ms: int, decision: Decision, booked: list[Booked]) -> Outcome:
    """Lay a decision's effects on the state, all of them or none."""
    guard, number = command.guard, state.next_item()
    result = b"" if decision.result is None else msgspec.json.encode(decision.result)
    check(len(result) <= MAX_RESULT_BYTES, "a result fits its bound")
    check(command.JOURNALED or not (booked or decision.lines), "what moves money stands in the journal")
    lines, threads = _link(decision.lines, state, number, now_ms)
    rows = [*decision.rows, *_heads(booked), *threads, *_used(guard)]
    if guard.digest:
        rows.append(Reply(guard.owner, guard.digest, guard.fingerprint, now_ms, result, now_ms + REPLY_KEPT_MS))
    item = None
    if command.JOURNALED:
        sealed = tuple(row for row in decision.rows if row.SEALED)
        item = Item(number, now_ms, command, "", booked, lines, sealed)
    state.apply(rows, item)
    return Outcome(now_ms, result, item=number if item else 0)


def _heads(booked: Sequence[Booked]) -> Iterable[Head]:
    latest = {account: Head(account, after, count) for account, _, after, count in booked}
    return latest.values()


def _link(entries: Sequence[Entry], state: State, item: int, now_ms: int) -> tuple[list[Line], Iterable[Thread]]:
    """Number the history lines of an item and hang each on the end of its two threads."""
    check(len(entries) < LINES_PER_ITEM, "an item's history lines fit into its numbers")
    lines: list[Line] = []
    threads: dict[Key, Thread] = {}
    for place, entry in enumerate(entries):
        number = item * LINES_PER_ITEM + place
        every, kind = (
            threads[key] if key in threads else state.get(Thread, *key[1:])
            for key in threads_of(entry.owner, entry.asset, entry.type)
        )
        lines.append(_line(entry, number, now_ms, every, kind))
        for thread in (every.append(number), kind.append(number)):
            threads[thread.key()] = thread
    return lines, threads.values()


def _line(entry: Entry, number: int, now_ms: int, every: Thread, kind: Thread) -> Line:
    return Line(
        number=number,
        at_ms=now_ms,
        owner=entry.owner,
        asset=entry.asset,
        type=entry.type,
        ref=entry.ref,
        amount=entry.amount,
        net=entry.net,
        fees=entry.fees,
        network=entry.network,
        other=entry.other,
        other_asset=entry.other_asset,
        other_amount=entry.other_amount,
        rate=entry.rate,
        note=entry.note,
        all_count=every.count + 1,
        all_before=every.newest,
        all_jump=every.jump(),
        kind_count=kind.count + 1,
        kind_before=kind.newest,
        kind_jump=kind.jump(),
    )
