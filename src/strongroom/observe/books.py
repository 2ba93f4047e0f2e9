"""Metrics of the books, worked out at each scrape from a few house accounts: the customers' are too many to add up.

Every asset's accounts sum to zero, so what the customers have is minus what the house's own accounts add up to.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple, cast

from prometheus_client.core import CounterMetricFamily, Metric

from strongroom.engine.port import Reads
from strongroom.ledger.accounts import Account, Purpose
from strongroom.observe.metrics import gauge
from strongroom.records.chains import Tip
from strongroom.records.deposits import Deposit, DepositState
from strongroom.records.heads import Head
from strongroom.records.settings import AssetSettings, Settings, Snapshot
from strongroom.records.withdrawals import OPEN_WITHDRAWALS, Withdrawal

HOUSE_PURPOSES: Final = tuple(purpose for purpose in Purpose if purpose >= Purpose.OMNIBUS)

OPEN_DEPOSITS: Final = (DepositState.SEEN, DepositState.CONFIRMING, DepositState.REVERSED)

MOST_COUNTED: Final = 500
"""A scrape reads at most so many rows of a state, so that its cost is bounded."""


class HotWallet(NamedTuple):
    """What a hot wallet can spend of an asset, in the chain's smallest unit, and whether that is beyond its marks."""

    units: int
    is_low: bool
    is_high: bool


def balances(reads: Reads) -> Iterable[Metric]:
    """Return the house's balances by asset and purpose, and what it owes all its customers together.

    The customers' sum is net of what they owe after reorganisations. As money: positive is what the house owes.
    """
    snapshot = reads.row(Settings, 0).snapshot
    house = gauge(
        "strongroom_house_balance", "What the house's accounts hold; negative is owned", ("asset", "purpose", "network")
    )
    customers = gauge("strongroom_customers_balance", "What the house owes its customers", ("asset",))
    networks = {0: "", **{network.number: network.code for network in snapshot.networks}}
    heads = _house_heads(reads, snapshot, networks)
    for asset in snapshot.assets:
        total = 0
        for purpose in HOUSE_PURPOSES:
            for owner, network in networks.items():
                head = heads[Account(owner, asset.number, purpose).pack()]
                if head.count:
                    total += head.after
                    house.add_metric([asset.code, purpose.name.lower(), network], _shown(head.after, asset))
        customers.add_metric([asset.code], _shown(-total, asset))
    return house, customers


def _house_heads(reads: Reads, snapshot: Snapshot, owners: Iterable[int]) -> dict[int, Head]:
    """Return the heads of all accounts that the house can have, looked up together for each network."""
    heads: dict[int, Head] = {}
    for owner in owners:
        accounts = [
            Account(owner, asset.number, purpose).pack() for asset in snapshot.assets for purpose in HOUSE_PURPOSES
        ]
        heads.update(zip(accounts, reads.heads(owner, accounts), strict=True))
    return heads


def chains(reads: Reads) -> Iterable[Metric]:
    """Return the height up to which each network has been worked through, and the time of that block."""
    height = gauge("strongroom_chain_height", "Newest block that was worked through", ("network",))
    seen = gauge("strongroom_chain_seen_seconds", "When that was, in Unix seconds", ("network",))
    known = reads.row(Settings, 0).snapshot.networks
    for network, row in zip(known, reads.rows_at([Tip.at(network.number) for network in known]), strict=True):
        tip = cast(Tip, row)
        height.add_metric([network.code], tip.height)
        seen.add_metric([network.code], tip.at_ms / 1000)
    return height, seen


def open_business(reads: Reads) -> Iterable[Metric]:
    """Return how many deposits and withdrawals are under way, counted up to `MOST_COUNTED` of each state."""
    deposits = gauge("strongroom_deposits_open", "Deposits that are not credited yet", ("network", "state"))
    withdrawals = gauge("strongroom_withdrawals_open", "Withdrawals whose money is held", ("state",))
    for network in reads.row(Settings, 0).snapshot.networks:
        for state in OPEN_DEPOSITS:
            found = reads.rows(Deposit, {"network": network.number, "state": state}, MOST_COUNTED)
            deposits.add_metric([network.code, state.name.lower()], len(found))
    for state in OPEN_WITHDRAWALS:
        withdrawals.add_metric([state.name.lower()], len(reads.rows(Withdrawal, {"state": state}, MOST_COUNTED)))
    return deposits, withdrawals


def networks(status: Mapping[str, Mapping[str, Any]]) -> list[Metric]:
    """Return how each network fares, from what custody tells of it."""
    up = gauge("strongroom_network_up", "1 while a network is followed without an error", ("network",))
    stale = gauge("strongroom_network_stale", "1 while a network has not been followed for long", ("network",))
    suspended = gauge(
        "strongroom_deposits_suspended", "1 while no deposit is offered on a network for that", ("network",)
    )
    age = gauge("strongroom_network_age_seconds", "Time since the network was followed to its end", ("network",))
    payments = gauge(
        "strongroom_payments", "Payments under way, and those of them that are stuck", ("network", "state")
    )
    unbooked = gauge("strongroom_unbooked_outputs", "Arrivals that could not be booked for anybody", ("network",))
    reversals = CounterMetricFamily(
        "strongroom_deposits_reversed", "Booked deposits that a chain took back", labels=("network",)
    )
    reopenings = CounterMetricFamily(
        "strongroom_payments_reopened", "Payments whose end a chain took back", labels=("network",)
    )
    waiting = gauge("strongroom_network_waiting", "1 while payments wait after a restore", ("network",))
    for network, told in status.items():
        waiting.add_metric([network], int(bool(told["restored"])))
        up.add_metric([network], int(not told["stale"] and not told["watcher"]))
        stale.add_metric([network], int(told["stale"]))
        suspended.add_metric([network], int(told["deposits_suspended"]))
        age.add_metric([network], told["followed_s_ago"])
        payments.add_metric([network, "open"], told["open_payments"])
        payments.add_metric([network, "stuck"], told["stuck_payments"])
        unbooked.add_metric([network], told["unbooked"])
        reversals.add_metric([network], told["reversed_deposits"])
        reopenings.add_metric([network], told["reopened_payments"])
    return [up, stale, suspended, age, payments, unbooked, reversals, reopenings, waiting]


def hot_wallets(found: Mapping[tuple[str, str], HotWallet]) -> list[Metric]:
    """Return what hot wallets have of the assets with marks, by network and asset, and whether it is beyond a mark."""
    has = gauge("strongroom_hot_wallet_units", "What the hot wallet can spend", ("network", "asset"))
    labels = ("network", "asset", "mark")
    beyond = gauge("strongroom_hot_wallet_beyond", "1 while that is below the low mark, or above the high one", labels)
    for (network, asset), wallet in found.items():
        has.add_metric([network, asset], wallet.units)
        beyond.add_metric([network, asset, "low"], int(wallet.is_low))
        beyond.add_metric([network, asset, "high"], int(wallet.is_high))
    return [has, beyond]


def unexplained(found: Mapping[tuple[str, str], int]) -> list[Metric]:
    """Return what the newest reconciliation could not explain, by network and asset, in the chain's smallest unit."""
    metric = gauge(
        "strongroom_unexplained_units", "What books and chain differ by without a cause", ("network", "asset")
    )
    for (network, asset), units in found.items():
        metric.add_metric([network, asset], units)
    return [metric]


def _shown(units: int, asset: AssetSettings) -> float:
    """Return units as whole coins for a chart; Prometheus knows floats only, and nothing is booked from them."""
    return units / 10**asset.scale
