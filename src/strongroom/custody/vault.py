"""The vault file: the seed of every key, encrypted under a passphrase or under a key that never leaves its token.

    passphrase --Argon2id--> key ------------------+
                                                   +--AES-256-GCM--> the sealed seed; the header is authenticated too
    token's key --AES-256-GCM--> random data key --+

The file is JSON: a header (version, what opens it, nonce) and the sealed seed. Argon2id's parameters and salt stand in
the header, and are refused where they are too weak to protect anything or so large that opening never ends.
"""

from __future__ import annotations

import unicodedata
from typing import Final, Protocol, TypeAlias

import msgspec
from argon2.low_level import Type, hash_secret_raw
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from strongroom.clock import Ids
from strongroom.errors import check

VAULT_FILE: Final = "vault.json"
VERSION: Final = 1
MAX_FILE_BYTES: Final = 16 * 1024
"""A larger file is no vault, and is refused unread."""

MIN_PASSPHRASE_CHARACTERS: Final = 12
MAX_PASSPHRASE_CHARACTERS: Final = 1_024

_SEED_BYTES: Final = 64
_KEY_BYTES: Final = 32
_SALT_BYTES: Final = 16
_NONCE_BYTES: Final = 12
_MEMORY_KIB: Final = (19 * 1024, 1024 * 1024)
_PASSES: Final = (2, 64)
_LANES: Final = (1, 16)


class VaultError(ValueError):
    """The vault could not be made, read or opened; the message says why, and nothing secret."""


class Costs(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What Argon2id takes to try one passphrase; by default RFC 9106's second recommended choice (section 4)."""

    memory_kib: int = 64 * 1024
    passes: int = 3
    lanes: int = 4


class PassphraseLock(msgspec.Struct, frozen=True, tag="passphrase", forbid_unknown_fields=True):
    """A vault that a passphrase opens."""

    salt: bytes
    costs: Costs


class TokenLock(msgspec.Struct, frozen=True, tag="token", forbid_unknown_fields=True):
    """A vault that a key in a PKCS#11 token opens, by the labels of both; `wrapped` is the data key under that key."""

    token_label: str
    key_label: str
    nonce: bytes
    wrapped: bytes = b""


Lock: TypeAlias = PassphraseLock | TokenLock


class KeyEncryption(Protocol):
    """A key that encrypts other keys and cannot be read: the token's."""

    @property
    def token_label(self) -> str:
        """Return the label of the token that the key lies in."""
        ...

    @property
    def key_label(self) -> str:
        """Return the label of the key."""
        ...

    def wrap(self, nonce: bytes, key: bytes, context: bytes) -> bytes:
        """Return `key` encrypted with AES-256-GCM, `context` authenticated."""
        ...

    def unwrap(self, nonce: bytes, wrapped: bytes, context: bytes) -> bytes:
        """Return the key that was wrapped. Raises `VaultError`."""
        ...


class _Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: int
    lock: Lock
    nonce: bytes


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    header: _Header
    sealed: bytes


def seal_with_passphrase(seed: bytes, passphrase: str, ids: Ids, costs: Costs | None = None) -> bytes:
    """Return the content of a vault file for `seed` (64 bytes). Raises `VaultError` for a passphrase out of bounds."""
    _check_passphrase(passphrase)
    lock = PassphraseLock(ids.random_bytes(_SALT_BYTES), costs or Costs())
    return _seal(seed, _stretch(passphrase, lock), lock, ids)


def seal_with_token(seed: bytes, kek: KeyEncryption, ids: Ids) -> bytes:
    """Return the content of a vault file for `seed` (64 bytes), whose fresh data key only the token can unwrap."""
    key = ids.random_bytes(_KEY_BYTES)
    lock = TokenLock(kek.token_label, kek.key_label, ids.random_bytes(_NONCE_BYTES))
    wrapped = kek.wrap(lock.nonce, key, _context_of(lock))
    return _seal(seed, key, msgspec.structs.replace(lock, wrapped=wrapped), ids)


def lock_of(content: bytes) -> Lock:
    """Return what opens a vault, from its file's content. Raises `VaultError`."""
    return _read(content).header.lock


def open_with_passphrase(content: bytes, passphrase: str) -> bytes:
    """Return the seed (64 bytes). Raises `VaultError`: a wrong passphrase, a changed file, parameters out of bounds."""
    file = _read(content)
    lock = file.header.lock
    if not isinstance(lock, PassphraseLock):
        raise VaultError("the vault's key is in a token, no passphrase opens it")
    problem = "the passphrase is wrong, or the vault was changed"
    if len(passphrase) > MAX_PASSPHRASE_CHARACTERS:
        raise VaultError(problem)
    return _open(file, _stretch(passphrase, lock), problem)


def open_with_token(content: bytes, kek: KeyEncryption) -> bytes:
    """Return the seed (64 bytes). Raises `VaultError`: another key, a changed file."""
    file = _read(content)
    lock = file.header.lock
    if not isinstance(lock, TokenLock):
        raise VaultError("a passphrase opens the vault, not a token")
    key = kek.unwrap(lock.nonce, lock.wrapped, _context_of(msgspec.structs.replace(lock, wrapped=b"")))
    if len(key) != _KEY_BYTES:
        raise VaultError("what the token unwrapped is no key: the vault was changed")
    return _open(file, key, "the vault was changed")


def _seal(seed: bytes, key: bytes, lock: Lock, ids: Ids) -> bytes:
    check(len(seed) == _SEED_BYTES, "a BIP-39 seed has 64 bytes")
    header = _Header(VERSION, lock, ids.random_bytes(_NONCE_BYTES))
    sealed = AESGCM(key).encrypt(header.nonce, seed, _associated(header))
    return msgspec.json.format(msgspec.json.encode(_File(header, sealed)), indent=2) + b"\n"


def _open(file: _File, key: bytes, problem: str) -> bytes:
    try:
        seed = AESGCM(key).decrypt(file.header.nonce, file.sealed, _associated(file.header))
    except InvalidTag:
        raise VaultError(problem) from None
    if len(seed) != _SEED_BYTES:
        raise VaultError("what the vault holds is no seed")
    return seed


def _read(content: bytes) -> _File:
    """Read a file and look at every number that what follows depends on."""
    if len(content) > MAX_FILE_BYTES:
        raise VaultError("not a vault file: it is too large")
    _check_version(content)
    try:
        file = msgspec.json.decode(content, type=_File)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise VaultError(f"not a vault file, or it was changed: {error}") from None
    if len(file.header.nonce) != _NONCE_BYTES:
        raise VaultError("the vault was changed: its nonce has another length")
    _check_lock(file.header.lock)
    return file


class _AnyHeader(msgspec.Struct, frozen=True):
    version: int


class _AnyFile(msgspec.Struct, frozen=True):
    header: _AnyHeader


def _check_version(content: bytes) -> None:
    """Say of a later version's file that it is one, whatever else stands in it."""
    try:
        version = msgspec.json.decode(content, type=_AnyFile).header.version
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise VaultError(f"not a vault file, or it was changed: {error}") from None
    if version != VERSION:
        raise VaultError(f"the vault is of version {version}, and only version {VERSION} is known here")


def _check_lock(lock: Lock) -> None:
    if isinstance(lock, TokenLock):
        if len(lock.nonce) != _NONCE_BYTES:
            raise VaultError("the vault was changed: its data key's nonce has another length")
        return
    if len(lock.salt) != _SALT_BYTES:
        raise VaultError("the vault was changed: its salt has another length")
    costs = lock.costs
    for name, value, (least, most) in (
        ("memory_kib", costs.memory_kib, _MEMORY_KIB),
        ("passes", costs.passes, _PASSES),
        ("lanes", costs.lanes, _LANES),
    ):
        if value < least:
            raise VaultError(f"the vault's parameter {name} is too weak: {value}, at least {least}")
        if value > most:
            raise VaultError(f"the vault's parameter {name} is absurd: {value}, at most {most}")


def _check_passphrase(passphrase: str) -> None:
    if not MIN_PASSPHRASE_CHARACTERS <= len(passphrase) <= MAX_PASSPHRASE_CHARACTERS:
        raise VaultError(
            f"a passphrase has {MIN_PASSPHRASE_CHARACTERS} to {MAX_PASSPHRASE_CHARACTERS} characters, this one has "
            f"{len(passphrase)}"
        )


def _stretch(passphrase: str, lock: PassphraseLock) -> bytes:
    """Return the key of a passphrase, however a keyboard composes its letters (NFKD)."""
    _check_lock(lock)
    try:
        secret = unicodedata.normalize("NFKD", passphrase).encode()
    except UnicodeEncodeError:
        raise VaultError("the passphrase is no text") from None
    costs = lock.costs
    return hash_secret_raw(secret, lock.salt, costs.passes, costs.memory_kib, costs.lanes, _KEY_BYTES, Type.ID)


def _associated(header: _Header) -> bytes:
    return b"strongroom/vault\x00" + msgspec.json.encode(header)


def _context_of(lock: TokenLock) -> bytes:
    return b"strongroom/vault/key\x00" + msgspec.json.encode(lock)
