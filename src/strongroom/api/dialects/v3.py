"""The v3 ("spot") dialect: bare rows with JSON numbers, as clients of two generations read them."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from strongroom.api.calls import Call
from strongroom.api.operations import Access, Dialect, Operation
from strongroom.api.parameters import AmountText, Flag, Text
from strongroom.api.replies import Number, encode, number
from strongroom.engine.command import Guard
from strongroom.money import format_amount
from strongroom.records.keys import Permission
from strongroom.wallet.balances import balance_of
from strongroom.wallet.transfers import Transfer, Transferred, prepare_transfer

VERSIONS: Final = ("v3.2", "v3.3")


def paths(tail: str, *more: str) -> tuple[str, ...]:
    """Return the signed paths of an operation in every version it is served under."""
    return tuple(f"/api/{version}/{tail}" for version in (*VERSIONS, *more))


class WalletRow(msgspec.Struct, frozen=True):
    """A balance."""

    currency: str
    total: Number
    available: Number


def answer_wallet(call: Call) -> bytes:
    """Return one row per asset, zero rows included, in the catalogue's order."""
    return encode(
        [
            WalletRow(asset.code, number(balance.total, asset.scale), number(balance.available, asset.scale))
            for asset in call.context.catalogue.snapshot.assets
            for balance in [balance_of(call.context.reads, call.owner, asset.number)]
        ]
    )


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


def prepare_transfer_call(call: Call, guard: Guard) -> Transfer:
    """Return the command that sends to the user whom name and mail agree on."""
    request = call.read(TransferRequest)
    return prepare_transfer(
        call.context, guard, request.asset, request.amount, request.to_user, mail=request.to_user_mail
    )


def render_transfer(call: Call, result: bytes, at_ms: int) -> bytes:
    """Echo the four texts."""
    request, done = call.read(TransferRequest), msgspec.json.decode(result, type=Transferred)
    asset = call.context.catalogue.assets[done.asset]
    amount = format_amount(done.amount, asset.scale)
    return encode(TransferReply(amount, asset.code, request.to_user, request.to_user_mail))


OPERATIONS: Final = [
    Operation(
        name="wallet",
        summary="Query wallet balance",
        dialect=Dialect.V3,
        method="GET",
        paths=paths("user/wallet", "v3.1"),
        access=Access.READ,
        permission=Permission.READ,
        reply=list[WalletRow],
        answer=answer_wallet,
    ),
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
        errors=("invalid_currency", "receiver_not_found", "transfer_refused", "insufficient_balance"),
    ),
]
