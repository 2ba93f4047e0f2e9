"""Auditing the books beside whoever writes them, with as many processes as there are cores.

Each process reads a stretch of the journal with a snapshot of its own. The journal only grows, so all of them read the
same items; what the items come to is compared with the tables at one moment, that of this process's snapshot.
"""

from __future__ import annotations

import gc
import os
import signal
import threading
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final, NamedTuple, cast

import apsw
import msgspec

from strongroom.admin.protocol import AdminError
from strongroom.books import Snapshot, open_snapshot
from strongroom.config.settings import Config
from strongroom.engine.port import DiskFailed, Reads
from strongroom.errors import InvariantBroken
from strongroom.ledger.seals import Frontier
from strongroom.store.sqlite.connection import DATABASE_FILE
from strongroom.wallet.audit.findings import Findings, FoundWrong, NoFindings
from strongroom.wallet.audit.stretch import Parcel, Stretch
from strongroom.wallet.verification import Finding, Report, conclude, verify

MAX_PROCESSES: Final = 4
"""Most processes without being told: each keeps the accounts and histories that it comes upon in memory."""

ITEMS_WORTH_A_PROCESS: Final = 50_000
"""A process takes some tenths of a second to start."""

_UNREADABLE: Final = (
    apsw.Error, DiskFailed, msgspec.MsgspecError, ValueError, TypeError, KeyError, IndexError, ArithmeticError,
    InvariantBroken,
)  # fmt: skip
"""Whoever changed the file may have left anything in it: what cannot be read is not whole."""


class AuditFailed(AdminError):
    """The books could not be read to their end, so that nobody knows whether they are whole."""


class Span(NamedTuple):
    """A stretch of the journal: the items behind a seal, up to one that a seal covers as well."""

    start: Frontier
    last: int


class Told(NamedTuple):
    """The last word of a worker: nothing, or that something is wrong, or why it cannot tell."""

    wrong: str = ""
    failure: str = ""


def audit_folder(folder: Path, processes: int | None = None) -> Report:
    """Verify the embedded books of a data folder; see `audit_books`."""
    return audit_books(Config(data=str(folder)), processes)


def audit_books(config: Config, processes: int | None = None) -> Report:
    """Verify the books that settings name and report; it changes nothing.

    `processes` is how many share the work, by default one for each core up to four where there is enough of it. Raises
    `AuditFailed` for books that cannot be read and for a process that died.
    """
    if not config.store and not (config.folder / DATABASE_FILE).is_file():
        raise AuditFailed(f"{config.folder} has no ledger")
    with _uncollected(), _readable(_place(config)), closing(open_snapshot(config)) as books:
        items, _ = books.last()
        count = processes or min(len(os.sched_getaffinity(0)), MAX_PROCESSES, items // ITEMS_WORTH_A_PROCESS)
        spans = spans_of(books, count)
        if len(spans) < 2:
            return verify(books)
        wrong, report = _audit_together(config, books, spans)
        # A stretch by itself only tells that something is wrong. One reading from the first item on names it.
        if report is None:
            report = verify(books)
            if report.is_whole:
                return msgspec.structs.replace(report, findings=[Finding(0, wrong)])
        return report


def audit_reads(reads: Reads, place: str) -> Report:
    """Verify books that stand still, in this process alone. Raises `AuditFailed`."""
    with _uncollected(), _readable(place):
        return verify(reads)


def spans_of(books: Snapshot, count: int) -> list[Span]:
    """Return so many spans that together are the whole journal, or fewer where too few seals were kept."""
    items, _ = books.last()
    starts = [Frontier()]
    for place in range(1, count):
        seal = books.seal_over(items * place // count)
        if starts[-1].count < seal.count < items:
            starts.append(seal)
    lasts = [start.count for start in starts[1:]]
    return [Span(start, last) for start, last in zip(starts, [*lasts, items], strict=True)]


def _audit_together(config: Config, books: Snapshot, spans: list[Span]) -> tuple[str, Report | None]:
    """Return what is wrong within the journal, and else the report."""
    workers = [Worker(config, span) for span in spans[1:]]
    try:
        findings = Findings()
        stretch = Stretch(findings, books.seals())
        stretch.read(books, spans[0].last)
        for worker in workers:
            if findings:
                break
            for parcel in worker.parcels():
                stretch.take_over(parcel)
            findings.settle(by_item=True)
    except FoundWrong as found:
        return str(found), None
    finally:
        for worker in workers:
            worker.end()
    if findings:
        item, what = findings.found[0]
        return f"item {item}: {what}", None
    return "", conclude(stretch, books, findings)


class Worker:
    """A process that reads one stretch."""

    def __init__(self, config: Config, span: Span) -> None:
        context = get_context("spawn")
        self._pipe, theirs = context.Pipe(duplex=False)
        self.process = context.Process(target=_work, args=(config, span, theirs), daemon=True)
        self.process.start()
        theirs.close()

    def parcels(self) -> Iterator[Parcel]:
        """Yield what it has found out. Raises `FoundWrong`, and `AuditFailed` if it cannot tell or has died."""
        while isinstance(parcel := self._receive(), tuple) and not isinstance(parcel, Told):
            yield cast(Parcel, parcel)
        told = cast(Told, parcel)
        if told.failure:
            raise AuditFailed(told.failure)
        if told.wrong:
            raise FoundWrong(told.wrong)

    def end(self) -> None:
        """End the process, whatever it is doing."""
        self.process.kill()
        self.process.join()
        self._pipe.close()

    def _receive(self) -> object:
        try:
            return self._pipe.recv()
        except (EOFError, OSError):
            self.process.join()
            raise AuditFailed(f"a process of the audit died with exit code {self.process.exitcode}") from None


def _work(config: Config, span: Span, pipe: Connection) -> None:
    """Read a stretch and hand over what it comes to, then whether that is all."""
    # Ctrl-C reaches every process of the terminal; the one that started this one ends it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        with _uncollected(), _readable(_place(config)), closing(open_snapshot(config)) as books:
            stretch = Stretch(NoFindings(), books.seals(span.start.count), span.start)
            stretch.read(books, span.last)
            for parcel in stretch.parcels():
                pipe.send(parcel)
            pipe.send(Told())
    except FoundWrong as found:
        pipe.send(Told(wrong=str(found)))
    except AuditFailed as failure:
        pipe.send(Told(failure=str(failure)))


def _end_with_parent() -> None:
    """End this process if the one that started it is killed and cannot end it."""
    if (parent := parent_process()) is not None:
        parent.join()
        os._exit(1)


@contextmanager
def _uncollected() -> Generator[None]:
    """Keep the garbage collector away: an audit makes no cycles, and each look goes through all that is in memory."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def _readable(place: str) -> Generator[None]:
    """Raise `AuditFailed` for whatever shows that the books of a place cannot be read."""
    try:
        yield
    except _UNREADABLE as error:
        what = f"{type(error).__name__}: {error}"
        raise AuditFailed(f"the ledger of {place} cannot be read: {what}") from error


def _place(config: Config) -> str:
    return "the database" if config.store else str(config.folder)
