"""Moving a house's books from its data folder into a database: all of them, counted and compared on both sides before
they are kept, and never two houses that go on from the same books.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from strongroom.admin.auditing import audit_reads
from strongroom.admin.protocol import AdminError
from strongroom.books import NewBooks, open_new_books
from strongroom.clock import Clock, Ids
from strongroom.engine.port import InDoubt, StoreError
from strongroom.engine.sealing import leaf_of
from strongroom.ledger.accounts import CUSTOMER_PURPOSES, Purpose, unpack
from strongroom.ledger.seals import Frontier
from strongroom.money import format_amount
from strongroom.records.settings import Settings
from strongroom.store.journal import peaks_of
from strongroom.store.portions import ITEM, PORTIONS, JournalEnd, PortionRow, Tally
from strongroom.store.sqlite.connection import DATABASE_FILE, lock_folder
from strongroom.store.sqlite.departure import Departure
from strongroom.store.sqlite.moved import Mark, read_mark, refuse_moved, write_mark

FROM: Final = "sqlite:"
TO: Final = "postgresql://"
COPYING: Final = "copying"
COMPARING: Final = "comparing"
AUDITING: Final = "auditing"
COMMITTING: Final = "committing"
COMMITTED: Final = "committed"

_ONE_WAY: Final = f"a move goes from {FROM}DATA_FOLDER to {TO}USER@HOST/DATABASE and in no other direction"
_TELL_ROWS: Final = 10_000
_SEALED_AT_ONCE: Final = 1_000

Tell = Callable[[str, int], None]
"""Is told what goes on, and how many rows of it are done."""


class KindView(msgspec.Struct, frozen=True):
    """One kind of row: how many there are on either side, and whether all of them are the same."""

    kind: str
    rows_in_source: int
    rows_in_target: int
    equal: bool


class SumView(msgspec.Struct, frozen=True):
    """All accounts of an asset: how many there are, and the sums of customers' and of the house's, on either side."""

    asset: str
    accounts_in_source: int
    accounts_in_target: int
    customers_in_source: str
    customers_in_target: str
    house_in_source: str
    house_in_target: str
    equal: bool


class MoveView(msgspec.Struct, frozen=True):
    """What a move came to; `root` is that of the seal over all items that have arrived."""

    source: str
    to: str
    moved: bool
    kinds: list[KindView]
    sums: list[SumView]
    items: int
    root: str
    findings: list[str]
    next: list[str]


class Source(NamedTuple):
    """Books in a file: those of a data folder, or without one a backup."""

    database: Path
    folder: Path | None


class Standing(NamedTuple):
    """What the books on one side come to."""

    tallies: dict[str, Tally]
    seal: Frontier
    end: JournalEnd
    sums: dict[int, tuple[int, int, int]]


def move(source_text: str, target: str, tell: Tell) -> MoveView:
    """Move books; what `strongroom store migrate` does. Where anything differs nothing is kept, and the view says what.

    Raises `AdminError`, `ConfigError`, `StoreError`, `OSError`; then nothing is kept either, but for a COMMIT that was
    not answered, which the message says.
    """
    source = source_of(source_text, target)
    with ExitStack() as stack:
        if source.folder is not None:
            stack.enter_context(lock_folder(source.folder))
        departure = stack.enter_context(closing(Departure(source.database)))
        arrival = stack.enter_context(closing(open_new_books(target, Ids(Clock()))))
        _check_unmoved(source, arrival)
        view = _compared(source, departure, arrival, tell)
        if view.moved:
            _keep(source, arrival, view, tell)
    return view


def source_of(text: str, target: str) -> Source:
    """Return the books that are to be moved. Raises `AdminError` where there are none, and for another direction."""
    name = text.removeprefix(FROM)
    if not text.startswith(FROM) or not name or not target.startswith(TO):
        raise AdminError(_ONE_WAY)
    path = Path(name)
    database = path / DATABASE_FILE if path.is_dir() else path.resolve()
    if not database.is_file():
        raise AdminError(f"{database} is not there: there is no ledger to move")
    return Source(database, database.parent if database.name == DATABASE_FILE else None)


def _check_unmoved(source: Source, arrival: NewBooks) -> None:
    """Raise `StoreError` where the books may be elsewhere already, `AdminError` where the database has a ledger."""
    mark = read_mark(source.folder) if source.folder is not None else None
    if source.folder is not None and mark is not None and (mark.done or mark.to != arrival.place):
        refuse_moved(source.folder)
    if mark is None and not arrival.is_empty:
        raise AdminError(f"{arrival.place} has a ledger already: a move needs an empty database. Nothing was changed")


def _compared(source: Source, departure: Departure, arrival: NewBooks, tell: Tell) -> MoveView:
    """Copy the books, unless an earlier move has, and compare both sides."""
    before = _read_source(departure, arrival if arrival.is_empty else None, tell)
    if (before.seal.count, peaks_of(before.seal)) != (before.end.last_item, before.end.peaks):
        raise AdminError(f"{source.database} is not whole: say `strongroom ledger verify`. Nothing was moved")
    after = _read_target(arrival, tell)
    kinds, sums = _kinds(before, after), _sums(before, after, arrival)
    findings = [f"{view.kind}: what has arrived is not the same" for view in kinds if not view.equal]
    findings += [f"{view.asset}: the sums differ" for view in sums if not view.equal]
    if before.seal != after.seal:
        findings.append(f"the root in the source is {before.seal.root().hex()}")
    if not findings:
        tell(AUDITING, 0)
        findings += [found.what for found in audit_reads(arrival, arrival.place).findings]
    steps = [] if findings else _steps(source, arrival)
    root = after.seal.root().hex()
    return MoveView(
        str(source.database), arrival.place, not findings, kinds, sums, after.seal.count, root, findings, steps
    )  # fmt: skip


def _read_source(departure: Departure, arrival: NewBooks | None, tell: Tell) -> Standing:
    """Read all that leaves, once, and hand it over where it is asked for."""
    tallies, leaves = {portion.name: Tally() for portion in PORTIONS}, _Leaves()
    for portion in PORTIONS:
        rows = tallies[portion.name].over(_telling(f"{COPYING} {portion.name}", departure.rows(portion), tell))
        if portion is ITEM:
            rows = leaves.of(rows)
        if arrival is None:
            deque(rows, maxlen=0)
        else:
            arrival.receive(portion, rows)
    end = departure.journal_end()
    if arrival is not None:
        arrival.end_journal(end)
    return Standing(tallies, leaves.seal, end, _add_up(departure.balances()))


def _read_target(arrival: NewBooks, tell: Tell) -> Standing:
    tallies, leaves = {portion.name: Tally() for portion in PORTIONS}, _Leaves()
    for portion in PORTIONS:
        rows = tallies[portion.name].over(_telling(f"{COMPARING} {portion.name}", arrival.arrived(portion), tell))
        deque(leaves.of(rows) if portion is ITEM else rows, maxlen=0)
    return Standing(tallies, leaves.seal, arrival.journal_end(), _add_up(arrival.balances()))


class _Leaves:
    """The seal over items that go by, worked out from their texts and salts."""

    def __init__(self) -> None:
        self.seal = Frontier()

    def of(self, rows: Iterator[PortionRow]) -> Iterator[PortionRow]:
        """Yield items, sealed on their way."""
        while chunk := list(islice(rows, _SEALED_AT_ONCE)):
            self.seal = self.seal.append(*[leaf_of(text.encode(), salt) for _, text, salt in chunk])
            yield from chunk


def _telling(what: str, rows: Iterable[PortionRow], tell: Tell) -> Iterator[PortionRow]:
    tell(what, 0)
    for number, row in enumerate(rows, 1):
        yield row
        if number % _TELL_ROWS == 0:
            tell(what, number)


def _add_up(balances: Iterable[tuple[int, int, int]]) -> dict[int, tuple[int, int, int]]:
    """Return by asset how many accounts there are, and what customers' and the house's come to (units)."""
    sums: dict[int, tuple[int, int, int]] = {}
    for packed, after, _ in balances:
        account = unpack(packed)
        accounts, customers, house = sums.get(account.asset, (0, 0, 0))
        if account.purpose in (*CUSTOMER_PURPOSES, Purpose.OWED):
            customers += after
        else:
            house += after
        sums[account.asset] = (accounts + 1, customers, house)
    return sums


def _kinds(before: Standing, after: Standing) -> list[KindView]:
    views = [
        KindView(name, tally.rows, after.tallies[name].rows, tally.digest == after.tallies[name].digest)
        for name, tally in before.tallies.items()
    ]
    return [*views, KindView("journal", 1, 1, before.end == after.end)]


def _sums(before: Standing, after: Standing, arrival: NewBooks) -> list[SumView]:
    known = {asset.number: (asset.code, asset.scale) for asset in arrival.row(Settings, 0).snapshot.assets}
    return [
        _sum_view(*known.get(number, (str(number), 0)), before.sums.get(number, _NONE), after.sums.get(number, _NONE))
        for number in sorted(before.sums.keys() | after.sums.keys())
    ]


_NONE: Final = (0, 0, 0)


def _sum_view(code: str, scale: int, before: tuple[int, int, int], after: tuple[int, int, int]) -> SumView:
    customers = format_amount(before[1], scale), format_amount(after[1], scale)
    house = format_amount(before[2], scale), format_amount(after[2], scale)
    return SumView(code, before[0], after[0], *customers, *house, before == after)


def _keep(source: Source, arrival: NewBooks, view: MoveView, tell: Tell) -> None:
    """Commit; from the moment when the books may be in the database, those of the folder are marked as left behind."""
    mark = Mark(view.to, datetime.now(UTC).isoformat(timespec="seconds"), view.items, view.root, done=False)
    before = read_mark(source.folder) if source.folder is not None else None
    _mark(source, mark)
    tell(COMMITTING, view.items)
    try:
        arrival.commit()
    except InDoubt as error:
        raise AdminError(
            f"the database did not say whether it has committed ({error}): say the same again, which finds out"
        ) from error
    except StoreError:
        _mark(source, before)
        raise
    tell(COMMITTED, view.items)
    _mark(source, msgspec.structs.replace(mark, done=True))


def _mark(source: Source, mark: Mark | None) -> None:
    if source.folder is not None:
        write_mark(source.folder, mark)


def _steps(source: Source, arrival: NewBooks) -> list[str]:
    """Return what the operator does next."""
    steps = [
        f'in the settings say store = "{arrival.place}", with whatever the connection needs beside; leave data, '
        "seed.sealed or xpubs.json, prices.json, the master key and everything else as they are",
        "say the same to a signer that runs by itself, with --config",
        "strongroom ledger verify --config FILE, and compare the root",
        "strongroom serve --config FILE",
    ]
    if source.folder is None:
        again = "strongroom restore --here --config FILE, before the first start, if the house went on after the backup"
        steps.insert(2, again)
    return steps
