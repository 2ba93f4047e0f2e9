"""Reconciliation: what the books say the house owns on a network, held against what the chain says, at one block.

Every difference has a cause that is told, or is unexplained and somebody's work. A payment that the chain has mined and
the books have not settled yet is a cause; so is, on a chain of accounts, a deposit that waits for its confirmations.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final, cast

import msgspec

from strongroom.custody.chain import Block, Chain, Fate, Unreachable
from strongroom.custody.keeper import Sweepable
from strongroom.records.addresses import Address, Placed
from strongroom.records.chains import Holding, Tip
from strongroom.records.coins import Coin
from strongroom.records.deposits import Deposit, DepositState
from strongroom.records.kept import Kept
from strongroom.records.settings import OfferSettings
from strongroom.records.withdrawals import Payment, PaymentPurpose, PaymentState
from strongroom.wallet.addresses import HOUSE_POSITION
from strongroom.wallet.context import Context
from strongroom.wallet.payments import OPEN_PAYMENTS, open_payments, outgoing, payments_in, withdrawals_of
from strongroom.wallet.pots import filled_pots

MAX_OPEN: Final = 10_000
MAX_COINS: Final = 1_000_000
MAX_ADDRESSES: Final = 10_000
"""So many of the newest deposit addresses are looked at, whatever the books know of them, on a chain of accounts."""

MAX_TRIES: Final = 8
"""So often are books and chain compared again that move meanwhile."""

_PAUSE_S: Final = 0.2

_ON_CHAIN: Final = (Fate.MINED, Fate.REVERTED)


class Difference(msgspec.Struct, frozen=True):
    """By how much the chain has more than the books (or less), in the chain's smallest unit, and why."""

    units: int
    cause: str
    explained: bool


class Reconciliation(msgspec.Struct, frozen=True):
    """One asset on one network at a block: both totals in the chain's smallest unit, and all that lies between them."""

    network: str
    asset: str
    height: int
    block: str
    books_units: int
    chain_units: int
    differences: tuple[Difference, ...]

    @property
    def unexplained_units(self) -> int:
        """The sum of what is unexplained, without signs: 0 only if everything is explained."""
        return sum(abs(difference.units) for difference in self.differences if not difference.explained)


async def reconcile(context: Context, chain: Chain, network: int) -> list[Reconciliation]:
    """Return a reconciliation for each asset that is offered on a network. Raises `Unreachable`.

    Books and chain are each asked in many steps: what either has done meanwhile would look like a difference, so that
    all is asked again then.
    """
    for attempt in range(MAX_TRIES):
        tip, books = await chain.tip(), _standing(context, network)
        if not chain.needs_sweeps or context.reads.row(Tip, network).block == tip.hash:
            found = [await _reconcile(context, chain, offer, tip) for offer in _offers(context, network)]
            if (await chain.tip()).hash == tip.hash and _standing(context, network) == books:
                return found
        await asyncio.sleep(_PAUSE_S * attempt)
    raise Unreachable("books or chain moved while they were compared")


def _standing(context: Context, network: int) -> list[Kept]:
    """Return what a comparison goes by: what the books own on a network, and the payments under way."""
    owned = [context.reads.row(Holding, network, offer.asset) for offer in _offers(context, network)]
    return [*owned, *open_payments(context.reads, network, MAX_OPEN)]


def _offers(context: Context, network: int) -> list[OfferSettings]:
    return [offer for offer in context.catalogue.snapshot.offers if offer.network == network]


async def _reconcile(context: Context, chain: Chain, offer: OfferSettings, tip: Block) -> Reconciliation:
    books = int(context.reads.row(Holding, offer.network, offer.asset).chain_units)
    open_ones = await _open_payments(context, chain, offer)
    if chain.spends_coins:
        spenders = {outpoint: it.ref for it in open_ones for outpoint in it.payment.spends}
        units, differences = await _by_coins(context, chain, offer.network, books, spenders)
    else:
        units, differences = await _by_account(context, chain, offer, open_ones)
    rest = units - books - sum(difference.units for difference in differences)
    if rest:
        differences.append(Difference(rest, "nothing in the books tells why", explained=False))
    code, asset = context.catalogue.network(offer.network).code, context.catalogue.assets[offer.asset].code
    return Reconciliation(code, asset, tip.height, tip.hash, books, units, tuple(differences))


class _Underway(msgspec.Struct, frozen=True):
    """A payment that the books have not settled, and the chain knows."""

    payment: Payment
    units: int
    fee: int
    reverted: bool

    @property
    def ref(self) -> int:
        """The payment's reference."""
        return self.payment.ref


async def _open_payments(context: Context, chain: Chain, offer: OfferSettings) -> list[_Underway]:
    """Return the payments on a network that the books have not settled, as far as the chain has them."""
    found: list[_Underway] = []
    for payment in open_payments(context.reads, offer.network, MAX_OPEN):
        for txid in payment.candidates:
            status = await chain.transaction(txid, payment.spends)
            waiting = status.fate is Fate.MEMPOOL and not chain.spends_coins and not chain.needs_sweeps
            if status.fate in _ON_CHAIN or waiting:
                moves = payment.asset == offer.asset and txid not in payment.fillers
                paid = _paid(context, payment) if moves else 0
                fee = 0 if offer.token else status.fee
                found.append(_Underway(payment, paid, fee, status.fate is Fate.REVERTED))
    return found


def _paid(context: Context, payment: Payment) -> int:
    """Return what of a payment's asset leaves what the house's keys can spend, beside the fee."""
    if payment.purpose == PaymentPurpose.COLD:
        return int(payment.units)
    return sum(outgoing(context.catalogue, it).chain_units for it in withdrawals_of(context, payment))


async def _by_coins(
    context: Context, chain: Chain, network: int, books: int, spenders: Mapping[str, int]
) -> tuple[int, list[Difference]]:
    """Return what of our coins is unspent on the chain, and why some are not: `spenders` are payments under way."""
    coins = _owned(context, network)
    unspent = await chain.unspent([coin.outpoint for coin in coins])
    differences = [
        Difference(-coin.units, _why(coin, spenders), explained=coin.outpoint in spenders)
        for coin in coins
        if coin.outpoint not in unspent
    ]
    total = sum(coin.units for coin in coins)
    if total != books:
        differences.append(Difference(total - books, "the coins do not come to the books", explained=False))
    return sum(coin.units for coin in coins if coin.outpoint in unspent), differences


def _owned(context: Context, network: int) -> list[Coin]:
    """Return the coins that the books count: in a block, free or of a payment that is not final.

    Those that final payments have spent, which become ever more, are not looked at.
    """
    reads = context.reads
    coins = reads.rows(Coin, {"network": network, "payment": 0}, MAX_COINS)
    for payment in payments_in(reads, network, (*OPEN_PAYMENTS, PaymentState.VOIDED), MAX_OPEN):
        spent = [reads.row(Coin, network, outpoint) for outpoint in payment.spends]
        # What it was to spend may be free again, or have been spent by another one.
        coins += [coin for coin in spent if coin.payment == payment.ref]
    return [coin for coin in coins if coin.height]


def _why(coin: Coin, spenders: Mapping[str, int]) -> str:
    if coin.outpoint in spenders:
        return f"payment {spenders[coin.outpoint]} is mined and not final yet; it spends {coin.outpoint}"
    return f"the chain has no unspent {coin.outpoint}"


async def _by_account(
    context: Context, chain: Chain, offer: OfferSettings, underway: Iterable[_Underway]
) -> tuple[int, list[Difference]]:
    """Return what the hot wallet has, and what of the difference is under way."""
    differences = [
        Difference(
            -(it.fee if it.reverted else it.units + it.fee), f"payment {it.ref} is not final yet", explained=True
        )
        for it in underway
        if it.units or it.fee
    ]
    equal = {"network": offer.network, "state": DepositState.CONFIRMING}
    differences += [
        Difference(int(deposit.chain_units), f"deposit {deposit.ref} waits for its confirmations", explained=True)
        for deposit in context.reads.rows(Deposit, equal, MAX_OPEN)
        if deposit.asset == offer.asset and deposit.block
    ]
    if not chain.needs_sweeps:
        return await chain.balance(offer.token), differences
    units, found = await _by_address(context, cast(Sweepable, chain), offer, underway)
    return units, differences + found


async def _by_address(
    context: Context, chain: Sweepable, offer: OfferSettings, underway: Iterable[_Underway]
) -> tuple[int, list[Difference]]:
    """Return what lies on the hot wallet and on all deposit addresses, and where it is another amount than known."""
    expected = _expected(context, offer, underway)
    newest = context.reads.rows(Placed, {"network": offer.network}, MAX_ADDRESSES, newest_first=True)
    positions = sorted({HOUSE_POSITION, *expected, *(place.position for place in newest)})
    held = dict(zip(positions, await chain.held(positions, offer.token), strict=True))
    differences = [
        Difference(units - expected.get(position, 0), _where(context, offer.network, position), explained=False)
        for position, units in held.items()
        if position != HOUSE_POSITION and units != expected.get(position, 0)
    ]
    return sum(held.values()), differences


def _expected(context: Context, offer: OfferSettings, underway: Iterable[_Underway]) -> Counter[int]:
    """Return what should lie on each deposit address by its position, with what is under way."""
    expected: Counter[int] = Counter()
    for pot in filled_pots(context.reads, offer.network, MAX_COINS):
        if pot.asset == offer.asset:
            expected[pot.position] += int(pot.chain_units)
    equal = {"network": offer.network, "state": DepositState.CONFIRMING}
    for deposit in context.reads.rows(Deposit, equal, MAX_OPEN):
        if deposit.asset == offer.asset and deposit.block:
            address = context.reads.row(Address, deposit.network, deposit.address, deposit.tag)
            expected[address.position] += int(deposit.chain_units)
    for it in underway:
        moved = int(it.payment.units) if it.payment.asset == offer.asset and not it.reverted else 0
        if it.payment.purpose in (PaymentPurpose.SWEEP, PaymentPurpose.GAS):
            expected[it.payment.source] -= moved + it.fee
            expected[it.payment.target] += moved
    return expected


def _where(context: Context, network: int, position: int) -> str:
    address = context.reads.row(Placed, network, position).address
    return f"{address} has another amount than its deposits and sweeps come to; a contract may have paid it ether"
