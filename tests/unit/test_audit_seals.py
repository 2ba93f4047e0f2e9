"""The audit of seals: kept seals against the items under them, one of them forged, and exactly what is said of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pytest

from strongroom.engine.port import Sealed
from strongroom.ledger.seals import Frontier, leaf_hash
from strongroom.wallet.audit.findings import Findings
from strongroom.wallet.audit.seals import Seals
from support.audited import Told, told

ITEMS = [Sealed(number, b"item %d" % number, number.to_bytes(16, "big")) for number in range(1, 10)]
NOTHING = Frontier()


def seal_over(count: int) -> Frontier:
    """Return the right seal over the first items."""
    return Frontier().append(*(leaf_hash(salt + text) for _, text, salt in ITEMS[:count]))


def forged(count: int) -> Frontier:
    """Return a seal over so many items whose newest hash is none of theirs."""
    return Frontier(count, (*seal_over(count).peaks[:-1], bytes(32)))


def read(
    chunks: Sequence[int], kept: Iterable[Frontier], start: Frontier = NOTHING, items: Sequence[Sealed] = ITEMS
) -> tuple[Seals, Findings]:
    """Read so many items at a time behind a seal, and return the tree and what was found."""
    findings = Findings()
    seals = Seals(findings, start, iter(kept))
    first = start.count
    for size in chunks:
        seals.append(items[first : first + size])
        first += size
    return seals, findings


@pytest.mark.parametrize("chunks", [(9,), (1,) * 9, (4, 5), (3, 3, 3)], ids=str)
@pytest.mark.parametrize("sealed", [(), range(1, 10), (9,), (4, 9), (1, 3, 5), (3, 4, 6)], ids=str)
def test_items_hash_to_their_seals_however_many_are_read_at_a_time(
    chunks: tuple[int, ...], sealed: Iterable[int]
) -> None:
    """Nothing is said of right seals, and the tree ends with the last item."""
    seals, findings = read(chunks, map(seal_over, sealed))
    assert told(findings) == []
    assert seals.frontier == seal_over(9)


@pytest.mark.parametrize("start", range(1, 8))
def test_a_tree_goes_on_from_a_kept_seal(start: int) -> None:
    """Items behind any seal hash to the seals after it, and need none of the items before it."""
    seals, findings = read((1, 8 - start), map(seal_over, range(start + 1, 10)), seal_over(start))
    assert told(findings) == []
    assert seals.frontier == seal_over(9)


@pytest.mark.parametrize("chunks", [(6,), (1,) * 6, (5, 1), (4, 2)], ids=str)
@pytest.mark.parametrize(
    ("kept", "expected"),
    [
        pytest.param([forged(1)], (1, "it does"), id="over the first item"),
        pytest.param([forged(6)], (1, "items 1 to 6 do"), id="over all of them"),
        pytest.param([seal_over(2), forged(3)], (3, "it does"), id="over one item"),
        pytest.param([seal_over(2), forged(4)], (3, "items 3 to 4 do"), id="over two items"),
        pytest.param([seal_over(2), seal_over(5), forged(6)], (6, "it does"), id="over the last item"),
        pytest.param([seal_over(1), forged(3), forged(4)], (2, "items 2 to 3 do"), id="and the next one"),
        pytest.param([forged(2), seal_over(3), forged(5)], (1, "items 1 to 2 do"), id="and one after a right one"),
    ],
)
def test_only_the_first_seal_that_differs_is_told(
    kept: list[Frontier], expected: tuple[int, str], chunks: tuple[int, ...]
) -> None:
    """The first seal that is not over its items is told with those that no seal before it vouches for."""
    first, which = expected
    _, findings = read(chunks, kept)
    assert told(findings) == [(first, f"{which} not hash to the seal that covers it")]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"text": b"item 4, changed"}, id="text"),
        pytest.param({"salt": bytes(16)}, id="salt"),
    ],
)
@pytest.mark.parametrize(
    ("sealed", "expected"), [((2, 4, 6), (3, "items 3 to 4 do")), ((1, 2, 3, 4, 5, 6), (4, "it does"))]
)
def test_an_item_that_was_changed_shows_in_the_first_seal_over_it(
    change: dict[str, bytes], sealed: tuple[int, ...], expected: tuple[int, str]
) -> None:
    """Whoever changes a byte of an item or its salt makes every seal from there on differ, and is told once."""
    items = [item._replace(**change) if item.number == 4 else item for item in ITEMS]
    _, findings = read((3, 6), map(seal_over, sealed), items=items)
    first, which = expected
    assert told(findings) == [(first, f"{which} not hash to the seal that covers it")]


def test_the_newest_seal_is_compared_like_any_other() -> None:
    """The seal that is kept over all items vouches for those that no other seal covers."""
    seals, findings = read((5,), [seal_over(3)])
    seals.compare(seal_over(5))
    assert told(findings) == []
    seals.compare(forged(5))
    assert told(findings) == [(6, "it does not hash to the seal that covers it")]


@pytest.mark.parametrize(
    ("newest", "expected"),
    [
        pytest.param(seal_over(6), [(4, "items 4 to 6 do not hash to the seal that covers it")], id="over one more"),
        pytest.param(forged(5), [(4, "items 4 to 5 do not hash to the seal that covers it")], id="forged"),
        pytest.param(NOTHING, [(4, "it does not hash to the seal that covers it")], id="over nothing"),
    ],
)
def test_a_newest_seal_over_other_items_is_told(newest: Frontier, expected: Told) -> None:
    """A newest seal that is over more, fewer or other items than were read is told with the first it may be about."""
    seals, findings = read((5,), [seal_over(3)])
    seals.compare(newest)
    assert told(findings) == expected


DIFFERS = "it does not hash to the seal that covers it"


@pytest.mark.parametrize(
    ("start", "kept", "expected"),
    [
        pytest.param(0, [3, 3, 6], [(4, "a seal over 3 items follows one over 3")], id="twice"),
        pytest.param(
            0,
            [1, 4, 2, 3, 6],
            [(5, "a seal over 2 items follows one over 4"), (5, DIFFERS)],
            id="back, and on from there",
        ),
        pytest.param(
            3,
            [5, 4, 6],
            [(6, "a seal over 4 items follows one over 5"), (6, DIFFERS)],
            id="back behind a start",
        ),
        pytest.param(
            0,
            [5, 4, 3, 6],
            [
                (6, "a seal over 4 items follows one over 5"),
                (6, DIFFERS),
                (6, "a seal over 3 items follows one over 4"),
            ],
            id="back twice",
        ),
        pytest.param(3, [3, 6], [(4, "a seal over 3 items follows one over 3")], id="the start once more"),
        pytest.param(3, [2, 6], [(4, "a seal over 2 items follows one over 3"), (4, DIFFERS)], id="before the start"),
        pytest.param(0, [0, 6], [(1, "a seal over 0 items follows one over 0")], id="over nothing"),
    ],
)
def test_a_seal_covers_more_than_the_one_before_it(start: int, kept: list[int], expected: Told) -> None:
    """A seal that repeats or goes back is told with the item behind the last one that was right."""
    seals, findings = read((6 - start,), map(seal_over, kept), seal_over(start))
    assert told(findings) == expected
    assert seals.frontier == seal_over(6)


def test_a_seal_that_goes_back_behind_a_wrong_one_is_told_with_the_first_item_in_doubt() -> None:
    """Where no seal was right yet everything is in doubt from the first item on."""
    _, findings = read((6,), [forged(2), seal_over(1)])
    assert told(findings) == [
        (1, "items 1 to 2 do not hash to the seal that covers it"),
        (1, "a seal over 1 items follows one over 2"),
    ]


def test_what_a_seal_says_stands_where_it_is_come_upon() -> None:
    """A seal that differs is told behind what is wrong with the items under it: that is what there is to look at."""
    findings = Findings()
    seals = Seals(findings, NOTHING, iter([forged(4), seal_over(3)]))
    seals.append(ITEMS[:6])
    findings.add(3, "it was refused")
    findings.add(5, "it was paid twice")
    findings.settle(by_item=True)
    assert findings.found == [
        (3, "it was refused"),
        (1, "items 1 to 4 do not hash to the seal that covers it"),
        (1, "a seal over 3 items follows one over 4"),
        (5, "it was paid twice"),
    ]
