"""The audit of a stretch: items that are missing, unreadable, misdated or refused are named, and stretches fit."""

from __future__ import annotations

from itertools import combinations, pairwise
from typing import Any, Final

import msgspec
import pytest

from strongroom.ledger.accounts import Purpose, available, house
from strongroom.ledger.entries import Booked
from strongroom.ledger.seals import Frontier
from strongroom.wallet.audit import stretch as module
from strongroom.wallet.audit.effects import read_effects
from strongroom.wallet.audit.findings import Findings, NoFindings
from strongroom.wallet.audit.stretch import Ends, Stretch
from support.handmade import ASSET, OWNER, USUAL, WHOLE, Finding, HandMade, history

AT_ONCE: Final = 3
NO_TIME: Final = "its stamp is before that of the item before it"


@pytest.fixture(autouse=True)
def few_items_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a few items be more than are read at once, and a few rows more than are handed over at once."""
    monkeypatch.setattr(module, "ITEMS_AT_ONCE", AT_ONCE)
    monkeypatch.setattr(module, "PARCEL_ROWS", 1)


def filled(count: int, units: int = 1) -> HandMade:
    """Return books with so many items, not sealed yet: each with an entry and a history line, or without units none."""
    books = HandMade()
    for _ in range(count):
        books.write(*[USUAL] * bool(units), units=units)
    return books


def sealed(count: int, units: int = 1) -> HandMade:
    """Return such books, sealed."""
    books = filled(count, units)
    books.seal()
    return books


def read(books: HandMade, last: int) -> tuple[Stretch, list[Finding]]:
    """Read the items up to one, with no seal to hold them against, and return what is held against them."""
    findings = Findings()
    stretch = Stretch(findings, iter(()))
    stretch.read(books.reads, last)
    return stretch, findings.found


def divided(books: HandMade, *divisions: int) -> tuple[Stretch, list[Finding]]:
    """Read stretches that end at the divisions, join each to those before it, and compare with what is kept."""
    findings = Findings()
    spans = list(pairwise((0, *divisions, books.last()[0])))
    stretch = Stretch(findings, books.seals())
    stretch.read(books.reads, spans[0][1])
    for start, end in spans[1:]:
        other = Stretch(findings, books.seals(start), books.over(start))
        other.read(books.reads, end)
        for parcel in other.parcels():
            stretch.take_over(parcel)
        findings.settle(by_item=True)
    stretch.compare(books.reads)
    return stretch, findings.found


def audited(books: HandMade, *divisions: int) -> list[Finding]:
    """Return what is held against the books, read in such stretches."""
    return divided(books, *divisions)[1]


def test_honest_books_are_whole_and_read_a_few_items_at_a_time() -> None:
    """Nothing is held against honest books, no more items are in memory than may be, and none is read twice."""
    books = sealed(7)
    assert audited(books) == []
    assert books.asked == [(1, 3), (4, 3), (7, 1), (8, 1)]


def test_books_without_items_are_whole() -> None:
    """Where nothing happened yet nothing is read, and nothing is wrong."""
    books = sealed(0)
    stretch, found = divided(books)
    assert (found, stretch.items, books.asked) == ([], 0, [(1, 1)])


def test_stretches_of_honest_books_fit_and_add_up_wherever_they_are_divided() -> None:
    """Items, postings and lines are all counted once, and the end is the newest seal, however the work is shared."""
    books = sealed(8)
    for divisions in [(at,) for at in range(1, 8)] + list(combinations(range(1, 8), 2)):
        stretch, found = divided(books, *divisions)
        assert found == [], divisions
        assert (stretch.items, stretch.balances.postings, stretch.histories.lines) == (8, 16, 8), divisions
        assert stretch.seals.frontier == books.frontier(), divisions


MISSING: Final = [
    ({1}, 8, [(1, 2)]),
    ({1, 2}, 8, [(1, 3)]),
    ({1, 2, 3, 4}, 8, [(1, 5)]),
    ({2}, 8, [(2, 3)]),
    ({3}, 8, [(3, 4)]),
    ({4}, 8, [(4, 5)]),
    ({3, 4}, 8, [(3, 5)]),
    ({2, 4, 7}, 8, [(2, 3), (4, 5), (7, 8)]),
    ({5, 6, 7}, 8, [(5, 8)]),
    ({2, 8}, 8, [(2, 3), (8, 0)]),
    ({6, 7, 8}, 8, [(6, 0)]),
    ({1, 2, 3, 4, 5, 6, 7, 8}, 8, [(1, 0)]),
    ({2}, 3, [(2, 3)]),
    ({2}, 4, [(2, 3)]),
    ({3}, 3, [(3, 0)]),
    ({2, 3}, 3, [(2, 0)]),
    ({2}, 2, [(2, 0)]),
    ({1}, 1, [(1, 0)]),
    ({5}, 4, []),
]
"""Items that are gone, the last one to read, and what is told: the first of a gap, and the one that follows or 0."""


@pytest.mark.parametrize(("gone", "last", "gaps"), MISSING)
def test_items_that_are_missing_are_named(gone: set[int], last: int, gaps: list[tuple[int, int]]) -> None:
    """Every gap is told once, with its first item and where the journal goes on, and the rest is counted."""
    books = sealed(8, units=0)
    for number in gone:
        del books.texts[number]
    stretch, found = read(books, last)
    ends = [f"before item {after}" if after else f"up to item {last}" for _, after in gaps]
    assert found == [
        (first, f"it is missing, and so are all {end}") for (first, _), end in zip(gaps, ends, strict=True)
    ]
    assert stretch.items == len(set(range(1, last + 1)) - gone)


def why(text: bytes) -> str:
    """Return why a text cannot be read."""
    with pytest.raises((msgspec.MsgspecError, UnicodeDecodeError)) as raised:
        read_effects(text)
    return f"it cannot be read: {raised.value}"


UNREADABLE: Final = {
    "nothing": b"",
    "no JSON": b"{",
    "no stamp": b'{"number":2,"command":{}}',
    "no number of an owner": b'{"number":2,"at_ms":1,"command":{},"lines":[[32,1,-1]]}',
    "no UTF-8": b'{"number":2,"at_ms":1,"command":{},"refusal":"\xff"}',
}


@pytest.mark.parametrize("text", UNREADABLE.values(), ids=UNREADABLE)
def test_items_that_cannot_be_read_are_named_with_the_reason(text: bytes) -> None:
    """Every unreadable text is told, the readable ones around it are read, and all are counted as there."""
    books = sealed(8, units=0)
    books.texts |= {2: text, 3: text, 7: text}
    stretch, found = read(books, 8)
    assert found == [(2, why(text)), (3, why(text)), (7, why(text))]
    assert stretch.items == 8


def test_an_item_under_another_number_is_named() -> None:
    """A text that was put in another's place is told with the place, and with the number that it says."""
    books = sealed(8, units=0)
    books.texts[2], books.texts[6] = books.texts[6], books.texts[2]
    assert read(books, 8)[1] == [(2, "it says that it is item 6"), (6, "it says that it is item 2")]


def dated(stamps: list[int]) -> HandMade:
    """Return sealed books with an item without effects for each stamp."""
    books = filled(len(stamps), units=0)
    for number, at_ms in enumerate(stamps, 1):
        books.forge(number, at_ms=at_ms)
    books.seal()
    return books


@pytest.mark.parametrize(("stamp", "found"), [(0, []), (-1, [(1, NO_TIME)])])
def test_no_item_is_from_before_all_time(stamp: int, found: list[Finding]) -> None:
    """The first item may bear the earliest stamp there is, but none before that."""
    assert read(dated([stamp, 0]), 2)[1] == found


STAMPS: Final = [
    ([5, 4, 6, 7], [2]),
    ([5, 4, 4, 3], [2, 4]),
    ([5, 6, 7, 7], []),
    ([5, 6, 7, 6, 6], [4]),
    ([1, 2, 8, 9, 5, 9], [5]),
    ([5, 6, 7, 8, 9, 1, 0], [6, 7]),
]
"""Stamps of items, and the numbers of those that are before the ones before them."""


@pytest.mark.parametrize(("stamps", "wrong"), STAMPS)
def test_a_stamp_that_goes_back_is_found_wherever_the_journal_is_divided(stamps: list[int], wrong: list[int]) -> None:
    """No item is older than the one before it, whether they are read at once, one after the other, or apart."""
    books, places = dated(stamps), range(1, len(stamps))
    expected = [(number, NO_TIME) for number in wrong]
    for divisions in [(), *((at,) for at in places), *combinations(places, 2)]:
        assert sorted(audited(books, *divisions)) == expected, divisions


ENTRY: Final = [Booked(available(OWNER, ASSET).pack(), 1, 1, 1), Booked(house(Purpose.EQUITY, ASSET).pack(), -1, -1, 1)]
EFFECTS: Final[dict[str, dict[str, Any]]] = {
    "postings": {"postings": ENTRY},
    "lines": {"lines": HandMade().write(USUAL).lines},
    "rows": {"rows": [("Name", msgspec.Raw(b'["ann",7]'))]},
}


@pytest.mark.parametrize("effects", EFFECTS.values(), ids=EFFECTS)
def test_a_refused_item_with_effects_is_named(effects: dict[str, Any]) -> None:
    """What was refused moved no money, wrote no history and kept nothing: one such effect is enough."""
    books = filled(1, units=0)
    books.forge(1, refusal="NO_FUNDS")
    books.seal()
    assert read(books, 1)[1] == []
    books.forge(1, **effects)
    books.seal()
    assert read(books, 1)[1] == [(1, "it was refused, and yet has effects")]
    books.forge(1, refusal="")
    books.seal()
    assert read(books, 1)[1] == []


def test_findings_are_in_the_order_of_the_items_whatever_is_wrong_with_them() -> None:
    """An auditor reads from the first wrong item on, though each item is checked for one thing after the other."""
    books = HandMade()
    for kinds in ([USUAL], [], [USUAL], [USUAL], [], []):
        books.write(*kinds)
    books.forge_line(1, kind_jump=1)
    books.forge(3, refusal="NO_FUNDS")
    books.forge_line(3, all_jump=1)
    books.forge(4, at_ms=2_999)
    books.forge_line(4, at_ms=2_999)
    books.seal()
    books.texts[5] = books.texts[6]
    del books.texts[2], books.texts[6]
    assert read(books, 6)[1] == [
        (1, "history line 16 does not follow the lines before it"),
        (2, "it is missing, and so are all before item 3"),
        (3, "it was refused, and yet has effects"),
        (3, "history line 48 does not follow the lines before it"),
        (4, NO_TIME),
        (5, "it says that it is item 6"),
        (6, "it is missing, and so are all up to item 6"),
    ]


def test_an_old_seal_among_later_ones_is_told_where_it_is_come_upon() -> None:
    """A kept seal that goes back to the first item does not put itself before what was found by then."""
    books = dated([1, 0, 1, 1, 1, 1])
    findings = Findings()
    Stretch(findings, iter([books.over(5), books.over(1)])).read(books.reads, 6)
    assert findings.found == [
        (2, NO_TIME),
        (6, "it does not hash to the seal that covers it"),
        (6, "a seal over 1 items follows one over 5"),
    ]


@pytest.mark.parametrize("beyond", [1, 2])
def test_an_item_that_no_seal_covers_is_named(beyond: int) -> None:
    """The first item behind the newest seal is told, with the one that the seal ends at."""
    books = sealed(8, units=0)
    del books.kept_seals[8 - beyond :]
    last = 8 - beyond
    assert audited(books) == [(last + 1, f"it is not covered by the newest seal, which ends at item {last}")]


def test_a_newest_seal_that_is_none_of_the_items_is_found() -> None:
    """The newest seal is held against the items even where no other one was kept."""
    books = sealed(8, units=0)
    stretch, found = read(books, 8)
    books.kept_seals[-1] = sealed(8).frontier()
    stretch.compare(books.reads)
    assert found == [(1, "items 1 to 8 do not hash to the seal that covers it")]


@pytest.mark.parametrize("divisions", [(), (4,), (2, 6)])
def test_a_kept_history_that_is_gone_is_found_however_the_journal_is_divided(divisions: tuple[int, ...]) -> None:
    """What is kept of histories is held against the lines of all stretches together."""
    books = sealed(8)
    del books.threads[USUAL]
    assert audited(books, *divisions) == [(8, f"{history(USUAL)} does not end with its line")]


def test_a_line_far_before_that_never_was_is_found_at_the_joint() -> None:
    """A stretch that leads past lines of the one before it does not fit, though each is right in itself."""
    books = filled(6)
    books.forge_line(6, all_jump=32)
    books.seal()
    assert audited(books, 5) == [
        (5, f"{history(WHOLE)} does not go on with its line"),
        (6, f"{history(WHOLE)} does not end with its line"),
    ]


def test_a_stretch_tells_where_it_starts_and_ends_and_how_much_it_read() -> None:
    """What is handed over first has both seals, the first and the last stamp, and the counts of this stretch alone."""
    books = sealed(9)
    stretch = Stretch(Findings(), books.seals(2), books.over(2))
    stretch.read(books.reads, 9)
    assert next(stretch.parcels()) == ("ends", Ends(books.over(2), books.over(9), 3_000, 9_000, 7, 14, 7))


def test_a_stretch_starts_with_the_first_stamp_that_can_be_read() -> None:
    """Where the first items cannot be read, the stamp of the first one that can is held against those before."""
    books = sealed(9, units=0)
    books.texts |= {1: b"", 2: b"", 3: b"", 4: b""}
    stretch, _ = read(books, 9)
    assert next(stretch.parcels())[1].first_ms == 5_000


def test_a_stretch_without_stamps_starts_and_ends_at_none() -> None:
    """Where no item can be read there is no stamp, neither the first nor the last."""
    books = sealed(2, units=0)
    books.texts |= {1: b"", 2: b""}
    stretch, _ = read(books, 2)
    assert next(stretch.parcels()) == ("ends", Ends(Frontier(), stretch.seals.frontier, 0, 0, 2, 0, 0))


NO_FIT: Final = (4, "the items up to it do not hash to the seal that the next ones were added to")
NO_SEAL: Final = (1, "items 1 to 8 do not hash to the seal that covers it")


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        (sealed(8, units=0).over(4), []),
        (sealed(8, units=0).over(3), [NO_FIT]),
        (sealed(8, units=0).over(5), [NO_FIT]),
        (sealed(8, units=1).over(4), [NO_FIT, NO_SEAL]),
    ],
    ids=["honest", "one item read twice", "one item left out", "other items"],
)
def test_a_stretch_that_was_added_to_another_seal_does_not_fit(start: Frontier, expected: list[Finding]) -> None:
    """A stretch begins over exactly the items that were read before it: none read twice, left out or exchanged."""
    books = sealed(8, units=0)
    stretch, found = read(books, 4)
    other = Stretch(NoFindings(), iter(()), start)
    other.read(books.reads, 8)
    for parcel in other.parcels():
        stretch.take_over(parcel)
    stretch.compare(books.reads)
    assert found == expected
