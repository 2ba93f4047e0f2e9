"""Typed parameters: a request is a struct whose fields say what they read; OpenAPI describes them in the same words.

    class Transfer(msgspec.Struct, rename="camel"):
        asset: Annotated[str, Text(16, "Asset to send", "BTC")]
        amount: Annotated[str, AmountText("How much to send", "1.5")]
        use_new_symbol_naming: Annotated[bool, Flag("Answer with new symbol names")] = False

    read(Transfer, bodies.read_object(raw))

A field without a default is mandatory. Null and the empty text count as absent (the contract's section 5).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Final, NamedTuple, TypeAlias, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from strongroom import errors
from strongroom.api.bodies import JsonValue, read_object
from strongroom.errors import Refused, check
from strongroom.money import JsonNumber

MAX_MILLIS: Final = 1 << 53
"""Latest Unix millisecond: what every client's JSON numbers hold exactly."""

MAX_NAMES: Final = 100
"""Most entries of a list of names."""

_DIGITS: Final = re.compile(r"[0-9]{1,16}")

Request = TypeVar("Request", bound=msgspec.Struct)


class Text(msgspec.Struct, frozen=True):
    """A text of at most `longest` characters; with `numbers`, an integer number token counts as its digits."""

    longest: int
    description: str
    example: str
    numbers: bool = False

    def read(self, name: str, value: JsonValue) -> str:
        """Return the text."""
        if isinstance(value, JsonNumber):
            if not self.numbers or not value.isdigit():
                raise _invalid(name, "must be a text")
            value = str(value)
        if not isinstance(value, str):
            raise _invalid(name, "must be a text")
        if len(value) > self.longest:
            raise _invalid(name, f"is longer than {self.longest} characters")
        return value

    def schema(self) -> dict[str, object]:
        """Return a string schema, or one with an integer beside it."""
        text: dict[str, object] = {"type": "string", "maxLength": self.longest}
        return {"anyOf": [text, {"type": "integer", "minimum": 0}]} if self.numbers else text


class AmountText(msgspec.Struct, frozen=True):
    """An amount as it was sent, `str` or `JsonNumber`; its digits are judged after the asset and the network."""

    description: str
    example: str

    def read(self, name: str, value: JsonValue) -> str:
        """Return the text or the number token, unread."""
        if not isinstance(value, str):
            raise _invalid(name, "must be a decimal number")
        return value

    def schema(self) -> dict[str, object]:
        """Return a decimal text or a number."""
        return {"anyOf": [{"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?$"}, {"type": "number"}]}


class Flag(msgspec.Struct, frozen=True):
    """A boolean, or `true` or `false` as text."""

    description: str
    example: str = "true"

    def read(self, name: str, value: JsonValue) -> bool:
        """Return the boolean."""
        if isinstance(value, bool):
            return value
        if not isinstance(value, str) or value not in {"true", "false"}:
            raise _invalid(name, "must be true or false")
        return value == "true"

    def schema(self) -> dict[str, object]:
        """Return a boolean or its text."""
        return {"anyOf": [{"type": "boolean"}, {"type": "string", "enum": ["true", "false"]}]}


class Count(msgspec.Struct, frozen=True):
    """An integer from `low` to `high`, as a number or as digits."""

    low: int
    high: int
    description: str
    example: str

    def read(self, name: str, value: JsonValue) -> int:
        """Return the integer."""
        number = _whole(value)
        if number is None or not self.low <= number <= self.high:
            raise _invalid(name, f"must be an integer from {self.low} to {self.high}")
        return number

    def schema(self) -> dict[str, object]:
        """Return an integer in its range, or its digits."""
        integer = {"type": "integer", "minimum": self.low, "maximum": self.high}
        return {"anyOf": [integer, {"type": "string", "pattern": f"^{_DIGITS.pattern}$"}]}


class Millis(msgspec.Struct, frozen=True):
    """A moment in Unix milliseconds, 0 to 2^53, as a number or as digits."""

    description: str
    example: str = "1624987283000"

    def read(self, name: str, value: JsonValue) -> int:
        """Return the milliseconds."""
        number = _whole(value)
        if number is None or number > MAX_MILLIS:
            raise _invalid(name, "must be a time in milliseconds")
        return number

    def schema(self) -> dict[str, object]:
        """Return an integer in its range, or its digits."""
        integer = {"type": "integer", "format": "int64", "minimum": 0, "maximum": MAX_MILLIS}
        return {"anyOf": [integer, {"type": "string", "pattern": f"^{_DIGITS.pattern}$"}]}


class Choice(msgspec.Struct, frozen=True):
    """One of the `choices`, matched without case; the field gets it as it is spelt there."""

    choices: tuple[str, ...]
    description: str
    example: str

    def read(self, name: str, value: JsonValue) -> str:
        """Return the choice."""
        if isinstance(value, str):
            folded = value.casefold()
            for choice in self.choices:
                if choice.casefold() == folded:
                    return choice
        raise _invalid(name, f"must be one of {', '.join(self.choices)}")

    def schema(self) -> dict[str, object]:
        """Return the choices as they are spelt."""
        return {"type": "string", "enum": list(self.choices)}


class Names(msgspec.Struct, frozen=True):
    """At most `MAX_NAMES` texts, as a JSON array or, in a query, as the text of one; the field gets a tuple."""

    longest: int
    description: str
    example: str

    def read(self, name: str, value: JsonValue) -> tuple[str, ...]:
        """Return the texts."""
        if isinstance(value, str):
            value = _array(value)
        if not isinstance(value, list) or len(value) > MAX_NAMES:
            raise _invalid(name, f"must be a JSON array of at most {MAX_NAMES} texts")
        names: list[str] = []
        for entry in value:
            if not isinstance(entry, str) or isinstance(entry, JsonNumber) or len(entry) > self.longest:
                raise _invalid(name, f"must hold texts of at most {self.longest} characters")
            names.append(entry)
        return tuple(names)

    def schema(self) -> dict[str, object]:
        """Return an array of strings, or its text."""
        entry = {"type": "string", "maxLength": self.longest}
        return {"anyOf": [{"type": "array", "maxItems": MAX_NAMES, "items": entry}, {"type": "string"}]}


Kind: TypeAlias = Text | AmountText | Flag | Count | Millis | Choice | Names
"""How one parameter is read and described: `read` returns a present value or raises PARAMETER_INVALID with the
parameter's name, `schema` is the JSON schema of what it takes. These are all the kinds there are."""


class _Field(NamedTuple):
    name: str
    attribute: str
    kind: Kind
    required: bool
    default: object


def read(request: type[Request], values: Mapping[str, JsonValue]) -> Request:
    """Return `values` as a `request`; unknown members are ignored.

    Raises PARAMETER_MISSING or PARAMETER_INVALID for the first field, in the order of the struct, that is wrong.
    """
    fields = _fields(request)
    found: dict[str, Any] = {}
    for name, attribute, kind, required, _ in fields:
        value = values.get(name)
        if value is not None and value != "":
            found[attribute] = kind.read(name, value)
        elif required:
            raise errors.PARAMETER_MISSING(name)
    return request(**found)


@cache
def names(request: type[msgspec.Struct]) -> frozenset[str]:
    """Return the wire names of a request's parameters, the `known` of `bodies.read_query`."""
    return frozenset(field.name for field in _fields(request))


def schema(request: type[msgspec.Struct]) -> list[dict[str, object]]:
    """Return what OpenAPI says of each parameter: name, required, schema with its default, description, example."""
    return [
        {
            "name": field.name,
            "required": field.required,
            "schema": field.kind.schema() | ({} if field.default is None else {"default": field.default}),
            "description": field.kind.description,
            "example": field.kind.example,
        }
        for field in _fields(request)
    ]


@cache
def _fields(request: type[msgspec.Struct]) -> tuple[_Field, ...]:
    """Look at a request class once; later calls find what was seen."""
    hints = get_type_hints(request, include_extras=True)
    return tuple(
        _Field(
            field.encode_name,
            field.name,
            _kind(request, field.name, hints[field.name]),
            field.required,
            None if field.required else field.default,
        )
        for field in msgspec.structs.fields(request)
    )


def _kind(request: type[msgspec.Struct], attribute: str, hint: object) -> Kind:
    """Return the one kind with which a field is annotated."""
    marks = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
    kinds = [mark for mark in marks if isinstance(mark, Kind)]
    check(len(kinds) == 1, f"{request.__name__}.{attribute} is annotated with one kind of parameter")
    return kinds[0]


def _whole(value: JsonValue) -> int | None:
    """Return the non-negative integer that a number token or a text of ASCII digits spells."""
    return int(value) if isinstance(value, str) and _DIGITS.fullmatch(value) else None


def _array(text: str) -> JsonValue:
    """Return the JSON value that a query's text spells, read as strictly as a body; None for what is none."""
    try:
        # Wrapped, because a body is an object; more than one member means that the text closed the array itself.
        members = read_object(b'{"array":%s}' % text.encode())
    except Refused:
        members = {}
    return members["array"] if len(members) == 1 else None


def _invalid(name: str, problem: str) -> Refused:
    return errors.PARAMETER_INVALID(f"{name} parameter {problem}")
