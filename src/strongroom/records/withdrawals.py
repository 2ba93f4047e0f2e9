"""Withdrawals, and the payments that carry them out: a withdrawal is not a transaction."""

from __future__ import annotations

from enum import IntEnum

from strongroom.records.kept import Kept


class WithdrawalState(IntEnum):
    """Awaiting approval -> approved -> paying -> settled; or rejected, cancelled, expired, failed.

    An approved one whose customer was frozen meanwhile, or has come to owe the house, awaits approval again.
    """

    AWAITING = 1
    APPROVED = 2
    PAYING = 3
    SETTLED = 4
    REJECTED = 5
    CANCELLED = 6
    EXPIRED = 7
    FAILED = 8


OPEN_WITHDRAWALS = (WithdrawalState.AWAITING, WithdrawalState.APPROVED, WithdrawalState.PAYING)
"""The states in which the customer's money is held."""


class Withdrawal(Kept, frozen=True, gc=False):
    """A withdrawal by its order reference, in ledger units: `asked` as requested, `to_address` what the receiver gets,
    `fee` what the customer is charged, `held` = `to_address` + `fee`. `deposit` is the reference of the deposit that an
    internal one makes. `uuid` is wallet v1's orderId. Owner 0 means that the house was found to have paid it, and that
    nobody is named for it yet."""

    ref: int
    owner: int = 0
    asset: int = 0
    network: int = 0
    address: str = ""
    tag: str = ""
    asked: int = 0
    to_address: int = 0
    fee: int = 0
    state: int = 0
    requested_ms: int = 0
    deposit: int = 0
    payment: int = 0
    txid: str = ""
    height: int = 0
    uuid: str = ""

    @property
    def held(self) -> int:
        """What the customer's account holds for it while it is open."""
        return self.to_address + self.fee


class PaymentState(IntEnum):
    """Reserved -> signed -> mined -> final, or voided; each step is committed before its effect.

    One that is to be replaced by a candidate with a higher fee is reserved again, with the candidates it has.
    """

    RESERVED = 1
    SIGNED = 2
    MINED = 3
    FINAL = 4
    VOIDED = 5


class PaymentPurpose(IntEnum):
    """What a payment is for: customers' withdrawals, or a move of the house's own money between its addresses.

    A sweep brings what lies on a deposit address to the hot wallet, gas is what such an address needs to pay for one, a
    consolidation makes few coins of many, and what goes to the cold address is signed elsewhere.
    """

    WITHDRAWALS = 0
    SWEEP = 1
    GAS = 2
    CONSOLIDATION = 3
    COLD = 4


class Payment(Kept, frozen=True, gc=False):
    """A transaction of the house, by its own reference.

    `spends` names the reserved coins, or the (wallet, nonce). `body` is the transaction to be signed. `candidates` are
    the txids of all signed versions, all spending the same, and of what is away to be signed where that has a name
    before; `blob` is the newest one, signed at `signed_ms`; `txid` is the one in the `block` at `height`. A move has no
    withdrawals: it brings `units` of its asset, in the chain's unit, from the address at position `source` to
    `address`, which is ours at position `target` unless it is the cold one. Once one to the cold address is `filling`
    it was given up: newer candidates move nothing and only spend its nonce; those are the `fillers`.
    """

    ref: int
    network: int = 0
    asset: int = 0
    withdrawals: tuple[int, ...] = ()
    spends: tuple[str, ...] = ()
    state: int = 0
    candidates: tuple[str, ...] = ()
    body: bytes = b""
    blob: bytes = b""
    chain_fee_units: str = "0"
    height: int = 0
    created_ms: int = 0
    signed_ms: int = 0
    txid: str = ""
    purpose: int = 0
    source: int = 0
    target: int = 0
    address: str = ""
    units: str = "0"
    block: str = ""
    filling: bool = False
    fillers: tuple[str, ...] = ()

    @property
    def is_away(self) -> bool:
        """Whether it is signed elsewhere, and has not come back from there yet."""
        return self.purpose == PaymentPurpose.COLD and bool(self.body) and not self.blob and not self.filling

    @property
    def is_filled(self) -> bool:
        """Whether the transaction that the chain has is one that moves nothing."""
        return self.txid in self.fillers


class Reserved(Kept, frozen=True, gc=False):
    """What a payment spends can be reserved once: the input, or the nonce of one of our addresses."""

    KEY = 2

    network: int
    spends: str
    payment: int = 0


class Spent(Kept, frozen=True, gc=False):
    """What a user withdrew of an asset on a day (days since 1970, UTC), for limits of velocity."""

    KEY = 3

    owner: int
    asset: int
    day: int
    amount: int = 0
