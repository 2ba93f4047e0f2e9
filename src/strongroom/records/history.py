"""History lines, and the threads that link them so that any page is a short walk.

A line belongs to two threads: all lines of its owner, and the owner's lines of one asset and type. Each thread is a
skew-binary linked list (E. W. Myers, "An applicative random-access stack", 1983): every line points to the one before
and to one far before, so the line at any count or time is found in a logarithmic number of steps, without an index.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import ClassVar, Final, TypeAlias

from strongroom.records.kept import Kept, Key


class LineType(IntEnum):
    """What a history line tells of: the reference's list of types, in its order."""

    DEPOSIT = 1
    WITHDRAW = 2
    CONVERT = 3
    TRANSFER_OUT = 4
    TRANSFER_IN = 5
    REFERRAL_EARNING = 6
    STAKE_FREEZE = 7
    STAKE_UNFREEZE = 8
    SUB_ACCOUNT_IN = 9
    SUB_ACCOUNT_OUT = 10
    EXPRESS_BUY = 11
    STRATEGY_INCOME = 12
    STRATEGY_PAY = 13
    TOKEN_VOUCHER_IN = 14
    SPOT_FEE_REBATE = 15
    FUTURES_FEE_REBATE = 16
    TRIAL_FUND = 17
    GENERAL_FEE_REBATE = 18
    TOKEN_VOUCHER_OUT = 19


class Note(IntEnum):
    """What a line's description says beyond its type."""

    NONE = 0
    INTERNAL = 1


class Entry(Kept, frozen=True, gc=False):
    """What a decision says about one history line; the journal gives it its number and its place in the threads.

    `amount` is what was asked or seen, positive; `net` the signed change of the balance; `fees` what was charged, all
    in units of `asset`. `other` is the counterparty's user id. A conversion names the other leg's asset and amount,
    and its rate as text. Deposits and withdrawals are found by `ref`.
    """

    SEALED: ClassVar[bool] = False

    owner: int
    asset: int
    type: int
    ref: int
    amount: int
    net: int
    fees: int = 0
    network: int = 0
    other: int = 0
    other_asset: int = 0
    other_amount: int = 0
    rate: str = ""
    note: int = 0


class Line(Kept, frozen=True, gc=False, array_like=True):
    """A history line in its place. `number` is the item's number * 16 + its place in the item.

    `all_*` links the owner's whole history, `kind_*` that of one asset and type: how many lines the thread has up to
    this one, the line before, and the line far before.
    """

    SEALED: ClassVar[bool] = False

    number: int
    at_ms: int = 0
    owner: int = 0
    asset: int = 0
    type: int = 0
    ref: int = 0
    amount: int = 0
    net: int = 0
    fees: int = 0
    network: int = 0
    other: int = 0
    other_asset: int = 0
    other_amount: int = 0
    rate: str = ""
    note: int = 0
    all_count: int = 0
    all_before: int = 0
    all_jump: int = 0
    kind_count: int = 0
    kind_before: int = 0
    kind_jump: int = 0


LINES_PER_ITEM: Final = 16

_PAIR: Final = struct.Struct("<qq")
_TWO_PAIRS: Final = 2 * _PAIR.size

Link: TypeAlias = tuple[int, int, int]
"""Where a line stands in a thread: how many lines it has with it, the line before, and the line far before."""


class Thread(Kept, frozen=True, gc=False):
    """The end of a linked list of lines: (0, 0) for asset and type means the owner's whole history.

    `spine` holds (count, line) pairs from the newest line along its far pointers, two little-endian int64 each; it is
    empty for a thread without lines.
    """

    KEY: ClassVar[int] = 3
    SEALED: ClassVar[bool] = False
    TRAILING: ClassVar[bool] = True

    owner: int
    asset: int
    type: int
    spine: bytes = b""

    @property
    def count(self) -> int:
        """How many lines the thread has."""
        return lines_in(self.spine)

    @property
    def newest(self) -> int:
        """The number of its newest line, 0 if it has none."""
        return newest_in(self.spine)

    def append(self, line: int) -> tuple[Thread, Link]:
        """Return the thread with one more line at its end, and how that line is linked."""
        spine, link = append_line(self.spine, line)
        return Thread(self.owner, self.asset, self.type, spine), link


def append_line(spine: bytes, line: int) -> tuple[bytes, Link]:
    """Return the spine of a thread with one more line at its end, and how that line is linked.

    Two equal steps at the newest end are joined into one long one below the new line.
    """
    if not spine:
        return _PAIR.pack(1, line), (1, 0, 0)
    count, newest = _PAIR.unpack_from(spine)
    jump = newest
    if len(spine) >= _TWO_PAIRS:
        near, _ = _PAIR.unpack_from(spine, _PAIR.size)
        far, far_line = _pair(spine, _TWO_PAIRS)
        if count - near == near - far:
            spine, jump = spine[_TWO_PAIRS:], far_line
    return _PAIR.pack(count + 1, line) + spine, (count + 1, newest, jump)


def lines_in(spine: bytes) -> int:
    """Return how many lines the thread of a spine has."""
    return _pair(spine, 0)[0]


def newest_in(spine: bytes) -> int:
    """Return the number of the newest line of a spine's thread, 0 if it has none."""
    return _pair(spine, 0)[1]


def _pair(spine: bytes, start: int) -> tuple[int, int]:
    """Return the (count, line) pair at a place; behind the last one comes (0, 0), before the first line."""
    return _PAIR.unpack_from(spine, start) if len(spine) > start else (0, 0)


def threads_of(owner: int, asset: int, type_: int) -> tuple[Key, Key]:
    """Return the addresses of the two threads that a line of this owner, asset and type belongs to."""
    return (Thread, owner, 0, 0), (Thread, owner, asset, type_)
