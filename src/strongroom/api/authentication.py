"""Authentication: who signed a request, checked over its raw bytes (the contract's section 2)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from hashlib import sha384
from hmac import compare_digest
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
from cryptography.exceptions import InvalidTag

from strongroom.api.calls import Caller
from strongroom.api.client_address import Client, Network, in_networks, read_networks
from strongroom.api.requests import Request
from strongroom.clock import Clock
from strongroom.engine.port import Reads
from strongroom.engine.state import State
from strongroom.errors import (
    AUTHENTICATION_FAILED,
    AUTHENTICATION_MISSING,
    FORBIDDEN,
    INVALID_NONCE,
    SIGNATURE_INVALID,
    check,
)
from strongroom.records.keys import ApiKey, Permission
from strongroom.records.users import User

if TYPE_CHECKING:
    from _hashlib import HASH

DEFAULT_WINDOW_MS: Final = 30_000
_MAX_CACHED_SIGNERS: Final = 100_000
_KEY: Final = re.compile(rb"[\x21-\x7e]{1,128}")
"""A key's text is looked up and remembered before anything is verified: so it is bounded."""

_NONCE_DIGITS: Final = 13
_SIGNATURE_BYTES: Final = 48
_HASHED_BLOCK_BYTES: Final = 128
_NAMES: Final = ((b"request-api", b"btse-api"), (b"request-nonce", b"btse-nonce"), (b"request-sign", b"btse-sign"))
_ALIASES: Final = frozenset(alias for _, alias in _NAMES)


class Claim(msgspec.Struct, frozen=True, eq=False, gc=False):
    """What the authentication headers say, well-formed but not verified."""

    key: str
    nonce: bytes
    signature: bytes


class _Signer(NamedTuple):
    """A key and what its signatures are verified with: HMAC's two hashes (RFC 2104) with the secret worked in."""

    row: ApiKey
    networks: Sequence[Network]
    inner: HASH
    outer: HASH

    def sign(self, message: bytes) -> bytes:
        """Return the HMAC-SHA384 of a message; hashing the secret once a key takes half of what `hmac.digest` does."""
        inner, outer = self.inner.copy(), self.outer.copy()
        inner.update(message)
        outer.update(inner.digest())
        return outer.digest()


def _signer(row: ApiKey, secret: bytes) -> _Signer:
    block = (secret if len(secret) <= _HASHED_BLOCK_BYTES else sha384(secret).digest()).ljust(
        _HASHED_BLOCK_BYTES, b"\0"
    )
    inner, outer = (sha384(bytes(byte ^ pad for byte in block)) for pad in (0x36, 0x5C))
    return _Signer(row, read_networks(row.networks), inner, outer)


def has_claim(request: Request) -> bool:
    """Say whether a request carries any authentication header that is not empty."""
    return any(any(request.values(name)) for names in _NAMES for name in names)


def read_claim(request: Request) -> Claim:
    """Return the authentication headers' values. Raises `Refused` AUTHENTICATION_MISSING unless each is there once.

    The older names are aliases; an empty value counts as absent; one value under both names is no conflict.
    """
    headers = request.headers
    if request.repeated or not _ALIASES.isdisjoint(headers):
        key, nonce, signature = (_one(request, names) for names in _NAMES)
    else:
        key = headers.get(b"request-api", b"").strip()
        nonce = headers.get(b"request-nonce", b"").strip()
        signature = headers.get(b"request-sign", b"").strip()
    if not (_KEY.fullmatch(key) and len(nonce) == _NONCE_DIGITS and nonce.isdigit()):
        raise AUTHENTICATION_MISSING()
    return Claim(key.decode(), nonce, _read_signature(signature))


def _read_signature(digits: bytes) -> bytes:
    try:
        signature = bytes.fromhex(digits.decode())
    except ValueError:
        raise AUTHENTICATION_MISSING() from None
    # White space between the digits would be passed over.
    if len(signature) != _SIGNATURE_BYTES or len(digits) != 2 * _SIGNATURE_BYTES:
        raise AUTHENTICATION_MISSING()
    return signature


def _one(request: Request, names: tuple[bytes, bytes]) -> bytes:
    first, alias = request.values(names[0]), request.values(names[1])
    if not alias and len(first) == 1 and first[0]:
        return first[0]
    values: set[bytes] = set()
    for name in names:
        given = [value for value in request.values(name) if value]
        if len(given) > 1:
            raise AUTHENTICATION_MISSING()
        values.update(given)
    if len(values) != 1:
        raise AUTHENTICATION_MISSING()
    return values.pop()


class Authenticator:
    """Verifies claims against the committed keys; a revoked key fails on the next request."""

    def __init__(
        self, reads: Reads, clock: Clock, open_secret: Callable[[bytes, str], str], window_ms: int = DEFAULT_WINDOW_MS
    ) -> None:
        """`open_secret` decrypts a key's secret, given its bytes and the key's public text."""
        self._reads = reads
        self._clock = clock
        self._open_secret = open_secret
        self._window_ms = window_ms
        self._signers: dict[str, _Signer] = {}
        self._users: dict[int, User] = {}
        self._nobody = _signer(ApiKey(""), bytes(64))
        reads.subscribe(self._forget)

    def verify(self, claim: Claim, signed_path: str, body: bytes, client: Client) -> Caller:
        """Return who signed. Raises `Refused` in the contract's order: key, signature, window, allow-list.

        An unknown key costs the same HMAC as a known one.
        """
        if not self._reads.is_current:
            self._forget_all()
        known = self._signers.get(claim.key) or self._find(claim.key)
        key = known.row
        matches = compare_digest(known.sign(signed_path.encode() + claim.nonce + body), claim.signature)
        now_ms = self._clock.now_ms()
        user = self._users.get(key.owner) or self._user(key.owner)
        if not is_usable(key, now_ms) or not user.active:
            raise AUTHENTICATION_FAILED()
        if not matches:
            raise SIGNATURE_INVALID()
        nonce_ms = int(claim.nonce)
        if abs(nonce_ms - now_ms) > self._window_ms:
            raise INVALID_NONCE()
        if known.networks and not in_networks(client.address, known.networks):
            raise FORBIDDEN("the address is not on the key's allow-list")
        return Caller(key, user, claim.signature, nonce_ms + self._window_ms)

    def _find(self, text: str) -> _Signer:
        row = self._reads.row(ApiKey, text)
        if not row.created_ms:
            return self._nobody
        if len(self._signers) >= _MAX_CACHED_SIGNERS:
            self._forget_all()
        found = self._signers[text] = _signer(row, self._opened(row))
        return found

    def _user(self, uid: int) -> User:
        user = self._reads.row(User, uid)
        if user.created_ms:
            self._users[uid] = user
        return user

    def _opened(self, row: ApiKey) -> bytes:
        try:
            return self._open_secret(row.secret, row.text).encode()
        except InvalidTag:
            check(holds=False, rule="the master key opens every key's secret")
            raise

    def _forget(self, state: State) -> None:
        for key in state.rows:
            if key[0] is ApiKey:
                self._signers.pop(key[1], None)
            elif key[0] is User:
                self._users.pop(key[1], None)

    def _forget_all(self) -> None:
        self._signers.clear()
        self._users.clear()


def is_usable(key: ApiKey, now_ms: int) -> bool:
    """Say whether a key exists, is not revoked and has not expired."""
    return bool(key.created_ms) and not key.revoked_ms and (not key.expires_ms or now_ms < key.expires_ms)


def require(caller: Caller, permission: Permission) -> None:
    """Raise `Refused` FORBIDDEN unless the caller's key has a permission."""
    if not caller.key.permissions & permission.value:
        raise FORBIDDEN(f"{(permission.name or '').capitalize()} permission is required")
