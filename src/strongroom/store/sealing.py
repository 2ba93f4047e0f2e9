"""The bytes of a journal item that its seal covers: one encoding for every store, so that their roots are equal."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from strongroom.engine.command import Command
from strongroom.engine.state import Item
from strongroom.ledger.entries import Booked
from strongroom.records.history import Line
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


def leaf_bytes(item: Item, salt: bytes) -> bytes:
    """Return all that the seal of an item covers."""
    return sealed_bytes(
        (item.number, item.at_ms, command_text(item.command), item.refusal, effects_text(item.rows)),
        item.postings,
        item.lines,
        salt,
    )


def sealed_bytes(
    head: tuple[int, int, bytes, str, bytes], postings: Sequence[Booked], lines: Sequence[Line], salt: bytes
) -> bytes:
    """Return the sealed bytes of an item whose texts are encoded already, as a store reads it back."""
    number, at_ms, command, refusal, effects = head
    return b"\x00".join((_encode([number, at_ms, refusal, postings, lines]), command, effects, salt))
