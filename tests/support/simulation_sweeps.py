"""A simulated chain of accounts whose deposit addresses have money apart from the hot wallet's, and must be swept.

It is the same chain seen more closely: what a payment spends lies on one address, the hot wallet's at position 0 or a
deposit address. The hot wallet's key opens all of them. A block takes a deposit address's payment only while what it
spends is there; the others wait, as on a real chain of accounts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from strongroom.custody.chain import Funds, NeedsGas, Payee, PositionOf, Rejected
from strongroom.custody.families import NATIVE, Network
from strongroom.custody.networks.simulated import SimulatedChain
from strongroom.custody.networks.simulated_store import KnownTransaction, SimulatedStore
from strongroom.custody.networks.simulated_transactions import Payment, decode_payment
from strongroom.wallet.moves import Move
from strongroom.wallet.payments import Draft

HOT: Final = 0
_ROOM: Final = 2
"""So many times its fee stays behind where the native coin is swept: a dearer replacement can be paid."""

_WORTH: Final = 10
"""A sweep of the native coin is worth so many times its fee."""


class SweptChain(SimulatedChain):
    """The wallet's view of such a network; `address_of` names our address at a position (`Sweepable`)."""

    def __init__(self, store: SimulatedStore, spec: Network, address_of: Callable[[int], str]) -> None:
        super().__init__(store, spec)
        self._address_of = address_of

    @property
    def needs_sweeps(self) -> bool:
        """What arrives at a deposit address is not the hot wallet's yet."""
        return True

    async def sweep(self, position: int, asset_id: str, units: int) -> Move:
        """Return a move to the hot wallet of what lies on a deposit address. Raises `NeedsGas`, `Rejected`."""
        self._reach()
        fee, coin = self.spec.payment_fee, self._spendable(NATIVE, position)
        if asset_id == NATIVE:
            units = min(units, coin) - _ROOM * fee
            if units < _WORTH * fee:
                raise Rejected(f"less lies there than {_WORTH} times what its sweep would cost")
        elif coin < fee:
            raise NeedsGas(_ROOM * fee - coin)
        hot = self._address_of(HOT)
        nonce = self._store.next_nonce(self.network, position)
        payment = Payment(self.network, nonce, fee, (Payee(hot, "", asset_id, units),), position)
        return Move(self.drafted(payment), units, hot, position, HOT)

    async def gas(self, position: int, units: int, funds: Funds) -> Move:
        """Return a move of the native coin to a deposit address."""
        address = self._address_of(position)
        return Move(await self.draft([Payee(address, "", NATIVE, units)], funds), units, address, HOT, position)

    async def fill(self, draft: Draft) -> Draft | None:
        """Return a payment to the hot wallet itself that spends a draft's nonce in its place; None beyond the cap."""
        dearer = await self.redraft(draft)
        if dearer is None:
            return None
        payment = decode_payment(dearer.body)
        return self.drafted(msgspec.structs.replace(payment, payees=(Payee(self._address_of(HOT), "", NATIVE, 1),)))

    async def waiting(self, position_of: PositionOf) -> Sequence[str]:
        """Return the transactions of our addresses that wait to be mined, by their txids."""
        self._reach()
        return [known.txid for known in self._store.waiting(self.network) if known.nonce is not None]

    async def held(self, positions: Sequence[int], asset_id: str) -> Sequence[int]:
        """Return what lies on each of our addresses, in blocks, by their positions."""
        self._reach()
        return [self._lying(position, asset_id, waiting=False) for position in positions]

    def most_raises(self, payment: Payment) -> int:
        """Return what is left behind for it, where a deposit address pays."""
        return _ROOM if payment.source else super().most_raises(payment)

    def can_be_mined(self, known: KnownTransaction) -> bool:
        """Say whether what a deposit address is to pay lies there, in blocks."""
        if known.nonce is None or not known.position:
            return True
        needed = {NATIVE: known.fee}
        for paid in self._store.outputs_of(self.network, known.txid):
            needed[paid.asset_id] = needed.get(paid.asset_id, 0) + paid.amount
        return all(self._lying(known.position, asset_id, waiting=False) >= units for asset_id, units in needed.items())

    def _spendable(self, asset_id: str, source: int = 0) -> int:
        return self._lying(source, asset_id, waiting=True)

    def _lying(self, position: int, asset_id: str, *, waiting: bool) -> int:
        address = self._address_of(position)
        lies = self._store.lying(self.network, position, address, asset_id, waiting=waiting)
        return lies - (self._store.fees_of(self.network, position, waiting=waiting) if asset_id == NATIVE else 0)
