"""The audit of histories: every line hangs where the lines before it leave off, wherever the journal is divided."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations, pairwise
from typing import Final

import pytest

from strongroom.records.history import LINES_PER_ITEM, Line, Thread, append_line
from strongroom.wallet.audit.findings import MAX_FINDINGS, Findings
from strongroom.wallet.audit.histories import Histories
from support.handmade import ASSET, OWNER, TYPE, USUAL, WHOLE, Finding, HandMade, Kind, history, written

LONG: Final = 40
FIVE_TREES: Final = 27
"""So many lines are trees of 15, 7, 3, 1 and 1: the shortest history with five."""

OTHER_TYPE: Final[Kind] = (OWNER, ASSET, TYPE + 1)
MIXED: Final = [[USUAL], [OTHER_TYPE, USUAL], [], [USUAL, USUAL, OTHER_TYPE]] * 8


def settled(findings: Findings) -> list[Finding]:
    """Return what was found."""
    findings.settle(by_item=False)
    return findings.found


def linked(books: HandMade) -> list[Finding]:
    """Return what is held against the lines, read from the first item on."""
    findings = Findings()
    Histories(findings, from_nothing=True).link(books.effects())
    return settled(findings)


def divided(books: HandMade, *divisions: int) -> tuple[Histories, Findings]:
    """Read the items in stretches that end at the divisions, and join each to those before it in small parcels."""
    findings, items = Findings(), books.effects()
    (first, *later) = [items[start:end] for start, end in pairwise((0, *divisions, len(items)))]
    histories = Histories(findings, from_nothing=True)
    histories.link(first)
    for part in later:
        stretch = Histories(findings, from_nothing=False)
        stretch.link(part)
        for far in stretch.far_parcels(1):
            histories.check_far(far)
        for parcel in stretch.parcels(2):
            histories.take_over(parcel)
    return histories, findings


def audited(books: HandMade, *divisions: int) -> list[Finding]:
    """Return what is held against the lines, read in stretches, and against the kept threads."""
    histories, findings = divided(books, *divisions)
    histories.compare(books.reads)
    return settled(findings)


def test_a_history_of_any_length_is_whole_as_it_was_written() -> None:
    """An honest history is never complained of, however many lines it has."""
    assert [audited(written([[USUAL]] * count)) for count in range(LONG + 1)] == [[]] * (LONG + 1)


def test_histories_that_are_written_together_are_whole_and_counted() -> None:
    """Lines of two types that share an item and an owner are each in their place, and each is counted once."""
    histories, findings = divided(written(MIXED))
    histories.compare(written(MIXED).reads)
    assert settled(findings) == []
    assert histories.lines == sum(map(len, MIXED))


@pytest.mark.parametrize(
    ("one", "other"), [((2, 0x8001, TYPE), (3, 1, TYPE)), ((OWNER, 2, 0x81), (OWNER, 3, 1)), (USUAL, OTHER_TYPE)]
)
def test_histories_whose_numbers_lie_close_are_kept_apart(one: Kind, other: Kind) -> None:
    """No asset or type is so large that its history runs into that of another owner or asset."""
    assert audited(written([[one], [other], [other, one], [other]])) == []


@pytest.mark.parametrize("fields", [{"number": 1}, {"number": -1}, {"at_ms": 1}, {"at_ms": -1}])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_line_in_another_place_or_time_is_named_by_its_own_number(place: int, fields: dict[str, int]) -> None:
    """A line that claims another number or time than its item gives it is found, whichever of the item's it is."""
    books = written([[USUAL], [USUAL, OTHER_TYPE, USUAL], [USUAL]])
    books.forge_line(2, place, **shifted(books.items[1].lines[place], **fields))
    said = books.items[1].lines[place].number
    assert linked(books) == [(2, f"history line {said} is not in its place or time")]


def shifted(line: Line, **by: int) -> dict[str, int]:
    """Return fields of a line, each so much larger."""
    return {name: getattr(line, name) + more for name, more in by.items()}


@pytest.mark.parametrize("field", ["count", "before", "jump"])
@pytest.mark.parametrize("thread", ["all", "kind"])
@pytest.mark.parametrize("item", [1, 2, 3, 4, 5, 6, 7, 14, 15, FIVE_TREES, LONG])
def test_a_line_that_is_linked_otherwise_is_named(item: int, thread: str, field: str) -> None:
    """A wrong count, line before or line far before is found in the owner's history and in that of one kind."""
    books = written([[USUAL]] * LONG)
    [line] = books.items[item - 1].lines
    books.forge_line(item, **shifted(line, **{f"{thread}_{field}": 1}))
    assert linked(books) == [(item, f"history line {line.number} does not follow the lines before it")]


def test_a_history_does_not_begin_in_its_middle() -> None:
    """Where the journal is read from its first item on, nobody had lines before."""
    books = written([[USUAL]])
    books.forge_line(1, all_count=3, all_before=2, kind_count=2, kind_before=1, kind_jump=1)
    assert linked(books) == [(1, "history line 16 does not follow the lines before it")] * 2


def lengthen(thread: Thread) -> Thread:
    """Let a history have one more line."""
    return thread.append(6 * LINES_PER_ITEM)[0]


def shorten(thread: Thread) -> Thread:
    """Let a history have all but its newest line."""
    return written([[USUAL]] * 4).threads[thread.owner, thread.asset, thread.type]


def lead_astray(thread: Thread) -> Thread:
    """Let a history lead from its newest line to another old one."""
    return Thread(thread.owner, thread.asset, thread.type, thread.spine[:-8] + (17).to_bytes(8, "little"))


def empty(thread: Thread) -> Thread:
    """Let a history have no lines."""
    return Thread(thread.owner, thread.asset, thread.type)


@pytest.mark.parametrize("change", [lengthen, shorten, lead_astray, empty, None])
@pytest.mark.parametrize("kind", [WHOLE, USUAL])
def test_a_kept_history_that_ends_elsewhere_is_found(kind: Kind, change: Callable[[Thread], Thread] | None) -> None:
    """A kept end that hides lines, adds some or is missing is told with the item of the newest line."""
    books = written([[USUAL]] * 5)
    thread = books.threads.pop(kind)
    if change:
        books.threads[kind] = change(thread)
    assert audited(books) == [(5, f"{history(kind)} does not end with its line")]


@pytest.mark.parametrize("spine", [b"", append_line(b"", 16)[0]])
def test_a_kept_history_of_nobody_is_found(spine: bytes) -> None:
    """A history that no item has a line of is not to be there, even without lines; no item is to blame."""
    books = written([[USUAL]] * 5)
    books.threads[8, 2, 1] = Thread(8, 2, 1, spine)
    assert audited(books) == [(0, f"{history((8, 2, 1))} does not end with its line")]


def test_all_histories_that_are_missing_are_told_in_their_order() -> None:
    """Where every kept history is gone, each is named by its owner, asset and type."""
    books = written([[(9, 1, 1)], [USUAL], [OTHER_TYPE], [(1, 5, 2)]])
    books.threads.clear()
    newest = {(1, 0, 0): 4, (1, 5, 2): 4, WHOLE: 3, USUAL: 2, OTHER_TYPE: 3, (9, 0, 0): 1, (9, 1, 1): 1}
    assert audited(books) == [(item, f"{history(kind)} does not end with its line") for kind, item in newest.items()]


def test_whole_histories_are_whole_wherever_the_journal_is_divided() -> None:
    """Stretches that are read apart fit at every item, whatever length the histories have there."""
    books = written([[USUAL]] * (FIVE_TREES + 4))
    divisions = list(combinations(range(len(books.items) + 1), 2))
    assert [found for pair in divisions if (found := audited(books, *pair))] == []


def test_histories_that_are_written_together_fit_wherever_the_journal_is_divided() -> None:
    """Several histories, some of which begin in a later stretch, are joined each to its own lines."""
    books = written([*MIXED, [(1, 1, 1)], [USUAL, (1, 1, 1)], [(1, 1, 1)]])
    assert [audited(books, at, len(MIXED) + 1, len(MIXED) + 2) for at in range(len(MIXED))] == [[]] * len(MIXED)


def test_a_joined_history_counts_the_lines_of_each_stretch_by_itself() -> None:
    """What a stretch read is told apart: the lines of others are added by whoever joins them."""
    histories, _ = divided(written([[USUAL]] * 5), 3)
    assert histories.lines == 3


@pytest.mark.parametrize("field", ["count", "before", "jump"])
def test_a_line_that_is_linked_otherwise_is_found_wherever_the_journal_is_divided(field: str) -> None:
    """No division hides a forged link: it shows at its line, or where the stretches are joined."""
    hidden: list[tuple[int, int]] = []
    for item in range(1, FIVE_TREES + 1):
        books = written([[USUAL]] * FIVE_TREES)
        books.forge_line(item, **shifted(books.items[item - 1].lines[0], **{f"kind_{field}": 1}))
        hidden += [(item, at) for at in range(1, FIVE_TREES) if not audited(books, at)]
    assert hidden == []


AT_JOINT: Final = {
    "one line more": (7, 80, 0),
    "one line less": (5, 80, 80),
    "another newest line": (6, 64, 48),
    "another line far before": (6, 80, 32),
    "no line far before": (6, 80, 0),
    "no lines": (1, 0, 0),
    "no lines, and yet a newest one": (1, 80, 80),
    "as many lines as numbers": (6, 5, 48),
}
"""What the sixth line may say of five lines before it, whose newest is 80, without a contradiction in itself."""


@pytest.mark.parametrize("link", AT_JOINT.values(), ids=AT_JOINT)
@pytest.mark.parametrize(("thread", "kind"), [("all", WHOLE), ("kind", USUAL)])
def test_a_stretch_that_takes_other_lines_for_granted_does_not_fit(
    thread: str, kind: Kind, link: tuple[int, int, int]
) -> None:
    """A first line that speaks of lines which were never there is told with the newest one before it."""
    books = written([[USUAL]] * 6)
    names = (f"{thread}_count", f"{thread}_before", f"{thread}_jump")
    books.forge_line(6, **dict(zip(names, link, strict=True)))
    assert settled(divided(books, 5)[1]) == [(5, f"{history(kind)} does not go on with its line")]


def test_a_history_does_not_go_on_where_it_never_began() -> None:
    """A later stretch cannot bring lines along that no earlier item has; no item is to blame for what is not there."""
    books = written([[(8, 1, 1)]] * 5 + [[USUAL]])
    books.forge_line(6, all_count=2, all_before=16, all_jump=16)
    assert settled(divided(books, 5)[1]) == [(0, f"{history(WHOLE)} does not go on with its line")]


@pytest.mark.parametrize("link", [(7, 5, 0), (2, 96, 96), (2**26 + 1, 2**26, 2**26)], ids=str)
@pytest.mark.parametrize(("thread", "kind"), [("all", WHOLE), ("kind", USUAL)])
def test_a_history_with_more_lines_than_there_are_numbers_is_found_by_its_own_stretch(
    thread: str, kind: Kind, link: tuple[int, int, int]
) -> None:
    """A count or a line before that no journal could have is told with the line that claims it, before any joint."""
    books = written([[USUAL]] * 6)
    books.forge_line(6, **dict(zip((f"{thread}_count", f"{thread}_before", f"{thread}_jump"), link, strict=True)))
    findings = Findings()
    Histories(findings, from_nothing=False).link(books.effects()[5:])
    assert settled(findings) == [(6, f"{history(kind)} had more lines before than there can be")]


ROOTS: Final = {0: [0], 1: [1, 0], 2: [2, 1, 0], 5: [5, 4, 3, 0], 6: [6, 3, 0], FIVE_TREES: [27, 26, 25, 22, 15, 0]}
"""By how many lines a history has, the places in it that its end names: 0 is that before all lines."""


def number_of_usual() -> int:
    """Return the number that the auditor finds the usual owner's whole history by."""
    stretch = Histories(Findings(), from_nothing=False)
    stretch.link(written([[USUAL]]).effects())
    return next(stretch.parcels(1))[0][0]


@pytest.mark.parametrize("count", ROOTS)
def test_only_lines_that_the_end_of_a_history_names_can_be_taken_for_granted(count: int) -> None:
    """A later stretch may have known the root of each tree, but no other line, and none in another's place."""
    thread, roots = number_of_usual(), ROOTS[count]
    histories, findings = divided(written([[USUAL]] * count))
    histories.check_far([(thread, place, place * LINES_PER_ITEM) for place in roots])
    assert settled(findings) == []
    wrong = [(thread, place, place * LINES_PER_ITEM + 1) for place in roots]
    wrong += [(thread, place, place * LINES_PER_ITEM) for place in range(count) if place not in roots]
    histories.check_far(wrong)
    told = (count, f"{history(WHOLE)} does not go on with its line")
    assert settled(findings) == [told] * min(len(wrong), MAX_FINDINGS)
