"""Effects: what an item's text says has changed, in the shapes that are read fastest, every number in its range."""

from __future__ import annotations

from typing import Annotated, Final, TypeAlias

import msgspec

from strongroom.money import MAX_UNITS

COUNT_BITS: Final = 40
"""So many bits are enough for the number of any item, posting of an account, or line of a thread."""

_Whole: TypeAlias = Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]
_Nth: TypeAlias = Annotated[int, msgspec.Meta(ge=1, lt=1 << COUNT_BITS)]
_Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, lt=1 << COUNT_BITS)]
_Units: TypeAlias = Annotated[int, msgspec.Meta(gt=-MAX_UNITS, lt=MAX_UNITS)]
_Owner: TypeAlias = Annotated[int, msgspec.Meta(ge=0, lt=1 << 40)]
_Asset: TypeAlias = Annotated[int, msgspec.Meta(gt=0, lt=1 << 16)]
_Type: TypeAlias = Annotated[int, msgspec.Meta(gt=0, lt=1 << 8)]

BookedFields: TypeAlias = tuple[_Whole, _Units, _Units, _Nth]
"""The fields of `Booked`: packed account, amount, balance after it, and the how manieth of its account it is."""

LineFields: TypeAlias = tuple[
    _Whole, int, _Owner, _Asset, _Type,  # number, at_ms, owner, asset, type
    int, int, int, int, int, int, int, int, str, int,  # ref and all else that is told of it
    _Nth, _Whole, _Whole,  # all_count, all_before, all_jump
    _Nth, _Whole, _Whole,  # kind_count, kind_before, kind_jump
]  # fmt: skip
"""The fields of `Line`."""


class Effects(msgspec.Struct, frozen=True, gc=False):
    """An item as `StoredItem` has it, with plain tuples for its postings and lines: they are unpacked in one step."""

    number: _Count
    at_ms: int
    command: msgspec.Raw
    refusal: str = ""
    postings: list[BookedFields] = []
    lines: list[LineFields] = []
    rows: list[tuple[str, msgspec.Raw]] = []


read_effects: Final = msgspec.json.Decoder(Effects).decode
