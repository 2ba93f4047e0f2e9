"""Threads of history lines as a reader follows them: to a time, to a count, and several merged, without a scan.

The far pointers of `records.history` lead to the line at any count or time in a logarithmic number of steps, so that a
page costs the same however long the history is. Lines are asked for with those that will probably be wanted next: for
a store that is a round trip away, each question counts.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from heapq import heapify, heappop, heappush
from typing import Final, Literal, NamedTuple

from strongroom.engine.port import LineLink, Reads
from strongroom.records.history import Line, Thread

_NO_LINE: Final = Line(0)

MOST_AHEAD: Final = 100
"""So many lines of a thread are asked for together at most."""

_FAR_AHEAD: Final = 80
"""So many steps along far pointers, or where there is none to the line before, lead from the newest line of 2^40 to the
first."""


class _Links(NamedTuple):
    """The fields of a thread's lines: how many it has up to one, the line before, and one far before."""

    length: Literal["all_count", "kind_count"]
    near: LineLink
    far: LineLink


_WHOLE: Final = _Links("all_count", "all_before", "all_jump")
_KIND: Final = _Links("kind_count", "kind_before", "kind_jump")


class KnownLines:
    """Lines by their number, each asked for once; 0 is the line before the first."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads
        self._known: dict[int, Line] = {0: _NO_LINE}

    def at(self, number: int, link: LineLink, ahead: int) -> Line:
        """Return a line. Where it has to be asked for, a link will probably be followed from it: to `ahead` lines."""
        if number not in self._known:
            self.ask([number], link, ahead)
        return self._known[number]

    def ask(self, numbers: Collection[int], link: LineLink, ahead: int) -> None:
        """Ask for lines together; from each of them a link will probably be followed."""
        asked = [number for number in numbers if number not in self._known]
        if asked:
            self._known |= {line.number: line for line in self._reads.trails(asked, link, ahead)}
            for number in asked:
                _ = self._known.setdefault(number, Line(number))

    def ask_newest(self, threads: Iterable[Thread], end_ms: int | None, ahead: int) -> None:
        """Ask for the newest lines of threads of one asset and type each, where `Strand` begins with them."""
        link, count = (_KIND.near, min(ahead, MOST_AHEAD)) if end_ms is None else (_KIND.far, _FAR_AHEAD)
        self.ask([thread.newest for thread in threads], link, count)


class Strand:
    """What is left of a thread's lines within [`start_ms`, `end_ms`) (Unix milliseconds, None for no bound).

    `newest` is the newest one left; the number 0 where none is. `ahead` says how many will probably be wanted.
    """

    def __init__(
        self, lines: KnownLines, thread: Thread, start_ms: int | None, end_ms: int | None, ahead: int = 1
    ) -> None:
        self._lines = lines
        self._links = _KIND if thread.asset else _WHOLE
        self._ahead = min(ahead, MOST_AHEAD)
        newest, older = self._at(thread.newest) if end_ms is None else self._at_far(thread.newest), _NO_LINE
        if end_ms is not None:
            newest = self._back(newest, lambda line: line.at_ms < end_ms)
        if start_ms is not None:
            older = self._back(newest, lambda line: line.at_ms < start_ms)
        self._end = self._count(older)
        self._begin_at(newest)

    @property
    def remaining(self) -> int:
        """How many lines are left."""
        return max(0, self._count(self.newest) - self._end)

    def ahead(self, count: int) -> Line:
        """Return the line that is `count`th from the newest (1 for itself), or the last one left."""
        wanted = self._count(self.newest) + 1 - min(count, self.remaining)
        return self._back(self.newest, lambda line: self._count(line) <= wanted)

    def drop_to(self, line: Line) -> None:
        """Leave out all from the newest line to this one; those behind it will be read."""
        self._begin_at(self._at(getattr(line, self._links.near)))

    def leap_over(self, line: Line) -> None:
        """Do the same where more will probably be left out."""
        self._begin_at(self._at_far(getattr(line, self._links.near)))

    def _begin_at(self, line: Line) -> None:
        self.newest = line if self._count(line) > self._end else _NO_LINE

    def drop_all(self) -> None:
        """Leave out every line."""
        self.newest = _NO_LINE

    def _count(self, line: Line) -> int:
        return getattr(line, self._links.length)

    def _back(self, line: Line, is_reached: Callable[[Line], bool]) -> Line:
        """Return the newest line, from this one back, that is reached; all older ones must be reached as well."""
        links = self._links
        while line.number and not is_reached(line):
            leap = self._at_far(getattr(line, links.far))
            line = leap if leap.number and not is_reached(leap) else self._at_far(getattr(line, links.near))
        return line

    def _at(self, number: int) -> Line:
        """Return a line behind which others will be read one after the other."""
        return self._lines.at(number, self._links.near, self._ahead)

    def _at_far(self, number: int) -> Line:
        """Return a line from which the far pointers will be followed."""
        return self._lines.at(number, self._links.far, _FAR_AHEAD)


def page_of(strands: Sequence[Strand], skip: int, limit: int) -> list[Line]:
    """Return at most `limit` lines, 1 or more, of all strands, newest first, after leaving out the newest `skip`."""
    _skip(strands, skip)
    heap = [(-strand.newest.number, place) for place, strand in enumerate(strands) if strand.remaining]
    heapify(heap)
    page: list[Line] = []
    while heap:
        _, place = heappop(heap)
        strand = strands[place]
        page.append(strand.newest)
        if len(page) >= limit:
            break
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
        step = max(1, skip // (2 * len(heap) - 1))
        ahead = [(-strand.ahead(step).number, place) for place, strand in heap]
        heapify(ahead)
        while ahead and skip > len(ahead) * (step - 1):
            skip -= _drop_one(strands, ahead, step)


def _drop_one(strands: Sequence[Strand], ahead: list[tuple[int, int]], step: int) -> int:
    """Leave out `step` lines of the strand whose step leads to the newest line; return how many went."""
    _, place = heappop(ahead)
    strand = strands[place]
    count = min(step, strand.remaining)
    strand.leap_over(strand.ahead(step))
    if strand.remaining:
        heappush(ahead, (-strand.ahead(step).number, place))
    return count
