"""Deposits: what arrives on a chain for a customer, or for the house, from its first sight to its credit.

    seen -> confirming -> credited, or too small, or withheld until the operator says whose it is
      |         |            a reorganisation may take each step back (`reversals`)
      dropped   when its transaction is gone for good

A deposit is (network, transaction, output): it is booked once, whichever block it is in. Every step is a
compare-and-set on the deposit's row, so that it may be tried by several watchers, and again after a crash.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

from strongroom.engine.command import NOBODY, Command, Decision, Stale, View
from strongroom.engine.port import ReadsRows
from strongroom.errors import InvariantBroken, check
from strongroom.ledger.accounts import Purpose, house, omnibus
from strongroom.ledger.entries import Posting
from strongroom.money import MAX_UNITS
from strongroom.records.addresses import Address
from strongroom.records.chains import REMEMBERED_BLOCKS, Passed, Tip
from strongroom.records.coins import Coin, Pot
from strongroom.records.deposits import Deposit, DepositState, Outpoint
from strongroom.records.epochs import EPOCH_KEY, Epoch
from strongroom.records.heads import head_of
from strongroom.records.history import Entry, LineType, Note, threads_of
from strongroom.records.kept import Kept, Key
from strongroom.records.settings import SETTINGS_KEY, AssetSettings, NetworkSettings, OfferSettings, Settings
from strongroom.wallet.addresses import is_retired, paid_needs, paid_rows
from strongroom.wallet.catalogue import Catalogue, catalogue_of
from strongroom.wallet.confirmations import Confirmations, confirmations_of
from strongroom.wallet.context import Context
from strongroom.wallet.credits import credit, credit_needs
from strongroom.wallet.holdings import holding_change, holding_needs, ledger_units
from strongroom.wallet.pots import pot_change

UNBOOKED: Final = frozenset({DepositState.SEEN, DepositState.CONFIRMING, DepositState.DROPPED, DepositState.REVERSED})
"""The states in which the books hold nothing of a deposit."""

CREDITED: Final = frozenset({DepositState.CREDITED, DepositState.TOO_SMALL, DepositState.WITHHELD})
"""The states in which its coins are booked: to its owner, or to suspense."""

OPEN: Final = (DepositState.SEEN, DepositState.CONFIRMING, DepositState.REVERSED)
"""The states in which its transaction has still to be followed."""


COINBASE_CONFIRMATIONS: Final = 100
"""A block's pay to its miner can be spent in the hundredth block on it (consensus rule of Bitcoin and its kin)."""


class Sighting(NamedTuple):
    """An output to an address of ours, as a chain shows it: `block` is empty while it waits to be mined.

    `network` and `asset` are our numbers, `chain_units` is in the chain's unit, `position` the output's index.
    """

    network: int
    txid: str
    position: int
    address: str
    tag: str
    asset: int
    chain_units: int
    height: int = 0
    block: str = ""
    coinbase: bool = False


class SeeDeposit(Command, frozen=True):
    """Note a deposit at its first sight; its fee and whether it is too small are settled here, once."""

    to: Address
    txid: str
    position: int
    asset: int
    chain_units: str
    height: int
    block: str
    ref: int
    coinbase: bool = False

    def needs(self) -> list[Key]:
        """The settings, the epoch, the address with its book, the deposit, and its owner's history."""
        keys = [SETTINGS_KEY, EPOCH_KEY, Outpoint.at(self.to.network, self.txid, self.position), Deposit.at(self.ref)]
        return [*keys, *paid_needs(self.to), *threads_of(self.to.owner, self.asset, LineType.DEPOSIT)]

    def decide(self, view: View, now_ms: int) -> Decision:
        """Note it, if it is not known and its address is given out, or may have been before a restore."""
        address = view.get(Address, self.to.network, self.to.address, self.to.tag)
        retired = is_retired(address, view.get(Epoch, 0).number)
        if (address.owner, address.asset) != (self.to.owner, self.to.asset) or not (address.given_ms or retired):
            raise Stale
        if view.get(Outpoint, address.network, self.txid, self.position).ref or view.get(Deposit, self.ref).state:
            raise Stale
        amount, fee, net = self._amounts(catalogue_of(view.get(Settings, 0).snapshot), nobodys=retired)
        deposit = Deposit(
            ref=self.ref,
            owner=address.owner,
            asset=self.asset,
            network=address.network,
            address=address.address,
            tag=address.tag,
            txid=self.txid,
            position=self.position,
            chain_units=self.chain_units,
            amount=amount,
            fee=fee,
            net=net,
            state=DepositState.CONFIRMING if self.block else DepositState.SEEN,
            height=self.height,
            block=self.block,
            seen_ms=now_ms,
            coinbase=self.coinbase,
        )
        outpoint = Outpoint(address.network, self.txid, self.position, self.ref)
        return Decision(rows=[deposit, outpoint, *paid_rows(view, address)], lines=lines_of(deposit))

    def _amounts(self, catalogue: Catalogue, *, nobodys: bool) -> tuple[int, int, int]:
        """Return the amount in ledger units, the fee, and what the owner will be credited."""
        offer, asset = offered(catalogue, self.to.network, self.asset)
        amount = ledger_units(int(self.chain_units), offer, asset)
        if not self.to.owner:
            return amount, 0, 0 if nobodys else amount
        fee = offer.deposit_fee.fee(amount)
        if amount < offer.deposit_minimum or fee >= amount:
            return amount, 0, 0
        return amount, fee, amount - fee


def lines_of(deposit: Deposit, note: Note = Note.NONE) -> list[Entry]:
    """Return the owner's history line; what is less than a unit of the ledger has none, nor has the house."""
    if not deposit.owner or not deposit.amount:
        return []
    return [
        Entry(
            deposit.owner,
            deposit.asset,
            LineType.DEPOSIT,
            deposit.ref,
            deposit.amount,
            deposit.net,
            fees=deposit.fee,
            network=deposit.network,
            note=note,
        )
    ]


class PlaceDeposit(Command, frozen=True):
    """Note the block that a deposit's transaction is in now, or with an empty `block` that it is in none any more."""

    ref: int
    before: str
    height: int
    block: str

    def needs(self) -> list[Key]:
        """The deposit."""
        return [Deposit.at(self.ref)]

    def decide(self, view: View, now_ms: int) -> Decision:
        """Note it, while the deposit is not booked and stands where it was thought to stand."""
        deposit = view.get(Deposit, self.ref)
        if deposit.state not in UNBOOKED or deposit.block != self.before:
            raise Stale
        state = DepositState.CONFIRMING if self.block else DepositState.SEEN
        return Decision(rows=[msgspec.structs.replace(deposit, state=state, height=self.height, block=self.block)])


class DropDeposit(Command, frozen=True):
    """Note that a deposit's transaction is gone; should a block have it after all, it is placed there as any other."""

    ref: int

    def needs(self) -> list[Key]:
        """The deposit."""
        return [Deposit.at(self.ref)]

    def decide(self, view: View, now_ms: int) -> Decision:
        """Drop it, while it waits in no block."""
        deposit = view.get(Deposit, self.ref)
        if deposit.state not in (DepositState.SEEN, DepositState.REVERSED) or deposit.block:
            raise Stale
        return Decision(rows=[msgspec.structs.replace(deposit, state=DepositState.DROPPED)])


class CreditDeposit(Command, frozen=True):
    """Book a deposit that is deep enough in the chain.

    With an `outpoint` it is a coin, at its address's `position`; with a position alone it lies in that address's pot.
    """

    ref: int
    owner: int
    asset: int
    network: int
    height: int
    block: str
    outpoint: str = ""
    position: int = 0

    def needs(self) -> list[Key]:
        """The settings, what is known of the chain, the deposit, its coin, and all accounts it may be booked to."""
        chain = [Tip.at(self.network), Passed.at(self.network, self.height % REMEMBERED_BLOCKS)]
        lies = lying_needs(self.network, self.asset, self.outpoint, self.position)
        rows = [SETTINGS_KEY, Deposit.at(self.ref), *chain, *lies]
        return [*rows, *booking_needs(self.network, self.asset, self.owner)]

    def decide(self, view: View, now_ms: int) -> Decision:
        """Credit it once it has its confirmations in a block of the best chain as the books know it."""
        deposit = view.get(Deposit, self.ref)
        if deposit.state != DepositState.CONFIRMING or (deposit.height, deposit.block) != (self.height, self.block):
            raise Stale
        catalogue = catalogue_of(view.get(Settings, 0).snapshot)
        needed = confirmations_needed(catalogue.network(self.network), deposit)
        if not self._is_passed(view) or view.get(Tip, self.network).height - self.height + 1 < needed:
            raise Stale
        offer, asset = offered(catalogue, self.network, self.asset)
        rows, delta = holding_change(view, offer, asset, int(deposit.chain_units))
        postings = [
            Posting(omnibus(self.network, self.asset), -delta),
            Posting(house(Purpose.DUST, self.asset), delta - deposit.amount),
            *_shares(view, deposit),
        ]
        booked = msgspec.structs.replace(deposit, state=_booked_state(deposit))
        return Decision(postings=postings, rows=[*rows, booked, *self._lying(view, deposit)])

    def _lying(self, view: View, deposit: Deposit) -> list[Kept]:
        """Return the coin that the deposit is, also where a payment that a reorganisation undid spends it again, or the
        pot that it is in."""
        if not self.outpoint:
            units = int(deposit.chain_units)
            if not self.position:
                return []
            return [pot_change(view, self.network, self.position, self.asset, units, due=True)]
        check(self.outpoint == outpoint_of(deposit), "a deposit is the coin of its own output")
        known = view.get(Coin, self.network, self.outpoint)
        units = int(deposit.chain_units)
        return [Coin(self.network, self.outpoint, self.position, units, self.height, known.payment)]

    def _is_passed(self, view: View) -> bool:
        """Say whether the deposit's block is the one at its height, as far back as blocks are remembered."""
        passed = view.get(Passed, self.network, self.height % REMEMBERED_BLOCKS)
        return passed.height > self.height or (passed.height, passed.block) == (self.height, self.block)


def _booked_state(deposit: Deposit) -> DepositState:
    if deposit.net or not (deposit.owner or deposit.amount):
        return DepositState.CREDITED
    return DepositState.TOO_SMALL if deposit.owner else DepositState.WITHHELD


def lying_needs(network: int, asset: int, outpoint: str, position: int) -> list[Key]:
    """Return the coin or the pot that a deposit lies in; neither for what has no `outpoint` and no `position`."""
    if outpoint:
        return [Coin.at(network, outpoint)]
    return [Pot.at(network, position, asset)] if position else []


def booking_needs(network: int, asset: int, owner: int) -> list[Key]:
    """Return the accounts that a deposit's coins, its owner's credit and its fee may be booked to."""
    purposes = (Purpose.FEES, Purpose.SUSPENSE, Purpose.INVENTORY, Purpose.EQUITY)
    accounts = [head_of(house(purpose, asset)) for purpose in purposes]
    return [*holding_needs(network, asset), *accounts, *(credit_needs(owner, asset) if owner else ())]


def _shares(view: View, deposit: Deposit) -> list[Posting]:
    """Return whom the house owes a deposit's amount to."""
    asset, amount = deposit.asset, deposit.amount
    if not deposit.net:
        return [Posting(house(Purpose.SUSPENSE, asset), amount)]
    if not deposit.owner:
        return [Posting(house(Purpose.INVENTORY, asset), amount)]
    return [*credit(view, deposit.owner, asset, deposit.net), Posting(house(Purpose.FEES, asset), deposit.fee)]


def offered(catalogue: Catalogue, network: int, asset: int) -> tuple[OfferSettings, AssetSettings]:
    """Return how an asset is on a network; that it is there was looked up when the deposit was seen."""
    offer = catalogue.offer_at(asset, network)
    if offer is None:
        raise InvariantBroken("a deposit's asset is on its network")
    return offer, catalogue.assets[asset]


def asset_of_token(catalogue: Catalogue, network: int, token: str) -> int | None:
    """Return the number of the asset that a network's chain calls `token`, None for one that is not offered."""
    for offer in catalogue.snapshot.offers:
        if (offer.network, offer.token) == (network, token):
            return offer.asset
    return None


def is_bookable(catalogue: Catalogue, network: int, asset: int, chain_units: int) -> bool:
    """Say whether an amount in chain units is within the ledger's range."""
    offer, settings = offered(catalogue, network, asset)
    return ledger_units(chain_units, offer, settings) < MAX_UNITS


def internal_needs(address: Address, asset: int, ref: int) -> list[Key]:
    """Return what `internal_deposit` reads and changes."""
    owner = address.owner
    return [
        Deposit.at(ref),
        *paid_needs(address),
        *credit_needs(owner, asset),
        *threads_of(owner, asset, LineType.DEPOSIT),
    ]


def internal_deposit(
    view: View, address: Address, asset: int, amount: int, ref: int, now_ms: int
) -> tuple[list[Posting], list[Kept], Entry]:
    """Return postings, rows and history line of `amount` units that reach a customer's address inside the house.

    It is credited at once, without fee or minimum (the contract's section 6, item 6); nothing touches the chain.
    """
    check(address.owner != 0 and amount > 0, "an internal deposit has an owner and an amount")
    deposit = Deposit(
        ref=ref,
        owner=address.owner,
        asset=asset,
        network=address.network,
        address=address.address,
        tag=address.tag,
        amount=amount,
        net=amount,
        state=DepositState.CREDITED,
        seen_ms=now_ms,
        internal=True,
    )
    [line] = lines_of(deposit, Note.INTERNAL)
    return [*credit(view, address.owner, asset, amount)], [deposit, *paid_rows(view, address)], line


def prepare_sighting(
    context: Context, sighting: Sighting, rows: ReadsRows | None = None
) -> SeeDeposit | PlaceDeposit | None:
    """Return the command that notes what a chain shows of an output, None if the books know it already.

    `rows` are what was looked up of them at this moment.
    The address must be given out, or be one of an earlier epoch. A deposit that is booked is left alone, and so is one
    that is in a block already when the mempool shows it.
    """
    reads = context.reads if rows is None else rows
    ref = reads.row(Outpoint, sighting.network, sighting.txid, sighting.position).ref
    if ref:
        deposit = reads.row(Deposit, ref)
        if deposit.state not in UNBOOKED or not sighting.block or deposit.block == sighting.block:
            return None
        return prepare_placing(deposit, sighting.height, sighting.block)
    return SeeDeposit(
        guard=NOBODY,
        to=reads.row(Address, sighting.network, sighting.address, sighting.tag),
        txid=sighting.txid,
        position=sighting.position,
        asset=sighting.asset,
        chain_units=str(sighting.chain_units),
        height=sighting.height,
        block=sighting.block,
        ref=context.ids.ref(),
        coinbase=sighting.coinbase,
    )


def prepare_credit(deposit: Deposit, position: int = 0, *, coin: bool = False) -> CreditDeposit:
    """Return the command that credits a confirming deposit in the block it is known to be in.

    `position` is that of its address. The deposit is a `coin` there, or else in the address's pot, but at position 0.
    """
    booked = (deposit.ref, deposit.owner, deposit.asset, deposit.network, deposit.height, deposit.block)
    return CreditDeposit(NOBODY, *booked, outpoint_of(deposit) if coin else "", position)


def confirmations_needed(network: NetworkSettings, deposit: Deposit) -> int:
    """Return how many blocks a deposit must be deep: a miner's own pay cannot be spent before it is a hundred deep."""
    return max(network.confirmations, COINBASE_CONFIRMATIONS) if deposit.coinbase else network.confirmations


def outpoint_of(deposit: Deposit) -> str:
    """Return what names a deposit's output on its chain: `txid:index`."""
    return f"{deposit.txid}:{deposit.position}"


def prepare_placing(deposit: Deposit, height: int = 0, block: str = "") -> PlaceDeposit:
    """Return the command that puts a deposit that is not booked into a block, or takes it out of the one it is in."""
    return PlaceDeposit(NOBODY, deposit.ref, deposit.block, height, block)


def prepare_drop(deposit: Deposit) -> DropDeposit:
    """Return the command that drops a deposit whose transaction is gone."""
    return DropDeposit(NOBODY, deposit.ref)


def deposit_confirmations(reads: ReadsRows, deposit: Deposit) -> Confirmations:
    """Return how many confirmations a deposit has, of those it needs: worked out from the chain's tip, never kept."""
    network = catalogue_of(reads.row(Settings, 0).snapshot).network(deposit.network)
    ended = deposit.internal or deposit.state in CREDITED
    needed = confirmations_needed(network, deposit)
    return confirmations_of(reads, network, deposit.height if deposit.block else 0, ended=ended, needed=needed)
