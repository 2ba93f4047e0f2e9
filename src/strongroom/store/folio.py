"""A folio: what one owner's accounts and histories have come to, and how it is kept in one row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from strongroom.engine.state import ThreadKey
from strongroom.records.heads import Head
from strongroom.records.history import Thread

_THREADS_PER_ASSET: Final = 256
_COUNT_BITS: Final = 40
_COUNT: Final = (1 << _COUNT_BITS) - 1

_encode_heads: Final = msgspec.json.Encoder().encode
_decode_heads: Final = msgspec.json.Decoder(dict[int, tuple[int, int]]).decode
_encode_spines: Final = msgspec.msgpack.Encoder().encode
_decode_spines: Final = msgspec.msgpack.Decoder(dict[int, bytes]).decode


def pack_head(after: int, count: int) -> int:
    """Return a balance and a number of postings as the one integer that a folio keeps."""
    return after << _COUNT_BITS | count


def thread_number(asset: int, type_: int) -> int:
    """Return the number of a thread among its owner's."""
    return asset * _THREADS_PER_ASSET + type_


class Folio:
    """One owner's heads by packed account, and spines by `thread_number`: as small as they get.

    A head is one integer (`pack_head`): half of what a pair takes, and nothing that the garbage collector looks at.
    """

    __slots__ = ("heads", "spines")

    def __init__(self, heads: dict[int, int], spines: dict[int, bytes]) -> None:
        self.heads = heads
        self.spines = spines

    @property
    def rows(self) -> int:
        """How many heads and threads it holds, and one for itself: an empty one takes room as well."""
        return len(self.heads) + len(self.spines) + 1

    def head(self, account: int) -> Head:
        """Return the head of one of the owner's packed accounts."""
        found = self.heads.get(account)
        return Head(account) if found is None else Head(account, found >> _COUNT_BITS, found & _COUNT)

    def thread(self, key: ThreadKey) -> Thread:
        """Return one of the owner's threads."""
        owner, asset, type_ = key
        return Thread(owner, asset, type_, self.spines.get(asset * _THREADS_PER_ASSET + type_) or b"")

    def threads(self, owner: int) -> Iterator[Thread]:
        """Yield all threads of the owner, whose folio this is."""
        for number, spine in self.spines.items():
            asset, type_ = divmod(number, _THREADS_PER_ASSET)
            yield Thread(owner, asset, type_, spine)


def encode_folio(folio: Folio) -> tuple[str, bytes]:
    """Return a folio's heads, as JSON, and its spines, as MessagePack."""
    heads = {account: (head >> _COUNT_BITS, head & _COUNT) for account, head in folio.heads.items()}
    return _encode_heads(heads).decode(), _encode_spines(folio.spines)


def decode_folio(heads: str | bytes, spines: bytes) -> Folio:
    """Return the folio that `encode_folio` encoded."""
    packed = {account: pack_head(after, count) for account, (after, count) in _decode_heads(heads).items()}
    return Folio(packed, _decode_spines(spines))


def decode_heads(heads: str | bytes) -> dict[int, tuple[int, int]]:
    """Return only the heads of a folio: (balance, count) by packed account."""
    return _decode_heads(heads)


def decode_spines(spines: bytes) -> dict[int, bytes]:
    """Return only the spines of a folio, by `thread_number`."""
    return _decode_spines(spines)
