"""Replacements: what becomes of a payment that was signed elsewhere and waits for its block, holding its nonce.

    a dearer one       is drafted, signed elsewhere as the first was, and comes back signed: one more candidate
    it is given up     the hot wallet spends the nonce itself, for next to nothing that stays with it

Either spends the same nonce as all that was signed for the payment before. Only one of them is ever mined, and the
chain's word decides what is booked.
"""

from __future__ import annotations

import msgspec

from strongroom.engine.command import NOBODY, Command, Decision, Stale, View
from strongroom.errors import check
from strongroom.records.coins import Sent
from strongroom.records.kept import Key
from strongroom.records.withdrawals import Payment, PaymentPurpose, PaymentState
from strongroom.wallet.payments import Draft, drafted_again, in_state, signed_rows


class ReplaceCandidate(Command, frozen=True):
    """Keep a dearer transaction of a payment that was signed elsewhere, in the place of the one with body `before`."""

    payment: int
    network: int
    before: bytes
    draft: Draft
    txid: str
    blob: bytes

    def needs(self) -> list[Key]:
        """The payment, and the transaction's own row."""
        return [Payment.at(self.payment), Sent.at(self.network, self.txid)]

    def decide(self, view: View, now_ms: int) -> Decision:
        """Keep it as the newest candidate, before anybody outside sees it."""
        payment = _waiting(view, self.payment, self.before)
        check(self.draft.fee_units > int(payment.chain_fee_units), "a candidate that replaces another pays more")
        return Decision(rows=signed_rows(drafted_again(payment, self.draft), self.txid, self.blob, now_ms))


class FillNonce(Command, frozen=True):
    """Give a payment up that was signed elsewhere: a transaction that moves nothing is to be signed for its nonce."""

    payment: int
    before: bytes
    draft: Draft

    def needs(self) -> list[Key]:
        """The payment."""
        return [Payment.at(self.payment)]

    def decide(self, view: View, now_ms: int) -> Decision:
        """Keep what is to be signed; every earlier candidate is followed on, and may be mined still."""
        payment = _waiting(view, self.payment, self.before)
        return Decision(rows=[msgspec.structs.replace(drafted_again(payment, self.draft), filling=True)])


def _waiting(view: View, ref: int, before: bytes) -> Payment:
    """Return a payment that waits for its block as it was seen. Raises `Refused` PARAMETER_INVALID, `Stale`."""
    payment = in_state(view, ref, PaymentState.SIGNED)
    check(payment.purpose == PaymentPurpose.COLD, "only what is signed elsewhere is replaced there")
    if payment.filling or payment.body != before:
        raise Stale
    return payment


def prepare_replacement(payment: Payment, draft: Draft, txid: str, blob: bytes) -> ReplaceCandidate:
    """Return the command that keeps a dearer transaction that was signed elsewhere."""
    return ReplaceCandidate(NOBODY, payment.ref, payment.network, payment.body, draft, txid, blob)


def prepare_filling(payment: Payment, draft: Draft) -> FillNonce:
    """Return the command that gives a payment up that was signed elsewhere."""
    return FillNonce(NOBODY, payment.ref, payment.body, draft)
