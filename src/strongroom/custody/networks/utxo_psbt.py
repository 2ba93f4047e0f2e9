"""Payments of coins that are signed elsewhere: out as a PSBT (BIP-174), back as a signed one or as a transaction.

What goes out says of every input which coin it is, by which key it is spent and where that key is derived, and the same
of the change, so that any signer with our words can find its keys and show what leaves. What comes back is taken only
if it is the transaction that was drafted, byte for byte but for its witnesses, and every witness holds.

The kind of signature is not said: without it a signer commits to the whole transaction, and Bitcoin Core refuses to
sign where that kind is said and not asked for as well. What kind came back is looked at.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final

from btclib.exceptions import BTClibValueError
from btclib.script.witness import Witness
from btclib.tx.tx import Tx
from btclib.tx.tx_out import TxOut

from strongroom.custody.chain import Candidate, Rejected
from strongroom.custody.derivation import MAX_POSITION, NO_FINGERPRINT, TAPROOT_PURPOSE, Branch
from strongroom.custody.formats import BitcoinFormat
from strongroom.custody.networks import psbt
from strongroom.custody.networks.utxo_transactions import Body, decode, output_of, transaction_of
from strongroom.custody.networks.utxo_witnesses import TAPROOT_SCRIPT, check_witnesses, is_key_of

MAX_TEXT_CHARS: Final = 4 * 1024 * 1024
"""A signed text is at most so long; other wallets put the whole of earlier transactions into it."""

_GLOBAL_UNSIGNED: Final = b"\x00"
_GLOBAL_VERSION: Final = b"\xfb"
_IN_WITNESS_UTXO: Final = b"\x01"
_IN_PARTIAL_SIGNATURE: Final = 0x02
_IN_DERIVATION: Final = b"\x06"
_IN_FINAL_SCRIPT: Final = b"\x07"
_IN_FINAL_WITNESS: Final = b"\x08"
_IN_TAP_SIGNATURE: Final = b"\x13"
_IN_TAP_DERIVATION: Final = b"\x16"
_IN_TAP_KEY: Final = b"\x17"
_OUT_DERIVATION: Final = b"\x02"
_OUT_TAP_KEY: Final = b"\x05"
_OUT_TAP_DERIVATION: Final = b"\x07"
_NO_LEAVES: Final = b"\x00"

_Map = dict[bytes, bytes]


def psbt_of(raw: bytes, spelling: BitcoinFormat, branch: Branch, fingerprint: bytes = NO_FINGERPRINT) -> str:
    """Return the PSBT (version 0, base64) of a body, whose keys are those of `branch`.

    `fingerprint` is the master key's, by which hardware knows its own. Raises `Rejected` for a body that is none, or
    whose inputs or change are not at the branch's addresses.
    """
    body = decode(raw)
    origins = _Origins(branch, fingerprint)
    whole = {_GLOBAL_UNSIGNED: _stripped(transaction_of(body, spelling))}
    inputs: list[_Map] = []
    for spent in body.inputs:
        coin = output_of(spent.address, spent.units, spelling).serialize(check_validity=False)
        inputs.append({_IN_WITNESS_UTXO: coin} | origins.of_input(spent.position, spent.address))
    outputs: list[_Map] = [{} for _ in body.outputs]
    if body.change is not None:
        outputs.append(origins.of_change(body.change.address))
    return psbt.encode([whole, *inputs, *outputs])


class _Origins:
    """Where the keys of a branch come from, in the spelling of a PSBT."""

    def __init__(self, branch: Branch, fingerprint: bytes) -> None:
        self.is_taproot = branch.network.purpose == TAPROOT_PURPOSE
        self._branch = branch
        self._fingerprint = fingerprint

    def of_input(self, position: int, address: str) -> _Map:
        """Return what an input says of its key. Raises `Rejected` for an address that is not the position's."""
        if not 0 <= position <= MAX_POSITION or self._branch.address(position).address != address:
            raise Rejected("an input's address is not the one of its position")
        if self.is_taproot:
            return self._said(position, _IN_TAP_DERIVATION, _IN_TAP_KEY)
        return self._said(position, _IN_DERIVATION)

    def of_change(self, address: str) -> _Map:
        """Return what the change says of its key. Raises `Rejected` where it goes elsewhere than home."""
        if self._branch.address(0).address != address:
            raise Rejected("change goes to an address that is not the house's own")
        if self.is_taproot:
            return self._said(0, _OUT_TAP_DERIVATION, _OUT_TAP_KEY)
        return self._said(0, _OUT_DERIVATION)

    def _said(self, position: int, derivation: bytes, internal: bytes = b"") -> _Map:
        key, path = self._branch.public_key(position), self._branch.path(position)
        origin = self._fingerprint + struct.pack(f"<{len(path)}I", *path)
        if not internal:
            return {derivation + key: origin}
        # Taproot names keys by their x alone, and says in which scripts they stand: in none (BIP-371).
        return {derivation + key[1:]: _NO_LEAVES + origin, internal: key[1:]}


def signed_psbt(raw: bytes, text: str, spelling: BitcoinFormat) -> Candidate:
    """Return the candidate of a body and what a signer made of it: a PSBT in base64, finalised or not, or a transaction
    in hex. Raises `Rejected` with the reason: another transaction, a signature that is missing or does not hold."""
    body = decode(raw)
    if len(text) > MAX_TEXT_CHARS:
        raise Rejected("the signed text is too long")
    text = "".join(text.split())
    wanted = transaction_of(body, spelling)
    spent = [output_of(it.address, it.units, spelling) for it in body.inputs]
    signed = _combined(text, wanted, spent) if text.startswith(psbt.PREFIX) else _transaction(text)
    _check_same(signed, wanted, body)
    check_witnesses(signed, spent)
    return Candidate(signed.id.hex(), signed.serialize(include_witness=True, check_validity=False))


def _transaction(text: str) -> Tx:
    try:
        raw = bytes.fromhex(text)
    except ValueError:
        raise Rejected("neither a PSBT in base64 nor a transaction in hex") from None
    transaction = _parse(raw)
    if transaction.serialize(include_witness=True, check_validity=False) != raw:
        raise Rejected("more than a transaction, or one in another spelling")
    return transaction


def _parse(raw: bytes) -> Tx:
    try:
        return Tx.parse(raw, check_validity=False)
    except (BTClibValueError, ValueError, IndexError, EOFError):
        raise Rejected("not a transaction, or one that is cut off") from None


def _check_same(signed: Tx, wanted: Tx, body: Body) -> None:
    """Raise `Rejected` with the first thing in which a transaction is not the one that was drafted."""
    if signed.version != wanted.version:
        raise Rejected(f"the transaction's version is {signed.version}, not {wanted.version}")
    if signed.lock_time != wanted.lock_time:
        raise Rejected(f"the transaction's lock time is {signed.lock_time}, not {wanted.lock_time}")
    if [it.prev_out for it in signed.vin] != [it.prev_out for it in wanted.vin]:
        raise Rejected("the transaction spends other coins than were reserved")
    if [(it.sequence, it.script_sig) for it in signed.vin] != [(it.sequence, it.script_sig) for it in wanted.vin]:
        raise Rejected("an input has another sequence number, or a script of its own")
    if len(signed.vout) != len(wanted.vout):
        raise Rejected(f"the transaction has {len(signed.vout)} outputs, not {len(wanted.vout)}")
    for index, (output, drafted, paid) in enumerate(zip(signed.vout, wanted.vout, body.paid, strict=True)):
        if output.script_pub_key.script != drafted.script_pub_key.script:
            raise Rejected(f"output {index} does not pay {paid.address}")
        if output.value != drafted.value:
            raise Rejected(f"output {index} pays {output.value} units, not {drafted.value}")
    if signed.id != wanted.id:
        raise Rejected("the transaction is not the one that was drafted")


def _combined(text: str, wanted: Tx, spent: list[TxOut]) -> Tx:
    """Return the transaction of a PSBT with the final witnesses of its inputs. Raises `Rejected`."""
    maps = psbt.decode(text)
    if not maps or maps[0].get(_GLOBAL_VERSION, bytes(4)) != bytes(4) or _GLOBAL_UNSIGNED not in maps[0]:
        raise Rejected("not a PSBT of version 0")
    transaction = _parse(maps[0][_GLOBAL_UNSIGNED])
    if _stripped(transaction) != maps[0][_GLOBAL_UNSIGNED]:
        raise Rejected("the PSBT's transaction has witnesses, or another spelling")
    if len(maps) != 1 + len(transaction.vin) + len(transaction.vout):
        raise Rejected("the PSBT has other inputs or outputs than its transaction: it may be cut off")
    if len(transaction.vin) != len(wanted.vin):
        raise Rejected("the transaction spends other coins than were reserved")
    for index, (signed, said, coin) in enumerate(zip(transaction.vin, maps[1:], spent, strict=False)):
        signed.script_witness = Witness(_witness(index, said, coin))
    return transaction


def _witness(index: int, said: Mapping[bytes, bytes], coin: TxOut) -> list[bytes]:
    """Return the final witness of an input: the one it has, or else of its signature; none where that is missing."""
    if said.get(_IN_WITNESS_UTXO, expected := coin.serialize(check_validity=False)) != expected:
        raise Rejected(f"input {index} is said to be another coin: its amount or its script was changed")
    if said.get(_IN_FINAL_SCRIPT):
        raise Rejected(f"input {index} has a script of its own")
    if (final := said.get(_IN_FINAL_WITNESS)) is not None:
        try:
            return list(Witness.parse(final).stack)
        except (BTClibValueError, ValueError):
            raise Rejected(f"input {index} has a witness that is cut off") from None
    script = coin.script_pub_key.script
    if script.startswith(TAPROOT_SCRIPT):
        return [said[_IN_TAP_SIGNATURE]] if _IN_TAP_SIGNATURE in said else []
    signatures = {key[1:]: value for key, value in said.items() if key[0] == _IN_PARTIAL_SIGNATURE}
    ours = [[signature, key] for key, signature in signatures.items() if is_key_of(key, script)]
    if signatures and not ours:
        raise Rejected(f"input {index} is not signed by its own key")
    return ours[0] if ours else []


def _stripped(transaction: Tx) -> bytes:
    return transaction.serialize(include_witness=False, check_validity=False)
