"""v3: deposit addresses."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from strongroom.api.calls import Call
from strongroom.api.dialects import refusals
from strongroom.api.dialects.v3.common import paths
from strongroom.api.operations import Access, Dialect, Operation
from strongroom.api.parameters import Text
from strongroom.api.replies import encode
from strongroom.engine.command import Command, Guard
from strongroom.engine.settle import Outcome
from strongroom.errors import Refused
from strongroom.records.keys import Permission
from strongroom.wallet.addresses import AddressRule, GivenAddress, addresses_of, give_address, prepare_deletion
from strongroom.wallet.context import decline


class AddressRequest(msgspec.Struct, frozen=True):
    """Of which asset, on which network."""

    currency: Annotated[str, Text(32, "Asset", "BTC")]
    network: Annotated[str | None, Text(64, "Network, by id or short name; absent: the default one", "BITCOIN")] = None


class DeletionRequest(msgspec.Struct, frozen=True):
    """Which address."""

    currency: Annotated[str, Text(32, "Asset", "BTC")]
    address: Annotated[str, Text(256, "The address, or address:tag", "bcrt1q...")]
    network: Annotated[str | None, Text(64, "Network, by id or short name; absent: the default one", "BITCOIN")] = None


class AddressRow(msgspec.Struct, frozen=True):
    """An address, `address:tag` where the network has tags; `created` in Unix seconds."""

    address: str
    created: int


def _row(given: GivenAddress) -> AddressRow:
    return AddressRow(given.text, given.given_ms // 1000)


def answer_addresses(call: Call) -> bytes:
    """Return the newest not-deleted addresses, newest first."""
    request = call.read(AddressRequest)
    given = addresses_of(call.context, call.owner, request.currency, request.network)
    return encode([_row(address) for address in given])


async def perform_creation(call: Call, guard: Guard) -> Outcome:
    """Give the user an address, unless the newest one was never used."""
    try:
        request = call.read(AddressRequest)
    except Refused as refusal:
        return await decline(call.context, guard, refusal)
    pool, rule = call.services.pool, AddressRule.NEWEST_UNUSED
    return await give_address(call.context, guard, pool, request.currency, request.network, rule)


def prepare_deletion_call(call: Call, guard: Guard) -> Command:
    """Return the command that gives the address up."""
    request = call.read(DeletionRequest)
    return prepare_deletion(call.context, guard, request.currency, request.network, request.address)


def render_address(call: Call, result: bytes, at_ms: int) -> bytes:
    """Return the one address in an array."""
    return encode([_row(msgspec.json.decode(result, type=GivenAddress))])


OPERATIONS: Final = [
    Operation(
        name="addresses",
        summary="Get deposit addresses",
        dialect=Dialect.V3,
        method="GET",
        paths=paths("user/wallet/address"),
        access=Access.READ,
        permission=Permission.WALLET,
        request=AddressRequest,
        reply=list[AddressRow],
        answer=answer_addresses,
        errors=refusals.ADDRESS,
    ),
    Operation(
        name="create_address",
        summary="Create a deposit address",
        dialect=Dialect.V3,
        method="POST",
        paths=paths("user/wallet/address"),
        access=Access.CHANGE,
        permission=Permission.WALLET,
        request=AddressRequest,
        reply=list[AddressRow],
        perform=perform_creation,
        render=render_address,
        errors=refusals.NEW_ADDRESS,
    ),
    Operation(
        name="delete_address",
        summary="Delete a deposit address",
        dialect=Dialect.V3,
        method="DELETE",
        paths=paths("user/wallet/address"),
        access=Access.CHANGE,
        permission=Permission.WALLET,
        request=DeletionRequest,
        reply=list[AddressRow],
        prepare=prepare_deletion_call,
        render=render_address,
        errors=refusals.ADDRESS,
    ),
]
