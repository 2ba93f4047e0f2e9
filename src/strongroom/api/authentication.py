"""Authentication: who signed a request, checked over its raw bytes (the contract's section 2)."""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable
from hashlib import sha384
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidTag

from strongroom.api.calls import Caller
from strongroom.api.client_address import Client, in_networks, read_networks
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

DEFAULT_WINDOW_MS: Final = 30_000
_MAX_CACHED_SECRETS: Final = 100_000
_KEY: Final = re.compile(rb"[\x21-\x7e]{1,128}")
"""A key's text is looked up and remembered before anything is verified: so it is bounded."""

_NONCE: Final = re.compile(rb"[0-9]{13}")
_SIGNATURE: Final = re.compile(rb"[0-9a-fA-F]{96}")
_NAMES: Final = ((b"request-api", b"btse-api"), (b"request-nonce", b"btse-nonce"), (b"request-sign", b"btse-sign"))


class Claim(NamedTuple):
    """What the authentication headers say, well-formed but not verified."""

    key: str
    nonce: bytes
    signature: bytes


class _Secret(NamedTuple):
    row: ApiKey
    secret: bytes


def has_claim(request: Request) -> bool:
    """Say whether a request carries any authentication header that is not empty."""
    return any(any(request.values(name)) for names in _NAMES for name in names)


def read_claim(request: Request) -> Claim:
    """Return the authentication headers' values. Raises `Refused` AUTHENTICATION_MISSING unless each is there once.

    The older names are aliases; an empty value counts as absent; one value under both names is no conflict.
    """
    key, nonce, signature = (_one(request, names) for names in _NAMES)
    if not (_KEY.fullmatch(key) and _NONCE.fullmatch(nonce) and _SIGNATURE.fullmatch(signature)):
        raise AUTHENTICATION_MISSING()
    return Claim(key.decode(), nonce, bytes.fromhex(signature.decode()))


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
        self._secrets: dict[str, _Secret] = {}
        self._nobody = _Secret(ApiKey(""), bytes(64))
        reads.subscribe(self._forget)

    def verify(self, claim: Claim, signed_path: str, body: bytes, client: Client) -> Caller:
        """Return who signed. Raises `Refused` in the contract's order: key, signature, window, allow-list.

        An unknown key costs the same HMAC as a known one.
        """
        known = self._known(claim.key) or self._nobody
        expected = hmac.digest(known.secret, signed_path.encode() + claim.nonce + body, sha384)
        matches = hmac.compare_digest(expected, claim.signature)
        now_ms = self._clock.now_ms()
        user = self._reads.row(User, known.row.owner)
        if not is_usable(known.row, now_ms) or not user.active:
            raise AUTHENTICATION_FAILED()
        if not matches:
            raise SIGNATURE_INVALID()
        nonce_ms = int(claim.nonce)
        if abs(nonce_ms - now_ms) > self._window_ms:
            raise INVALID_NONCE()
        if known.row.networks and not in_networks(client.address, read_networks(known.row.networks)):
            raise FORBIDDEN("the address is not on the key's allow-list")
        return Caller(known.row, user, claim.signature, nonce_ms + self._window_ms)

    def _known(self, text: str) -> _Secret | None:
        found = self._secrets.get(text)
        if found is None:
            row = self._reads.row(ApiKey, text)
            if not row.created_ms:
                return None
            if len(self._secrets) >= _MAX_CACHED_SECRETS:
                self._secrets.clear()
            found = self._secrets[text] = _Secret(row, self._opened(row))
        return found

    def _opened(self, row: ApiKey) -> bytes:
        try:
            return self._open_secret(row.secret, row.text).encode()
        except InvalidTag:
            check(holds=False, rule="the master key opens every key's secret")
            raise

    def _forget(self, state: State) -> None:
        for key in state.rows:
            if key[0] is ApiKey:
                self._secrets.pop(key[1], None)


def is_usable(key: ApiKey, now_ms: int) -> bool:
    """Say whether a key exists, is not revoked and has not expired."""
    return bool(key.created_ms) and not key.revoked_ms and (not key.expires_ms or now_ms < key.expires_ms)


def require(caller: Caller, permission: Permission) -> None:
    """Raise `Refused` FORBIDDEN unless the caller's key has a permission."""
    if not caller.key.permissions & permission.value:
        raise FORBIDDEN(f"{(permission.name or '').capitalize()} permission is required")
