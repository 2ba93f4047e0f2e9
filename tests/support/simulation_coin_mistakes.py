"""Servers with a mistake that only coins can show: what comes back of them, whose it is, and that it is spent once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from strongroom.custody import sightings
from strongroom.records.withdrawals import Reserved
from strongroom.wallet import moves, payments, settlements
from support.simulation_planting import MISTAKES, mistake, replaced


@mistake
def _forgets_change() -> Iterator[None]:
    right = settlements.coins_back

    def coins_back(*known: Any) -> list[Any]:
        rows: list[Any] = right(*known)
        return [it for it in rows if it.payment]

    with replaced((settlements, "coins_back", coins_back), (moves, "coins_back", coins_back)):
        yield


@mistake
def _takes_change_for_a_deposit() -> Iterator[None]:
    # Nothing is ever reserved under a txid.
    with replaced((sightings, "Sent", Reserved)):
        yield


@mistake
def _leaves_coins_free_that_it_spends() -> Iterator[None]:
    right = payments.reservation

    def reservation(view: Any, payment: Any, *, coins: bool) -> list[Any]:
        if not coins:
            return right(view, payment, coins=False)
        return [Reserved(payment.network, spends, payment.ref) for spends in payment.spends]

    with replaced((payments, "reservation", reservation), (moves, "reservation", reservation)):
        yield


WITH_COINS: Final = dict(MISTAKES)
