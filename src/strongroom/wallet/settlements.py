"""Settlements: what is booked when the chain's word on a payment is final, and what comes back of its coins."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec

from strongroom.engine.command import NOBODY, Command, Decision, View
from strongroom.errors import PARAMETER_INVALID, check
from strongroom.ledger.accounts import Account, Purpose, held, house, omnibus
from strongroom.ledger.entries import Posting
from strongroom.records.coins import Coin
from strongroom.records.heads import head_of
from strongroom.records.kept import Kept, Key
from strongroom.records.settings import SETTINGS_KEY, NetworkSettings, Settings
from strongroom.records.withdrawals import Payment, PaymentState, Withdrawal, WithdrawalState
from strongroom.wallet.catalogue import Catalogue, catalogue_of
from strongroom.wallet.context import Context
from strongroom.wallet.holdings import holding_change, holding_needs, ledger_units
from strongroom.wallet.payments import in_state, offered_on, outgoing, releases, withdrawals_of
from strongroom.wallet.withdrawals import release_needs


class Change(msgspec.Struct, frozen=True):
    """What a mined payment returned to the house's own address: the outpoint and an amount in the chain's units."""

    outpoint: str
    units: int


class FinishPayment(Command, frozen=True):
    """Settle withdrawals whose transaction is buried: the chain's newest block was `tip` when it was seen.

    `owners` are the withdrawals' customers; `spends` are the coins it spent, none on a chain of accounts, and `change`
    is what of them came back.
    """

    payment: int
    withdrawals: tuple[int, ...]
    owners: tuple[int, ...]
    asset: int
    network: int
    fee_asset: int
    tip: int
    spends: tuple[str, ...]
    change: tuple[Change, ...]

    def needs(self) -> list[Key]:
        """The settings, all rows, what is held, and what the house owns, in the chain's own coin too."""
        return [
            SETTINGS_KEY,
            Payment.at(self.payment),
            *map(Withdrawal.at, self.withdrawals),
            *(head_of(source_of(owner, self.asset)) for owner in self.owners),
            *(Coin.at(self.network, spends) for spends in self.spends),
            *(Coin.at(self.network, change.outpoint) for change in self.change),
            head_of(house(Purpose.FEES, self.asset)),
            head_of(house(Purpose.CHAIN_FEE, self.fee_asset)),
            *holding_needs(self.network, self.asset),
            *holding_needs(self.network, self.fee_asset),
        ]

    def decide(self, view: View, now_ms: int) -> Decision:
        """Book what left the house, and what the chain took for it."""
        payment = in_state(view, self.payment, PaymentState.MINED)
        withdrawals = [view.get(Withdrawal, ref) for ref in payment.withdrawals]
        catalogue = catalogue_of(view.get(Settings, 0).snapshot)
        check_buried(catalogue, self.network, payment.height, self.tip)
        postings, holdings, left = _settlement(view, catalogue, withdrawals, payment, self.fee_asset)
        settled = [msgspec.structs.replace(it, state=WithdrawalState.SETTLED) for it in withdrawals]
        final = msgspec.structs.replace(payment, state=PaymentState.FINAL)
        coins = coins_back(view, payment, self.spends, self.change, left)
        return Decision(postings, [final, *settled, *holdings, *coins])


class RevertPayment(Command, frozen=True):
    """Give up a payment whose transaction is buried in `block`, at `height`, which took its fee and undid it."""

    payment: int
    withdrawals: tuple[Withdrawal, ...]
    network: int
    fee_asset: int
    fee_units: str
    height: int
    tip: int
    block: str = ""

    def needs(self) -> list[Key]:
        """The settings, the payment, what its withdrawals hold, and what the house owns of the chain's own coin."""
        return [
            SETTINGS_KEY,
            Payment.at(self.payment),
            *(key for it in self.withdrawals for key in release_needs(it)),
            head_of(house(Purpose.CHAIN_FEE, self.fee_asset)),
            *holding_needs(self.network, self.fee_asset),
        ]

    def decide(self, view: View, now_ms: int) -> Decision:
        """Book what the chain took, and release the customers' money."""
        payment = in_state(view, self.payment, PaymentState.SIGNED, PaymentState.MINED)
        catalogue = catalogue_of(view.get(Settings, 0).snapshot)
        check_buried(catalogue, self.network, self.height, self.tip)
        fees: list[Posting] = []
        leaving = chain_fee(catalogue, self.network, self.fee_asset, int(self.fee_units), fees)
        holdings = leave(view, catalogue, self.network, leaving, fees)
        postings, rows = releases(view, payment, self.withdrawals)
        voided = msgspec.structs.replace(
            payment,
            state=PaymentState.VOIDED,
            height=self.height,
            block=self.block,
            chain_fee_units=self.fee_units,
        )
        return Decision([*fees, *postings], [voided, *rows, *holdings])


def prepare_finish(
    context: Context, payment: Payment, tip: int, change: Sequence[Change] | None = None
) -> FinishPayment:
    """Return the command that settles a mined payment's withdrawals, the chain's newest block being `tip`.

    `change` is what came back of the coins that it spent; None on a chain of accounts.
    """
    network = context.catalogue.network(payment.network)
    return FinishPayment(
        NOBODY,
        payment=payment.ref,
        withdrawals=payment.withdrawals,
        owners=tuple(it.owner for it in withdrawals_of(context, payment)),
        asset=payment.asset,
        network=network.number,
        fee_asset=fee_asset_of(context.catalogue, network),
        tip=tip,
        spends=() if change is None else payment.spends,
        change=tuple(change or ()),
    )


def prepare_revert(
    context: Context, payment: Payment, height: int, fee_units: int, tip: int, block: str = ""
) -> RevertPayment:
    """Return the command that gives up a payment that the chain has undone in `block`, at `height`."""
    network = context.catalogue.network(payment.network)
    return RevertPayment(
        NOBODY,
        payment=payment.ref,
        withdrawals=tuple(withdrawals_of(context, payment)),
        network=network.number,
        fee_asset=fee_asset_of(context.catalogue, network),
        fee_units=str(fee_units),
        height=height,
        tip=tip,
        block=block,
    )


def fee_asset_of(catalogue: Catalogue, network: NetworkSettings) -> int:
    """Return the asset in which a chain takes its fees: the declared one, else the one that is its native coin."""
    if network.fee_asset:
        return network.fee_asset
    native = [o.asset for o in catalogue.snapshot.offers if o.network == network.number and not o.token]
    if not native:
        raise PARAMETER_INVALID("network has no asset for its fees")
    return native[0]


def check_buried(catalogue: Catalogue, network: int, height: int, tip: int) -> None:
    """Raise `Refused` PARAMETER_INVALID unless the block at `height` has its confirmations with that newest block."""
    if tip - height + 1 < catalogue.network(network).confirmations:
        raise PARAMETER_INVALID("payment is not confirmed")


def coins_back(
    view: View, payment: Payment, spends: tuple[str, ...], change: Sequence[Change], left: int
) -> list[Kept]:
    """Return the coins that came back; with what has left the house they are all that was spent, none in accounts."""
    if not spends:
        return []
    check(spends == payment.spends, "a payment spends what it has reserved")
    spent = [view.get(Coin, payment.network, outpoint) for outpoint in spends]
    check(all(coin.payment == payment.ref for coin in spent), "a payment's coins are its own")
    back = sum(it.units for it in change)
    check(sum(coin.units for coin in spent) == left + back, "what a payment spends is paid, taken as fee or back")
    # A reorganisation may have undone this payment and one that spends its change: the coin is that one's still.
    known = [view.get(Coin, payment.network, it.outpoint).payment for it in change]
    return [
        Coin(payment.network, it.outpoint, 0, it.units, payment.height, spender)
        for it, spender in zip(change, known, strict=True)
    ]


def _settlement(
    view: View, catalogue: Catalogue, withdrawals: Sequence[Withdrawal], payment: Payment, fee_asset: int
) -> tuple[list[Posting], list[Kept], int]:
    """Return the entry of a payment that is final, what the house then has on the chain, and the chain units that left
    it of the payment's own asset, the fee among them if that is the chain's own."""
    asset = payment.asset
    postings = [Posting(source_of(it.owner, asset), -it.held) for it in withdrawals]
    postings.append(Posting(house(Purpose.FEES, asset), sum(it.fee for it in withdrawals)))
    leaving = Counter({asset: sum(outgoing(catalogue, it).chain_units for it in withdrawals)})
    leaving += chain_fee(catalogue, payment.network, fee_asset, int(payment.chain_fee_units), postings)
    return postings, leave(view, catalogue, payment.network, leaving, postings), leaving[asset]


def source_of(owner: int, asset: int) -> Account:
    """Return what a settled withdrawal is paid from: what is held for it, or the house where nobody is named for it."""
    return held(owner, asset) if owner else house(Purpose.EQUITY, asset)


def chain_fee(
    catalogue: Catalogue, network: int, fee_asset: int, fee_units: int, postings: list[Posting]
) -> Counter[int]:
    """Add what the house pays the chain to an entry's postings, and return it by its asset in chain units."""
    if not fee_units:
        return Counter()
    found, offer = offered_on(catalogue, fee_asset, network)
    postings.append(Posting(house(Purpose.CHAIN_FEE, fee_asset), -ledger_units(fee_units, offer, found)))
    return Counter({fee_asset: fee_units})


def leave(
    view: View, catalogue: Catalogue, network: int, leaving: Mapping[int, int], postings: list[Posting]
) -> list[Kept]:
    """Book what leaves the chain's holdings (chain units by asset), add the odd units to the dust; return the rows."""
    holdings: list[Kept] = []
    for asset, units in leaving.items():
        found, offer = offered_on(catalogue, asset, network)
        rows, delta = holding_change(view, offer, found, -units)
        holdings += rows
        postings.append(Posting(omnibus(network, asset), -delta))
        rest = sum(posting.amount for posting in postings if posting.account.asset == asset)
        postings.append(Posting(house(Purpose.DUST, asset), -rest))
    return holdings
