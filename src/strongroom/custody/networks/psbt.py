"""The container of a partially signed Bitcoin transaction, version 0 (BIP-174): maps of keys to values, as bytes.

    magic, map of the whole, a map for each input, a map for each output
    map: (length, key, length, value) again and again, then a zero; a key begins with the number of its type

What a key means is none of this module's business. The library for transactions has no such container any more.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping
from io import BytesIO
from typing import Final

from btclib import var_bytes
from btclib.exceptions import BTClibValueError

from strongroom.custody.chain import Rejected

PREFIX: Final = "cHNidP"
"""How the text of every such container begins, whatever is in it."""

MAX_MAPS: Final = 1_000
"""A container has at most so many maps."""

MAX_PAIRS: Final = 1_000
"""A map has at most so many keys."""

_MAGIC: Final = b"psbt\xff"


def encode(maps: Iterable[Mapping[bytes, bytes]]) -> str:
    """Return the text (base64) of maps, each in the order of its keys' bytes."""
    parts = [_MAGIC]
    for one in maps:
        parts += [var_bytes.serialize(key) + var_bytes.serialize(one[key]) for key in sorted(one)]
        parts.append(b"\0")
    return base64.b64encode(b"".join(parts)).decode()


def decode(text: str) -> list[dict[bytes, bytes]]:
    """Return the maps of a text. Raises `Rejected` for what is cut off, too much, or says one thing twice."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Rejected("the PSBT is not in base64") from None
    if not raw.startswith(_MAGIC):
        raise Rejected("not a PSBT")
    stream, maps = BytesIO(raw[len(_MAGIC) :]), list[dict[bytes, bytes]]()
    while stream.tell() < len(raw) - len(_MAGIC):
        if len(maps) == MAX_MAPS:
            raise Rejected("a PSBT of too many parts")
        maps.append(_map(stream))
    return maps


def _map(stream: BytesIO) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    try:
        while key := var_bytes.parse(stream):
            if key in found or len(found) == MAX_PAIRS:
                raise Rejected("the PSBT says one thing twice, or too much")
            found[key] = var_bytes.parse(stream)
    except BTClibValueError:
        raise Rejected("the PSBT is cut off") from None
    return found
