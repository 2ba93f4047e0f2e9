"""Wallet v1: the wallet's history."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from strongroom.api.calls import Call
from strongroom.api.dialects.wallet_v1.assets import ROOT
from strongroom.api.operations import Access, Dialect, Operation
from strongroom.api.parameters import Count, Millis, Names, Text
from strongroom.api.replies import Decimal, Envelope, envelope
from strongroom.clock import DAY_MS
from strongroom.errors import HISTORY_ASSET_MISSING, PARAMETER_INVALID
from strongroom.money import format_amount
from strongroom.records.history import LineType
from strongroom.records.keys import Permission
from strongroom.wallet.history import HistoryRow, describe, lines_of

SPOT: Final = "SPOT"
WALLET: Final = "SPOT@"
DEFAULT_PERIOD_MS: Final = 7 * DAY_MS
OLDEST_MS: Final = 120 * DAY_MS
_MAX_PAGE: Final = 1_000_000_000

TYPE_NAMES: Final = {
    LineType.DEPOSIT: "DEPOSIT",
    LineType.WITHDRAW: "WITHDRAW",
    LineType.CONVERT: "CONVERT",
    LineType.TRANSFER_OUT: "SEND",
    LineType.TRANSFER_IN: "RECEIVE",
    LineType.REFERRAL_EARNING: "REFERRAL",
    LineType.STAKE_FREEZE: "TRADING_FEE_STAKE_FREEZE",
    LineType.STAKE_UNFREEZE: "TRADING_FEE_STAKE_UNFREEZE",
    LineType.SUB_ACCOUNT_IN: "SUB_ACCOUNT_TRANSFER_IN",
    LineType.SUB_ACCOUNT_OUT: "SUB_ACCOUNT_TRANSFER_OUT",
    LineType.EXPRESS_BUY: "EXPRESS_BUY",
    LineType.STRATEGY_INCOME: "STRATEGY_INCOME",
    LineType.STRATEGY_PAY: "STRATEGY_PAY",
    LineType.TOKEN_VOUCHER_IN: "TOKEN_VOUCHER_IN",
    LineType.SPOT_FEE_REBATE: "SPOT_TRADING_FEE_REBATE",
    LineType.FUTURES_FEE_REBATE: "FUTURES_TRADING_FEE_REBATE",
    LineType.TRIAL_FUND: "TRIAL_FUND",
    LineType.GENERAL_FEE_REBATE: "GENERAL_TRADING_FEE_REBATE",
    LineType.TOKEN_VOUCHER_OUT: "TOKEN_VOUCHER_OUT",
}
"""v3's types in this dialect: six have names of their own, the others are in upper snake case."""

_TYPES: Final = {name: type_ for type_, name in TYPE_NAMES.items()}


class HistoryRequest(msgspec.Struct, frozen=True, rename="camel"):
    """Which part of the history; no bounds mean the last 7 days."""

    wallet_type: Annotated[str, Text(32, "Wallet; others than SPOT are empty", "SPOT")] = SPOT
    asset: Annotated[str | None, Text(32, "Asset; mandatory for SPOT", "USDT")] = None
    history_types: Annotated[tuple[str, ...] | None, Names(64, "Types to return", '["DEPOSIT","WITHDRAW"]')] = None
    start_time: Annotated[int | None, Millis("From when on (inclusive)")] = None
    end_time: Annotated[int | None, Millis("Until when (exclusive)")] = None
    page_size: Annotated[int, Count(1, 500, "Rows of a page", "50")] = 50
    page: Annotated[int, Count(1, _MAX_PAGE, "Page number, from 1 on", "1")] = 1


class HistoryItem(msgspec.Struct, frozen=True, rename="camel"):
    """A history row; texts that do not apply are empty."""

    transaction_time: int
    type: str
    wallet_name: str
    asset: str
    net_amount: Decimal
    amount: Decimal
    transaction_ref: str
    status: str
    description: str
    fees: Decimal
    crypto_network: str
    to_address: str
    confirm_times: str
    tx_id: str


def answer_history(call: Call) -> bytes:
    """Return a page of the rows of an asset, newest first."""
    request, context = call.read(HistoryRequest), call.context
    now_ms = context.clock.now_ms()
    if request.wallet_type.upper() != SPOT:
        return envelope([], now_ms)
    if request.asset is None:
        raise HISTORY_ASSET_MISSING()
    start_ms, end_ms = period_of(request.start_time, request.end_time, now_ms)
    catalogue, reads = context.catalogue, context.reads
    asset = catalogue.asset(request.asset).number
    types = None
    if request.history_types:
        types = {_TYPES[name.upper()] for name in request.history_types if name.upper() in _TYPES}
    size, skip = request.page_size, (request.page - 1) * request.page_size
    lines = lines_of(reads, call.owner, asset, types, start_ms, end_ms, size, skip)
    return envelope([_item(row) for row in describe(reads, catalogue, lines)], now_ms)


def period_of(start_ms: int | None, end_ms: int | None, now_ms: int) -> tuple[int, int | None]:
    """Return the period that is meant: without bounds the last 7 days, with an end only the 7 days before it.

    Bounds older than 120 days are moved there. Raises `Refused` PARAMETER_INVALID if the start is later than the end.
    """
    if start_ms is not None and end_ms is not None and start_ms > end_ms:
        raise PARAMETER_INVALID("startTime must not be later than endTime")
    oldest_ms = now_ms - OLDEST_MS
    if end_ms is not None:
        end_ms = max(end_ms, oldest_ms)
    if start_ms is None:
        start_ms = (now_ms if end_ms is None else end_ms) - DEFAULT_PERIOD_MS
    return max(start_ms, oldest_ms), end_ms


def _item(row: HistoryRow) -> HistoryItem:
    course, scale = row.course, row.asset.scale
    confirmations = course.confirmations
    return HistoryItem(
        transaction_time=row.at_ms,
        type=TYPE_NAMES[row.type],
        wallet_name=WALLET,
        asset=row.asset.code,
        net_amount=format_amount(row.net, scale),
        amount=format_amount(row.amount, scale),
        transaction_ref=str(row.ref),
        status=course.status.value,
        description="internal" if course.internal else "",
        fees=format_amount(row.fees, scale),
        crypto_network=course.network.code if course.network else "",
        to_address=course.to_address,
        confirm_times=f"({confirmations.now}/{confirmations.needed})" if confirmations else "",
        tx_id=course.txid,
    )


OPERATIONS: Final = [
    Operation(
        name="wallet_history",
        summary="Query the wallet's history",
        dialect=Dialect.WALLET_V1,
        method="GET",
        paths=(ROOT + "user/walletHistory",),
        access=Access.READ,
        permission=Permission.READ,
        request=HistoryRequest,
        reply=Envelope[list[HistoryItem]],
        answer=answer_history,
        errors=("history_asset_missing", "invalid_currency"),
    ),
]
