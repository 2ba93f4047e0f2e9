"""Books made by hand for the auditor: a journal in which anything can be forged, and what is kept at its end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, TypeAlias, cast

import msgspec

from strongroom.engine.command import Row
from strongroom.engine.port import Reads, Sealed, StoredItem
from strongroom.engine.sealing import leaf_of
from strongroom.ledger.accounts import Account, Purpose, available, house
from strongroom.ledger.entries import Booked
from strongroom.ledger.seals import Frontier
from strongroom.records.history import LINES_PER_ITEM, Line, Thread
from strongroom.wallet.audit.effects import Effects, read_effects

Kind: TypeAlias = tuple[int, int, int]
"""The owner, the asset and the type of a history line."""

Finding: TypeAlias = tuple[int, str]

OWNER: Final = 7
ASSET: Final = 3
TYPE: Final = 5
USUAL: Final[Kind] = (OWNER, ASSET, TYPE)
WHOLE: Final[Kind] = (OWNER, 0, 0)
SALT: Final = b"0123456789abcdef"
NO_COMMAND: Final = msgspec.Raw(b"{}")


def history(kind: Kind) -> str:
    """Return how the auditor names a history."""
    return "the history of owner {}, asset {}, type {}".format(*kind)


class HandMade:
    """A journal of hand-made items, one a second, and what of `Reads` an audit asks for."""

    def __init__(self) -> None:
        self.items: list[StoredItem] = []
        self.threads: dict[Kind, Thread] = {}
        self.kept_heads: dict[int, tuple[int, int]] = {}
        self.texts: dict[int, bytes] = {}
        self.kept_seals: list[Frontier] = []
        self.asked: list[tuple[int, int]] = []

    @property
    def reads(self) -> Reads:
        """Itself, with what an audit does not ask for left out."""
        return cast(Reads, self)

    def write(self, *kinds: Kind, units: int = 0) -> StoredItem:
        """Append an item with a history line of each kind, and with postings that bring a customer so many units."""
        number = len(self.items) + 1
        places = enumerate(kinds, number * LINES_PER_ITEM)
        lines = [self._line(place, number * 1_000, kind) for place, kind in places]
        pair = ((available(OWNER, ASSET), units), (house(Purpose.EQUITY, ASSET), -units)) if units else ()
        postings = [self._posting(account, amount) for account, amount in pair]
        self.items.append(StoredItem(number, number * 1_000, NO_COMMAND, postings=postings, lines=lines))
        return self.items[-1]

    def _line(self, number: int, at_ms: int, kind: Kind) -> Line:
        owner, asset, type_ = kind
        whole, of_all = self.threads.get((owner, 0, 0), Thread(owner, 0, 0)).append(number)
        same, of_kind = self.threads.get(kind, Thread(owner, asset, type_)).append(number)
        self.threads |= {(owner, 0, 0): whole, kind: same}
        line = Line(number, at_ms, owner, asset, type_, ref=9, amount=1, net=1)
        names = ("all_count", "all_before", "all_jump", "kind_count", "kind_before", "kind_jump")
        return msgspec.structs.replace(line, **dict(zip(names, (*of_all, *of_kind), strict=True)))

    def _posting(self, account: Account, amount: int) -> Booked:
        after, count = self.kept_heads.get(account.pack(), (0, 0))
        self.kept_heads[account.pack()] = (after + amount, count + 1)
        return Booked(account.pack(), amount, after + amount, count + 1)

    def forge(self, item: int, /, **changes: object) -> None:
        """Change fields of an item."""
        self.items[item - 1] = msgspec.structs.replace(self.items[item - 1], **changes)

    def forge_line(self, item: int, place: int = 0, /, **changes: int) -> None:
        """Change fields of a history line of an item."""
        lines = list(self.items[item - 1].lines)
        lines[place] = msgspec.structs.replace(lines[place], **changes)
        self.forge(item, lines=lines)

    def effects(self) -> list[Effects]:
        """Return what the items say, as the auditor reads it."""
        return [read_effects(msgspec.json.encode(item)) for item in self.items]

    def seal(self) -> None:
        """Keep the items as they are by now, with a seal over each."""
        self.texts = {item.number: msgspec.json.encode(item) for item in self.items}
        tree = Frontier()
        self.kept_seals = [tree := tree.append(leaf_of(text, SALT)) for text in self.texts.values()]

    def over(self, count: int) -> Frontier:
        """Return the seal over so many items."""
        return self.kept_seals[count - 1] if count else Frontier()

    def seals(self, after: int = 0) -> Iterator[Frontier]:
        """Yield the kept seals over more items than these."""
        return iter(self.kept_seals[after:])

    def frontier(self) -> Frontier:
        """Return the newest kept seal."""
        return self.over(len(self.kept_seals))

    def last(self) -> tuple[int, int]:
        """Return the item that the newest seal ends with, and its stamp."""
        return len(self.kept_seals), len(self.kept_seals) * 1_000

    def journal(self, first: int, limit: int) -> list[Sealed]:
        """Return the texts that are there from a number on."""
        self.asked.append((first, limit))
        numbers = sorted(number for number in self.texts if number >= first)[:limit]
        return [Sealed(number, self.texts[number], SALT) for number in numbers]

    def balances(self) -> Iterator[tuple[int, int, int]]:
        """Yield the kept balances."""
        return ((account, *head) for account, head in self.kept_heads.items())

    def each(self, kind: type[Row]) -> Iterator[Row]:
        """Yield the kept threads; no other rows are kept."""
        return cast("Iterator[Row]", iter(self.threads.values() if kind is Thread else ()))

    def row(self, kind: type[Row], *key: int | str | bytes) -> Row:
        """Return the absent row."""
        return kind(*key)


def written(histories: Sequence[Sequence[Kind]]) -> HandMade:
    """Return books with an item for each of these, which have lines of these kinds."""
    books = HandMade()
    for kinds in histories:
        books.write(*kinds)
    return books
