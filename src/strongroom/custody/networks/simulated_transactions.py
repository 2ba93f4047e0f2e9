"""What travels to a simulated node: a payment's canonical bytes, its signed envelope, and identifiers of each family.

A payment is JSON (readable in the file and in a log); its canonical bytes are the one encoding of its fields in order.
Its txid is a hash of these bytes alone, so that it is known before the signature, as with segregated witness.
"""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec

from strongroom.custody.chain import Candidate, Payee, Rejected
from strongroom.custody.families import Family, Network

MAX_BLOB_BYTES: Final = 512 * 1024
"""A larger blob is refused unread."""

MAX_PAYEES: Final = 1_000
"""A payment has at most this many outputs."""

_MAX_AMOUNT: Final = 2**256
_MAX_NONCE: Final = 2**62


class Payment(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """An unsigned payment from a hot wallet; two with the same (network, source, nonce) exclude each other.

    `source` is the position of our address that pays, where it is not the hot wallet.
    """

    network: str
    nonce: int
    fee: int
    payees: tuple[Payee, ...]
    source: int = 0


class _Envelope(msgspec.Struct, frozen=True, array_like=True):
    body: bytes
    signature: bytes


def encode_payment(payment: Payment) -> bytes:
    """Return the payment's canonical bytes."""
    return msgspec.json.encode(payment)


def assemble(network: Network, body: bytes, signature: bytes) -> Candidate:
    """Return the candidate made of a payment's canonical bytes and the signature over them."""
    return Candidate(payment_txid(network, body), msgspec.msgpack.encode(_Envelope(body, signature)))


def open_blob(network: Network, blob: bytes) -> tuple[Payment, bytes, bytes]:
    """Return the payment in a candidate's blob, its canonical bytes and its signature; raises `Rejected`."""
    if len(blob) > MAX_BLOB_BYTES:
        raise Rejected("the transaction is too large")
    try:
        envelope = msgspec.msgpack.decode(blob, type=_Envelope)
        payment = msgspec.json.decode(envelope.body, type=Payment)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Rejected("the transaction is malformed") from None
    if encode_payment(payment) != envelope.body:
        raise Rejected("the transaction is not in its canonical encoding")
    _check_payment(network, payment)
    return payment, envelope.body, envelope.signature


def decode_payment(body: bytes) -> Payment:
    """Return the payment of canonical bytes of our own; raises `msgspec.DecodeError` for anything else."""
    return msgspec.json.decode(body, type=Payment)


def _check_payment(network: Network, payment: Payment) -> None:
    if payment.network != network.id:
        raise Rejected("the transaction is for another network")
    if not 0 <= payment.nonce < _MAX_NONCE or not 0 <= payment.fee < _MAX_AMOUNT or payment.source < 0:
        raise Rejected("the nonce, the fee or the source is out of range")
    if not 1 <= len(payment.payees) <= MAX_PAYEES:
        raise Rejected(f"a payment has 1 to {MAX_PAYEES} outputs")
    for payee in payment.payees:
        try:
            check_payee(network, payee)
        except ValueError as problem:
            raise Rejected(str(problem)) from None


def check_payee(network: Network, payee: Payee) -> None:
    """Raise `ValueError` unless `payee` can be paid on `network` and is in its normal spelling."""
    if payee.asset_id not in network.decimals:
        raise ValueError(f"{network.id} has no asset {payee.asset_id!r}")
    if not 0 < payee.amount < _MAX_AMOUNT:
        raise ValueError("an amount is positive and below 2^256")
    if network.format.normalise(payee.address) != payee.address:
        raise ValueError("an address that is not in its normal spelling")
    _ = network.format.normalise_tag(payee.tag)


def payment_txid(network: Network, body: bytes) -> str:
    """Return the txid of a payment's canonical bytes."""
    return identifier(network, b"payment", body)


def identifier(network: Network, *parts: bytes) -> str:
    """Return a hash in the family's spelling: 64 hex digits, with 0x on the EVM, in upper case on the XRP Ledger."""
    digest = hashlib.sha256(b"\x00".join((network.id.encode(), *parts))).hexdigest()
    if network.family is Family.EVM:
        return "0x" + digest
    return digest.upper() if network.family is Family.RIPPLE else digest
