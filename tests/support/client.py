"""A small client of the signed wallet API, as others write theirs: raw bytes are signed, nothing is hidden."""

from __future__ import annotations

import hmac
import json
import threading
import time
from collections.abc import Callable, Mapping
from hashlib import sha384
from typing import Any, Final, NamedTuple

import httpx

V3: Final = "/spot/api/v3.3/"
V1: Final = "/public-api/wallet/v1/"
MARKETS: Final = "/public-api/market/v1/markets"

_TIMEOUT_S: Final = 30
_MOUNT: Final = "/spot"


class Credentials(NamedTuple):
    """An API key and its secret."""

    key: str
    secret: str


def sign(secret: str, path: str, nonce: str, body: bytes = b"") -> str:
    """Return the signature of a request: hex of HMAC-SHA384 over path, nonce and raw body."""
    return hmac.digest(secret.encode(), path.encode() + nonce.encode() + body, sha384).hex()


def signed_path(path: str) -> str:
    """Return the path that is signed for a path that is sent."""
    return path.removeprefix(_MOUNT)


class Nonces:
    """Milliseconds that are close to now and never twice the same, whoever asks."""

    def __init__(self, now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000) -> None:
        self._now_ms = now_ms
        self._last = 0
        self._lock = threading.Lock()

    def fresh(self) -> str:
        """Return a nonce nobody has had."""
        with self._lock:
            self._last = max(self._last + 1, self._now_ms())
            return str(self._last)


class ApiClient:
    """Sends requests to one server in the name of one key, or of nobody."""

    def __init__(self, url: str, credentials: Credentials | None = None, nonces: Nonces | None = None) -> None:
        self.url = url
        self.credentials = credentials
        self.nonces = nonces or Nonces()
        self.http = httpx.Client(base_url=url, timeout=_TIMEOUT_S, trust_env=False, verify=False)

    def close(self) -> None:
        """Close the connections."""
        self.http.close()

    def headers(self, path: str, body: bytes = b"", nonce: str | None = None) -> dict[str, str]:
        """Return the authentication headers of a request."""
        if self.credentials is None:
            return {}
        nonce = nonce or self.nonces.fresh()
        signature = sign(self.credentials.secret, signed_path(path), nonce, body)
        return {"request-api": self.credentials.key, "request-nonce": nonce, "request-sign": signature}

    def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Mapping[str, Any] | str | None = None,
        headers: Mapping[str, str] | list[tuple[str, str]] | None = None,
        nonce: str | None = None,
    ) -> httpx.Response:
        """Send a request; a body that is not bytes goes as compact JSON. `headers` are sent beside the signed ones."""
        content = raw_body(body)
        target = path if not query else f"{path}?{query if isinstance(query, str) else httpx.QueryParams(query)}"
        extra = headers if isinstance(headers, list) else list((headers or {}).items())
        signed = list(self.headers(path, content, nonce).items())
        return self.http.request(method, target, content=content, headers=[*signed, *extra])

    def get(self, path: str, query: Mapping[str, Any] | str | None = None, **more: Any) -> httpx.Response:
        """Send a GET."""
        return self.send("GET", path, query=query, **more)

    def post(self, path: str, body: Any = None, **more: Any) -> httpx.Response:
        """Send a POST with a JSON body."""
        return self.send("POST", path, body, **more)

    def delete(self, path: str, query: Mapping[str, Any] | str | None = None, **more: Any) -> httpx.Response:
        """Send a DELETE with a query."""
        return self.send("DELETE", path, query=query, **more)


def raw_body(body: Any) -> bytes:
    """Return the bytes of a body: as they are, or as compact JSON; none for None."""
    if body is None:
        return b""
    return body if isinstance(body, bytes) else json.dumps(body, separators=(",", ":")).encode()


def exact(reply: httpx.Response) -> Any:
    """Return a reply's JSON with each number as the text it was sent as."""
    return json.loads(reply.content, parse_int=Token, parse_float=Token)


class Token(str):
    """The text of a JSON number."""

    __slots__ = ()


def is_v3(path: str) -> bool:
    """Say whether a path's errors are in v3's shape."""
    return signed_path(path).startswith("/api/v3.")


def check_refusal(reply: httpx.Response, status: int, code: int, message: str) -> None:
    """Check a refusal: its status, and every member of its body in the shape of its dialect."""
    body = reply.json()
    now = body.pop("time")
    assert isinstance(now, int), reply.text
    expected: dict[str, Any] = {"code": code, "msg": message, "data": None, "success": False}
    if is_v3(reply.request.url.raw_path.decode()) and status != 404:
        expected |= {"status": status, "errorCode": code, "message": message}
    assert (reply.status_code, body) == (status, expected)
    assert reply.headers["content-type"] == "application/json"
    assert len(reply.headers["x-request-id"]) >= 8
