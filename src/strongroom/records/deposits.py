"""Deposits: what arrived for a customer, from its first sight to its credit, and back if the chain takes it back."""

from __future__ import annotations

from enum import IntEnum

from strongroom.records.kept import Kept


class DepositState(IntEnum):
    """Seen -> confirming -> credited, or too small; dropped when its transaction is gone; REVERSED when a reorg took a
    credited one, which confirms again once it is in another block. WITHHELD is what reached an address that may have
    been given out after a backup that was restored since: booked, until the operator says whose it is."""

    SEEN = 1
    CONFIRMING = 2
    CREDITED = 3
    DROPPED = 4
    TOO_SMALL = 5
    WITHHELD = 6
    REVERSED = 7


class Deposit(Kept, frozen=True, gc=False):
    """A deposit by its order reference. `amount`, `fee` and `net` are in ledger units, `chain_units` is exact, as text.

    `net` is what its owner is credited: `amount` - `fee`, or 0 for one that is too small or withheld. Owner 0 is the
    house itself, or for a withheld one nobody yet.
    `position` is the output's index or the log's ordinal. `block` is empty while it is in no block. An internal one
    came from a withdrawal inside the house and has no transaction; a `coinbase` one is what a block paid its miner.
    """

    ref: int
    owner: int = 0
    asset: int = 0
    network: int = 0
    address: str = ""
    tag: str = ""
    txid: str = ""
    position: int = 0
    chain_units: str = "0"
    amount: int = 0
    fee: int = 0
    net: int = 0
    state: int = 0
    height: int = 0
    block: str = ""
    seen_ms: int = 0
    internal: bool = False
    coinbase: bool = False


class Outpoint(Kept, frozen=True, gc=False):
    """What identifies a deposit on its chain: it can be booked once."""

    KEY = 3

    network: int
    txid: str
    position: int
    ref: int = 0
