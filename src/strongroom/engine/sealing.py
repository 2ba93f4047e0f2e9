"""The text of a journal item, which its seal covers: one encoding for every store, so that their roots are equal."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from typing import Any, Final

import msgspec

from strongroom.engine.command import Command
from strongroom.engine.port import Sealed, StoredItem
from strongroom.engine.state import Item
from strongroom.ledger.seals import leaf_hash
from strongroom.records.history import Line

_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(StoredItem).decode


class _Lines(msgspec.Struct, frozen=True, gc=False):
    """Of an item's text only its history lines."""

    lines: list[Line] = []


_decode_lines: Final = msgspec.json.Decoder(_Lines).decode


def seal_item(item: Item, salt: bytes) -> Sealed:
    """Return the item as it is kept: JSON, without the fields that the journal must not hold."""
    if item.command.PRIVATE:
        public = msgspec.json.encode({**msgspec.structs.asdict(item), "command": _public(item.command)})
        return Sealed(item.number, public, salt)
    return Sealed(item.number, _encode(item), salt)


def read_item(text: bytes) -> StoredItem:
    """Return what an item's text says. Raises `msgspec.MsgspecError` for what is no item."""
    return _decode(text)


def read_lines(text: bytes) -> list[Line]:
    """Return the history lines in an item's text."""
    return _decode_lines(text).lines


def leaf_of(text: bytes, salt: bytes) -> bytes:
    """Return the leaf hash of an item: over its text and its salt, so that a proof gives nothing away."""
    return leaf_hash(salt + text)


def leaves_of(items: Iterable[Sealed]) -> list[bytes]:
    """Return the leaf hash of each item as `leaf_of` has it, for millions of them."""
    return [sha256(b"\x00" + salt + text).digest() for _, text, salt in items]


def _public(command: Command) -> dict[str, Any]:
    fields = msgspec.to_builtins(command)
    return {name: value for name, value in fields.items() if name not in command.PRIVATE}
