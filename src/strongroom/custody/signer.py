"""The signer: the one place with private keys. It holds the seed, which lies on the disk only encrypted."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Final, Protocol

import msgspec
from coincurve import PrivateKey
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from strongroom.clock import Ids
from strongroom.custody.chain import Payee
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

    async def sign(self, network: str, payment: int, body: bytes) -> bytes:
        """Return what a chain's `assemble` makes a transaction of, with the `body` of a payment, by its reference.

        Signing the same payment again gives the same bytes. Raises `Rejected` for what it will not sign.
        """
        ...


class Explained(msgspec.Struct, frozen=True):
    """What a payment's body comes to: whom it pays, our own change left out, for what fee, and what it spends."""

    payees: tuple[Payee, ...]
    fee: int
    spends: tuple[str, ...]


class Scheme(Protocol):
    """How the payments of one network are signed, with the keys for it."""

    def explain(self, body: bytes) -> Explained:
        """Return what a body comes to; change counts as ours only where its key is. Raises `Rejected`. Pure."""
        ...

    def sign(self, body: bytes) -> bytes:
        """Return the signed form of a body; deterministic. Raises `Rejected`."""
        ...


class LocalSigner:
    """A signer in this process. Where a network has no scheme of its own it is a simulated one, whose payments are
    signed with ECDSA on secp256k1 over `payment_digest`, in DER with a low S.

    Of the simulated networks only the hot wallets' keys stay in memory, the seed does not.
    """

    def __init__(self, seed: bytes, networks: Iterable[Network], schemes: Mapping[str, Scheme] | None = None) -> None:
        self._schemes = dict(schemes or {})
        self._keys = {
            network.id: PrivateKey(hot_key(seed, network)) for network in networks if network.id not in self._schemes
        }

    async def public_key(self, network: str) -> bytes:
        """Return the hot wallet's compressed public key on `network` (33 bytes)."""
        return self._key(network).public_key.format()

    async def sign(self, network: str, payment: int, body: bytes) -> bytes:
        """Return a payment's body signed as its network's scheme does it, or its DER signature (RFC 6979)."""
        if (scheme := self._schemes.get(network)) is not None:
            return scheme.sign(body)
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
