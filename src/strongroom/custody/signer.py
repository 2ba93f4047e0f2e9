"""The signer: the one place with private keys. It holds the seed, which lies on the disk only encrypted."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final, Protocol

from coincurve import PrivateKey
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from strongroom.clock import Ids
from strongroom.custody.derivation import hot_key
from strongroom.custody.families import Network
from strongroom.errors import check

MASTER_KEY_BYTES: Final = 32
_VERSION: Final = b"\x01"
_PURPOSE: Final = b"strongroom/seed"
_NONCE_BYTES: Final = 12
_SEED_BYTES: Final = 64


class SealError(ValueError):
    """A sealed seed could not be opened: the master key is another, or the file was changed."""


class Signer(Protocol):
    """Whoever signs our payments; may be another process, so its methods are coroutines."""

    async def public_key(self, network: str) -> bytes:
        """Return the hot wallet's compressed public key on `network` (33 bytes)."""
        ...

    async def sign(self, network: str, body: bytes) -> bytes:
        """Return the signature of a payment's canonical bytes; signing the same bytes again gives the same bytes."""
        ...


class LocalSigner:
    """A signer in this process: ECDSA on secp256k1 over `payment_digest`, in DER with a low S.

    Only the hot wallets' keys stay in memory, the seed does not.
    """

    def __init__(self, seed: bytes, networks: Iterable[Network]) -> None:
        self._keys = {network.id: PrivateKey(hot_key(seed, network)) for network in networks}

    async def public_key(self, network: str) -> bytes:
        """Return the hot wallet's compressed public key on `network` (33 bytes)."""
        return self._key(network).public_key.format()

    async def sign(self, network: str, body: bytes) -> bytes:
        """Return the DER signature of `body`; deterministic (RFC 6979)."""
        key = self._key(network)
        return key.sign(payment_digest(body), hasher=None)  # pyright: ignore[reportUnknownMemberType]

    def _key(self, network: str) -> PrivateKey:
        check(network in self._keys, "the signer was made for the network")
        return self._keys[network]


def payment_digest(body: bytes) -> bytes:
    """Return what is signed for a payment's canonical bytes: a hash that is one of nothing else we sign."""
    return hashlib.sha256(b"strongroom/payment\x00" + body).digest()


def seal_seed(seed: bytes, master_key: bytes, ids: Ids) -> bytes:
    """Return `seed` (64 bytes) encrypted with AES-256-GCM under `master_key` (32 bytes), for `open_seed`."""
    check(len(seed) == _SEED_BYTES, "a BIP-39 seed has 64 bytes")
    nonce = ids.random_bytes(_NONCE_BYTES)
    return _VERSION + nonce + _cipher(master_key).encrypt(nonce, seed, _PURPOSE + _VERSION)


def open_seed(sealed: bytes, master_key: bytes) -> bytes:
    """Return the seed that `seal_seed` sealed; raises `SealError`."""
    version, nonce, secret = sealed[:1], sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
    if version != _VERSION or len(nonce) != _NONCE_BYTES:
        raise SealError("not a sealed seed of a version known here")
    try:
        return _cipher(master_key).decrypt(nonce, secret, _PURPOSE + version)
    except InvalidTag:
        raise SealError("the master key does not open the seed, or the seed was changed") from None


def _cipher(master_key: bytes) -> AESGCM:
    check(len(master_key) == MASTER_KEY_BYTES, "the master key has 32 bytes")
    return AESGCM(master_key)
