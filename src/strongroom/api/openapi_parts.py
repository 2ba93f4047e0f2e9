"""What the operations of the OpenAPI document share: headers, the signature, refusals by status with their examples."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from strongroom.api.openapi_schemas import SCHEMAS, Json
from strongroom.api.operations import Dialect
from strongroom.api.replies import error_body
from strongroom.errors import ERRORS, Error

EVERYWHERE: Final = (405, 408, 413, 429, 500, 503)
"""Statuses that any operation can answer."""

SIGNED: Final = (401, 403)
"""Statuses of operations that look at a signature."""

_EXAMPLE_MS: Final = 1_790_000_000_000
_TITLES: Final = {
    400: "The request is refused, and nothing was done",
    401: "The signature does not authorise the request",
    403: "The key may not do this, or not from this address",
    404: "There is no such path",
    405: "The path answers other methods",
    408: "The request's body did not arrive in time",
    413: "The request's body is too large",
    422: "The Idempotency-Key was used with another request",
    429: "A rate limit is exceeded; nothing was done and nothing will be",
    500: "Our own mistake, logged under the X-Request-Id",
    503: "Busy, draining, or a part of the system is away; nothing was done and nothing will be",
}
_TEXTS: Final = {
    "forbidden": "Withdraw permission is required",
    "parameter_missing": "amount",
    "parameter_invalid": "amount parameter must be a decimal number",
    "invalid_currency": "XYZ",
    "conversion_refused": "there is no rate for this pair",
    "transfer_refused": "the account is frozen",
    "withdraw_refused": "the account is frozen",
    "address_unused": "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080",
    "not_found": "no such path",
    "method_not_allowed": "the path answers GET, HEAD, OPTIONS",
    "too_large": "a body has at most 64 KiB",
    "request_timeout": "the body did not arrive in time",
    "unavailable": "System busy",
}
_WHOLE: Final[Json] = {"type": "integer", "minimum": 0}
HEADERS: Final[Json] = {
    "X-Request-Id": {"description": "Names this request in our logs", "schema": {"type": "string"}},
    "X-RateLimit-Limit": {"description": "Calls that the tightest limit allows", "schema": _WHOLE},
    "X-RateLimit-Remaining": {"description": "Calls that are left of it", "schema": _WHOLE},
    "X-RateLimit-Reset": {"description": "Seconds until it is whole again", "schema": _WHOLE},
    "Retry-After": {
        "description": "Seconds after which to try again; promises that nothing was done and nothing will be",
        "required": True,
        "schema": _WHOLE,
    },
    "Allow": {"description": "The path's methods", "schema": {"type": "string"}},
    "Idempotency-Replayed": {
        "description": "`true` where this is the first reply to the Idempotency-Key again",
        "schema": {"type": "string", "const": "true"},
    },
}
PARAMETERS: Final[Json] = {
    "IdempotencyKey": {
        "name": "Idempotency-Key",
        "in": "header",
        "required": False,
        "description": "A text of your own, new for each intention. Sent again with the same request, it gets the "
        "first reply again for at least 24 hours; with another request it is a 422.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
    }
}
SECURITY: Final[Json] = {
    "key": {"type": "apiKey", "in": "header", "name": "request-api", "description": "The API key."},
    "nonce": {
        "type": "apiKey",
        "in": "header",
        "name": "request-nonce",
        "description": "The time in Unix milliseconds: exactly 13 digits, at most 30 s from the server's clock.",
    },
    "signature": {
        "type": "apiKey",
        "in": "header",
        "name": "request-sign",
        "description": "Hex of HMAC-SHA384(secret, path + nonce + body) without separators. `path` begins with `/api` "
        "or `/public-api`: without the mount `/spot` and without the query. `body` is the raw body, empty if there is "
        "none. A request that changes state uses its signature up.",
    },
}


def refusals_of(statuses: Iterable[int]) -> list[Error]:
    """Return the errors with one of some statuses, in the order of the list."""
    wanted = set(statuses)
    return [error for error in ERRORS.values() if error.status in wanted]


def header_refs(*names: str) -> Json:
    """Return references to shared headers."""
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


RATE_HEADERS: Final = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")


def error_schemas() -> Json:
    """Return the two shapes of a failure's body."""
    properties: Json = {
        "code": {"type": "integer", "description": "The code, which says what went wrong"},
        "msg": {"type": "string", "description": "What went wrong, for people"},
        "time": {"type": "integer", "description": "Unix milliseconds"},
        "data": {"type": "null"},
        "success": {"type": "boolean", "const": False},
    }
    older: Json = {
        "status": {"type": "integer", "description": "The HTTP status"},
        "errorCode": {"type": "integer", "description": "The same as `code`"},
        "message": {"type": "string", "description": "The same as `msg`"},
    }
    return {
        "Error": {"type": "object", "description": "A failure.", "properties": properties, "required": [*properties]},
        "V3Error": {
            "type": "object",
            "description": "A failure in v3: two sets of fields, because clients of two generations read one each.",
            "properties": {**properties, **older},
            "required": [*properties, *older],
        },
    }


def examples() -> Json:
    """Return one example of each failure in each shape, made by the code that answers."""
    made: Json = {}
    for dialect, prefix in ((Dialect.PLAIN, ""), (Dialect.V3, "v3_")):
        for error in ERRORS.values():
            body = error_body(error(_TEXTS.get(error.name, error.when)), dialect, _EXAMPLE_MS)
            made[prefix + error.name] = {"summary": error.when, "value": msgspec.json.decode(body)}
    return made


def responses() -> Json:
    """Return the responses that are the same for all operations, in both shapes."""
    return {
        name_of(dialect, status): refusal(dialect, status, refusals_of((status,)))
        for dialect in (Dialect.PLAIN, Dialect.V3)
        for status in (*SIGNED, 404, *EVERYWHERE, 422)
    }


def name_of(dialect: Dialect, status: int) -> str:
    """Return the name of a shared response."""
    return f"{'V3' if dialect is Dialect.V3 else ''}Refused{status}"


def refusal(dialect: Dialect, status: int, errors: list[Error]) -> Json:
    """Return the response of a status: its codes are exactly those of `errors`."""
    is_v3 = dialect is Dialect.V3
    code: Json = {"enum": sorted({error.code for error in errors})}
    narrowed: Json = {"code": code}
    if is_v3:
        narrowed |= {"errorCode": code, "status": {"const": status}}
    shape = {"$ref": f"{SCHEMAS}{'V3Error' if is_v3 else 'Error'}"}
    prefix = "v3_" if is_v3 else ""
    return {
        "description": _TITLES[status] + ": " + ", ".join(f"`{error.code}` {error.name}" for error in errors),
        "headers": header_refs("X-Request-Id", *_HEADERS_OF.get(status, ())),
        "content": {
            "application/json": {
                "schema": {"allOf": [shape, {"properties": narrowed}]},
                "examples": {error.name: {"$ref": f"#/components/examples/{prefix}{error.name}"} for error in errors},
            }
        },
    }


_HEADERS_OF: Final = {405: ("Allow",), 429: ("Retry-After", *RATE_HEADERS), 503: ("Retry-After",)}
