"""Seals: a Merkle tree over the journal's items as RFC 6962 section 2.1 hashes it, grown one leaf at a time.

Whoever keeps a root from outside can tell whether any earlier item was changed, removed or reordered since.
Without a root kept outside, a seal proves nothing against the operator.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Final

import msgspec

from strongroom.errors import check

HASH_BYTES: Final = 32
SALT_BYTES: Final = 16


class Frontier(msgspec.Struct, frozen=True):
    """The tree's complete subtrees, largest first: all that is needed to append leaves and to tell the root."""

    count: int = 0
    peaks: tuple[bytes, ...] = ()

    def append(self, *leaves: bytes) -> Frontier:
        """Return the frontier with more leaf hashes (32 bytes each), in their order."""
        peaks, count = list(self.peaks), self.count
        for leaf in leaves:
            check(len(leaf) == HASH_BYTES, "a leaf hash has 32 bytes")
            merged, level = leaf, count
            while level & 1:
                merged = node_hash(peaks.pop(), merged)
                level >>= 1
            peaks.append(merged)
            count += 1
        return Frontier(count, tuple(peaks))

    def root(self) -> bytes:
        """Return the Merkle tree hash of all leaves so far."""
        if not self.peaks:
            return sha256(b"").digest()
        root = self.peaks[-1]
        for peak in reversed(self.peaks[:-1]):
            root = node_hash(peak, root)
        return root


def leaf_hash(data: bytes) -> bytes:
    """Return the hash of a leaf's bytes."""
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of an inner node."""
    return sha256(b"\x01" + left + right).digest()
