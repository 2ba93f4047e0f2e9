"""Wallet v1: deposit addresses."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from strongroom.api.calls import Call
from strongroom.api.dialects import refusals
from strongroom.api.dialects.wallet_v1.assets import ROOT
from strongroom.api.dialects.wallet_v1.movements import check_webhook
from strongroom.api.operations import Access, Dialect, Operation
from strongroom.api.parameters import Text
from strongroom.api.replies import Envelope, envelope
from strongroom.engine.command import Command, Guard
from strongroom.engine.settle import Outcome
from strongroom.errors import Refused
from strongroom.records.keys import Permission
from strongroom.wallet.addresses import AddressRule, GivenAddress, addresses_of, give_address, prepare_deletion
from strongroom.wallet.context import decline

PATH: Final = ROOT + "user/crypto/address"


class AddressRequest(msgspec.Struct, frozen=True, rename="camel"):
    """Of which asset, on which network."""

    crypto: Annotated[str, Text(32, "Asset", "USDT")]
    network: Annotated[str, Text(64, "Network, by id or short name", "ERC20")]


class CreationRequest(msgspec.Struct, frozen=True, rename="camel"):
    """Of which asset, on which network."""

    crypto: Annotated[str, Text(32, "Asset", "USDT")]
    network: Annotated[str, Text(64, "Network, by id or short name", "ERC20")]
    webhook_url: Annotated[str | None, Text(2048, "Allow-listed URL for webhooks", "https://example.com/hook")] = None


class DeletionRequest(msgspec.Struct, frozen=True, rename="camel"):
    """Which address."""

    crypto: Annotated[str, Text(32, "Asset", "USDT")]
    network: Annotated[str, Text(64, "Network, by id or short name", "ERC20")]
    address: Annotated[str, Text(256, "The address", "0xc48fd69d0f4B521B7200345A67641aB4076828f2")]
    address_extension: Annotated[str | None, Text(64, "Tag, where the network has one", "533973779", numbers=True)] = (
        None
    )


class AddressItem(msgspec.Struct, frozen=True, rename="camel"):
    """An address; both extension fields are null where the network has none. `createTime` in Unix milliseconds."""

    address: str
    address_extension_type_name: str | None
    address_extension: str | None
    create_time: int


def _item(call: Call, network: str, given: GivenAddress) -> AddressItem:
    extension = call.catalogue.network_named(network).extension or None
    return AddressItem(given.address, extension, given.tag or None, given.given_ms)


def answer_addresses(call: Call) -> bytes:
    """Return the newest active addresses, newest first."""
    request = call.read(AddressRequest)
    given = addresses_of(call.context, call.owner, request.crypto, request.network)
    items = [_item(call, request.network, address) for address in given]
    return envelope(items, call.context.clock.now_ms())


async def perform_creation(call: Call, guard: Guard) -> Outcome:
    """Give the user an address, unless ten are unused."""
    try:
        request = call.read(CreationRequest)
        check_webhook(request.webhook_url)
    except Refused as refusal:
        return await decline(call.context, guard, refusal)
    pool, rule = call.services.pool, AddressRule.TEN_UNUSED
    return await give_address(call.context, guard, pool, request.crypto, request.network, rule)


def render_creation(call: Call, result: bytes, at_ms: int) -> bytes:
    """Tell the new address."""
    network = call.read(CreationRequest).network
    return envelope(_item(call, network, msgspec.json.decode(result, type=GivenAddress)), at_ms)


def prepare_deletion_call(call: Call, guard: Guard) -> Command:
    """Return the command that gives the address up."""
    request = call.read(DeletionRequest)
    tag = request.address_extension
    return prepare_deletion(call.context, guard, request.crypto, request.network, request.address, tag)


def render_deletion(call: Call, result: bytes, at_ms: int) -> bytes:
    """Tell the deleted address."""
    network = call.read(DeletionRequest).network
    return envelope(_item(call, network, msgspec.json.decode(result, type=GivenAddress)), at_ms)


OPERATIONS: Final = [
    Operation(
        name="addresses",
        summary="Get deposit addresses",
        dialect=Dialect.WALLET_V1,
        method="GET",
        paths=(PATH,),
        access=Access.READ,
        permission=Permission.WALLET,
        request=AddressRequest,
        reply=Envelope[list[AddressItem]],
        answer=answer_addresses,
        errors=refusals.ADDRESS,
    ),
    Operation(
        name="create_address",
        summary="Create a deposit address",
        dialect=Dialect.WALLET_V1,
        method="POST",
        paths=(PATH,),
        access=Access.CHANGE,
        permission=Permission.WALLET,
        request=CreationRequest,
        reply=Envelope[AddressItem],
        perform=perform_creation,
        render=render_creation,
        errors=refusals.NEW_ADDRESS,
    ),
    Operation(
        name="delete_address",
        summary="Delete a deposit address",
        dialect=Dialect.WALLET_V1,
        method="DELETE",
        paths=(PATH,),
        access=Access.CHANGE,
        permission=Permission.WALLET,
        request=DeletionRequest,
        reply=Envelope[AddressItem],
        prepare=prepare_deletion_call,
        render=render_deletion,
        errors=refusals.ADDRESS,
    ),
]
