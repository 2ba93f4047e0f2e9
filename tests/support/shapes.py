"""What replies look like: every field of each row with its type, checked on the text that was sent."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

import httpx

from support.client import Token, exact

SHAPES: Final[dict[str, dict[str, str]]] = json.loads(
    (Path(__file__).parent.parent / "data" / "reply_shapes.json").read_text("utf-8")
)

_PLAIN: Final = r"(0|[1-9][0-9]*)(\.[0-9]*[1-9])?"


def _is(kind: str, value: Any) -> bool:
    """Say whether a value is of a kind; numbers are in plain notation, without sign, exponent or padding."""
    text = isinstance(value, str) and not isinstance(value, Token)
    token = isinstance(value, Token)
    return {
        "any": True,
        "string": text,
        "string or null": text or value is None,
        "strings": isinstance(value, list) and all(_is("string", each) for each in value),
        "boolean": isinstance(value, bool),
        "integer": token and value.isdigit(),
        "number": token and _matches(_PLAIN, value),
        "decimal": text and _matches(_PLAIN, value),
        "signed decimal": text and _matches("-?" + _PLAIN, value),
    }[kind]


def _matches(pattern: str, value: Any) -> bool:
    return re.fullmatch(pattern, value) is not None


def check_shape(name: str, row: Any, *optional: str) -> None:
    """Check that a row has exactly the fields of a shape, each of its type; `optional` ones may be there too."""
    shape = SHAPES[name]
    assert row.keys() - set(optional) == shape.keys(), (name, row)
    wrong = {field: row[field] for field, kind in shape.items() if not _is(kind, row[field])}
    assert not wrong, (name, wrong)


def answered(reply: httpx.Response) -> Any:
    """Return the JSON of a success, each number as its text."""
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"] == "application/json"
    return exact(reply)


def enveloped(reply: httpx.Response) -> Any:
    """Return the data of a success in its envelope, each number as its text."""
    body = answered(reply)
    check_shape("envelope", body)
    assert (body["code"], body["msg"], body["success"]) == ("1", "Success", True)
    return body["data"]
