"""`settle`: the one function that turns a command into effects, for every store, the simulator and the tests alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from strongroom.clock import DAY_MS
from strongroom.engine.command import Command, Decision, Guard, Stale
from strongroom.engine.state import Effects, Item, State, ThreadKey
from strongroom.errors import IDEMPOTENCY_MISMATCH, INVALID_NONCE, Refused, check
from strongroom.ledger.entries import Booked, book_entry
from strongroom.records.guards import Nonce, Reply
from strongroom.records.heads import Head
from strongroom.records.history import LINES_PER_ITEM, Entry, Line, Link, Thread, append_line

REPLY_KEPT_MS: Final = DAY_MS + DAY_MS // 24
"""How long a reply is remembered: the contract's 24 hours and one more, for clocks that differ."""

MAX_RESULT_BYTES: Final = 16_384

_encode: Final = msgspec.json.Encoder().encode


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


def settle(command: Command, state: State, now_ms: int) -> Outcome:
    """Decide a command over the state and lay its effects on top.

    The order is the contract's: idempotency, replay, then the command's own decision. Whatever the outcome, a fresh
    signature is used up. Raises `InvariantBroken` for our own mistakes, and then leaves the state as it was.
    """
    guard = command.guard
    state.open_for(command)
    if guard.digest and (earlier := _earlier_reply(guard, state, now_ms)) is not None:
        state.apply(Effects(nonce=_used(guard)))
        return earlier
    if guard.signature and _is_replayed(guard, state, now_ms):
        return Outcome(now_ms, refusal=INVALID_NONCE())
    try:
        decision = command.decide(state, now_ms)
        booked = book_entry(decision.postings, state.head)
    except Stale:
        return Outcome(now_ms, stale=True)
    except Refused as refusal:
        return _refuse(command, state, now_ms, refusal)
    return _fold(command, state, now_ms, decision, booked)


def _earlier_reply(guard: Guard, state: State, now_ms: int) -> Outcome | None:
    reply = state.get(Reply, guard.owner, guard.digest)
    if reply.expires_ms <= now_ms:
        return None
    if reply.fingerprint != guard.fingerprint:
        return Outcome(now_ms, refusal=IDEMPOTENCY_MISMATCH())
    return Outcome(reply.at_ms, reply.result, repeated=True)


def _is_replayed(guard: Guard, state: State, now_ms: int) -> bool:
    """Say whether the signature was used, or its window closed while the command was waiting."""
    return guard.expires_ms < now_ms or bool(state.nonce((guard.api_key, guard.signature)).expires_ms)


def _used(guard: Guard) -> Nonce | None:
    """Return the row that uses up the guard's signature."""
    return Nonce(guard.api_key, guard.signature, guard.expires_ms, True) if guard.signature else None


def _refuse(command: Command, state: State, now_ms: int, refusal: Refused) -> Outcome:
    """Note the refusal in the journal and use up the signature; the books stay as they are."""
    item = Item(state.next_item(), now_ms, command, refusal.error.name) if command.JOURNALED else None
    state.apply(Effects(item, _used(command.guard)))
    # Its traceback would keep the whole batch in memory for as long as anybody holds the refusal.
    return Outcome(now_ms, refusal=refusal.with_traceback(None), item=item.number if item else 0)


def _fold(command: Command, state: State, now_ms: int, decision: Decision, booked: list[Booked]) -> Outcome:
    """Lay a decision's effects on the state, all of them or none."""
    guard, number, rows = command.guard, state.next_item(), decision.rows
    result = b"" if decision.result is None else _encode(decision.result)
    check(len(result) <= MAX_RESULT_BYTES, "a result fits its bound")
    check(command.JOURNALED or not (booked or decision.lines), "what moves money stands in the journal")
    lines, threads = _link(decision.lines, state, number, now_ms)
    item = None
    if command.JOURNALED:
        sealed = tuple((type(row).__name__, row) for row in rows if row.SEALED)
        item = Item(number, now_ms, command, "", booked, lines, sealed)
    if guard.digest:
        rows = [
            *rows,
            Reply(guard.owner, guard.digest, guard.fingerprint, now_ms, result, now_ms + REPLY_KEPT_MS),
        ]
    heads = [Head(posting.account, posting.after, posting.nth) for posting in booked]
    state.apply(Effects(item, _used(guard), heads, threads, rows))
    return Outcome(now_ms, result, None, number if item else 0)


def _link(entries: Sequence[Entry], state: State, item: int, now_ms: int) -> tuple[list[Line], list[Thread]]:
    """Number the history lines of an item and hang each on the end of its two threads."""
    check(len(entries) < LINES_PER_ITEM, "an item's history lines fit into its numbers")
    number = item * LINES_PER_ITEM
    lines: list[Line] = []
    threads: dict[ThreadKey, Thread] = {}
    for entry in entries:
        owner, asset, type_ = entry.owner, entry.asset, entry.type
        whole, kind = (owner, 0, 0), (owner, asset, type_)
        spine, in_all = append_line((threads.get(whole) or state.thread(whole)).spine, number)
        threads[whole] = Thread(owner, 0, 0, spine)
        spine, in_kind = append_line((threads.get(kind) or state.thread(kind)).spine, number)
        threads[kind] = Thread(owner, asset, type_, spine)
        lines.append(_line(entry, number, now_ms, in_all, in_kind))
        number += 1
    return lines, list(threads.values())


def _line(entry: Entry, number: int, now_ms: int, in_all: Link, in_kind: Link) -> Line:
    """Return an entry in its place; by position, since this is done for every line ever written."""
    return Line(
        number,
        now_ms,
        entry.owner,
        entry.asset,
        entry.type,
        entry.ref,
        entry.amount,
        entry.net,
        entry.fees,
        entry.network,
        entry.other,
        entry.other_asset,
        entry.other_amount,
        entry.rate,
        entry.note,
        *in_all,
        *in_kind,
    )
