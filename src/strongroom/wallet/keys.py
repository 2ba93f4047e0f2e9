"""API keys: making, listing and revoking them; their secrets are encrypted at rest and shown once."""

from __future__ import annotations

import ipaddress
from typing import ClassVar, Final

import msgspec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from strongroom.engine.command import Command, Decision, Guard, Stale, View
from strongroom.errors import PARAMETER_INVALID
from strongroom.records.kept import Key
from strongroom.records.keys import ALL_PERMISSIONS, ApiKey
from strongroom.records.users import User
from strongroom.wallet.context import Context

MASTER_KEY_BYTES: Final = 32
_SECRET_BYTES: Final = 32
_IV_BYTES: Final = 12
_MAX_NETWORKS: Final = 50


class KeyTerms(msgspec.Struct, frozen=True):
    """What a key may do, from where (CIDR, empty for everywhere), until when (Unix ms, 0 for ever), in which tier."""

    permissions: int = int(ALL_PERMISSIONS)
    networks: tuple[str, ...] = ()
    expires_ms: int = 0
    tier: str = ""
    label: str = ""


class SecretBox:
    """Encrypts and decrypts secrets with AES-256-GCM under the master key; the key's text is bound to its secret."""

    def __init__(self, master_key: bytes) -> None:
        """Raise ValueError unless the master key has 32 bytes."""
        if len(master_key) != MASTER_KEY_BYTES:
            raise ValueError(f"the master key has {len(master_key)} bytes, not {MASTER_KEY_BYTES}")
        self._cipher = AESGCM(master_key)

    def seal(self, secret: str, bound_to: str, iv: bytes) -> bytes:
        """Return the encrypted secret; `iv` is 12 fresh random bytes."""
        return iv + self._cipher.encrypt(iv, secret.encode(), bound_to.encode())

    def open(self, sealed: bytes, bound_to: str) -> str:
        """Return the secret. Raises `cryptography.exceptions.InvalidTag` for another master key or row."""
        return self._cipher.decrypt(sealed[:_IV_BYTES], sealed[_IV_BYTES:], bound_to.encode()).decode()


class KeyMade(msgspec.Struct, frozen=True):
    """The public text of a new key."""

    text: str


class MakeKey(Command, frozen=True):
    """Keep a new key of a user. The journal tells whose it is, what it may do and for how long, and no more of it."""

    PRIVATE: ClassVar[frozenset[str]] = frozenset({"text", "secret", "networks", "label"})

    owner: int
    number: int
    permissions: int
    expires_ms: int
    tier: str
    text: str
    secret: bytes
    networks: tuple[str, ...]
    label: str

    def needs(self) -> list[Key]:
        """The key and its owner."""
        return [ApiKey.at(self.text), User.at(self.owner)]

    def decide(self, view: View, now_ms: int) -> Decision:
        """Keep it, for a user that exists."""
        if not view.get(User, self.owner).created_ms:
            raise PARAMETER_INVALID("user is unknown")
        if view.get(ApiKey, self.text).created_ms:
            raise Stale
        key = ApiKey(
            text=self.text,
            number=self.number,
            owner=self.owner,
            secret=self.secret,
            permissions=self.permissions,
            networks=self.networks,
            expires_ms=self.expires_ms,
            created_ms=now_ms,
            tier=self.tier,
            label=self.label,
        )
        return Decision(rows=[key], result=KeyMade(self.text))


class RevokeKey(Command, frozen=True):
    """Make a key useless from the next request on."""

    PRIVATE: ClassVar[frozenset[str]] = frozenset({"text"})

    number: int
    text: str

    def needs(self) -> list[Key]:
        """The key."""
        return [ApiKey.at(self.text)]

    def decide(self, view: View, now_ms: int) -> Decision:
        """Mark it, once."""
        key = view.get(ApiKey, self.text)
        if not key.created_ms:
            raise PARAMETER_INVALID("key is unknown")
        return Decision(rows=[] if key.revoked_ms else [msgspec.structs.replace(key, revoked_ms=now_ms)])


def prepare_key(
    context: Context,
    guard: Guard,
    box: SecretBox,
    owner: int,
    terms: KeyTerms,
) -> tuple[MakeKey, str]:
    """Return the command that makes a key for a user, and the key's secret: it cannot be read again by anybody.

    Raises `Refused` PARAMETER_INVALID for permissions or networks that do not exist.
    """
    if not terms.permissions or terms.permissions & ~int(ALL_PERMISSIONS):
        raise PARAMETER_INVALID("permissions are not among Read, Trading, Transfer, Wallet, Withdraw")
    text, secret = context.ids.random_bytes(_SECRET_BYTES).hex(), context.ids.random_bytes(_SECRET_BYTES).hex()
    command = MakeKey(
        guard,
        owner=owner,
        number=int.from_bytes(context.ids.random_bytes(7), "big"),
        permissions=terms.permissions,
        expires_ms=terms.expires_ms,
        tier=terms.tier,
        text=text,
        secret=box.seal(secret, text, context.ids.random_bytes(_IV_BYTES)),
        networks=_checked(terms.networks),
        label=terms.label,
    )
    return command, secret


def _checked(networks: tuple[str, ...]) -> tuple[str, ...]:
    if len(networks) > _MAX_NETWORKS:
        raise PARAMETER_INVALID(f"more than {_MAX_NETWORKS} networks")
    try:
        return tuple(str(ipaddress.ip_network(network, strict=False)) for network in networks)
    except ValueError as error:
        raise PARAMETER_INVALID(f"networks: {error}") from None


def prepare_revocation(context: Context, guard: Guard, text: str) -> RevokeKey:
    """Return the command that revokes a key by its public text."""
    return RevokeKey(guard, context.reads.row(ApiKey, text).number, text)


def keys_of(context: Context, owner: int, limit: int = 1000) -> list[ApiKey]:
    """Return a user's keys, revoked ones included."""
    return context.reads.rows(ApiKey, {"owner": owner}, limit)
