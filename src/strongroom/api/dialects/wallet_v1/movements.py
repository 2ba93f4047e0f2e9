"""Wallet v1: what moves money: sending to a user, withdrawals and conversions."""

from __future__ import annotations

import re
from typing import Annotated, Final

import msgspec

from strongroom.api.calls import Call
from strongroom.api.dialects import refusals
from strongroom.api.dialects.wallet_v1.assets import ROOT
from strongroom.api.operations import Access, Dialect, Operation
from strongroom.api.parameters import AmountText, Flag, Text
from strongroom.api.replies import Decimal, Envelope, envelope
from strongroom.engine.command import Command, Guard
from strongroom.errors import PARAMETER_INVALID, PARAMETER_MISSING
from strongroom.money import format_amount
from strongroom.records.keys import Permission
from strongroom.wallet.conversions import Converted, prepare_conversion
from strongroom.wallet.transfers import decode_transferred, prepare_transfer
from strongroom.wallet.withdrawals import WithdrawalRequested, prepare_withdrawal

_CONVERT_AMOUNT: Final = re.compile(r"[0-9]{1,14}(\.[0-9]{1,10})?", re.ASCII)


class SendRequest(msgspec.Struct, frozen=True, rename="camel"):
    """What to send to whom, by name or by id."""

    asset: Annotated[str, Text(32, "Asset to send", "BTC")]
    amount: Annotated[str, AmountText("Amount to send", "1")]
    receiver_username: Annotated[str | None, Text(128, "The receiver's username", "bob")] = None
    receiver_uid: Annotated[str | None, Text(32, "The receiver's id", "1234567890", numbers=True)] = None


class SendReply(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """What was sent; names only what the request named."""

    transaction_ref: str
    asset: str
    amount: Decimal
    receiver_username: str | None = None
    receiver_uid: str | None = None


def prepare_send_call(call: Call, guard: Guard) -> Command:
    """Return the command that sends to the user whom all given names agree on."""
    request = call.read(SendRequest)
    if request.receiver_username is None and request.receiver_uid is None:
        raise PARAMETER_MISSING("receiverUsername")
    username, uid = request.receiver_username, request.receiver_uid
    return prepare_transfer(call.context, guard, request.asset, request.amount, username, uid=uid)


def render_send(call: Call, result: bytes, at_ms: int) -> bytes:
    """Tell the reference, and echo what was sent."""
    request, done = call.read(SendRequest), decode_transferred(result)
    asset = call.catalogue.assets[done.asset]
    amount = format_amount(done.amount, asset.scale)
    username, uid = request.receiver_username, request.receiver_uid
    return envelope(SendReply(str(done.ref), asset.code, amount, username, uid), at_ms)


class WithdrawRequest(msgspec.Struct, frozen=True, rename="camel"):
    """What to send where."""

    crypto: Annotated[str, Text(32, "Asset to withdraw", "USDT")]
    network: Annotated[str, Text(64, "Network, by id or short name", "ERC20")]
    address: Annotated[str, Text(256, "Address on that network", "0xc48fd69d0f4B521B7200345A67641aB4076828f2")]
    amount: Annotated[str, AmountText("Amount to withdraw, at most 8 decimals", "36")]
    address_extension: Annotated[str | None, Text(64, "Tag, where the network has one", "533973779", numbers=True)] = (
        None
    )
    amount_include_fee: Annotated[bool, Flag("Whether the fee is taken out of the amount")] = True
    webhook_url: Annotated[str | None, Text(2048, "Allow-listed URL for webhooks", "https://example.com/hook")] = None


class WithdrawReply(msgspec.Struct, frozen=True, rename="camel"):
    """What was accepted."""

    transaction_ref: str
    order_id: str
    crypto: str
    network: str
    address: str
    address_extension: str | None
    amount_to_address: Decimal
    fees: Decimal


def check_webhook(url: str | None) -> None:
    """Raise `Refused` PARAMETER_INVALID for any webhook URL: none is on the allow-list while webhooks are not sent."""
    if url is not None:
        raise PARAMETER_INVALID("webhookUrl is not on the allow-list")


def prepare_withdraw_call(call: Call, guard: Guard) -> Command:
    """Return the command that withdraws."""
    request = call.read(WithdrawRequest)
    check_webhook(request.webhook_url)
    return prepare_withdrawal(
        call.context,
        guard,
        request.crypto,
        request.network,
        request.address,
        request.address_extension,
        request.amount,
        include_fee=request.amount_include_fee,
        uuid=call.context.ids.uuid(),
    )


def render_withdraw(call: Call, result: bytes, at_ms: int) -> bytes:
    """Tell the references, what the receiver gets and what it costs."""
    done = msgspec.json.decode(result, type=WithdrawalRequested)
    catalogue = call.catalogue
    asset = catalogue.assets[done.asset]
    reply = WithdrawReply(
        transaction_ref=str(done.ref),
        order_id=done.uuid,
        crypto=asset.code,
        network=catalogue.network(done.network).code,
        address=done.address,
        address_extension=done.tag or None,
        amount_to_address=format_amount(done.to_address, asset.scale),
        fees=format_amount(done.fee, asset.scale),
    )
    return envelope(reply, at_ms)


class ConvertRequest(msgspec.Struct, frozen=True, rename="camel"):
    """What to convert into what."""

    from_asset: Annotated[str, Text(32, "Source asset", "BTC")]
    to_asset: Annotated[str, Text(32, "Target asset", "USDT")]
    amount: Annotated[str, AmountText("Amount of the source asset: at most 14 integer digits, 10 decimals", "1")]


class ConvertReply(msgspec.Struct, frozen=True, rename="camel"):
    """What was given, what was got, and the rate."""

    from_asset: str
    from_amount: Decimal
    from_transaction_ref: str
    to_asset: str
    to_amount: Decimal
    to_transaction_ref: str
    rate: Decimal


def prepare_convert_call(call: Call, guard: Guard) -> Command:
    """Return the command that converts at the rate of this moment."""
    request = call.read(ConvertRequest)
    command = prepare_conversion(call.context, guard, request.from_asset, request.to_asset, request.amount)
    # Judged after the assets, as any amount is; what is left to refuse here is written with too many zeros.
    if type(request.amount) is str and not _CONVERT_AMOUNT.fullmatch(request.amount):
        raise PARAMETER_INVALID("amount must have at most 14 integer digits and 10 decimals")
    return command


def render_convert(call: Call, result: bytes, at_ms: int) -> bytes:
    """Tell the settlement and both references."""
    done = msgspec.json.decode(result, type=Converted)
    assets = call.catalogue.assets
    source, target = assets[done.from_asset], assets[done.to_asset]
    reply = ConvertReply(
        from_asset=source.code,
        from_amount=format_amount(done.amount, source.scale),
        from_transaction_ref=str(done.from_ref),
        to_asset=target.code,
        to_amount=format_amount(done.settlement, target.scale),
        to_transaction_ref=str(done.to_ref),
        rate=done.rate,
    )
    return envelope(reply, at_ms)


OPERATIONS: Final = [
    Operation(
        name="transfer",
        summary="Send an asset to another user",
        dialect=Dialect.WALLET_V1,
        method="POST",
        paths=(ROOT + "user/assets/sendTo",),
        access=Access.CHANGE,
        permission=Permission.TRANSFER,
        request=SendRequest,
        reply=Envelope[SendReply],
        prepare=prepare_send_call,
        render=render_send,
        finds_receiver=True,
        errors=refusals.TRANSFER,
    ),
    Operation(
        name="withdraw",
        summary="Withdraw a crypto asset",
        dialect=Dialect.WALLET_V1,
        method="POST",
        paths=(ROOT + "user/crypto/withdraw",),
        access=Access.CHANGE,
        permission=Permission.WITHDRAW,
        request=WithdrawRequest,
        reply=Envelope[WithdrawReply],
        prepare=prepare_withdraw_call,
        render=render_withdraw,
        errors=refusals.WITHDRAW,
    ),
    Operation(
        name="convert",
        summary="Convert one asset into another",
        dialect=Dialect.WALLET_V1,
        method="POST",
        paths=(ROOT + "user/assets/convert",),
        access=Access.CHANGE,
        permission=Permission.WALLET,
        request=ConvertRequest,
        reply=Envelope[ConvertReply],
        prepare=prepare_convert_call,
        render=render_convert,
        errors=refusals.CONVERT,
    ),
]
