"""Threads of history lines as a reader follows them: to a time, to a count, and several merged, without a scan.

The far pointers of `records.history` lead to the line at any count or time in a logarithmic number of steps, so that a
page costs the same however long the history is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import heapify, heappop, heappush
from typing import Final

from strongroom.engine.port import Reads
from strongroom.records.history import Line, Thread

_NO_LINE: Final = Line(0)


class KnownLines:
    """Lines by their number, each read once; 0 is the line before the first."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads
        self._known: dict[int, Line] = {0: _NO_LINE}

    def at(self, number: int) -> Line:
        """Return a line."""
        line = self._known.get(number)
        if line is None:
            line = self._known[number] = self._reads.line(number)
        return line


class Strand:
    """What is left of a thread's lines within [`start_ms`, `end_ms`) (Unix milliseconds, None for no bound).

    `newest` is the newest one left; the number 0 where none is.
    """

    def __init__(self, lines: KnownLines, thread: Thread, start_ms: int | None, end_ms: int | None) -> None:
        self._lines = lines
        self._is_whole = not thread.asset
        newest, older = lines.at(thread.newest), _NO_LINE
        if end_ms is not None:
            newest = self._back(newest, lambda line: line.at_ms < end_ms)
        if start_ms is not None:
            older = self._back(newest, lambda line: line.at_ms < start_ms)
        self._end = self._count(older)
        self.newest = newest if self._count(newest) > self._end else _NO_LINE

    @property
    def remaining(self) -> int:
        """How many lines are left."""
        return max(0, self._count(self.newest) - self._end)

    def ahead(self, count: int) -> Line:
        """Return the line that is `count`th from the newest (1 for itself), or the last one left."""
        wanted = self._count(self.newest) + 1 - min(count, self.remaining)
        return self._back(self.newest, lambda line: self._count(line) <= wanted)

    def drop_to(self, line: Line) -> None:
        """Leave out all from the newest line to this one."""
        before = self._lines.at(line.all_before if self._is_whole else line.kind_before)
        self.newest = before if self._count(before) > self._end else _NO_LINE

    def drop_all(self) -> None:
        """Leave out every line."""
        self.newest = _NO_LINE

    def _count(self, line: Line) -> int:
        return line.all_count if self._is_whole else line.kind_count

    def _back(self, line: Line, is_reached: Callable[[Line], bool]) -> Line:
        """Return the newest line, from this one back, that is reached; all older ones must be reached as well."""
        while line.number and not is_reached(line):
            near, far = (line.all_before, line.all_jump) if self._is_whole else (line.kind_before, line.kind_jump)
            leap = self._lines.at(far)
            line = leap if leap.number and not is_reached(leap) else self._lines.at(near)
        return line


def page_of(strands: Sequence[Strand], skip: int, limit: int) -> list[Line]:
    """Return at most `limit` lines of all strands, newest first, after leaving out the newest `skip`."""
    _skip(strands, skip)
    heap = [(-strand.newest.number, place) for place, strand in enumerate(strands) if strand.remaining]
    heapify(heap)
    page: list[Line] = []
    while heap and len(page) < limit:
        _, place = heappop(heap)
        strand = strands[place]
        page.append(strand.newest)
        strand.drop_to(strand.newest)
        if strand.remaining:
            heappush(heap, (-strand.newest.number, place))
    return page


def _skip(strands: Sequence[Strand], skip: int) -> None:
    """Leave out the newest `skip` lines of all strands, in about 2 k log(skip) steps for k of them.

    Look `step` lines ahead in each strand. Where that leads to the newest line, all up to there can go: every other
    strand has fewer than `step` newer ones, so that at most k * (step - 1) + 1 lines are as new.
    """
    while skip:
        heap = [(place, strand) for place, strand in enumerate(strands) if strand.remaining]
        if sum(strand.remaining for _, strand in heap) <= skip:
            for _, strand in heap:
                strand.drop_all()
            return
        step = max(1, skip // (2 * len(heap)))
        ahead = [(-strand.ahead(step).number, place) for place, strand in heap]
        heapify(ahead)
        while ahead and skip > len(ahead) * (step - 1):
            skip -= _drop_one(strands, ahead, step)


def _drop_one(strands: Sequence[Strand], ahead: list[tuple[int, int]], step: int) -> int:
    """Leave out `step` lines of the strand whose step leads to the newest line; return how many went."""
    _, place = heappop(ahead)
    strand = strands[place]
    count = min(step, strand.remaining)
    strand.drop_to(strand.ahead(step))
    if strand.remaining:
        heappush(ahead, (-strand.ahead(step).number, place))
    return count
