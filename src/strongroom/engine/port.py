"""The engine's port to the store: how a batch becomes one durable commit, and what can be read of committed state."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple, Protocol, TypeAlias

import msgspec

from strongroom.engine.command import Command, Row
from strongroom.engine.state import State
from strongroom.ledger.entries import Booked
from strongroom.ledger.seals import Frontier
from strongroom.records.heads import Head
from strongroom.records.history import Line, Thread
from strongroom.records.kept import Kept, Key

Equal: TypeAlias = Mapping[str, int | str | bytes | tuple[int, ...]]
"""What fields of rows are to be, by their names; a tuple stands for any one of several."""

LineLink: TypeAlias = Literal["all_before", "all_jump", "kind_before", "kind_jump"]
"""A field of a history line that has the number of another one: the line before in a thread, or one far before."""


class Sealed(NamedTuple):
    """A journal item as it is kept: its text, which its seal covers byte for byte, and the salt of its leaf."""

    number: int
    text: bytes
    salt: bytes


class StoredItem(msgspec.Struct, frozen=True, gc=False):
    """What a journal item's text says; `rows` are the kept rows it wrote, each with the name of its kind."""

    number: int
    at_ms: int
    command: msgspec.Raw
    refusal: str = ""
    postings: list[Booked] = []
    lines: list[Line] = []
    rows: list[tuple[str, msgspec.Raw]] = []


class StoreError(Exception):
    """A commit did not simply succeed.

    StoreError
      NotDone         nothing of the batch was kept, and nothing will be: something in it cannot be kept
        DiskFailed    the same, but it is not the batch's fault: no other would fare better until `resolve` succeeds
      InDoubt         COMMIT itself failed: the batch may or may not be found after a crash, until `resolve` says
    """


class NotDone(StoreError):
    """Nothing of the batch was kept."""


class DiskFailed(NotDone):
    """Nothing of the batch was kept, since the disk (full, broken, locked by another program) refused."""


class InDoubt(StoreError):
    """The batch may have been kept; only `Store.resolve` can tell."""


class Lane(Protocol):
    """Begins and commits one batch after the other; everything it answers is durable."""

    async def begin(self, commands: Sequence[Command]) -> State:
        """Return committed state that these commands can be decided over, in their order. Raises `NotDone`.

        A store that has to fetch or lock rows takes those that the commands need (`state.needs_of`). Where another
        lane is committing, that is waited for: the state has what it leaves.
        """
        ...

    async def commit(self, state: State) -> None:
        """Make the state's changes and items durable in one step, then visible to readers.

        Raises `NotDone` (`DiskFailed`) or `InDoubt`; readers then see none of it.
        """
        ...

    async def resolve(self) -> bool:
        """After `InDoubt` or `DiskFailed`: force the store to a known state and return whether the batch is in it.

        Raises `NotDone` while the store still cannot commit; to be tried again.
        """
        ...


class Store(Protocol):
    """Keeps committed rows and the journal, and has one writer."""

    @property
    def lanes(self) -> Sequence[Lane]:
        """The ways in which a batch can be committed, at least one.

        With a second one a batch can begin, and wait for its turn where the store is, while the one before it commits.
        """
        ...


class ReadsRows(Protocol):
    """Look-ups of single committed rows."""

    def row(self, kind: type[Row], *key: int | str | bytes) -> Row:
        """Return the committed row, or the absent one."""
        ...


class Reads(ReadsRows, Protocol):
    """Queries over committed state only."""

    @property
    def is_shared(self) -> bool:
        """Whether other processes commit as well, so that what was read may be out of date as soon as it is there."""
        ...

    @property
    def is_current(self) -> bool:
        """Whether subscribers were told of everything that was committed up to half a second ago, by whomever.

        Where they were not, what was kept of committed state is to be read again.
        """
        ...

    def rows_at(self, keys: Sequence[Key]) -> list[Kept]:
        """Return the rows at these addresses, absent ones included, in their order.

        None of them may be a head or a thread. Where a look-up takes its time, that of all of them takes it once.
        """
        ...

    def heads(self, owner: int, accounts: Sequence[int]) -> list[Head]:
        """Return the heads of packed accounts of one owner, all of them as of one moment."""
        ...

    def rows(self, kind: type[Row], equal: Equal, limit: int, *, newest_first: bool = False) -> list[Row]:
        """Return at most `limit` rows whose fields equal these values, in the order of their keys.

        All of them as of one moment: what changes its state meanwhile is neither overlooked nor found twice.
        """
        ...

    def each(self, kind: type[Row]) -> Iterator[Row]:
        """Yield every kept row of a kind that does not trail, in the order of their keys."""
        ...

    def threads(self, owner: int, kinds: Sequence[tuple[int, int]]) -> list[Thread]:
        """Return threads of one owner, each by its asset and type, all of them as of one moment."""
        ...

    def line(self, number: int) -> Line:
        """Return a history line; the absent one if there is none."""
        ...

    def trails(self, numbers: Sequence[int], link: LineLink, limit: int) -> list[Line]:
        """Return the lines of these numbers, of which each is there, and more that may be wanted next.

        These are the ones that the link leads to from each, one after the other; where it leads far, and to no line,
        the one before. At most `limit` lines for each number, and none but that where each is at hand as quickly.
        """
        ...

    def last(self) -> tuple[int, int]:
        """Return the number and the stamp (Unix ms) of the newest journal item."""
        ...

    def journal(self, first: int, limit: int) -> list[Sealed]:
        """Return journal items from a number on, as they are kept."""
        ...

    def items(self, first: int, limit: int) -> list[StoredItem]:
        """Return what journal items say, from a number on."""
        ...

    def frontier(self) -> Frontier:
        """Return the seal over all items so far."""
        ...

    def seals(self) -> Iterator[Frontier]:
        """Yield the seals that were kept, oldest first: that of the newest item at least."""
        ...

    def balances(self) -> Iterator[tuple[int, int, int]]:
        """Yield (packed account, balance, count of postings) of every account."""
        ...

    def subscribe(self, listener: Callable[[State], None]) -> None:
        """Call the listener with the state that a commit made durable, before anyone is answered.

        Of another process's commit it is told a little later, and with no more than the rows that are kept or waited
        for in a server's memory, as they stand by then.
        """
        ...


class Books(Store, Reads, Protocol):
    """A store and its queries, as a server has them open."""

    @property
    def log_pages(self) -> int:
        """How many pages its write-ahead log has, 0 where that is not this process's business."""
        ...

    @property
    def trouble(self) -> str:
        """Why nothing can be read at the moment; empty when all is well."""
        ...

    @property
    def nodes(self) -> int:
        """How many processes have them open, this one included."""
        ...

    def readers(self, count: int) -> Sequence[Reads]:
        """Return so many others that read what this one does, each for a thread of its own.

        None where a look-up takes so little that nothing else need go on meanwhile. They are closed with the books.
        """
        ...

    def warm(self) -> None:
        """Read what the first requests will ask for, where each would wait for it; bounded in rows and time."""
        ...

    async def follow(self) -> None:
        """Tell subscribers of other processes' commits until cancelled; only where the books are shared."""
        ...

    def close(self) -> None:
        """Close the books; all that was answered is in them."""
        ...
