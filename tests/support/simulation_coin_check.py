"""What must be true of coins in the end: each is spent once, and the books have those that the chain has."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

from strongroom.records.addresses import Placed
from strongroom.records.coins import Coin, Sent
from strongroom.records.withdrawals import Payment, PaymentPurpose, PaymentState
from strongroom.wallet.cold import COLD_COIN
from strongroom.wallet.payments import OPEN_PAYMENTS
from support.simulation_coins import CoinedChain
from support.simulation_life import demand

_ALL: Final = 100_000


def check_coins(store: Any, chain: CoinedChain, network: int) -> int:
    """Return what the house's coins come to. Raises `Failure` for one that was spent twice, or that is not there."""
    _check_spent_once(store, chain, network)
    ours = {place.address for place in store.rows(Placed, {"network": network}, _ALL)} | {chain.address_at(0)}
    lies = chain.unspent_coins(ours)
    books = {it.outpoint: it.units for it in store.rows(Coin, {"network": network}, _ALL) if _is_there(store, it)}
    demand(books == lies, f"the books have coins {_beyond(books, lies)}, the chain {_beyond(lies, books)}")
    return sum(lies.values())


def _check_spent_once(store: Any, chain: CoinedChain, network: int) -> None:
    """Check that no block, and no payment that is final in the books, spends what another one has spent."""
    twice = [it for it, times in Counter(chain.spent_coins()).items() if times > 1]
    demand(not twice, f"spent twice on the chain: {twice}")
    spent: dict[str, int] = {}
    for payment in store.rows(Payment, {"network": network, "state": PaymentState.FINAL}, _ALL):
        on_chain = chain.spent_by(payment.txid)
        demand(sorted(on_chain) == sorted(payment.spends), f"{payment.ref} spends {payment.spends}, not {on_chain}")
        for outpoint in payment.spends:
            demand(outpoint not in spent, f"{outpoint} is spent by {spent.get(outpoint)} and by {payment.ref}")
            spent[outpoint] = payment.ref
            holder = store.row(Coin, network, outpoint).payment
            demand(holder == payment.ref, f"{outpoint} is spent by {payment.ref}, and {holder} has it")
    left = [it for state in OPEN_PAYMENTS for it in store.rows(Payment, {"network": network, "state": state}, _ALL)]
    demand(all(it.is_away for it in left), f"payments are left open: {left}")


def _is_there(store: Any, coin: Coin) -> bool:
    """Say whether the books count a coin: it is in a block, and no final payment has spent it."""
    if not coin.height or coin.payment == COLD_COIN:
        return False
    return not coin.payment or store.row(Payment, coin.payment).state != PaymentState.FINAL


def _beyond(some: dict[str, int], others: dict[str, int]) -> dict[str, int]:
    return {it: units for it, units in some.items() if others.get(it) != units}


def coin_events(store: Any, network: int) -> Counter[str]:
    """Return how often coins came to what only coins can."""
    found: Counter[str] = Counter()
    for payment in store.rows(Payment, {"network": network, "state": PaymentState.FINAL}, _ALL):
        made = [store.row(Sent, network, outpoint.partition(":")[0]).payment for outpoint in payment.spends]
        found["coins consolidated"] += payment.purpose == PaymentPurpose.CONSOLIDATION
        found["change spent"] += any(made)
        found["several paid at once"] += len(payment.withdrawals) > 1
    return found
