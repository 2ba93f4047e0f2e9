"""Arrivals for the operator: deposits in any state, and the customers who owe what a reorganisation took back."""

from __future__ import annotations

import asyncio
from contextlib import closing
from itertools import islice
from typing import Final

import msgspec

from strongroom.admin import protocol
from strongroom.admin.states import states_named
from strongroom.admin.views import moment
from strongroom.application import Application
from strongroom.books import open_snapshot
from strongroom.config.settings import Config
from strongroom.engine.port import Reads
from strongroom.money import format_amount
from strongroom.records.deposits import Deposit, DepositState
from strongroom.records.users import Profile
from strongroom.wallet.balances import balance_of
from strongroom.wallet.catalogue import Catalogue
from strongroom.wallet.debts import Debt, debts
from strongroom.wallet.deposits import OPEN

MAX_LISTED: Final = 1_000


class DepositView(msgspec.Struct, frozen=True):
    """A deposit; without a user it is the house's own. `net` is what its user is credited, 0 if it is too small."""

    ref: str
    user: str
    asset: str
    network: str
    amount: str
    net: str
    state: str
    height: int
    txid: str
    address: str
    seen: str


class DebtView(msgspec.Struct, frozen=True):
    """What a user owes of an asset, and has of it; nothing of any asset is paid out to the user meanwhile."""

    user: str
    asset: str
    owes: str
    total: str


async def list_deposits(house: Application, request: protocol.ListDeposits) -> list[DepositView]:
    """Return the deposits in a state, oldest first. Raises `AdminError` for a state that there is none of."""
    found: list[Deposit] = []
    for network in house.context.catalogue.networks:
        states = states_named(request.state, DepositState, OPEN)
        found += house.store.rows(Deposit, {"network": network, "state": states}, MAX_LISTED)
    shown = sorted(found, key=lambda deposit: deposit.ref)[:MAX_LISTED]
    return [deposit_view(house.store, house.context.catalogue, deposit) for deposit in shown]


def deposit_view(reads: Reads, catalogue: Catalogue, deposit: Deposit) -> DepositView:
    """Return a deposit as it is shown."""
    asset = catalogue.assets[deposit.asset]
    return DepositView(
        str(deposit.ref),
        reads.row(Profile, deposit.owner).username if deposit.owner else "",
        asset.code,
        catalogue.network(deposit.network).code,
        format_amount(deposit.amount, asset.scale),
        format_amount(deposit.net, asset.scale),
        DepositState(deposit.state).name.lower(),
        deposit.height,
        deposit.txid,
        deposit.address,
        moment(deposit.seen_ms),
    )


async def list_debts(house: Application, _request: protocol.ListDebts) -> list[DebtView]:
    """Return the customers who owe, at most 1,000; all accounts are read, in a thread and from a snapshot."""
    found = await asyncio.to_thread(_debts_of, house.config)
    return [_debt_view(house.store, house.context.catalogue, debt) for debt in found]


def _debts_of(config: Config) -> list[Debt]:
    with closing(open_snapshot(config)) as books:
        return list(islice(debts(books), MAX_LISTED))


def _debt_view(reads: Reads, catalogue: Catalogue, debt: Debt) -> DebtView:
    asset = catalogue.assets[debt.asset]
    return DebtView(
        reads.row(Profile, debt.owner).username,
        asset.code,
        format_amount(debt.units, asset.scale),
        format_amount(balance_of(reads, debt.owner, debt.asset).total, asset.scale),
    )
