"""The signed API as one thin ASGI application: exact-match routes, raw bytes in, bytes out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol, cast

import structlog

from strongroom.api.authentication import Authenticator, has_claim, read_claim, require
from strongroom.api.calls import Call, Caller, Services, guard_of
from strongroom.api.client_address import Client, ClientAddresses
from strongroom.api.limits import LimitExceeded, RateLimits, Standing
from strongroom.api.operations import Access, Answer, Dialect, Operation, Prepare, Render, Route, routes_of
from strongroom.api.replies import Reply, error_body
from strongroom.api.requests import Disconnected, Receive, Request, Scope, Send, read_body, read_head
from strongroom.engine.command import Guard
from strongroom.errors import (
    METHOD_NOT_ALLOWED,
    NOT_FOUND,
    RECEIVER_NOT_FOUND,
    SYSTEM_ERROR,
    UNAVAILABLE,
    Refused,
    check,
)
from strongroom.wallet.context import Remember, perform

_JSON: Final = (b"content-type", b"application/json")
_NO_STORE: Final = (b"cache-control", b"no-store")

log = structlog.get_logger("api")


class RequestEvents(Protocol):
    """What the API tells of each request, for metrics."""

    def answered(self, operation: str, status: int, code: str, seconds: float) -> None:
        """Tell the operation's name (or "unknown"), the status, the refusal's name (or "") and the time it took."""
        ...


class Api:
    """Answers every request of the signed surface.

    `draining` answers 503 to everything that is new; `cors_origins` are the origins that browsers may call from.
    """

    def __init__(
        self,
        services: Services,
        operations: list[Operation],
        authenticator: Authenticator,
        limits: RateLimits,
        addresses: ClientAddresses,
        events: RequestEvents,
        cors_origins: frozenset[str] = frozenset(),
    ) -> None:
        self._services = services
        self._routes = routes_of(operations)
        self._authenticator = authenticator
        self._limits = limits
        self._addresses = addresses
        self._events = events
        self._cors_origins = frozenset(origin.encode() for origin in cors_origins)
        self.draining = False

    @property
    def routes(self) -> Mapping[bytes, Route]:
        """Every path that is answered, as received."""
        return self._routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        clock, ids = self._services.context.clock, self._services.context.ids
        started_s = clock.monotonic_s()
        request = read_head(scope)
        route = self._routes.get(request.path)
        operation = route and route.operations.get("GET" if request.method == "HEAD" else request.method)
        request_id = ids.random_bytes(8).hex()
        exchange = Exchange(request, route, operation)
        try:
            reply = await self._reply(exchange, receive)
        except Disconnected:
            return
        except Refused as refusal:
            exchange.code = refusal.error.name
            reply = self._refusal(exchange, refusal)
        except Exception as error:
            log.error("request failed", request_id=request_id, operation=exchange.name, exc_info=error)
            exchange.code = SYSTEM_ERROR.name
            reply = self._refusal(exchange, SYSTEM_ERROR())
        headers = [*reply.headers, *self._headers(exchange), (b"x-request-id", request_id.encode())]
        await _send(send, request.method, reply, headers)
        self._events.answered(exchange.name, reply.status, exchange.code, clock.monotonic_s() - started_s)

    async def _reply(self, exchange: Exchange, receive: Receive) -> Reply:
        """Answer in the contract's order: size, headers, key ... permission, rate limit, then the operation itself."""
        body = await read_body(receive)
        if self.draining:
            raise UNAVAILABLE("System draining")
        request, route, operation = exchange.request, exchange.route, exchange.operation
        if route is None:
            raise NOT_FOUND("no such path")
        if request.method == "OPTIONS":
            return Reply(204, b"", ((b"allow", route.allow.encode()),))
        if operation is None:
            raise METHOD_NOT_ALLOWED(f"the path answers {route.allow}")
        client = self._addresses.find(request.peer, request.headers.get(b"x-forwarded-for", ()))
        call = Call(self._services, route, operation, request.headers, request.query, body)
        call.caller = self._authenticate(exchange, client, body)
        exchange.standing = self._limit(operation, call.caller, client)
        if operation.access is Access.CHANGE:
            return await self._change(call)
        if call.caller is not None and route.changes:
            await self._remember(call.caller)
        check(operation.answer is not None, "what does not change something answers")
        # Also where there is no parameter to read: a bad body is refused by every operation.
        _ = call.read(operation.request)
        return Reply(200, cast(Answer, operation.answer)(call), _static_headers(operation))

    def _authenticate(self, exchange: Exchange, client: Client, body: bytes) -> Caller | None:
        operation, headers = exchange.operation, exchange.request.headers
        if operation is None or exchange.route is None or not exchange.signed:
            return None
        self._limits.check_client(client.bucket)
        try:
            claim = read_claim(headers)
            caller = self._authenticator.verify(claim, exchange.route.signed_path, body, client)
        except Refused as refusal:
            if refusal.error.status == 401:
                self._limits.authentication_failed(client.bucket)
            raise
        if operation.permission is not None and operation.access is not Access.PUBLIC:
            require(caller, operation.permission)
        return caller

    def _limit(self, operation: Operation, caller: Caller | None, client: Client) -> Standing | None:
        if caller is None:
            return self._limits.public_call(client.bucket)
        tier, user = caller.key.tier, caller.user.uid
        if operation.access is Access.CHANGE:
            standing = self._limits.wallet_call(tier, user, operation.name)
            if operation.finds_receiver:
                self._limits.check_receiver_refusals(tier, user)
            return standing
        return self._limits.signed_call(tier, user, caller.key.number, operation.name)

    async def _remember(self, caller: Caller) -> None:
        """Remember the signature of a GET whose path also changes state, so that it can authorise no change."""
        guard = Guard(owner=caller.user.uid)
        command = Remember(guard, caller.key.number, caller.signature, caller.expires_ms)
        outcome = await self._services.context.submit(command)
        if outcome.refusal is not None:
            raise outcome.refusal

    async def _change(self, call: Call) -> Reply:
        """Carry out a changing operation; whatever becomes of it from here on, the signature is used up."""
        operation, context = call.operation, self._services.context
        caller, render = cast(Caller, call.caller), cast(Render, operation.render)
        guard = guard_of(call, caller)
        if operation.perform is not None:
            outcome = await operation.perform(call, guard)
        else:
            prepare = cast(Prepare, operation.prepare)
            outcome = await perform(context, guard, lambda: prepare(call, guard))
        if outcome.refusal is not None:
            if outcome.refusal.error is RECEIVER_NOT_FOUND:
                self._limits.note_receiver_refusal(caller.user.uid)
            raise outcome.refusal
        body = render(call, outcome.result, outcome.at_ms)
        return Reply(200, body, ((b"idempotency-replayed", b"true"),) if outcome.repeated else ())

    def _refusal(self, exchange: Exchange, refusal: Refused) -> Reply:
        headers: list[tuple[bytes, bytes]] = []
        if isinstance(refusal, LimitExceeded):
            exchange.standing = refusal.standing
        if refusal.retry_after_s is not None:
            headers.append((b"retry-after", str(refusal.retry_after_s).encode()))
        if exchange.route is not None and refusal.error is METHOD_NOT_ALLOWED:
            headers.append((b"allow", exchange.route.allow.encode()))
        if self.draining:
            # So that no client has its next request on its way here when the connection is cut.
            headers.append((b"connection", b"close"))
        now_ms = self._services.context.clock.now_ms()
        return Reply(refusal.error.status, error_body(refusal, exchange.dialect, now_ms), tuple(headers))

    def _headers(self, exchange: Exchange) -> list[tuple[bytes, bytes]]:
        headers: list[tuple[bytes, bytes]] = []
        if exchange.signed:
            headers.append(_NO_STORE)
        if (standing := exchange.standing) is not None:
            headers.append((b"x-ratelimit-limit", str(standing.limit).encode()))
            headers.append((b"x-ratelimit-remaining", str(standing.remaining).encode()))
            headers.append((b"x-ratelimit-reset", str(standing.reset_s).encode()))
        if self._cors_origins:
            headers += self._cors_headers(exchange)
        return headers

    def _cors_headers(self, exchange: Exchange) -> list[tuple[bytes, bytes]]:
        """Return what lets a browser's page of a configured origin call, and read the headers of the reply."""
        origin = exchange.request.headers.get(b"origin", [b""])[0]
        if origin not in self._cors_origins:
            return [(b"vary", b"Origin")]
        headers = [(b"vary", b"Origin"), (b"access-control-allow-origin", origin)]
        if exchange.request.method != "OPTIONS" or exchange.route is None:
            return [*headers, (b"access-control-expose-headers", _EXPOSED_HEADERS)]
        methods = exchange.route.allow.encode()
        return [*headers, (b"access-control-allow-methods", methods), (b"access-control-allow-headers", _SENT_HEADERS)]


_SENT_HEADERS: Final = (
    b"request-api, request-nonce, request-sign, btse-api, btse-nonce, btse-sign, idempotency-key, content-type"
)
_EXPOSED_HEADERS: Final = (
    b"x-request-id, retry-after, x-ratelimit-limit, x-ratelimit-remaining, x-ratelimit-reset, idempotency-replayed"
)


class Exchange:
    """What is known of a request while it is answered: its route, and what the reply's headers shall say."""

    def __init__(self, request: Request, route: Route | None, operation: Operation | None) -> None:
        self.request = request
        self.route = route
        self.operation = operation
        self.standing: Standing | None = None
        self.code = ""

    @property
    def name(self) -> str:
        """The operation's name, for metrics: from a closed set."""
        return self.operation.name if self.operation else "unknown"

    @property
    def signed(self) -> bool:
        """Whether the request is signed or has to be, so that its reply, whatever it says, is for nobody else."""
        access = self.operation.access if self.operation else None
        if access is Access.OPEN:
            return False
        return access in (Access.READ, Access.CHANGE) or has_claim(self.request.headers)

    @property
    def dialect(self) -> Dialect:
        """Whose error bodies the reply uses; an unknown path is answered as wallet v1 does, whatever it looks like."""
        if self.route is not None:
            return self.route.dialect
        return Dialect.PLAIN


def _static_headers(operation: Operation) -> tuple[tuple[bytes, bytes], ...]:
    return tuple((name.lower().encode(), value.encode()) for name, value in operation.headers)


async def _send(send: Send, method: str, reply: Reply, headers: list[tuple[bytes, bytes]]) -> None:
    content = [] if reply.status == 204 else [_JSON, (b"content-length", str(len(reply.body)).encode())]
    await send({"type": "http.response.start", "status": reply.status, "headers": [*content, *headers]})
    await send({"type": "http.response.body", "body": b"" if method == "HEAD" else reply.body})
