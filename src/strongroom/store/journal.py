"""The journal's items and seals as every store keeps them: the same items with the same salts have the same root."""

from __future__ import annotations

from collections.abc import Sequence

from strongroom.clock import Ids
from strongroom.engine.port import Sealed
from strongroom.engine.sealing import leaf_of, seal_item
from strongroom.engine.state import Item
from strongroom.ledger.seals import HASH_BYTES, SALT_BYTES, Frontier


def seal_all(items: Sequence[Item], frontier: Frontier, ids: Ids) -> tuple[Frontier, list[Sealed]]:
    """Return the seal after these items, and each of them as it is kept, with a fresh salt."""
    salts = ids.random_bytes(SALT_BYTES * len(items)) if items else b""
    sealed = [seal_item(item, salts[place * SALT_BYTES : (place + 1) * SALT_BYTES]) for place, item in enumerate(items)]
    return frontier.append(*[leaf_of(item.text, item.salt) for item in sealed]), sealed


def peaks_of(frontier: Frontier) -> bytes:
    """Return a seal's complete subtrees as they are kept: 32 bytes each, largest first."""
    return b"".join(frontier.peaks)


def frontier_of(last_item: int, peaks: bytes) -> Frontier:
    """Return the seal that was kept with the number of its last item."""
    return Frontier(last_item, tuple([peaks[i : i + HASH_BYTES] for i in range(0, len(peaks), HASH_BYTES)]))
