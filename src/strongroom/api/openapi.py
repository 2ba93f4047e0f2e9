"""The OpenAPI 3.1 document of the whole surface, made from the operations and the list of errors that serve it."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from strongroom import __version__
from strongroom.api import openapi_parts as parts
from strongroom.api.dialects import OPERATIONS
from strongroom.api.openapi_schemas import Json, Replies, has_required, query_parameters, request_body
from strongroom.api.operations import MOUNT, Access, Dialect, Operation
from strongroom.errors import ERRORS, IDEMPOTENCY_MISMATCH, PARAMETER_INVALID, PARAMETER_MISSING, check

PATH: Final = "/openapi.json"

_SIGNED: Final[Json] = {"key": [], "nonce": [], "signature": []}
_SECURITY: Final[dict[Access, list[Json]]] = {
    Access.OPEN: [],
    Access.PUBLIC: [{}, _SIGNED],
    Access.READ: [_SIGNED],
    Access.CHANGE: [_SIGNED],
}
_V3_MOUNTED: Final = "v3, mounted under /spot"
_V3: Final = "v3"
_WALLET: Final = "Wallet v1"
_MARKETS: Final = "Markets"
_SERVER: Final = "Server"
_TAGS: Final = {
    _WALLET: "The successor API: enveloped objects, amounts as text.",
    _V3_MOUNTED: "The spot wallet as clients send it. The signed path is without `/spot`.",
    _V3: "The same operations, counters and signatures without the mount.",
    _MARKETS: "What clients load before they use the wallet. Conversion pairs stand for markets; nothing is traded.",
    _SERVER: "The server itself. These need no signature and count against no rate limit.",
}
_ABOUT: Final = """\
A self-hosted exchange wallet: balances, deposit addresses, withdrawals, transfers, conversions and history.

**Signing.** Send `request-api`, `request-nonce` and `request-sign`; the security schemes say what is signed. The older
names `btse-api`, `btse-nonce` and `btse-sign` mean the same. In a shell:

    nonce=$(date +%s%3N); path=/api/v3.2/user/wallet
    sign=$(printf %s "$path$nonce" | openssl dgst -sha384 -hmac "$SECRET" | sed 's/.* //')
    curl -H "request-api: $KEY" -H "request-nonce: $nonce" -H "request-sign: $sign" "$BASE_URL/spot$path"

**Paths** match byte for byte; any other path is a 404 with the body `Error`. HEAD answers as GET does, without a body,
and OPTIONS is a 204 with `Allow`, on every path: neither is listed at each.

**Parameters.** Null and the empty text count as absent, unknown names are ignored, names of assets and networks match
without case. A POST that changes state reads its body only. Any other request may carry the parameters of its query as
one JSON object in its body instead. Amounts are exact: a decimal text, or a JSON number, which is read digit by digit.

**Failures** have a body on every path and status; its `code` says what went wrong. Whatever carries `Retry-After` was
not done and will not be: send it again, newly signed.
"""


def encoded() -> bytes:
    """Return the document as JSON; the same bytes every time for one release."""
    return msgspec.json.encode(document(OPERATIONS))


def document(operations: list[Operation]) -> Json:
    """Return the document that describes some operations and the server's own pages."""
    replies = Replies(operations)
    paths: Json = {}
    for operation in operations:
        for path in operation.paths:
            for mount in (MOUNT, "") if operation.dialect is Dialect.V3 else ("",):
                paths.setdefault(mount + path, {})[operation.method.lower()] = _operation(
                    operation, mount + path, replies.of(operation)
                )
    paths |= _server_paths()
    names = [described["operationId"] for item in paths.values() for described in item.values()]
    check(len(names) == len(set(names)), "each operation of the document has a name of its own")
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Strongroom",
            "version": __version__,
            "description": _ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": description} for name, description in _TAGS.items()],
        "paths": paths,
        "components": {
            "schemas": {**parts.error_schemas(), **replies.components},
            "responses": parts.responses(),
            "parameters": parts.PARAMETERS,
            "examples": parts.examples(),
            "headers": parts.HEADERS,
            "securitySchemes": parts.SECURITY,
        },
    }


def _operation(operation: Operation, path: str, reply: Json) -> Json:
    described: Json = {
        "operationId": _id_of(operation.method, path),
        "tags": [_tag_of(operation, path)],
        "summary": operation.summary,
        "description": _description(operation, path),
        "security": _SECURITY[operation.access],
    }
    query = query_parameters(operation)
    if operation.access is Access.CHANGE:
        query.append({"$ref": "#/components/parameters/IdempotencyKey"})
    if query:
        described["parameters"] = query
    if (body := request_body(operation)) is not None:
        described["requestBody"] = body
    if any(name == "Deprecation" for name, _ in operation.headers):
        described["deprecated"] = True
    return {**described, "responses": _responses(operation, reply)}


def _id_of(method: str, path: str) -> str:
    """Return a name that code generators can use: the method and the path's words."""
    words = re.findall(r"[A-Za-z0-9]+", path.replace(".", ""))
    return method.lower() + "".join(word[0].upper() + word[1:] for word in words)


def _tag_of(operation: Operation, path: str) -> str:
    if operation.dialect is Dialect.V3:
        return _V3_MOUNTED if path.startswith(MOUNT) else _V3
    return _MARKETS if operation.dialect is Dialect.MARKETS else _WALLET


def _description(operation: Operation, path: str) -> str:
    sentences = [f"{operation.summary}."]
    if operation.permission is not None:
        sentences.append(f"The key needs the permission {(operation.permission.name or '').capitalize()}.")
    if operation.access is Access.OPEN:
        sentences.append("Public; authentication headers are ignored.")
    if operation.access is Access.PUBLIC:
        sentences.append("Public; a signature is verified if there is one.")
    if path.startswith(MOUNT):
        sentences.append(f"The signed path is `{path.removeprefix(MOUNT)}`.")
    return " ".join(sentences)


def _responses(operation: Operation, reply: Json) -> Json:
    dialect = Dialect.V3 if operation.dialect is Dialect.V3 else Dialect.PLAIN
    changes = operation.access is Access.CHANGE
    statuses = {*parts.EVERYWHERE, *(() if operation.access is Access.OPEN else parts.SIGNED)}
    if changes:
        statuses.add(IDEMPOTENCY_MISMATCH.status)
    refusals = [PARAMETER_INVALID, *([PARAMETER_MISSING] if has_required(operation) else [])]
    refusals += [ERRORS[name] for name in operation.errors]
    check(all(error.status == 400 for error in refusals), f"{operation.name} declares what no other operation shares")
    success: Json = {
        "description": "Done." if changes else "The answer.",
        "headers": _success_headers(operation),
        "content": {"application/json": {"schema": reply}},
    }
    found: Json = {"200": success, "400": parts.refusal(dialect, 400, refusals)}
    for status in sorted(statuses):
        found[str(status)] = {"$ref": f"#/components/responses/{parts.name_of(dialect, status)}"}
    return found


def _success_headers(operation: Operation) -> Json:
    names = ["X-Request-Id", *parts.RATE_HEADERS]
    if operation.access is Access.CHANGE:
        names.append("Idempotency-Replayed")
    own = {
        name: {"description": f"`{value}`", "schema": {"type": "string", "const": value}}
        for name, value in operation.headers
    }
    return {**parts.header_refs(*names), **own}


def _server_paths() -> Json:
    """Return the paths beside the signed API."""
    status: Json = {"type": "object", "properties": {"status": {"type": "string"}}, "required": ["status"]}
    health = _page("Whether the process lives", "application/json", {**status})
    ready_schema: Json = {**status, "properties": {**status["properties"], "details": {"type": "object"}}}
    ready = _page("Whether requests are taken; for operators with details", "application/json", ready_schema)
    ready["responses"]["503"] = {**ready["responses"]["200"], "description": "Requests are not taken now."}
    metrics = _page("Metrics in Prometheus' text format", "text/plain", {"type": "string"})
    metrics["responses"]["404"] = {"$ref": "#/components/responses/Refused404"}
    metrics["description"] += " For loopback and configured addresses; to others this path does not exist."
    return {
        path: {"get": {"operationId": _id_of("GET", path), **described}}
        for path, described in {
            "/healthz": health,
            "/readyz": ready,
            "/metrics": metrics,
            PATH: _page("This document", "application/json", {"type": "object"}),
            "/docs": _page("This document as a page to read", "text/html", {"type": "string"}),
        }.items()
    }


def _page(summary: str, content_type: str, schema: Json) -> Json:
    return {
        "tags": [_SERVER],
        "summary": summary,
        "description": f"{summary}.",
        "security": [],
        "responses": {
            "200": {
                "description": "The answer.",
                "headers": parts.header_refs("X-Request-Id"),
                "content": {content_type: {"schema": schema}},
            },
            "405": {"$ref": "#/components/responses/Refused405"},
        },
    }
