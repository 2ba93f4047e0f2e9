"""v3: what moves money: transfers, withdrawals and conversions."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from strongroom.api.calls import Call
from strongroom.api.dialects import refusals
from strongroom.api.dialects.v3.common import paths
from strongroom.api.operations import Access, Dialect, Operation
from strongroom.api.parameters import AmountText, Flag, Text
from strongroom.api.replies import Number, encode, number, raw_number
from strongroom.engine.command import Command, Guard
from strongroom.money import format_amount
from strongroom.records.keys import Permission
from strongroom.wallet.conversions import Converted, prepare_conversion
from strongroom.wallet.transfers import decode_transferred, prepare_transfer
from strongroom.wallet.withdrawals import WithdrawalRequested, prepare_withdrawal, split_currency


class TransferRequest(msgspec.Struct, frozen=True, rename="camel"):
    """What to send to whom."""

    amount: Annotated[str, AmountText("Amount to send", "1.0")]
    asset: Annotated[str, Text(32, "Asset to send", "BTC")]
    to_user: Annotated[str, Text(128, "The receiver's username", "bob")]
    to_user_mail: Annotated[str, Text(256, "The receiver's mail", "bob@example.com")]
    use_new_symbol_naming: Annotated[bool, Flag("New names of futures; changes nothing while there are none")] = False


class TransferReply(msgspec.Struct, frozen=True, rename="camel"):
    """What was sent, the amount normalised."""

    amount: str
    asset: str
    to_user: str
    to_user_mail: str


def prepare_transfer_call(call: Call, guard: Guard) -> Command:
    """Return the command that sends to the user whom name and mail agree on."""
    request = call.read(TransferRequest)
    mail = request.to_user_mail
    return prepare_transfer(call.context, guard, request.asset, request.amount, request.to_user, mail=mail)


def render_transfer(call: Call, result: bytes, at_ms: int) -> bytes:
    """Echo the four texts."""
    request, done = call.read(TransferRequest), decode_transferred(result)
    asset = call.catalogue.assets[done.asset]
    amount = format_amount(done.amount, asset.scale)
    return encode(TransferReply(amount, asset.code, request.to_user, request.to_user_mail))


class WithdrawRequest(msgspec.Struct, frozen=True, rename="camel"):
    """What to send where."""

    currency: Annotated[str, Text(64, "Asset and network, or an asset alone for its default network", "BTC-Bitcoin")]
    address: Annotated[str, Text(256, "Address, or address:tag", "bcrt1q...")]
    amount: Annotated[str, AmountText("Amount to withdraw, at most 8 decimals", "0.001")]
    tag: Annotated[str | None, Text(64, "Tag, for networks that have one", "533973779", numbers=True)] = None
    include_withdraw_fee: Annotated[bool, Flag("Whether the fee is taken out of the amount")] = True


class WithdrawReply(msgspec.Struct, frozen=True, rename={"withdrawal_id": "withdrawId"}):
    """The withdrawal's id under both names in use: the history's orderId."""

    withdraw_id: str
    withdrawal_id: str


def prepare_withdraw_call(call: Call, guard: Guard) -> Command:
    """Return the command that withdraws."""
    request = call.read(WithdrawRequest)
    asset, network = split_currency(request.currency)
    return prepare_withdrawal(
        call.context,
        guard,
        asset,
        network,
        request.address,
        request.tag,
        request.amount,
        include_fee=request.include_withdraw_fee,
        uuid=call.context.ids.uuid(),
    )


def render_withdraw(call: Call, result: bytes, at_ms: int) -> bytes:
    """Tell the id."""
    ref = str(msgspec.json.decode(result, type=WithdrawalRequested).ref)
    return encode(WithdrawReply(ref, ref))


class ConvertRequest(msgspec.Struct, frozen=True, rename="camel"):
    """What to convert into what."""

    amount: Annotated[str, AmountText("Amount of the source asset", "1")]
    from_asset: Annotated[str, Text(32, "Source asset", "BTC")]
    to_asset: Annotated[str, Text(32, "Target asset", "USD")]


class ConvertReply(msgspec.Struct, frozen=True, rename="camel"):
    """What was given, what was got, and the rate."""

    amount: Number
    settlement_amount: Number
    amount_currency: str
    settlement_currency: str
    rate: Number


def prepare_convert_call(call: Call, guard: Guard) -> Command:
    """Return the command that converts at the rate of this moment."""
    request = call.read(ConvertRequest)
    return prepare_conversion(call.context, guard, request.from_asset, request.to_asset, request.amount)


def render_convert(call: Call, result: bytes, at_ms: int) -> bytes:
    """Tell the settlement."""
    done = msgspec.json.decode(result, type=Converted)
    assets = call.catalogue.assets
    source, target = assets[done.from_asset], assets[done.to_asset]
    return encode(
        ConvertReply(
            amount=number(done.amount, source.scale),
            settlement_amount=number(done.settlement, target.scale),
            amount_currency=source.code,
            settlement_currency=target.code,
            rate=raw_number(done.rate),
        )
    )


OPERATIONS: Final = [
    Operation(
        name="transfer",
        summary="Transfer funds to another user",
        dialect=Dialect.V3,
        method="POST",
        paths=paths("user/wallet/transfer"),
        access=Access.CHANGE,
        permission=Permission.TRANSFER,
        request=TransferRequest,
        reply=TransferReply,
        prepare=prepare_transfer_call,
        render=render_transfer,
        finds_receiver=True,
        errors=refusals.TRANSFER,
    ),
    Operation(
        name="withdraw",
        summary="Withdraw funds to a blockchain address",
        dialect=Dialect.V3,
        method="POST",
        paths=paths("user/wallet/withdraw"),
        access=Access.CHANGE,
        permission=Permission.WITHDRAW,
        request=WithdrawRequest,
        reply=WithdrawReply,
        prepare=prepare_withdraw_call,
        render=render_withdraw,
        errors=refusals.WITHDRAW,
    ),
    Operation(
        name="convert",
        summary="Convert funds from one asset into another",
        dialect=Dialect.V3,
        method="POST",
        paths=paths("user/wallet/convert"),
        access=Access.CHANGE,
        permission=Permission.WALLET,
        request=ConvertRequest,
        reply=ConvertReply,
        prepare=prepare_convert_call,
        render=render_convert,
        errors=refusals.CONVERT,
    ),
]
