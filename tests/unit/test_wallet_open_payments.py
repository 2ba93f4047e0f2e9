"""Payments on their way, listed while they move on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from strongroom.engine.port import Reads
from strongroom.records.withdrawals import Payment, PaymentState
from strongroom.wallet.payments import open_payments

REF, NETWORK = 7, 1


class Moving:
    """Books in which a payment is signed between two looks."""

    def __init__(self) -> None:
        self.state = PaymentState.RESERVED

    def rows(self, kind: type[Any], equal: Mapping[str, Any], limit: int) -> list[Any]:
        """Return the payment where it is now, and let it move on."""
        found = [Payment(REF, network=NETWORK, state=self.state)] if equal["state"] == self.state else []
        self.state = PaymentState.SIGNED
        return found


def test_a_payment_that_is_signed_meanwhile_is_listed_once() -> None:
    """It is found in both states, and told as it was last: an operator's list shows nothing twice."""
    [payment] = open_payments(cast(Reads, Moving()), NETWORK, 10)
    assert (payment.ref, payment.state) == (REF, PaymentState.SIGNED)
