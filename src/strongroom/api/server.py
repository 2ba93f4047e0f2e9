"""The signed API: exact-match routes, raw bytes in, bytes out; one synchronous core, and plain ASGI over it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol, TypeAlias, cast

import msgspec
import structlog

from strongroom.api.authentication import Authenticator, has_claim, read_claim, require
from strongroom.api.calls import Call, Caller, Services, guard_of
from strongroom.api.client_address import Client, ClientAddresses
from strongroom.api.limits import LimitExceeded, RateLimits, Standing
from strongroom.api.operations import (
    Answer,
    Dialect,
    Endpoint,
    NoParameters,
    Operation,
    Perform,
    Prepare,
    Render,
    Route,
    routes_of,
)
from strongroom.api.reading import ReadingThreads
from strongroom.api.replies import Reply, error_body, header, header_pairs
from strongroom.api.requests import Disconnected, Receive, Request, Scope, Send, read_body, read_head
from strongroom.engine.command import Guard
from strongroom.engine.port import DiskFailed
from strongroom.engine.settle import Outcome
from strongroom.errors import METHOD_NOT_ALLOWED, NOT_FOUND, RECEIVER_NOT_FOUND, SYSTEM_ERROR, UNAVAILABLE, Refused
from strongroom.wallet.context import Remember, start

Respond: TypeAlias = Callable[[int, str, bytes], None]
"""How a request is answered, once: called with the status, the lines of the headers, and the body."""

log = structlog.get_logger("api")


class RequestEvents(Protocol):
    """What the API tells of each request, for metrics."""

    def answered(self, operation: str, status: int, code: str, seconds: float) -> None:
        """Tell the operation's name (or "unknown"), the status, the refusal's name (or "") and the time it took."""
        ...


class Exchange(msgspec.Struct, eq=False):
    """A request while it is answered: who is told the reply, its place in the API, and what the reply's headers say.

    `began_s` is when the head was there, on the monotonic clock. `call` is there once the request has come so far.
    """

    request: Request
    began_s: float
    respond: Respond
    route: Route | None
    endpoint: Endpoint | None
    call: Call | None = None
    standing: Standing | None = None
    request_id: str = ""


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
        reading: ReadingThreads | None = None,
    ) -> None:
        """Signed reads are answered in the threads of `reading`; without them, in the event loop."""
        self._services = services
        self._context = services.context
        self._clock = services.context.clock
        self._routes = routes_of(operations)
        self._authenticator = authenticator
        self._limits = limits
        self._addresses = addresses
        self._events = events
        self._cors_origins = {origin.encode(): origin.encode().decode("latin-1") for origin in cors_origins}
        self._reading = reading
        self._performing: set[asyncio.Task[None]] = set()
        self.draining = False

    @property
    def routes(self) -> Mapping[bytes, Route]:
        """Every path that is answered, as received."""
        return self._routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request as an ASGI application."""
        began_s = self._clock.monotonic_s()
        request = read_head(scope)
        answered: asyncio.Future[tuple[int, str, bytes]] = asyncio.get_running_loop().create_future()

        def respond(status: int, headers: str, body: bytes) -> None:
            if not answered.done():
                answered.set_result((status, headers, body))

        try:
            body = await read_body(receive)
        except Disconnected:
            return
        except Refused as refusal:
            self.refuse(request, refusal, began_s, respond)
        else:
            self.handle(request, body, began_s, respond)
        status, headers, body = await answered
        await send({"type": "http.response.start", "status": status, "headers": header_pairs(headers)})
        await send({"type": "http.response.body", "body": body})

    def handle(self, request: Request, body: bytes, began_s: float, respond: Respond) -> None:
        """Answer a request with its whole body: at once, or when what it depends on is durable."""
        self._take(self._exchange(request, began_s, respond), self._answer, body)

    def refuse(self, request: Request, refusal: Refused, began_s: float, respond: Respond) -> None:
        """Answer a request whose body is not there: too large, or too late."""
        exchange = self._exchange(request, began_s, respond)
        self._finish(exchange, self._refusal(exchange, refusal))

    def _exchange(self, request: Request, began_s: float, respond: Respond) -> Exchange:
        route = self._routes.get(request.path)
        endpoint = None if route is None else route.endpoints.get(request.method)
        return Exchange(request, began_s, respond, route, endpoint)

    def _take(self, exchange: Exchange, step: Callable[[Exchange, Any], Reply | None], given: object) -> None:
        """Take one step with a request, and answer it with what comes of that; None is answered by a later step."""
        try:
            reply = step(exchange, given)
        except Exception as error:  # noqa: BLE001 - whatever it is, the client is told, and the log if it is ours
            reply = self._failure(exchange, error)
        if reply is None:
            return
        try:
            self._finish(exchange, reply)
        except Exception as error:
            # Into the writer, which answers many, no mistake may spread that is made for one.
            log.error("reply failed", operation=_name(exchange), exc_info=error)

    def _answer(self, exchange: Exchange, body: bytes) -> Reply | None:
        """Answer, or say that there is no ledger at the moment: up to here nothing can have been done."""
        try:
            return self._answer_in_order(exchange, body)
        except DiskFailed:
            raise UNAVAILABLE("Ledger cannot be read") from None

    def _answer_in_order(self, exchange: Exchange, body: bytes) -> Reply | None:
        """Answer in the contract's order: size, headers, key ... permission, rate limit, then the operation itself."""
        if self.draining:
            raise UNAVAILABLE("System draining")
        request, route, endpoint = exchange.request, exchange.route, exchange.endpoint
        if route is None:
            raise NOT_FOUND("no such path")
        if endpoint is None:
            if request.method == "OPTIONS":
                return Reply(204, b"", header("allow", route.allow))
            raise METHOD_NOT_ALLOWED(f"the path answers {route.allow}")
        forwarded = request.values(b"x-forwarded-for") if b"x-forwarded-for" in request.headers else ()
        client = self._addresses.find(request.peer, forwarded)
        caller = self._authenticate(request, route, endpoint, client, body)
        exchange.standing = self._limit(endpoint, caller, client)
        exchange.call = call = Call(self._services, route, endpoint.operation, request, body, caller)
        if caller is not None:
            if endpoint.changes:
                return self._change(exchange, call, caller)
            if endpoint.remembers:
                return self._remember(exchange, caller)
        return self._read(exchange, call)

    def _authenticate(
        self, request: Request, route: Route, endpoint: Endpoint, client: Client, body: bytes
    ) -> Caller | None:
        if not endpoint.demands_claim and (endpoint.ignores_claims or not has_claim(request)):
            return None
        self._limits.check_client(client.bucket)
        try:
            caller = self._authenticator.verify(read_claim(request), route.signed_path, body, client)
        except Refused as refusal:
            if refusal.error.status == 401:
                self._limits.authentication_failed(client.bucket)
            raise
        if endpoint.permission is not None:
            require(caller, endpoint.permission)
        return caller

    def _limit(self, endpoint: Endpoint, caller: Caller | None, client: Client) -> Standing | None:
        if caller is None:
            return self._limits.public_call(client.bucket)
        tier, user = caller.key.tier, caller.user.uid
        if endpoint.changes:
            standing = self._limits.wallet_call(tier, user, endpoint.name)
            if endpoint.operation.finds_receiver:
                self._limits.check_receiver_refusals(tier, user)
            return standing
        return self._limits.signed_call(tier, user, caller.key.number, endpoint.name)

    def _read(self, exchange: Exchange, call: Call) -> Reply | None:
        """Carry out a reading operation, beside the event loop where the books take their time."""
        operation = call.operation
        if call.body or operation.request is not NoParameters:
            # Also where there is no parameter to read: a bad body is refused by every operation.
            _ = call.read(operation.request)
        if self._reading is None or call.caller is None:
            return self._have_read(exchange, cast(Answer, operation.answer)(call))
        self._reading.read(call, lambda answer: self._take(exchange, self._have_read, answer))
        return None

    def _have_read(self, exchange: Exchange, answer: bytes | Exception) -> Reply:
        """Answer with what a reading operation came to."""
        if isinstance(answer, DiskFailed):
            return self._failure(exchange, UNAVAILABLE("Ledger cannot be read"))
        if isinstance(answer, Exception):
            return self._failure(exchange, answer)
        return Reply(200, answer, cast(Endpoint, exchange.endpoint).headers)

    def _remember(self, exchange: Exchange, caller: Caller) -> None:
        """Remember the signature of a GET whose path also changes state, so that it can authorise no change."""
        guard = Guard(owner=caller.user.uid)
        command = Remember(guard, caller.key.number, caller.signature, caller.expires_ms)
        self._context.offer(command, lambda outcome: self._take(exchange, self._remembered, outcome))

    def _remembered(self, exchange: Exchange, outcome: Outcome | Exception) -> Reply | None:
        error = _error_of(outcome)
        return self._read(exchange, cast(Call, exchange.call)) if error is None else self._failure(exchange, error)

    def _change(self, exchange: Exchange, call: Call, caller: Caller) -> None:
        """Carry out a changing operation; whatever becomes of it from here on, the signature is used up."""
        operation, guard = call.operation, guard_of(call, caller)
        # What the reply will tell, while nothing is done yet.
        _ = call.catalogue
        if operation.perform is not None:
            task = asyncio.get_running_loop().create_task(self._perform(exchange, operation.perform, call, guard))
            self._performing.add(task)
            task.add_done_callback(self._performing.discard)
            return
        prepare = cast(Prepare, operation.prepare)
        start(
            self._context,
            guard,
            lambda: prepare(call, guard),
            lambda outcome: self._take(exchange, self._changed, outcome),
        )

    async def _perform(self, exchange: Exchange, perform: Perform, call: Call, guard: Guard) -> None:
        try:
            outcome = await perform(call, guard)
        except Exception as error:  # noqa: BLE001 - it is told apart where the request is answered
            self._take(exchange, self._changed, error)
        else:
            self._take(exchange, self._changed, outcome)

    def _changed(self, exchange: Exchange, outcome: Outcome | Exception) -> Reply:
        """Answer with what became of a change."""
        call = cast(Call, exchange.call)
        if (error := _error_of(outcome)) is not None:
            if isinstance(error, Refused) and error.error is RECEIVER_NOT_FOUND:
                self._limits.note_receiver_refusal(call.owner)
            return self._failure(exchange, error)
        done = cast(Outcome, outcome)
        body = cast(Render, call.operation.render)(call, done.result, done.at_ms)
        return Reply(200, body, header("idempotency-replayed", "true") if done.repeated else "")

    def _failure(self, exchange: Exchange, error: Exception) -> Reply:
        """Return the reply to what was refused or failed; what is our own mistake is logged."""
        if isinstance(error, Refused):
            return self._refusal(exchange, error)
        exchange.request_id = self._context.ids.request_id()
        log.error("request failed", request_id=exchange.request_id, operation=_name(exchange), exc_info=error)
        return self._refusal(exchange, SYSTEM_ERROR())

    def _refusal(self, exchange: Exchange, refusal: Refused) -> Reply:
        headers = ""
        if isinstance(refusal, LimitExceeded):
            exchange.standing = refusal.standing
        if refusal.retry_after_s is not None:
            headers += header("retry-after", refusal.retry_after_s)
        if exchange.route is not None and refusal.error is METHOD_NOT_ALLOWED:
            headers += header("allow", exchange.route.allow)
        if self.draining:
            # So that no client has its next request on its way here when the connection is cut.
            headers += header("connection", "close")
        # An unknown path is answered as wallet v1 does, whatever it looks like.
        dialect = Dialect.PLAIN if exchange.route is None else exchange.route.dialect
        body = error_body(refusal, dialect, self._clock.now_ms())
        return Reply(refusal.error.status, body, headers, refusal.error.name)

    def _finish(self, exchange: Exchange, reply: Reply) -> None:
        """Answer, with the headers that every reply has, and count it."""
        status, body, standing = reply.status, reply.body, exchange.standing
        content = "" if status == 204 else f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
        private = "cache-control: no-store\r\n" if _is_private(exchange) else ""
        limits = "" if standing is None else standing.headers()
        cors = self._cors_headers(exchange) if self._cors_origins else ""
        request_id = exchange.request_id or self._context.ids.request_id()
        headers = f"{content}{reply.headers}{private}{limits}{cors}x-request-id: {request_id}\r\n"
        exchange.respond(status, headers, b"" if exchange.request.method == "HEAD" else body)
        seconds = self._clock.monotonic_s() - exchange.began_s
        self._events.answered(_name(exchange), status, reply.refusal, seconds)

    def _cors_headers(self, exchange: Exchange) -> str:
        """Return what lets a browser's page of a configured origin call, and read the headers of the reply."""
        vary = header("vary", "Origin")
        given = exchange.request.values(b"origin")
        origin = self._cors_origins.get(given[0]) if given else None
        if origin is None:
            return vary
        allowed = vary + header("access-control-allow-origin", origin)
        if exchange.request.method != "OPTIONS" or exchange.route is None:
            return allowed + _EXPOSED_HEADERS
        return allowed + header("access-control-allow-methods", exchange.route.allow) + _SENT_HEADERS


_SENT_HEADERS: Final = header(
    "access-control-allow-headers",
    "request-api, request-nonce, request-sign, btse-api, btse-nonce, btse-sign, idempotency-key, content-type",
)
_EXPOSED_HEADERS: Final = header(
    "access-control-expose-headers",
    "x-request-id, retry-after, x-ratelimit-limit, x-ratelimit-remaining, x-ratelimit-reset, idempotency-replayed",
)


def _name(exchange: Exchange) -> str:
    """Return the operation's name, for metrics: from a closed set."""
    return "unknown" if exchange.endpoint is None else exchange.endpoint.name


def _is_private(exchange: Exchange) -> bool:
    """Say whether the request is signed or has to be, so that its reply, whatever it says, is for nobody else."""
    endpoint = exchange.endpoint
    if endpoint is not None and (endpoint.demands_claim or endpoint.ignores_claims):
        return endpoint.demands_claim
    return has_claim(exchange.request)


def _error_of(outcome: Outcome | Exception) -> Exception | None:
    """Return why there is no result, None where there is one.

    It is not raised: an exception whose traceback leads back to it is left to the garbage collector, and with it the
    whole request, as often as an overload refuses one.
    """
    return outcome if isinstance(outcome, Exception) else outcome.refusal
