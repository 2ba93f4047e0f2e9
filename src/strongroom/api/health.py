"""What the server answers beside the signed API: its health, its metrics, and pages that never change.

`/healthz` and `/readyz` are for all; details and `/metrics` for loopback and configured networks only, and to anybody
else `/metrics` is a path like any that does not exist (the contract's section 8).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from ipaddress import ip_network
from typing import Any, Final, NamedTuple

from strongroom.api.client_address import ClientAddresses, Network, in_networks, read_address
from strongroom.api.operations import Dialect
from strongroom.api.replies import Reply, encode, error_body
from strongroom.api.requests import Receive, Request, Scope, Send, read_head
from strongroom.api.server import Api
from strongroom.clock import Clock, Ids
from strongroom.errors import METHOD_NOT_ALLOWED

LOOPBACK: Final[tuple[Network, ...]] = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
ALLOW: Final = b"GET, HEAD, OPTIONS"
HEALTH: Final = b"/healthz"
READINESS: Final = b"/readyz"
METRICS: Final = b"/metrics"

_JSON: Final = "application/json"
_FORWARDED: Final = (b"x-forwarded-for", b"forwarded", b"x-real-ip")
_METHODS: Final = frozenset({"GET", "HEAD"})
_NO_STORE: Final[tuple[bytes, bytes]] = (b"cache-control", b"no-store")


class Readiness(NamedTuple):
    """Whether the server takes requests: a word for all, and details for the operator."""

    ready: bool
    status: str
    details: dict[str, Any]


class Page(NamedTuple):
    """A page that never changes while the server runs."""

    content_type: str
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()


class Front:
    """The whole server as one ASGI application: health, metrics and pages by exact path, everything else the API."""

    def __init__(
        self,
        api: Api,
        clock: Clock,
        ids: Ids,
        addresses: ClientAddresses,
        readiness: Callable[[], Readiness],
        metrics: Callable[[], Page],
        networks: Sequence[Network] = (),
    ) -> None:
        """`networks` are those that may see metrics and details, beside loopback."""
        self._api = api
        self._clock = clock
        self._ids = ids
        self._addresses = addresses
        self._readiness = readiness
        self._metrics = metrics
        self._networks = (*LOOPBACK, *networks)
        self._pages: dict[bytes, Page] = {}
        self._known = {HEALTH, READINESS, METRICS}

    @property
    def pages(self) -> Mapping[bytes, Page]:
        """The pages that were added."""
        return self._pages

    def add_page(self, path: str, page: Page) -> None:
        """Answer GET and HEAD of an exact path with a page and its headers."""
        self._pages[path.encode()] = page
        self._known.add(path.encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        path = scope.get("raw_path") or scope["path"].encode()
        if path not in self._known:
            await self._api(scope, receive, send)
            return
        request = read_head(scope)
        operator = self._is_operator(request)
        if path == METRICS and not operator:
            await self._api(scope, receive, send)
            return
        status, page, headers = self._answer(request, operator=operator)
        content = [(b"content-type", page.content_type.encode()), (b"content-length", str(len(page.body)).encode())]
        request_id = (b"x-request-id", self._ids.request_id().encode())
        headers = [*(content if status != 204 else []), *headers, request_id]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if request.method == "HEAD" else page.body})

    def _is_operator(self, request: Request) -> bool:
        """Say whether the operator asks; behind a proxy that is not trusted, however near, nobody is taken for him."""
        client = self._addresses.find(request.peer, request.values(b"x-forwarded-for"))
        if client.address is None or not in_networks(client.address, self._networks):
            return False
        forwarded = any(name in request.headers for name in _FORWARDED)
        return not forwarded or client != read_address(request.peer or "")

    def _answer(self, request: Request, *, operator: bool) -> tuple[int, Page, list[tuple[bytes, bytes]]]:
        if request.method == "OPTIONS":
            return 204, Page("", b""), [(b"allow", ALLOW)]
        if request.method not in _METHODS:
            refusal = METHOD_NOT_ALLOWED(f"the path answers {ALLOW.decode()}")
            body = error_body(refusal, Dialect.PLAIN, self._clock.now_ms())
            return refusal.error.status, Page(_JSON, body), [(b"allow", ALLOW)]
        if request.path == METRICS:
            return 200, self._metrics(), [_NO_STORE]
        if request.path == HEALTH:
            return 200, Page(_JSON, encode({"status": "ok"})), [_NO_STORE]
        if request.path == READINESS:
            status, page = self._ready(operator=operator)
            return status, page, [_NO_STORE]
        page = self._pages[request.path]
        return 200, page, list(page.headers)

    def _ready(self, *, operator: bool) -> tuple[int, Page]:
        readiness = self._readiness()
        body: dict[str, Any] = {"status": readiness.status}
        if operator:
            body["details"] = readiness.details
        return 200 if readiness.ready else 503, Page(_JSON, encode(body))


def refusal_reply(reply: Reply) -> bytes:
    """Return a reply as the bytes of an HTTP/1.1 response that closes the connection."""
    lines = [f"HTTP/1.1 {reply.status} {_REASONS.get(reply.status, 'Error')}".encode()]
    lines += [b"content-type: application/json", b"content-length: " + str(len(reply.body)).encode()]
    return b"\r\n".join([*lines, reply.headers.encode() + b"connection: close", b"", reply.body])


_REASONS: Final = {400: "Bad Request", 503: "Service Unavailable"}
