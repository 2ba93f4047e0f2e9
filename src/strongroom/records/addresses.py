"""Deposit addresses: derived ahead into a pool, given out once, watched for ever."""

from __future__ import annotations

from strongroom.records.kept import Kept


class Address(Kept, frozen=True, gc=False):
    """An address (with its tag, or "") of a network; `position` is its index on the network's branch.

    With `given_ms` 0 it waits in the pool. `owner` 0 of a given one is the house itself: its address is position 0 of
    each branch. `paid` once a deposit arrived, `deleted` once its owner gave it up.
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
    """The address text at a position of a network's branch."""

    KEY = 2

    network: int
    position: int
    address: str = ""
    tag: str = ""


class Branch(Kept, frozen=True, gc=False):
    """How far a network's addresses are derived: the next position to derive."""

    network: int
    derived: int = 0
