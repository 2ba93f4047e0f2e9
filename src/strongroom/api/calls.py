"""A call in progress: the request as it was received, who makes it, and its parameters once they are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

import msgspec

from strongroom.api import bodies, parameters
from strongroom.api.operations import Access, Operation, Route
from strongroom.errors import PARAMETER_INVALID, check
from strongroom.records.keys import ApiKey
from strongroom.records.users import User
from strongroom.wallet.context import Context

if TYPE_CHECKING:
    from strongroom.wallet.addresses import AddressPool

Parameters = TypeVar("Parameters", bound=msgspec.Struct)


class Caller(NamedTuple):
    """Who signed a request: the key, its user, the raw signature, and when the nonce's window closes (Unix ms)."""

    key: ApiKey
    user: User
    signature: bytes
    expires_ms: int


class Services(NamedTuple):
    """What operations work with."""

    context: Context
    pool: AddressPool


class Call:
    """One request on its way through the API."""

    def __init__(
        self,
        services: Services,
        route: Route,
        operation: Operation,
        headers: Mapping[bytes, list[bytes]],
        query: bytes,
        body: bytes,
    ) -> None:
        self.services = services
        self.route = route
        self.operation = operation
        self.headers = headers
        self.query = query
        self.body = body
        self.caller: Caller | None = None
        self._parameters: msgspec.Struct | None = None

    @property
    def context(self) -> Context:
        """The means of the use cases."""
        return self.services.context

    @property
    def owner(self) -> int:
        """The id of the user who signed. Only for operations that demand a signature."""
        check(self.caller is not None, "a signed operation has a caller")
        return cast(Caller, self.caller).user.uid

    def read(self, kind: type[Parameters]) -> Parameters:
        """Return the parameters. Raises `Refused` for what is missing, malformed or contradictory.

        A POST that changes state reads its body only; everything else its body when there is one, else the query.
        """
        if self._parameters is None:
            self._parameters = parameters.read(kind, self._values(kind))
        return cast(Parameters, self._parameters)

    def _values(self, kind: type[msgspec.Struct]) -> Mapping[str, Any]:
        encoding = self.headers.get(b"content-encoding")
        if encoding and encoding != [b"identity"]:
            raise PARAMETER_INVALID("a compressed body is not accepted")
        body = bodies.read_object(self.body)
        if self.operation.access is Access.CHANGE and self.operation.method == "POST":
            return body
        return bodies.merge(body, bodies.read_query(self.query, parameters.names(kind)))
