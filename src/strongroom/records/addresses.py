"""Deposit addresses: derived ahead into a pool, given out once, watched for ever."""

from __future__ import annotations

from strongroom.records.kept import Kept


class Address(Kept, frozen=True, gc=False):
    """An address (with its tag, or "") of a network. `owner` 0 means that it waits in the pool; `position` is its index
    on the network's branch. `paid` once a deposit arrived, `deleted` once its owner gave it up."""

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


class AddressBook(Kept, frozen=True, gc=False):
    """A user's addresses of an asset on a network, by their positions: `listed` the not-deleted ones, oldest first;
    `unpaid` those never paid, deleted ones included."""

    KEY = 3

    owner: int
    asset: int
    network: int
    listed: tuple[int, ...] = ()
    unpaid: tuple[int, ...] = ()


class Placed(Kept, frozen=True, gc=False):
    """The address text at a position of a network's branch; `highest` positions are found by `Branch`."""

    KEY = 2

    network: int
    position: int
    address: str = ""
    tag: str = ""


class Branch(Kept, frozen=True, gc=False):
    """How far a network's addresses are derived (`derived` positions) and given out (`given`)."""

    network: int
    derived: int = 0
    given: int = 0
