"""What lies where on a chain: coins on one of inputs and outputs, pots on one of accounts, and our own transactions."""

from __future__ import annotations

from strongroom.records.kept import Kept


class Coin(Kept, frozen=True, gc=False):
    """An output of a transaction that one of our keys can spend, by `outpoint` (`txid:index`).

    `position` is that of its address, 0 for the house's own, to which change returns. `units` are the chain's.
    `payment` is the one that spends it, 0 while nothing does, -1 for what lies on the cold address. `height` is its
    block's; a coin without one is not there: it is still to come, or a reorganisation took it.
    """

    KEY = 2

    network: int
    outpoint: str
    position: int = 0
    units: int = 0
    height: int = 0
    payment: int = 0


class Sent(Kept, frozen=True, gc=False):
    """A transaction that the house has signed, with the payment it is a candidate of: what it pays is no deposit."""

    KEY = 2

    network: int
    txid: str
    payment: int = 0


class Pot(Kept, frozen=True, gc=False):
    """What lies on a deposit address of a chain of accounts, in the chain's unit, as text: it waits to be swept.

    `position` is the address's on the network's branch; what is at position 0 is the hot wallet's and has no pot. It
    may be below zero while a reorganisation has taken the deposit and not yet the sweep. `filled` unless it is zero;
    `due` from a deposit on until a sweep is reserved, so that what a sweep leaves behind is not looked at again.
    """

    KEY = 3

    network: int
    position: int
    asset: int
    chain_units: str = "0"
    filled: bool = False
    due: bool = False
