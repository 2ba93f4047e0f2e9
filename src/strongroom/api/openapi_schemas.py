"""What requests and replies look like to OpenAPI: read off the types that the handlers themselves use."""

from __future__ import annotations

from typing import Any, Final, TypeAlias, cast, get_origin

import msgspec

from strongroom.api import parameters
from strongroom.api.operations import Dialect, Operation
from strongroom.api.replies import Envelope
from strongroom.errors import check

Json: TypeAlias = dict[str, Any]

SCHEMAS: Final = "#/components/schemas/"

_PREFIXES: Final = {Dialect.V3: "V3", Dialect.WALLET_V1: "Wallet", Dialect.MARKETS: "Market"}
_FIXED: Final[Json] = {
    "code": {"type": "integer", "const": 1},
    "msg": {"type": "string", "const": "Success"},
    "success": {"type": "boolean", "const": True},
}


class Replies:
    """The schemas of all replies; `components` has the rows that they refer to."""

    def __init__(self, operations: list[Operation]) -> None:
        self.components: Json = {}
        self._schemas: dict[tuple[Dialect, str, str], Json] = {}
        for dialect, prefix in _PREFIXES.items():
            self._add(prefix, [operation for operation in operations if operation.dialect is dialect])
        check(len(self._schemas) == len(operations), "a dialect has an operation of a name and method once")

    def of(self, operation: Operation) -> Json:
        """Return the schema of an operation's success."""
        return self._schemas[operation.dialect, operation.name, operation.method]

    def _add(self, prefix: str, operations: list[Operation]) -> None:
        """Describe the replies of one dialect: two dialects have rows of one name."""
        place = SCHEMAS + prefix
        schemas, components = msgspec.json.schema_components(
            [operation.reply for operation in operations], ref_template=place + "{name}"
        )
        envelopes: set[str] = set()
        for operation, schema in zip(operations, schemas, strict=True):
            if get_origin(operation.reply) is Envelope:
                name = schema["$ref"].removeprefix(place)
                envelopes.add(name)
                schema = _envelope(components[name])  # noqa: PLW2901
            self._schemas[operation.dialect, operation.name, operation.method] = schema
        for name in sorted(components.keys() - envelopes):
            check(name.isalnum(), f"{name} can be the name of a schema")
            self.components[prefix + name] = components[name]


def _envelope(schema: Json) -> Json:
    """Return the schema of a success envelope, saying exactly what is the same in all of them."""
    properties = {name: _FIXED.get(name, described) for name, described in schema["properties"].items()}
    return {"type": "object", "description": schema["description"], "properties": properties, "required": [*properties]}


def has_required(operation: Operation) -> bool:
    """Say whether an operation has a mandatory parameter."""
    return any(described["required"] for described in parameters.schema(operation.request))


def query_parameters(operation: Operation) -> list[Json]:
    """Return what a GET or DELETE reads from its query."""
    if operation.method == "POST":
        return []
    return [_query_parameter(described) for described in parameters.schema(operation.request)]


def _query_parameter(described: Json) -> Json:
    schema = cast(Json, described["schema"])
    parameter: Json = {"in": "query", **{name: described[name] for name in ("name", "required", "description")}}
    # A list is one JSON text, which OpenAPI says with a content type instead of a style.
    for choice in schema.get("anyOf", ()):
        if choice.get("type") == "array":
            return {**parameter, "content": {"application/json": {"schema": choice}}}
    return {**parameter, "schema": schema, "example": described["example"]}


def request_body(operation: Operation) -> Json | None:
    """Return the body that a POST reads, or None for what has none."""
    described = parameters.schema(operation.request)
    if operation.method != "POST" or not described:
        return None
    required = [parameter["name"] for parameter in described if parameter["required"]]
    schema: Json = {
        "type": "object",
        "description": operation.request.__doc__,
        "properties": {cast(str, parameter["name"]): _property(parameter) for parameter in described},
    }
    media: Json = {"schema": schema}
    if required:
        schema["required"] = required
        media["example"] = {parameter["name"]: parameter["example"] for parameter in described if parameter["required"]}
    return {"required": bool(required), "content": {"application/json": media}}


def _property(described: Json) -> Json:
    schema = cast(Json, described["schema"])
    return {**schema, "description": described["description"], "examples": [described["example"]]}
