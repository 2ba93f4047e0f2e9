"""Seals: the tree of RFC 6962, by the tests of Certificate Transparency and by the RFC's own recursion."""

from __future__ import annotations

from hashlib import sha256

import pytest

from strongroom.errors import InvariantBroken
from strongroom.ledger.seals import Frontier, leaf_hash, node_hash

LEAVES = [
    bytes.fromhex(text)
    for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
"""The roots of the first 0 to 8 leaves, as the implementations of Certificate Transparency are tested with."""


def tree_hash(leaves: list[bytes]) -> bytes:
    """Return the Merkle tree hash as section 2.1 of RFC 6962 defines it."""
    if len(leaves) < 2:
        return sha256(b"\x00" + leaves[0] if leaves else b"").digest()
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return sha256(b"\x01" + tree_hash(leaves[:split]) + tree_hash(leaves[split:])).digest()


def grown(leaves: list[bytes]) -> Frontier:
    """Return the frontier of leaves appended one by one."""
    frontier = Frontier()
    for leaf in leaves:
        frontier = frontier.append(leaf_hash(leaf))
    return frontier


@pytest.mark.parametrize("count", range(9))
def test_roots_are_those_of_certificate_transparency(count: int) -> None:
    """Any other program that follows the RFC comes to the same root."""
    assert grown(LEAVES[:count]).root().hex() == ROOTS[count]


def test_a_tree_of_any_size_has_the_root_of_the_rfc() -> None:
    """Growing leaf by leaf gives the root of the recursion at every size, and holds no more than the peaks."""
    leaves, frontier = [n.to_bytes(2, "big") for n in range(70)], Frontier()
    for count, leaf in enumerate(leaves, 1):
        frontier = frontier.append(leaf_hash(leaf))
        assert frontier.count == count
        assert frontier.root() == tree_hash(leaves[:count])
        assert len(frontier.peaks) == count.bit_count()


def test_what_was_appended_to_stays_as_it_was() -> None:
    """A seal is a value: the root kept yesterday is not changed by what comes after."""
    before = grown(LEAVES[:3])
    after = before.append(leaf_hash(LEAVES[3]))
    assert before == grown(LEAVES[:3])
    assert (before.count, after.count) == (3, 4)


def test_leaves_and_nodes_are_told_apart() -> None:
    """A leaf that spells two hashes is not the node over them."""
    left, right = leaf_hash(b"left"), leaf_hash(b"right")
    assert leaf_hash(left + right) != node_hash(left, right) != node_hash(right, left)


@pytest.mark.parametrize("leaf", [b"", b"x" * 31, b"x" * 33])
def test_what_is_no_hash_is_no_leaf(leaf: bytes) -> None:
    """A leaf of another length is a mistake of ours, and is not sealed."""
    with pytest.raises(InvariantBroken, match="a leaf hash has 32 bytes"):
        Frontier().append(leaf)
