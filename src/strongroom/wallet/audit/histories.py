"""Histories: every thread linked again from its lines, by a rule of its own rather than by what the writer does.

A thread with n lines is a row of trees, the newest first, whose sizes are the digits of n in the skew-binary system
(1, 3, 7, 15, ..; at most the two smallest are equal). One more line is a tree by itself, or where the two newest are
equal the root over both, and the line before the root is where its far pointer leads.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final, TypeAlias

from strongroom.engine.port import Reads
from strongroom.records.history import LINES_PER_ITEM, Thread
from strongroom.wallet.audit.effects import Effects
from strongroom.wallet.audit.findings import Findings

_HEAD: Final = struct.Struct("<qq")
_LINE: Final = struct.Struct("<q")
_head_of: Final = _HEAD.unpack_from
_as_head: Final = _HEAD.pack
_line_of: Final = _LINE.unpack_from
_NO_LINES: Final = _as_head(0, 0)
_PAST_NEWEST: Final = 8
_PAST_TWO_TREES: Final = 24
_OWNER_SHIFT: Final = 24
_ASSET_SHIFT: Final = 8

ThreadsParcel: TypeAlias = list[tuple[int, int, int, bytes]]
"""Threads with the count and newest line that a stretch found them at, and the end that it left."""

FarParcel: TypeAlias = list[tuple[int, int, int]]
"""Threads, and the line that each is said to have had at some count before the stretch."""


class Histories:
    """The end of every thread: its count, its newest line, the roots of its other trees, and 0 for the line before all.

    Threads are found by owner << 24 | asset << 8 | type, and an end is bytes, since there may be millions. A stretch
    that does not start at the first item takes what a thread's first line says of the lines before for granted, and
    remembers it; a root that no line has named yet is written as minus its place in the thread.
    """

    def __init__(self, findings: Findings, *, from_nothing: bool) -> None:
        self._findings = findings
        self._from_nothing = from_nothing
        self._ends: dict[int, bytes] = {}
        self._found_at: array[int] = array("q")
        self._far: array[int] = array("Q")
        self._joins = b"\0"
        self.lines = 0

    def link(self, items: Iterable[Effects]) -> None:
        """Check the items' lines, and hang them on the ends of their threads."""
        for item in items:
            number, at_ms, lines = item.number, item.at_ms, item.lines
            line = number * LINES_PER_ITEM
            self.lines += len(lines)
            for fields in lines:
                (
                    said, said_ms, owner, asset, type_, _, _, _, _, _, _, _, _, _, _,
                    all_count, all_before, all_jump, kind_count, kind_before, kind_jump,
                ) = fields  # fmt: skip
                if said != line or said_ms != at_ms:
                    self._findings.add(number, f"history line {said} is not in its place or time")
                whole = owner << _OWNER_SHIFT
                self._hang(line, whole, all_count, all_before, all_jump)
                self._hang(line, whole | asset << _ASSET_SHIFT | type_, kind_count, kind_before, kind_jump)
                line += 1

    def _hang(self, line: int, thread: int, count: int, before: int, jump: int) -> None:
        """Hang a line on the end of a thread, and check that it says so."""
        end = self._ends.get(thread)
        if end is None:
            end = self._begin(line, thread, count - 1, before)
            if end is None:
                return
        known, newest = _head_of(end)
        if known >= len(self._joins):
            self._widen(known)
        if self._joins[known]:
            rest = end[_PAST_TWO_TREES:]
            (far,) = _line_of(rest)
            if far < 0:
                far, rest = self._take_for_granted(thread, far, jump, rest)
        else:
            far, rest = newest, end[_PAST_NEWEST:]
        if count != known + 1 or before != newest or jump != far:
            item = line // LINES_PER_ITEM
            self._findings.add(item, f"history line {line} does not follow the lines before it")
        self._ends[thread] = _as_head(known + 1, line) + rest

    def compare(self, reads: Reads) -> None:
        """Check that every kept thread ends where its lines do, and that none has no lines."""
        missing = set(self._ends)
        for kept in reads.each(Thread):
            thread = kept.owner << _OWNER_SHIFT | kept.asset << _ASSET_SHIFT | kept.type
            end = self._ends.get(thread, _NO_LINES)
            if thread not in missing or kept.spine != _spine(end):
                self._tell_end(thread)
            missing.discard(thread)
        for thread in sorted(missing):
            self._tell_end(thread)

    def far_parcels(self, size: int) -> Iterator[FarParcel]:
        """Yield what a stretch took for granted of lines before the newest, so many at a time."""
        far = iter(self._far)
        while parcel := list(islice(zip(far, far, far, strict=True), size)):
            yield parcel

    def parcels(self, size: int) -> Iterator[ThreadsParcel]:
        """Yield what a stretch has found out, so many threads at a time."""
        ends, found_at = iter(self._ends.items()), iter(self._found_at)
        while parcel := [(thread, next(found_at), next(found_at), end) for thread, end in islice(ends, size)]:
            yield parcel

    def check_far(self, parcel: FarParcel) -> None:
        """Check what the stretch that follows took for granted, before its threads are taken over."""
        for thread, count, line in parcel:
            if _lines_by_count(self._ends.get(thread, _NO_LINES)).get(count) != line:
                self._tell_next(thread)

    def take_over(self, parcel: ThreadsParcel) -> None:
        """Continue with what the stretch that follows this one has found out."""
        ends = self._ends
        for thread, count, newest, end in parcel:
            before = ends.get(thread, _NO_LINES)
            if _head_of(before) != (count, newest):
                self._tell_next(thread)
            ends[thread] = _filled(end, before)

    def _begin(self, line: int, thread: int, count: int, newest: int) -> bytes | None:
        """Return the end that a thread has before its first line in this stretch; None where there can be no such end.

        What a line claims bounds the memory that is taken for it: there are no more lines before it than its number.
        """
        if self._from_nothing:
            return _NO_LINES
        if not count <= newest < line:
            self._findings.add(line // LINES_PER_ITEM, f"{_name_of(thread)} had more lines before than there can be")
            return None
        self._found_at.extend((count, newest))
        return _end(count, newest)

    def _take_for_granted(self, thread: int, place: int, line: int, rest: bytes) -> tuple[int, bytes]:
        """Return the line at a place before this stretch as a first line names it, and the end with it in."""
        self._far.extend((thread, -place, line))
        return line, _LINE.pack(line) + rest[_LINE.size :]

    def _widen(self, count: int) -> None:
        """Work out for every count up to this one whether a thread with so many lines has two equal trees in front.

        On the way from nothing to one tree twice two trees of the next smaller size are built, and then joined.
        """
        while count >= len(self._joins):
            self._joins = self._joins + self._joins + b"\1"

    def _tell_end(self, thread: int) -> None:
        newest = _head_of(self._ends.get(thread, _NO_LINES))[1]
        self._findings.add(newest // LINES_PER_ITEM, f"{_name_of(thread)} does not end with its line")

    def _tell_next(self, thread: int) -> None:
        newest = _head_of(self._ends.get(thread, _NO_LINES))[1]
        self._findings.add(newest // LINES_PER_ITEM, f"{_name_of(thread)} does not go on with its line")


def _places(count: int) -> list[int]:
    """Return the places of the trees' roots in a thread with so many lines, the newest first."""
    places: list[int] = []
    place = 0
    while place < count:
        place += (1 << (count - place + 1).bit_length() - 1) - 1
        places.append(place)
    return places[::-1]


def _end(count: int, newest: int) -> bytes:
    """Return the end of a thread of which only the newest line is known."""
    if not count:
        return _as_head(count, newest)
    unknown = [-place for place in _places(count)[1:]]
    return struct.pack(f"<{len(unknown) + 3}q", count, newest, *unknown, 0)


def _lines_by_count(end: bytes) -> dict[int, int]:
    """Return the lines that an end names, by their places in the thread; 0 for the place before all."""
    count, *lines = struct.unpack(f"<{len(end) // 8}q", end)
    return dict(zip([*_places(count), 0], lines, strict=True))


def _filled(end: bytes, before: bytes) -> bytes:
    """Return an end with what it does not name taken from an earlier one."""
    words = struct.unpack(f"<{len(end) // 8}q", end)
    if min(words) >= 0:
        return end
    known = _lines_by_count(before)
    return struct.pack(f"<{len(words)}q", *(word if word >= 0 else known.get(-word, word) for word in words))


def _spine(end: bytes) -> bytes:
    """Return an end as threads are kept: (place, line) pairs."""
    count, *lines = struct.unpack(f"<{len(end) // 8}q", end)
    pairs = [number for pair in zip(_places(count), lines, strict=False) for number in pair]
    return struct.pack(f"<{len(pairs)}q", *pairs)


def _name_of(thread: int) -> str:
    owner, kind = divmod(thread, 1 << _OWNER_SHIFT)
    asset, type_ = divmod(kind, 1 << _ASSET_SHIFT)
    return f"the history of owner {owner}, asset {asset}, type {type_}"
