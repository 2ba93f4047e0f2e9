"""v3: the wallet's history, and the transfers between a user and its sub-accounts."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from strongroom.api.calls import Call
from strongroom.api.dialects.v3.common import paths
from strongroom.api.operations import Access, Dialect, Operation
from strongroom.api.parameters import Count, Flag, Millis, Text
from strongroom.api.replies import Envelope, Number, encode, envelope, number, raw_number
from strongroom.errors import PARAMETER_INVALID
from strongroom.records.history import LineType
from strongroom.records.keys import Permission
from strongroom.records.users import Profile
from strongroom.wallet.history import HistoryRow, describe, family_transfers, newest_lines

WALLET: Final = "SPOT@"
MAX_ROWS: Final = 500
DEFAULT_ROWS: Final = 50
_MAX_PAGE: Final = 1_000_000_000

TYPE_NAMES: Final = {
    LineType.DEPOSIT: "Deposit",
    LineType.WITHDRAW: "Withdraw",
    LineType.CONVERT: "Convert fiat",
    LineType.TRANSFER_OUT: "Transfer_Out",
    LineType.TRANSFER_IN: "Transfer_In",
    LineType.REFERRAL_EARNING: "ReferralEarning",
    LineType.STAKE_FREEZE: "Trading Fee Stake Freeze",
    LineType.STAKE_UNFREEZE: "Trading Fee Stake Unfreeze",
    LineType.SUB_ACCOUNT_IN: "Sub Account Transfer In",
    LineType.SUB_ACCOUNT_OUT: "Sub Account Transfer Out",
    LineType.EXPRESS_BUY: "express buy",
    LineType.STRATEGY_INCOME: "Strategy Income",
    LineType.STRATEGY_PAY: "Strategy Pay",
    LineType.TOKEN_VOUCHER_IN: "token voucher in",
    LineType.SPOT_FEE_REBATE: "spot trading fee rebate",
    LineType.FUTURES_FEE_REBATE: "futures trading fee rebate",
    LineType.TRIAL_FUND: "trial fund",
    LineType.GENERAL_FEE_REBATE: "general trading fee rebate",
    LineType.TOKEN_VOUCHER_OUT: "token voucher out",
}
"""How the reference spells every type."""


class HistoryRequest(msgspec.Struct, frozen=True, rename="camel"):
    """Which part of the history."""

    currency: Annotated[str | None, Text(32, "Asset; absent: all", "BTC")] = None
    start_time: Annotated[int | None, Millis("From when on (inclusive)")] = None
    end_time: Annotated[int | None, Millis("Until when (exclusive)")] = None
    count: Annotated[int, Count(1, MAX_ROWS, "Most rows to return", "50")] = DEFAULT_ROWS
    use_new_symbol_naming: Annotated[bool, Flag("New names of futures; changes nothing while there are none")] = False


class HistoryItem(msgspec.Struct, frozen=True, rename="camel"):
    """A history row; texts that do not apply are empty, numbers 0."""

    username: str
    order_id: str
    wallet: str
    currency: str
    type: str
    amount: Number
    fees: Number
    description: str
    timestamp: int
    status: str
    txid: str
    tx_id: str
    to_address: str
    currency_network: str
    source_currency: str
    source_amount: Number
    target_currency: str
    target_amount: Number
    rate: Number


def check_period(start_ms: int | None, end_ms: int | None) -> None:
    """Raise `Refused` PARAMETER_INVALID for a period that ends before it starts."""
    if start_ms is not None and end_ms is not None and start_ms > end_ms:
        raise PARAMETER_INVALID("startTime must not be later than endTime")


def answer_history(call: Call) -> bytes:
    """Return the newest rows of the period, newest first."""
    request, context = call.read(HistoryRequest), call.context
    check_period(request.start_time, request.end_time)
    catalogue, reads = context.catalogue, context.reads
    asset = None if request.currency is None else catalogue.asset(request.currency).number
    lines = newest_lines(reads, call.owner, asset, request.start_time, request.end_time, request.count)
    username = reads.row(Profile, call.owner).username
    return encode([_item(row, username) for row in describe(reads, catalogue, lines)])


def _item(row: HistoryRow, username: str) -> HistoryItem:
    source, target = (row.asset, row.amount), (row.other_asset, row.other_amount)
    is_target = row.other_asset is not None and row.net > 0
    if is_target:
        source, target = target, source
    is_conversion = row.other_asset is not None
    network = row.course.network
    return HistoryItem(
        username=username,
        order_id=str(row.ref),
        wallet=WALLET,
        currency=row.asset.code,
        type=TYPE_NAMES[row.type],
        amount=number(row.amount, row.asset.scale),
        fees=number(row.fees, row.asset.scale),
        description="internal" if row.course.internal else "",
        timestamp=row.at_ms,
        status=row.course.status.value,
        txid=row.course.txid,
        tx_id=row.course.txid,
        to_address=row.course.to_address,
        currency_network=network.code if network else "",
        source_currency=source[0].code if source[0] else "",
        source_amount=number(source[1], source[0].scale) if is_conversion and source[0] else raw_number("0"),
        target_currency=target[0].code if target[0] else "",
        target_amount=number(target[1], target[0].scale) if target[0] else raw_number("0"),
        rate=raw_number(row.rate or "0"),
    )


class FamilyRequest(msgspec.Struct, frozen=True, rename="camel"):
    """Which page of which period."""

    start_time: Annotated[int | None, Millis("From when on (inclusive)")] = None
    end_time: Annotated[int | None, Millis("Until when (exclusive)")] = None
    page: Annotated[int, Count(1, _MAX_PAGE, "Page number, from 1 on", "1")] = 1
    page_size: Annotated[int, Count(1, 50, "Rows of a page", "10")] = 10


class FamilyItem(msgspec.Struct, frozen=True, rename="camel"):
    """A transfer between a user and one of its sub-accounts."""

    timestamp: int
    from_user: str
    receiver: str
    currency: str
    amount: Number


class FamilyPageItem(msgspec.Struct, frozen=True, rename="camel"):
    """A page, and how many there are."""

    total_rows: int
    page_size: int
    current_page: int
    total_pages: int
    data: list[FamilyItem]


def answer_family_history(call: Call) -> bytes:
    """Return a page of the transfers between the user and its sub-accounts, either way, newest first."""
    request, context = call.read(FamilyRequest), call.context
    check_period(request.start_time, request.end_time)
    size = request.page_size
    found = family_transfers(
        context.reads, context.catalogue, call.owner, request.start_time, request.end_time, request.page, size
    )
    items = [
        FamilyItem(
            transfer.at_ms,
            transfer.sender,
            transfer.receiver,
            transfer.asset.code,
            number(transfer.amount, transfer.asset.scale),
        )
        for transfer in found.transfers
    ]
    page = FamilyPageItem(found.total, size, request.page, -(-found.total // size), items)
    return envelope(page, context.clock.now_ms())


def _family_operation(method: str) -> Operation:
    return Operation(
        name="subaccount_history",
        summary="Query the transfers between the user and its sub-accounts",
        dialect=Dialect.V3,
        method=method,
        paths=paths("subaccount/wallet/history"),
        access=Access.READ,
        permission=Permission.READ,
        request=FamilyRequest,
        reply=Envelope[FamilyPageItem],
        answer=answer_family_history,
    )


OPERATIONS: Final = [
    Operation(
        name="wallet_history",
        summary="Query the wallet's history",
        dialect=Dialect.V3,
        method="GET",
        paths=paths("user/wallet_history"),
        access=Access.READ,
        permission=Permission.READ,
        request=HistoryRequest,
        reply=list[HistoryItem],
        answer=answer_history,
        errors=("invalid_currency",),
    ),
    _family_operation("POST"),
    _family_operation("GET"),
]
