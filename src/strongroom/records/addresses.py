"""Deposit addresses: derived ahead into a pool, given out once, watched for ever."""

from __future__ import annotations

from typing import Final

from strongroom.records.kept import Kept

INDEX_BITS: Final = 31
"""A branch has so many addresses: the unhardened children of a key (BIP-32)."""


def position_of(branch: int, index: int) -> int:
    """Return the position of the address at an index of a branch; positions count on from branch to branch."""
    return branch << INDEX_BITS | index


def branch_of(position: int) -> int:
    """Return the branch that a position is on."""
    return position >> INDEX_BITS


def index_of(position: int) -> int:
    """Return the index of a position on its branch."""
    return position & (1 << INDEX_BITS) - 1


class Address(Kept, frozen=True, gc=False):
    """An address (with its tag, or "") of a network; `position` tells its branch and its index there.

    With `given_ms` 0 it waits in the pool, or for ever if an epoch began since. `owner` 0 of a given one is the house
    itself: its address is position 0. `paid` once a deposit arrived, `deleted` once its owner gave it up.
    """

    KEY = 3

    network: int
    address: str
    tag: str
    position: int = 0
    owner: int = 0
    asset: int = 0
    given_ms: int = 0
    paid: bool = False
    deleted: bool = False

    @property
    def ours(self) -> bool:
        """Whether the row is there at all: the address is a customer's, the house's or in the pool."""
        return bool(self.position or self.given_ms)


class AddressBook(Kept, frozen=True, gc=False):
    """A user's addresses of an asset on a network, by their positions, oldest first: `listed` the newest of the
    not-deleted ones; `unpaid` those never paid, deleted ones included."""

    KEY = 3

    owner: int
    asset: int
    network: int
    listed: tuple[int, ...] = ()
    unpaid: tuple[int, ...] = ()


class Placed(Kept, frozen=True, gc=False):
    """The address text at a position of a network."""

    KEY = 2

    network: int
    position: int
    address: str = ""
    tag: str = ""


class Branch(Kept, frozen=True, gc=False):
    """How far one branch of a network's addresses is derived: the next index to derive.

    `known` is how far it was in the backup that ended its epoch: what was derived after that backup may be known to
    customers.
    """

    KEY = 2

    network: int
    number: int
    derived: int = 0
    known: int = 0
