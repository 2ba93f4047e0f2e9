"""What the signer signs: a payment that the books reserve, exactly as its withdrawals say, below caps of its own.

Nothing that a request says is believed but the payment's reference. What the rows say is compared with what the body
itself comes to, and what was signed before with what is to be signed now.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Final, Protocol

import msgspec

from strongroom.clock import DAY_MS, Clock
from strongroom.crashpoints import reach
from strongroom.custody.chain import Payee, Rejected
from strongroom.custody.families import NATIVE
from strongroom.custody.signed_log import Signed, SignedLog, counted
from strongroom.custody.signer import Explained, Scheme
from strongroom.engine.command import Row
from strongroom.errors import Refused
from strongroom.records.settings import NetworkSettings, Settings
from strongroom.records.withdrawals import Payment, PaymentPurpose, PaymentState, Withdrawal, WithdrawalState
from strongroom.wallet.catalogue import Catalogue, catalogue_of
from strongroom.wallet.payments import outgoing

NATIVE_NAME: Final = "native"
"""What the caps file calls a network's own coin, whose asset id is empty."""

MAX_CAPS_BYTES: Final = 64 * 1024
MAX_WITHDRAWALS: Final = 1_000
"""A payment of more withdrawals is not looked at."""

_DIGITS: Final = 78


class Caps(msgspec.Struct, frozen=True):
    """A network's caps in the chain's smallest units: on one payment's fee, and on 24 hours' sum by asset id.

    An asset without a cap is not signed for. Fees count to the native coin's sum, so that they are no way round it.
    """

    max_fee: int
    daily: dict[str, int]


class CapsError(ValueError):
    """The caps file cannot be used; the message says why."""


class Snapshot(Protocol):
    """The books at one moment, as far as the signer looks."""

    def row(self, kind: type[Row], *key: int | str | bytes) -> Row:
        """Return the committed row, or the absent one."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


class _NetworkCaps(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    max_fee: str
    daily: dict[str, str]


class _CapsFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    networks: dict[str, _NetworkCaps]


def read_caps(path: Path) -> dict[str, Caps]:
    """Read the caps file. Raises `CapsError`, `OSError`.

    It is TOML: `[networks.NAME]` with `max_fee = "DIGITS"`, and `[networks.NAME.daily]` with a line for each asset id
    (`native` for the network's own coin), in the chain's smallest units.
    """
    with path.open("rb") as file:
        content = file.read(MAX_CAPS_BYTES + 1)
    try:
        if len(content) > MAX_CAPS_BYTES:
            raise ValueError("it is too large")
        read = msgspec.convert(tomllib.loads(content.decode()), type=_CapsFile)
        return {name: _caps_of(caps) for name, caps in read.networks.items()}
    except ValueError as error:
        raise CapsError(f"{path}: {error}") from None


def _caps_of(read: _NetworkCaps) -> Caps:
    daily = {NATIVE if name == NATIVE_NAME else name: _number(text) for name, text in read.daily.items()}
    return Caps(_number(read.max_fee), daily)


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= _DIGITS):
        raise ValueError(f"{text!r} is not an amount in the chain's smallest unit: 1 to {_DIGITS} digits")
    return int(text)


class Judge:
    """Decides over one request after another, and signs; for one thread at a time."""

    def __init__(
        self,
        open_snapshot: Callable[[], Snapshot],
        schemes: Mapping[str, Scheme],
        caps: Mapping[str, Caps],
        log: SignedLog,
        clock: Clock,
        crash_points: Callable[[str], None] = reach,
    ) -> None:
        self._open_snapshot = open_snapshot
        self._schemes = dict(schemes)
        self._caps = dict(caps)
        self._log = log
        self._clock = clock
        self._at = crash_points
        clock.go_on_after(log.last_ms)

    def sign(self, network: str, payment: int) -> bytes:
        """Return a payment's signature once it is counted.

        Raises `Rejected` with the reason, `SignedLogError` when it cannot be counted, and what opening the books does.
        """
        scheme, caps = self._schemes.get(network), self._caps.get(network)
        if scheme is None:
            raise Rejected(f"there is no key for network {network!r}")
        if caps is None:
            raise Rejected(f"there are no caps for network {network!r}, and nothing is signed without")
        with closing(self._open_snapshot()) as books:
            row = books.row(Payment, payment)
            explained = _explained(books, row, network, scheme)
        signed = self._signed(row, network, explained)
        if self._is_new(signed, caps):
            self._at("before counting")
            self._log.append(signed)
            self._at("after counting")
        return scheme.sign(row.body)

    def _signed(self, row: Payment, network: str, explained: Explained) -> Signed:
        return Signed(
            payment=row.ref,
            network=network,
            digest=hashlib.sha256(row.body).hexdigest(),
            fee=explained.fee,
            spends=tuple(sorted(explained.spends)),
            payees=_ordered(explained.payees),
            withdrawals=row.withdrawals,
            at_ms=self._clock.now_ms(),
        )

    def _is_new(self, signed: Signed, caps: Caps) -> bool:
        """Say whether a body is still to be counted; raises `Rejected` for one that may not be signed."""
        if signed.fee > caps.max_fee:
            raise Rejected(f"the fee of {signed.fee} is above the cap of {caps.max_fee}")
        for withdrawal in signed.withdrawals:
            if self._log.payment_of(withdrawal) not in (0, signed.payment):
                raise Rejected(f"withdrawal {withdrawal} was signed for as another payment")
        before = self._log.of_payment(signed.payment)
        if any((it.network, it.digest) == (signed.network, signed.digest) for it in before):
            return False
        if before:
            _check_replacement(signed, before)
        self._check_daily(signed, before, caps)
        return True

    def _check_daily(self, signed: Signed, before: list[Signed], caps: Caps) -> None:
        for asset_id, amount in sorted(counted(signed, before).items()):
            name = asset_id or NATIVE_NAME
            if asset_id not in caps.daily:
                raise Rejected(f"there is no cap for {name} on {signed.network}, and nothing is signed without")
            spent, cap = self._log.paid_since(signed.network, asset_id, signed.at_ms - DAY_MS), caps.daily[asset_id]
            if spent + amount > cap:
                raise Rejected(f"{name}: {amount} more than the {spent} of 24 hours would go above the cap of {cap}")


def _check_replacement(signed: Signed, before: list[Signed]) -> None:
    first = before[0]
    if (signed.network, signed.spends) != (first.network, first.spends):
        raise Rejected("a replacement spends the same as what was signed for the payment before")
    if (signed.payees, sorted(signed.withdrawals)) != (first.payees, sorted(first.withdrawals)):
        raise Rejected("a replacement pays the same as what was signed for the payment before")
    highest = max(it.fee for it in before)
    if signed.fee <= highest:
        raise Rejected(f"a replacement pays a higher fee than {highest}, not {signed.fee}")


def _explained(books: Snapshot, payment: Payment, network: str, scheme: Scheme) -> Explained:
    """Return what a payment's body comes to, once it is what the books say. Raises `Rejected`."""
    catalogue = catalogue_of(books.row(Settings, 0).snapshot)
    number = _network_named(catalogue, network).number
    if not payment.state:
        raise Rejected("there is no such payment")
    if payment.state != PaymentState.RESERVED:
        raise Rejected("the payment is not reserved")
    if payment.network != number:
        raise Rejected("the payment is on another network")
    expected = _expected(books, payment, catalogue)
    explained = scheme.explain(payment.body)
    if len(set(explained.spends)) != len(explained.spends) or set(explained.spends) != set(payment.spends):
        raise Rejected("the transaction does not spend what the payment has reserved")
    if _ordered(explained.payees) != expected:
        raise Rejected("the transaction does not pay what the withdrawals say")
    return explained


def _expected(books: Snapshot, payment: Payment, catalogue: Catalogue) -> tuple[Payee, ...]:
    """Return whom the withdrawals of a payment want paid; nobody for a move of the house's own money."""
    refs = payment.withdrawals
    if payment.purpose == PaymentPurpose.COLD and payment.filling:
        return ()  # it was given up: what spends its nonce pays nobody
    if payment.purpose == PaymentPurpose.COLD:
        raise Rejected("what goes to the cold address is signed elsewhere")
    if payment.purpose != PaymentPurpose.WITHDRAWALS and not refs:
        return ()  # a move pays nobody: what it moves stays with keys of ours
    if not 1 <= len(refs) <= MAX_WITHDRAWALS or len(set(refs)) != len(refs):
        raise Rejected(f"a payment carries out 1 to {MAX_WITHDRAWALS} withdrawals, each once")
    payees: list[Payee] = []
    for withdrawal in (books.row(Withdrawal, ref) for ref in refs):
        if withdrawal.state != WithdrawalState.PAYING:
            raise Rejected(f"withdrawal {withdrawal.ref} is not being paid")
        if withdrawal.payment != payment.ref:
            raise Rejected(f"withdrawal {withdrawal.ref} belongs to another payment")
        if (withdrawal.network, withdrawal.asset) != (payment.network, payment.asset):
            raise Rejected(f"withdrawal {withdrawal.ref} is of another asset or network than its payment")
        payees.append(_payee(catalogue, withdrawal))
    return _ordered(payees)


def _payee(catalogue: Catalogue, withdrawal: Withdrawal) -> Payee:
    try:
        token, units = outgoing(catalogue, withdrawal)
    except Refused as refusal:
        raise Rejected(refusal.message) from None
    return Payee(withdrawal.address, withdrawal.tag, token, units)


def _ordered(payees: tuple[Payee, ...] | list[Payee]) -> tuple[Payee, ...]:
    return tuple(sorted(payees, key=msgspec.structs.astuple))


def _network_named(catalogue: Catalogue, code: str) -> NetworkSettings:
    """Return the network of exactly this id; the names that clients may write besides are not for the signer."""
    for network in catalogue.networks.values():
        if network.code == code:
            return network
    raise Rejected(f"the books know no network {code!r}")
