"""Deposit addresses: stocked ahead, given out once, listed, given up; each belongs to its owner for ever."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Final, Protocol

import msgspec

from strongroom.engine.command import NOBODY, Command, Decision, Guard, Stale, View
from strongroom.engine.port import Reads, ReadsRows
from strongroom.engine.settle import Outcome
from strongroom.errors import ADDRESS_UNUSED, INVALID_NETWORK, PARAMETER_INVALID, UNAVAILABLE
from strongroom.records.addresses import Address, AddressBook, Branch, Placed, branch_of, index_of, position_of
from strongroom.records.epochs import EPOCH_KEY, Epoch
from strongroom.records.guards import Reply
from strongroom.records.kept import Kept, Key
from strongroom.records.settings import SETTINGS_KEY, NetworkSettings, OfferSettings, Settings
from strongroom.wallet.catalogue import catalogue_of
from strongroom.wallet.context import Context, decline, perform
from strongroom.wallet.epochs import epoch_of
from strongroom.wallet.foreseen import Foreseen

HOUSE_POSITION: Final = 0
"""The position of the house's own address; no customer ever gets it."""

AHEAD: Final = 10_000
"""So many addresses beyond those of a backup are watched after a restore: they may have been given out since."""

MAX_LISTED: Final = 10
"""A list shows so many of a user's newest addresses (the contract's section 6, item 5)."""

MAX_UNPAID: Final = 100
"""So many of a user's addresses of an asset on a network may be unpaid, deleted ones included (section 6, item 5)."""

_MAX_REMEMBERED: Final = 1000
_UNKNOWN: Final = "address is unknown"


class AddressRule(IntEnum):
    """When a user gets no further address: in v3 while the newest is unused, in wallet v1 while ten are."""

    NEWEST_UNUSED = 1
    TEN_UNUSED = 10


class AddressPool(Protocol):
    """Addresses that are stocked, known to the chain's node, and given to nobody yet."""

    def take(self, network: int) -> Placed | None:
        """Return a free address of a network that nobody else gets meanwhile, None if none is ready."""
        ...

    def put_back(self, placed: Placed) -> None:
        """Take back an address that was not given out after all."""
        ...


class GivenAddress(msgspec.Struct, frozen=True):
    """An address of a user, with its tag or `""`, and when it was given out in Unix milliseconds."""

    address: str
    tag: str
    given_ms: int

    @property
    def text(self) -> str:
        """The address in one string, `address:tag` where there is a tag."""
        return spelled(self.address, self.tag)


class StockAddresses(Command, frozen=True):
    """Keep derived addresses from position `first` on, all of one branch; position 0 becomes the house's own."""

    network: int
    first: int
    addresses: tuple[tuple[str, str], ...]

    def needs(self) -> list[Key]:
        """The branch and the new rows."""
        keys: list[Key] = [Branch.at(self.network, branch_of(self.first))]
        for position, (address, tag) in enumerate(self.addresses, self.first):
            keys += [Address.at(self.network, address, tag), Placed.at(self.network, position)]
        return keys

    def decide(self, view: View, now_ms: int) -> Decision:
        """Keep them, if the branch goes on where they begin."""
        branch = view.get(Branch, self.network, branch_of(self.first))
        if branch.derived != index_of(self.first):
            raise Stale
        rows: list[Kept] = [msgspec.structs.replace(branch, derived=branch.derived + len(self.addresses))]
        for position, (address, tag) in enumerate(self.addresses, self.first):
            given_ms = now_ms if position == HOUSE_POSITION else 0
            rows.append(Address(self.network, address, tag, position, given_ms=given_ms))
            rows.append(Placed(self.network, position, address, tag))
        return Decision(rows=rows)


class GiveAddress(Command, frozen=True):
    """Give an address of the pool to a user, for an asset."""

    owner: int
    asset: int
    network: int
    position: int
    address: str
    tag: str
    rule: AddressRule

    def needs(self) -> list[Key]:
        """The settings, the epoch, the address, and the user's book."""
        return [
            SETTINGS_KEY,
            EPOCH_KEY,
            Address.at(self.network, self.address, self.tag),
            AddressBook.at(self.owner, self.asset, self.network),
        ]

    def decide(self, view: View, now_ms: int) -> Decision:
        """Give it, unless somebody has it, it is of an earlier epoch, or the user has unused ones.

        An unused address is left to the preparation to tell: its text must not stand in the journal.
        """
        offer = catalogue_of(view.get(Settings, 0).snapshot).offer_at(self.asset, self.network)
        address = view.get(Address, self.network, self.address, self.tag)
        book = view.get(AddressBook, self.owner, self.asset, self.network)
        if offer is None or not offer.deposits:
            raise INVALID_NETWORK()
        if address.given_ms or address.position != self.position or unused_position(book, self.rule) is not None:
            raise Stale
        if is_retired(address, view.get(Epoch, 0).number):
            raise Stale
        _check_unpaid(book)
        given = msgspec.structs.replace(address, owner=self.owner, asset=self.asset, given_ms=now_ms)
        listed, unpaid = (*book.listed, self.position)[-_MAX_REMEMBERED:], (*book.unpaid, self.position)
        rows = [given, msgspec.structs.replace(book, listed=listed, unpaid=unpaid)]
        return Decision(rows=rows, result=GivenAddress(self.address, self.tag, now_ms))


class DeleteAddress(Command, frozen=True):
    """Give an address up: it is listed no more, but stays its owner's and is watched for ever."""

    owner: int
    asset: int
    network: int
    address: str
    tag: str

    def needs(self) -> list[Key]:
        """The address and the user's book."""
        return [
            Address.at(self.network, self.address, self.tag),
            AddressBook.at(self.owner, self.asset, self.network),
        ]

    def decide(self, view: View, now_ms: int) -> Decision:
        """Mark it, once, if it is the user's address of this asset."""
        address = view.get(Address, self.network, self.address, self.tag)
        if not address.owner or (address.owner, address.asset) != (self.owner, self.asset) or address.deleted:
            raise PARAMETER_INVALID(_UNKNOWN)
        book = view.get(AddressBook, self.owner, self.asset, self.network)
        listed = tuple(position for position in book.listed if position != address.position)
        return Decision(
            rows=[msgspec.structs.replace(address, deleted=True), msgspec.structs.replace(book, listed=listed)],
            result=_given(address),
        )


def unused_position(book: AddressBook, rule: AddressRule) -> int | None:
    """Return the position of the newest address that is to be used before there is another one, if there is one."""
    if rule == AddressRule.NEWEST_UNUSED:
        return book.listed[-1] if book.listed and book.listed[-1] in book.unpaid else None
    unused = [position for position in book.listed if position in book.unpaid]
    return unused[-1] if len(unused) >= rule else None


def _check_unpaid(book: AddressBook) -> None:
    if len(book.unpaid) >= MAX_UNPAID:
        raise PARAMETER_INVALID(f"more than {MAX_UNPAID} addresses without a deposit")


def paid_needs(address: Address) -> tuple[Key, Key]:
    """Return what `paid_rows` reads and changes."""
    return address.key(), AddressBook.at(address.owner, address.asset, address.network)


def paid_rows(view: View, address: Address) -> list[Kept]:
    """Return the rows that note that a deposit arrived at an address; none if that is known."""
    if address.paid or not address.owner:
        return []
    book = view.get(AddressBook, address.owner, address.asset, address.network)
    unpaid = tuple(position for position in book.unpaid if position != address.position)
    return [msgspec.structs.replace(address, paid=True), msgspec.structs.replace(book, unpaid=unpaid)]


def prepare_stock(network: int, first: int, addresses: Sequence[tuple[str, str]]) -> StockAddresses:
    """Return the command that keeps addresses (with their tags) derived from position `first` on."""
    return StockAddresses(NOBODY, network, first, tuple(addresses))


def is_retired(address: Address, epoch: int) -> bool:
    """Say whether an address waits for nobody any more: a backup that was restored since had not given it out."""
    return address.ours and not address.given_ms and branch_of(address.position) < epoch


def next_position(reads: Reads, network: int) -> int:
    """Return the position of the next address to derive for the pool."""
    number = epoch_of(reads)
    return position_of(number, reads.row(Branch, network, number).derived)


def next_behind(reads: Reads, network: int) -> tuple[int, int] | None:
    """Return the position of the next address of earlier epochs to derive, and how many are to follow on its branch.

    None once all are there that may have been given out after the backups, so that whatever is paid to them is seen.
    """
    for number in range(epoch_of(reads)):
        branch = reads.row(Branch, network, number)
        if branch.derived < branch.known + AHEAD:
            return position_of(number, branch.derived), branch.known + AHEAD - branch.derived
    return None


class _NoneReady(Exception):
    """The pool has no address ready."""


def prepare_address(
    context: Context, guard: Guard, pool: AddressPool, asset: str, network: str | None, rule: AddressRule
) -> GiveAddress:
    """Return the command that gives the user an address for an asset; use `give_address`, which minds the pool.

    Raises `Refused` in the contract's order: INVALID_CURRENCY, INVALID_NETWORK, ADDRESS_UNUSED, PARAMETER_INVALID.
    """
    offer, _ = _find(context, asset, network)
    if not context.suspensions.takes_deposits(offer):
        raise INVALID_NETWORK()
    book = context.reads.row(AddressBook, guard.owner, offer.asset, offer.network)
    unused = unused_position(book, rule)
    if unused is not None:
        placed = context.reads.row(Placed, offer.network, unused)
        raise ADDRESS_UNUSED(spelled(placed.address, placed.tag))
    _check_unpaid(book)
    placed = pool.take(offer.network)
    if placed is None:
        raise _NoneReady
    return GiveAddress(
        guard, guard.owner, offer.asset, offer.network, placed.position, placed.address, placed.tag, rule
    )


async def give_address(
    context: Context, guard: Guard, pool: AddressPool, asset: str, network: str | None, rule: AddressRule
) -> Outcome:
    """Give the user an address for an asset (a `GivenAddress`); whatever was taken from the pool in vain goes back.

    Raises `Refused` UNAVAILABLE when nothing was done, as it is while no address is ready.
    """
    taken: list[Placed] = []

    def prepare() -> GiveAddress:
        command = prepare_address(context, guard, pool, asset, network, rule)
        taken.append(Placed(command.network, command.position, command.address, command.tag))
        return command

    try:
        return await perform(context, guard, prepare)
    except _NoneReady:
        refusal = UNAVAILABLE("No address ready")
        if guard.digest and context.reads.row(Reply, guard.owner, guard.digest).expires_ms > context.clock.now_ms():
            # The Idempotency-Key has a reply already: the writer answers that, whatever is ready by now.
            return await decline(context, guard, refusal)
        raise refusal from None
    finally:
        for placed in taken:
            if not context.reads.row(Address, placed.network, placed.address, placed.tag).given_ms:
                pool.put_back(placed)


def prepare_deletion(
    context: Context, guard: Guard, asset: str, network: str | None, address: str, tag: str | None = None
) -> DeleteAddress:
    """Return the command that gives up the user's `address`, or `address:tag` where the network has tags.

    Raises `Refused` in the contract's order: INVALID_CURRENCY, INVALID_NETWORK, PARAMETER_INVALID.
    """
    offer, found = _find(context, asset, network)
    text, tag = split_address(found, address, tag)
    try:
        form = context.formats[found.code]
        text, tag = form.normalise(text), form.normalise_tag(tag)
    except ValueError:
        raise PARAMETER_INVALID(_UNKNOWN) from None
    return DeleteAddress(guard, guard.owner, offer.asset, offer.network, text, tag)


def addresses_of(context: Context, owner: int, asset: str, network: str | None) -> list[GivenAddress]:
    """Return a user's newest addresses for an asset, by the names that clients write, newest first.

    Raises `Refused` INVALID_CURRENCY, INVALID_NETWORK.
    """
    offer, _ = _find(context, asset, network)
    return listed_addresses(context.reads, owner, offer.asset, offer.network)


def listed_addresses(reads: Reads, owner: int, asset: int, network: int, limit: int = MAX_LISTED) -> list[GivenAddress]:
    """Return at most `limit` of a user's not-deleted addresses of an asset on a network, newest first."""
    listed = reads.row(AddressBook, owner, asset, network).listed
    rows = Foreseen(reads, (Placed.at(network, position) for position in listed[-limit:]))
    placed = [rows.row(Placed, network, position) for position in reversed(listed[-limit:])]
    rows.foresee(Address.at(network, place.address, place.tag) for place in placed)
    return [_given(rows.row(Address, network, place.address, place.tag)) for place in placed]


def house_address(reads: ReadsRows, network: int) -> Placed:
    """Return the house's own address on a network: what arrives there is inventory. Absent before the first stock."""
    return reads.row(Placed, network, HOUSE_POSITION)


def spelled(address: str, tag: str) -> str:
    """Return an address in one string, `address:tag` where there is a tag (the contract's section 6, item 4)."""
    return f"{address}:{tag}" if tag else address


def split_address(network: NetworkSettings, address: str, tag: str | None) -> tuple[str, str]:
    """Return address and tag apart: `address:tag` stands for both where the network has tags and none is given."""
    if network.extension and not tag and ":" in address:
        text, _, tag = address.rpartition(":")
        return text, tag
    return address, tag or ""


def _find(context: Context, asset: str, network: str | None) -> tuple[OfferSettings, NetworkSettings]:
    catalogue = context.catalogue
    offer = catalogue.offer(catalogue.crypto(asset), network)
    return offer, catalogue.network(offer.network)


def _given(address: Address) -> GivenAddress:
    return GivenAddress(address.address, address.tag, address.given_ms)
