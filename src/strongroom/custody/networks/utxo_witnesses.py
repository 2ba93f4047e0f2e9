"""Witnesses of somebody else's making: is every input signed by its own key, over the whole transaction?

A P2WPKH input has an ECDSA signature of the kind ALL and its key (BIP-143), a P2TR input one Schnorr signature of the
kind DEFAULT or, a byte longer, ALL (BIP-341). Every other kind leaves something open that could be changed after the
signature: it is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from btclib.hashes import hash160
from btclib.script import sig_hash
from btclib.tx.tx import Tx
from btclib.tx.tx_out import TxOut
from coincurve import PublicKey
from coincurve.keys import PublicKeyXOnly

from strongroom.custody.chain import Rejected

KEY_HASH_SCRIPT: Final = b"\x00\x14"
TAPROOT_SCRIPT: Final = b"\x51\x20"

_KEY_BYTES: Final = 33
_SCHNORR_BYTES: Final = 64
_ALL: Final = bytes([sig_hash.ALL])
_OPEN: Final = "has a signature that leaves a part of the transaction open: its kind is not ALL"
_FALSE: Final = "has a signature of another transaction, amount or key"


def check_witnesses(transaction: Tx, spent: Sequence[TxOut]) -> None:
    """Raise `Rejected` unless each input has the signature that its own output asks for; `spent` in their order."""
    hashed = sig_hash.PrecomputedTxData(transaction, list(spent))
    for index, (signed, output) in enumerate(zip(transaction.vin, spent, strict=True)):
        stack, script = signed.script_witness.stack, output.script_pub_key.script
        if not stack:
            raise Rejected(f"input {index} is not signed")
        if script.startswith(TAPROOT_SCRIPT):
            problem = _taproot_problem(transaction, index, spent, hashed, stack)
        elif script.startswith(KEY_HASH_SCRIPT):
            problem = _key_hash_problem(transaction, index, output, hashed, stack)
        else:
            problem = "is of a kind that we have no keys for"
        if problem:
            raise Rejected(f"input {index} {problem}")


def is_key_of(public_key: bytes, script: bytes) -> bool:
    """Tell whether a P2WPKH script is that of a compressed public key."""
    return len(public_key) == _KEY_BYTES and script == KEY_HASH_SCRIPT + hash160(public_key)


def _key_hash_problem(
    transaction: Tx, index: int, output: TxOut, hashed: sig_hash.PrecomputedTxData, stack: tuple[bytes, ...]
) -> str:
    script = output.script_pub_key.script
    if len(stack) != 2 or not is_key_of(stack[1], script):
        return "is not signed by its own key"
    if stack[0][-1:] != _ALL:
        return _OPEN
    script_code = b"\x76\xa9\x14" + script[2:] + b"\x88\xac"
    digest = sig_hash.segwit_v0(script_code, transaction, index, sig_hash.ALL, output.value, hashed)
    try:
        good = PublicKey(stack[1]).verify(stack[0][:-1], digest, hasher=None)
    except ValueError:
        good = False
    return "" if good else _FALSE


def _taproot_problem(
    transaction: Tx,
    index: int,
    spent: Sequence[TxOut],
    hashed: sig_hash.PrecomputedTxData,
    stack: tuple[bytes, ...],
) -> str:
    if len(stack) != 1:
        return "is not signed by its own key alone"
    signature, kind = stack[0][:_SCHNORR_BYTES], stack[0][_SCHNORR_BYTES:]
    if kind not in (b"", _ALL):
        return _OPEN
    hash_type = sig_hash.ALL if kind else sig_hash.DEFAULT
    digest = sig_hash.taproot(transaction, index, list(spent), hash_type, 0, b"", b"", hashed)
    try:
        key = PublicKeyXOnly(spent[index].script_pub_key.script[len(TAPROOT_SCRIPT) :])
        good = key.verify(signature, digest)
    except ValueError:
        good = False
    return "" if good else _FALSE
