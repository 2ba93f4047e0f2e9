"""The bytes of a journal item that its seal covers: one encoding for every store, so that their roots are equal."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from strongroom.engine.command import Command
from strongroom.engine.port import StoredItem
from strongroom.engine.state import Item
from strongroom.ledger.seals import leaf_hash
from strongroom.records.kept import Kept

_encode = msgspec.json.Encoder().encode


def command_text(command: Command) -> bytes:
    """Return the command as JSON, without the fields that the journal must not hold."""
    if not command.PRIVATE:
        return _encode(command)
    fields = msgspec.to_builtins(command)
    return _encode({name: value for name, value in fields.items() if name not in command.PRIVATE})


def effects_text(rows: Sequence[Kept]) -> bytes:
    """Return the kept rows that an item wrote as JSON: an array of [kind, row]; empty for none."""
    return _encode([[type(row).__name__, row] for row in rows]) if rows else b""


def stored_item(item: Item, salt: bytes) -> StoredItem:
    """Return the item as it is kept."""
    command, effects = command_text(item.command), effects_text(item.rows)
    return StoredItem(item.number, item.at_ms, command, item.refusal, effects, salt, item.postings, item.lines)


def leaf_of(item: StoredItem) -> bytes:
    """Return the leaf hash of an item: over all that is kept of it, and its salt: a proof gives nothing away."""
    outer = _encode([item.number, item.at_ms, item.refusal, item.postings, item.lines])
    return leaf_hash(b"\x00".join((outer, item.command, item.effects, item.salt)))
