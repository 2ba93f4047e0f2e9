"""Operations: what the API offers, declared as data, so that routing, limits, OpenAPI and the docs say the same."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from strongroom.engine.command import Command, Guard
from strongroom.engine.settle import Outcome
from strongroom.errors import check
from strongroom.records.keys import Permission

if TYPE_CHECKING:
    from strongroom.api.calls import Call


class Answer(Protocol):
    """How a reading operation makes its body."""

    def __call__(self, call: Call) -> bytes:
        """Return the body, from committed state."""
        ...


class Prepare(Protocol):
    """How a changing operation makes its command; it may be asked again when the state changed meanwhile."""

    def __call__(self, call: Call, guard: Guard) -> Command:
        """Return the command. Raises `Refused`."""
        ...


class Perform(Protocol):
    """How a changing operation is carried out that minds more than its command."""

    async def __call__(self, call: Call, guard: Guard) -> Outcome:
        """Return the outcome; a refusal has used up the signature. Raises `Refused` where nothing was done."""
        ...


class Render(Protocol):
    """How a changing operation spells its result, the first time and every time it is repeated."""

    def __call__(self, call: Call, result: bytes, at_ms: int) -> bytes:
        """Return the body for the command's encoded result and the stamp of its commit (Unix ms)."""
        ...


class Dialect(Enum):
    """Which spelling of the one service a path speaks; `MARKETS` and `PLAIN` answer errors as wallet v1 does."""

    V3 = "v3"
    WALLET_V1 = "wallet_v1"
    MARKETS = "markets"
    PLAIN = "plain"


class Access(Enum):
    """Who may call: `OPEN` ignores authentication headers, `PUBLIC` verifies them if sent, the others demand them."""

    OPEN = "open"
    PUBLIC = "public"
    READ = "read"
    CHANGE = "change"


class NoParameters(msgspec.Struct, frozen=True):
    """A request without parameters."""


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One thing a client can ask for.

    `name` is the counter of its rate limit, shared by dialects. `paths` are as signed, without the optional mount. A
    reading operation has `answer`; a changing one `prepare`, which may be called again, or `perform`, and `render`,
    which turns the outcome's result (and nothing that may have changed since) into the body. `reply` and `errors`
    describe what is answered. With `finds_receiver`, refused receivers count against the user (section 6, item 8).
    """

    name: str
    summary: str
    dialect: Dialect
    method: str
    paths: tuple[str, ...]
    access: Access
    permission: Permission | None = None
    request: type[msgspec.Struct] = NoParameters
    reply: Any = None
    answer: Answer | None = None
    prepare: Prepare | None = None
    perform: Perform | None = None
    render: Render | None = None
    finds_receiver: bool = False
    errors: tuple[str, ...] = ()
    headers: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        """Check that the declaration is whole."""
        changes = self.access is Access.CHANGE
        check(changes != (self.prepare is None and self.perform is None), f"{self.name} carries out what it changes")
        check(changes == (self.render is not None), f"{self.name} renders what it changes")
        check(changes == (self.answer is None), f"{self.name} answers what it reads")


MOUNT: Final = "/spot"
"""The optional mount of the v3 dialect: clients send it, but do not sign it."""


class Endpoint(msgspec.Struct, frozen=True, eq=False):
    """An operation as one method of one path, with what every request would ask of it worked out once.

    `ignores_claims`, `demands_claim` and `changes` say what its `Access` says. `remembers` is set where the path also
    has a state-changing method, so that signatures seen here must be remembered. `headers` are the header lines of
    each success.
    """

    operation: Operation
    name: str
    ignores_claims: bool
    demands_claim: bool
    changes: bool
    remembers: bool
    permission: Permission | None
    headers: str


class Route:
    """A path as it is received: the path that is signed for it, and its operations by method.

    `endpoints` has HEAD beside each GET; `allow` are the methods for an Allow header.
    """

    def __init__(self, signed_path: str, dialect: Dialect) -> None:
        self.signed_path = signed_path
        self.dialect = dialect
        self.operations: dict[str, Operation] = {}
        self.endpoints: dict[str, Endpoint] = {}
        self.allow = "OPTIONS"

    def add(self, operation: Operation) -> None:
        """Answer one more method; each is declared once."""
        check(operation.method not in self.operations, f"{operation.method} {self.signed_path} is declared once")
        self.operations[operation.method] = operation
        changes = any(other.access is Access.CHANGE for other in self.operations.values())
        self.endpoints = {method: _endpoint(other, changes=changes) for method, other in self.operations.items()}
        if "GET" in self.endpoints:
            self.endpoints["HEAD"] = self.endpoints["GET"]
        self.allow = ", ".join(sorted({*self.endpoints, "OPTIONS"}))


def _endpoint(operation: Operation, *, changes: bool) -> Endpoint:
    """Return an operation as its path serves it; `changes` says whether the path has a state-changing method."""
    access = operation.access
    return Endpoint(
        operation=operation,
        name=operation.name,
        ignores_claims=access is Access.OPEN,
        demands_claim=access in (Access.READ, Access.CHANGE),
        changes=access is Access.CHANGE,
        remembers=changes and access is not Access.CHANGE,
        permission=None if access is Access.PUBLIC else operation.permission,
        headers="".join(f"{name.lower()}: {value}\r\n" for name, value in operation.headers),
    )


def routes_of(operations: list[Operation]) -> dict[bytes, Route]:
    """Return every path, byte for byte, with its route."""
    routes: dict[bytes, Route] = {}
    for operation in operations:
        for path in operation.paths:
            for mount in ("", MOUNT) if operation.dialect is Dialect.V3 else ("",):
                routes.setdefault((mount + path).encode(), Route(path, operation.dialect)).add(operation)
    return routes
