"""A call in progress: the request as it was received, who makes it, and its parameters once they are read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar, cast

import msgspec

from strongroom.api import bodies, parameters
from strongroom.api.operations import Access, Operation, Route
from strongroom.api.requests import Request
from strongroom.api.wallet_cache import WalletCache
from strongroom.engine.command import Guard
from strongroom.errors import PARAMETER_INVALID, check
from strongroom.records.keys import ApiKey
from strongroom.records.users import User
from strongroom.wallet.catalogue import Catalogue
from strongroom.wallet.context import Context

if TYPE_CHECKING:
    from strongroom.wallet.addresses import AddressPool

_IDEMPOTENCY_KEY: Final = re.compile(rb"[\x21-\x7e]{1,255}")
_PLAIN_CODINGS: Final = (b"", b"identity")

Parameters = TypeVar("Parameters", bound=msgspec.Struct)


class Caller(msgspec.Struct, frozen=True, eq=False, gc=False):
    """Who signed a request: the key, its user, the raw signature, and when the nonce's window closes (Unix ms)."""

    key: ApiKey
    user: User
    signature: bytes
    expires_ms: int


class Services(NamedTuple):
    """What operations work with."""

    context: Context
    pool: AddressPool
    wallets: WalletCache


class Call(msgspec.Struct, eq=False):
    """One request on its way through the API; its parameters are read once."""

    services: Services
    route: Route
    operation: Operation
    request: Request
    body: bytes
    caller: Caller | None = None
    _parameters: msgspec.Struct | None = None
    _catalogue: Catalogue | None = None

    @property
    def context(self) -> Context:
        """The means of the use cases."""
        return self.services.context

    @property
    def owner(self) -> int:
        """The id of the user who signed. Only for operations that demand a signature."""
        check(self.caller is not None, "a signed operation has a caller")
        return cast(Caller, self.caller).user.uid

    @property
    def catalogue(self) -> Catalogue:
        """The assets and networks as the settings had them when this call first asked.

        A change asks before it is made: the reply to what was done must not need books that have gone away meanwhile.
        """
        if self._catalogue is None:
            self._catalogue = self.context.catalogue
        return self._catalogue

    def read(self, kind: type[Parameters]) -> Parameters:
        """Return the parameters. Raises `Refused` for what is missing, malformed or contradictory.

        A POST that changes state reads its body only; everything else its body when there is one, else the query.
        """
        if self._parameters is None:
            _check_idempotency_key(self)
            self._parameters = parameters.read(kind, self._values(kind))
        return cast(Parameters, self._parameters)

    def _values(self, kind: type[msgspec.Struct]) -> Mapping[str, Any]:
        if self.body and b"content-encoding" in self.request.headers:
            codings = self.request.values(b"content-encoding")
            if not all(coding.lower() in _PLAIN_CODINGS for coding in codings):
                raise PARAMETER_INVALID("a compressed body is not accepted")
        body = bodies.read_object(self.body)
        if self.operation.access is Access.CHANGE and self.operation.method == "POST":
            return body
        return bodies.merge(body, bodies.read_query(self.request.query, parameters.names(kind)))


def _idempotency_key(call: Call) -> bytes | None:
    """Return the Idempotency-Key, None where there is none or it is not one: 1 to 255 visible ASCII characters."""
    values = call.request.values(b"idempotency-key")
    if len(values) != 1 or not _IDEMPOTENCY_KEY.fullmatch(values[0]):
        return None
    return values[0]


def _check_idempotency_key(call: Call) -> None:
    given = b"idempotency-key" in call.request.headers
    if given and call.operation.access is Access.CHANGE and _idempotency_key(call) is None:
        raise PARAMETER_INVALID("Idempotency-Key must be given once, 1 to 255 visible ASCII characters")


def guard_of(call: Call, caller: Caller) -> Guard:
    """Return the guard of a signed call's command; its fingerprint covers method, signed path, query and body."""
    digest = fingerprint = b""
    if (key := _idempotency_key(call)) is not None:
        digest = sha256(key).digest()
        parts = (call.operation.method.encode(), call.route.signed_path.encode(), call.request.query, call.body)
        fingerprint = sha256(b"".join(len(part).to_bytes(4, "big") + part for part in parts)).digest()
    return Guard(caller.user.uid, caller.key.number, caller.signature, caller.expires_ms, digest, fingerprint)
