"""Signing payments on chains of inputs and outputs: each input with the key of its own address.

An input of a P2WPKH address gets an ECDSA signature with a low S over the digest of BIP-143, one of a P2TR address a
Schnorr signature over that of BIP-341 with the key tweaked as BIP-86 says. Both commit to every input and output.

A P2WPKH signature commits to the amount of its own input only: whoever can have two bodies with different wrong amounts
signed could burn the difference as a fee. So a body is signed only from the node's own confirmed coins, never from what
a stranger claims; a taproot network does not need that care.
"""

from __future__ import annotations

import hashlib
from typing import Final

from btclib.script import sig_hash
from btclib.script.witness import Witness
from btclib.tx.tx import Tx
from btclib.tx.tx_out import TxOut
from coincurve import PrivateKey

from strongroom.custody.chain import Rejected
from strongroom.custody.derivation import MAX_POSITION, TAPROOT_PURPOSE, BranchKeys, address_of_key
from strongroom.custody.families import Network
from strongroom.custody.networks.utxo_parameters import CoinChain
from strongroom.custody.networks.utxo_transactions import Body, decode, explain, output_of, transaction_of
from strongroom.custody.signer import Explained
from strongroom.errors import check

SEGWIT_PURPOSE: Final = 84
"""A network with this purpose has P2WPKH addresses (BIP-84)."""

_ORDER: Final = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
_EVEN: Final = 0x02
_SIGHASH_DEFAULT: Final = 0
_SIGHASH_ALL: Final = 1


class UtxoScheme:
    """The signing of one network, with the keys m/purpose'/coin'/0'/branch/index (purpose 84 or 86)."""

    def __init__(self, seed: bytes, network: Network, parameters: CoinChain) -> None:
        check(network.bitcoin == parameters.format, "a network spells its addresses as its chain does")
        check(network.purpose in (SEGWIT_PURPOSE, TAPROOT_PURPOSE), "a purpose that can be signed for")
        self._network = network
        self._parameters = parameters
        self._keys = BranchKeys(seed, network)
        self._home = self._address(self._key(0))

    def explain(self, body: bytes) -> Explained:
        """Return what a body comes to. Raises `Rejected` for change that goes elsewhere than home."""
        return explain(body, self._home)

    def sign(self, body: bytes) -> bytes:
        """Return the raw signed transaction of a body. Raises `Rejected` for inputs or change that are not ours."""
        _ = self.explain(body)
        payment = decode(body)
        keys = [self._key_of(spent.position, spent.address) for spent in payment.inputs]
        return self._signed(payment, keys).serialize(include_witness=True, check_validity=False)

    def _key_of(self, position: int, address: str) -> PrivateKey:
        if not 0 <= position <= MAX_POSITION:
            raise Rejected("an input at a position that no address has")
        key = self._key(position)
        if self._address(key) != address:
            raise Rejected("an input's address is not the one of its position")
        return key

    def _signed(self, payment: Body, keys: list[PrivateKey]) -> Tx:
        spelling = self._parameters.format
        transaction = transaction_of(payment, spelling)
        spent = [output_of(it.address, it.units, spelling) for it in payment.inputs]
        hashed = sig_hash.PrecomputedTxData(transaction, spent)
        is_taproot = self._network.purpose == TAPROOT_PURPOSE
        witnesses = [
            _taproot_witness(transaction, index, spent, hashed, key)
            if is_taproot
            else _key_hash_witness(transaction, index, spent[index], hashed, key)
            for index, key in enumerate(keys)
        ]
        for signed, witness in zip(transaction.vin, witnesses, strict=True):
            signed.script_witness = Witness(witness)
        return transaction

    def _key(self, position: int) -> PrivateKey:
        return PrivateKey(self._keys.private_key(position))

    def _address(self, key: PrivateKey) -> str:
        return address_of_key(self._network, key.public_key.format())


def _key_hash_witness(
    transaction: Tx, index: int, spent: TxOut, hashed: sig_hash.PrecomputedTxData, key: PrivateKey
) -> list[bytes]:
    """Return signature and key (BIP-143): the script code is that of the key's hash."""
    script_code = b"\x76\xa9\x14" + spent.scriptPubKey[2:] + b"\x88\xac"
    digest = sig_hash.segwit_v0(script_code, transaction, index, _SIGHASH_ALL, spent.value, hashed)
    signature = key.sign(digest, hasher=None)  # pyright: ignore[reportUnknownMemberType]
    return [signature + bytes([_SIGHASH_ALL]), key.public_key.format()]


def _taproot_witness(
    transaction: Tx, index: int, spent: list[TxOut], hashed: sig_hash.PrecomputedTxData, key: PrivateKey
) -> list[bytes]:
    """Return the signature of the key path (BIP-341), without randomness: the same body gives the same bytes."""
    digest = sig_hash.taproot(transaction, index, spent, _SIGHASH_DEFAULT, 0, b"", b"", hashed)
    return [tweaked(key).sign_schnorr(digest, bytes(32))]


def tweaked(key: PrivateKey) -> PrivateKey:
    """Return the key of a taproot output that no script can spend, from its internal key (BIP-341, BIP-86)."""
    public = key.public_key.format()
    secret = key.to_int() if public[0] == _EVEN else _ORDER - key.to_int()
    tag = hashlib.sha256(b"TapTweak").digest()
    tweak = int.from_bytes(hashlib.sha256(tag + tag + public[1:]).digest())
    return PrivateKey.from_int((secret + tweak) % _ORDER)
