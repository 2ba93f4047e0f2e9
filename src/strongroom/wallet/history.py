"""History: pages of a user's lines, and what each tells, joined from the rows that move on after it was written."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from enum import Enum
from typing import Final

import msgspec

from strongroom.engine.port import Reads, ReadsRows
from strongroom.records.chains import Tip
from strongroom.records.deposits import Deposit, DepositState
from strongroom.records.history import Line, LineType, Note, Thread
from strongroom.records.kept import Key
from strongroom.records.settings import AssetSettings, NetworkSettings
from strongroom.records.users import Profile
from strongroom.records.withdrawals import Payment, Withdrawal, WithdrawalState
from strongroom.wallet.catalogue import Catalogue
from strongroom.wallet.confirmations import Confirmations
from strongroom.wallet.deposits import deposit_confirmations
from strongroom.wallet.foreseen import Foreseen
from strongroom.wallet.threads import KnownLines, Strand, page_of
from strongroom.wallet.withdrawals import withdrawal_confirmations

_FAMILY: Final = (LineType.SUB_ACCOUNT_IN, LineType.SUB_ACCOUNT_OUT)

_ROWS: Final[dict[int, type[Deposit | Withdrawal]]] = {LineType.DEPOSIT: Deposit, LineType.WITHDRAW: Withdrawal}
"""The kinds of the rows that lines of these types are about."""


class Status(Enum):
    """How far the matter of a line is (the contract's section 6, item 3)."""

    PENDING = "PENDING"
    PROCESSING = "PROCESSING"
    COMPLETED = "COMPLETED"
    CANCELLED = "CANCELLED"
    EXPIRED = "EXPIRED"
    FAILURE = "FAILURE"


_OF_DEPOSIT: Final = {
    DepositState.SEEN: Status.PROCESSING,
    DepositState.CONFIRMING: Status.PROCESSING,
    DepositState.REVERSED: Status.PROCESSING,
    DepositState.WITHHELD: Status.PROCESSING,
    DepositState.CREDITED: Status.COMPLETED,
    DepositState.DROPPED: Status.CANCELLED,
    DepositState.TOO_SMALL: Status.FAILURE,
}

_OF_WITHDRAWAL: Final = {
    WithdrawalState.AWAITING: Status.PENDING,
    WithdrawalState.APPROVED: Status.PROCESSING,
    WithdrawalState.PAYING: Status.PROCESSING,
    WithdrawalState.SETTLED: Status.COMPLETED,
    WithdrawalState.REJECTED: Status.CANCELLED,
    WithdrawalState.CANCELLED: Status.CANCELLED,
    WithdrawalState.EXPIRED: Status.EXPIRED,
    WithdrawalState.FAILED: Status.FAILURE,
}

_WITHOUT_EFFECT: Final = frozenset({Status.CANCELLED, Status.EXPIRED, Status.FAILURE})


class Course(msgspec.Struct, frozen=True):
    """What is not in a deposit's or withdrawal's line, because it changes after the line was written."""

    status: Status = Status.COMPLETED
    network: NetworkSettings | None = None
    to_address: str = ""
    txid: str = ""
    confirmations: Confirmations | None = None
    internal: bool = False


class HistoryRow(msgspec.Struct, frozen=True):
    """A line with all that both dialects tell of it; amounts in units of `asset`, `other_amount` of `other_asset`.

    `amount` is what was asked or seen; `net` the signed change of the balance and `fees` what was charged, both 0 for
    what ended without effect. `to_address` is `address:tag` where there is a tag. `confirmations` are None where no
    chain is concerned. `counterparty` is the other user's name in a transfer.
    """

    type: LineType
    asset: AssetSettings
    amount: int
    net: int
    fees: int
    ref: int
    at_ms: int
    course: Course
    other_asset: AssetSettings | None
    other_amount: int
    rate: str
    counterparty: str


class FamilyTransfer(msgspec.Struct, frozen=True):
    """A transfer between a user and its sub-accounts, by their names; `amount` in the asset's units."""

    at_ms: int
    sender: str
    receiver: str
    asset: AssetSettings
    amount: int


class FamilyPage(msgspec.Struct, frozen=True):
    """A page of transfers, newest first, and how many there are in all."""

    transfers: list[FamilyTransfer]
    total: int


def newest_lines(
    reads: Reads,
    owner: int,
    asset: int | None,
    start_ms: int | None,
    end_ms: int | None,
    limit: int,
    skip: int = 0,
) -> list[Line]:
    """Return a user's lines of an asset or of all, newest first: at most `limit` after leaving out `skip`.

    Times are Unix milliseconds, the start inclusive, the end exclusive, None for no bound.
    """
    if asset is not None:
        return lines_of(reads, owner, asset, None, start_ms, end_ms, limit, skip)
    whole = Strand(KnownLines(reads), reads.row(Thread, owner, 0, 0), start_ms, end_ms, limit)
    return page_of([whole], skip, limit)


def lines_of(
    reads: Reads,
    owner: int,
    asset: int,
    types: Collection[LineType] | None,
    start_ms: int | None,
    end_ms: int | None,
    limit: int,
    skip: int = 0,
) -> list[Line]:
    """Return a user's lines of an asset and of some types (None for all), newest first, as `newest_lines` does."""
    return page_of(_strands(reads, owner, [asset], types, start_ms, end_ms, limit), skip, limit)


def count_lines(
    reads: Reads,
    owner: int,
    asset: int,
    types: Collection[LineType] | None,
    start_ms: int | None,
    end_ms: int | None,
) -> int:
    """Return how many lines `lines_of` has in all."""
    return sum(strand.remaining for strand in _strands(reads, owner, [asset], types, start_ms, end_ms))


def family_transfers(
    reads: Reads,
    catalogue: Catalogue,
    owner: int,
    start_ms: int | None,
    end_ms: int | None,
    page: int,
    page_size: int,
) -> FamilyPage:
    """Return a page (from 1 on) of the transfers between a user and its sub-accounts or parent, in every asset."""
    strands = _strands(reads, owner, catalogue.assets, _FAMILY, start_ms, end_ms, page_size)
    total = sum(strand.remaining for strand in strands)
    lines = page_of(strands, (page - 1) * page_size, page_size)
    rows = Foreseen(reads, (Profile.at(uid) for line in lines for uid in (line.owner, line.other)))
    return FamilyPage([_family_transfer(rows, catalogue, line) for line in lines], total)


def describe(reads: Reads, catalogue: Catalogue, lines: Sequence[Line]) -> list[HistoryRow]:
    """Return what each of the lines tells at this moment."""
    rows = Foreseen(reads, _rows_of(lines))
    rows.foresee(_rows_behind(rows, lines))
    return [_describe(rows, catalogue, line) for line in lines]


def _rows_of(lines: Iterable[Line]) -> Iterator[Key]:
    """Yield the addresses of the rows that lines name."""
    for line in lines:
        if (kind := _ROWS.get(line.type)) is not None:
            yield kind.at(line.ref)
        elif line.other:
            yield Profile.at(line.other)


def _rows_behind(rows: ReadsRows, lines: Iterable[Line]) -> Iterator[Key]:
    """Yield the addresses of the rows that those name in turn, for as long as they are under way."""
    for line in lines:
        row = rows.row(_ROWS[line.type], line.ref) if line.type in _ROWS else None
        if row is not None and row.owner:
            yield Tip.at(row.network)
            if isinstance(row, Withdrawal) and row.state == WithdrawalState.PAYING:
                yield Payment.at(row.payment)


def _describe(reads: ReadsRows, catalogue: Catalogue, line: Line) -> HistoryRow:
    type_ = LineType(line.type)
    course = _course(reads, catalogue, line)
    is_void = course.status in _WITHOUT_EFFECT
    return HistoryRow(
        type=type_,
        asset=catalogue.assets[line.asset],
        amount=line.amount,
        net=0 if is_void else line.net,
        fees=0 if is_void else line.fees,
        ref=line.ref,
        at_ms=line.at_ms,
        course=course,
        other_asset=catalogue.assets.get(line.other_asset),
        other_amount=line.other_amount,
        rate=line.rate,
        counterparty="" if course.internal or not line.other else reads.row(Profile, line.other).username,
    )


def _strands(
    reads: Reads,
    owner: int,
    assets: Iterable[int],
    types: Collection[LineType] | None,
    start_ms: int | None,
    end_ms: int | None,
    ahead: int = 1,
) -> list[Strand]:
    """Return the strands of every asset and type that have lines within the times; `ahead` as `Strand` has it."""
    lines = KnownLines(reads)
    kinds = [(asset, type_) for asset in assets for type_ in set(LineType if types is None else types)]
    threads = [thread for thread in reads.threads(owner, kinds) if thread.count]
    lines.ask_newest(threads, end_ms, ahead)
    strands = [Strand(lines, thread, start_ms, end_ms, ahead) for thread in threads]
    return [strand for strand in strands if strand.remaining]


def _family_transfer(reads: ReadsRows, catalogue: Catalogue, line: Line) -> FamilyTransfer:
    sender, receiver = line.owner, line.other
    if line.type == LineType.SUB_ACCOUNT_IN:
        sender, receiver = receiver, sender
    names = [reads.row(Profile, uid).username for uid in (sender, receiver)]
    return FamilyTransfer(line.at_ms, names[0], names[1], catalogue.assets[line.asset], line.amount)


def _course(reads: ReadsRows, catalogue: Catalogue, line: Line) -> Course:
    if line.type == LineType.DEPOSIT:
        return _course_of_deposit(reads, catalogue, line)
    if line.type == LineType.WITHDRAW:
        return _course_of_withdrawal(reads, catalogue, line)
    return Course()


def _course_of_deposit(reads: ReadsRows, catalogue: Catalogue, line: Line) -> Course:
    """Return how a deposit goes; one without a row of its own came through the bank and is complete."""
    deposit = reads.row(Deposit, line.ref)
    if not deposit.owner:
        return Course()
    internal = deposit.internal or line.note == Note.INTERNAL
    return _course_of(reads, catalogue, deposit, _OF_DEPOSIT[DepositState(deposit.state)], internal=internal)


def _course_of_withdrawal(reads: ReadsRows, catalogue: Catalogue, line: Line) -> Course:
    """Return how a withdrawal goes; one without a row of its own went through the bank and is complete."""
    withdrawal = reads.row(Withdrawal, line.ref)
    if not withdrawal.owner:
        return Course()
    status = _OF_WITHDRAWAL[WithdrawalState(withdrawal.state)]
    internal = bool(withdrawal.deposit) or line.note == Note.INTERNAL
    return _course_of(reads, catalogue, withdrawal, status, internal=internal)


def _course_of(
    reads: ReadsRows, catalogue: Catalogue, row: Deposit | Withdrawal, status: Status, *, internal: bool
) -> Course:
    """Return the course of a row; inside the house there is neither a transaction nor a confirmation."""
    network, address = catalogue.network(row.network), f"{row.address}:{row.tag}" if row.tag else row.address
    if internal:
        return Course(status, network, address, internal=True)
    if isinstance(row, Deposit):
        return Course(status, network, address, row.txid, deposit_confirmations(reads, row))
    return Course(status, network, address, _txid_of(reads, row), withdrawal_confirmations(reads, row))


def _txid_of(reads: ReadsRows, withdrawal: Withdrawal) -> str:
    """Return the transaction that pays a withdrawal: while it is in no block, the newest one that was signed for it."""
    if withdrawal.txid or withdrawal.state != WithdrawalState.PAYING:
        return withdrawal.txid
    return next(reversed(reads.row(Payment, withdrawal.payment).candidates), "")
