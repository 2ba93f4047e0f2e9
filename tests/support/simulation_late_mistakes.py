"""Servers with a mistake in what becomes of payments later: reopened, moved, or found after a restore."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from strongroom.custody import restoration, sender, sightings, watcher
from strongroom.engine.command import Decision
from strongroom.ledger.accounts import Purpose, available
from strongroom.records.withdrawals import Payment
from strongroom.wallet import addresses, adoptions, moves, payments, reopenings
from support.simulation_planting import MISTAKES, mistake, replaced

# -- what was final is on its way again where the chain takes its word back


@mistake
def _reopens_without_a_hold() -> Iterator[None]:
    with replaced((reopenings, "source_of", available)):
        yield


@mistake
def _keeps_the_end_of_what_was_final() -> Iterator[None]:
    right = reopenings.ReopenPayment.decide

    def decide(self: Any, view: Any, now_ms: int) -> Decision:
        if self.voided:
            return right(self, view, now_ms)
        return Decision(rows=[msgspec.structs.replace(view.get(Payment, self.payment), block="")])

    with replaced((reopenings.ReopenPayment, "decide", decide)):
        yield


@mistake
def _keeps_what_was_given_up_for_good() -> Iterator[None]:
    right = reopenings.ReopenPayment.decide

    def decide(self: Any, view: Any, now_ms: int) -> Decision:
        if not self.voided:
            return right(self, view, now_ms)
        return Decision(rows=[msgspec.structs.replace(view.get(Payment, self.payment), block="")])

    changes = ((reopenings.ReopenPayment, "decide", decide), (watcher.Watcher, "_revive", _nothing))
    with replaced(*changes):
        yield


@mistake
def _holds_nothing_again_of_what_was_given_up() -> Iterator[None]:
    with replaced((reopenings, "hold_again", lambda view, withdrawal: ([], []))):
        yield


# -- moves of the house's own money: booked once, and lying where the chain has it


@mistake
def _books_a_move_twice() -> Iterator[None]:
    right = moves.FinishMove.decide

    def decide(self: Any, view: Any, now_ms: int) -> Decision:
        decision, payment = right(self, view, now_ms), view.get(Payment, self.payment)
        again = msgspec.structs.replace(payment, candidates=(*payment.candidates, "booked"))
        rows = [again if isinstance(row, Payment) else row for row in decision.rows]
        return decision if "booked" in payment.candidates else Decision(decision.postings, rows)

    with replaced((moves.FinishMove, "decide", decide)):
        yield


@mistake
def _forgets_where_money_lies() -> Iterator[None]:
    with replaced((moves, "pots_after", lambda *_, **__: [])):
        yield


@mistake
def _takes_cold_money_for_spent() -> Iterator[None]:
    right = moves.house

    def spent(purpose: Purpose, asset: int) -> Any:
        return right(Purpose.EQUITY if purpose == Purpose.COLD else purpose, asset)

    with replaced((moves, "house", spent)):
        yield


# -- a restored house: the chain tells what the backup does not know, and before that nothing is paid


@mistake
def _sends_before_it_is_reconciled() -> Iterator[None]:
    nobody_waits = (
        (sender, "waits", lambda reads, network: False),
        (payments, "check_open", lambda view, network: None),
    )
    with replaced(*nobody_waits):
        yield


@mistake
def _adopts_nothing() -> Iterator[None]:
    with replaced((restoration, "prepare_adoption", lambda context, found, coins: None)):
        yield


@mistake
def _adopts_for_nobody_what_is_somebodys() -> Iterator[None]:
    with replaced((adoptions.Matches, "take", lambda self, paid: 0)):
        yield


@mistake
def _gives_old_addresses_again() -> Iterator[None]:
    with replaced((addresses, "epoch_of", lambda reads: 0), (addresses, "is_retired", lambda address, epoch: False)):
        yield


@mistake
def _overlooks_old_addresses() -> Iterator[None]:
    with replaced((sightings, "is_retired", lambda address, epoch: False)):
        yield


async def _nothing(*_: Any) -> None:
    """Do nothing."""


LATE: Final = dict(MISTAKES)
