"""Request parameters as they arrive: a JSON body or a query string, read exactly (the contract's section 5).

Nothing here knows which parameters exist or what they mean; whatever bytes come in, the outcome is a mapping or a
`Refused`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from typing import Final, Never, TypeAlias, cast
from urllib.parse import unquote_to_bytes

import msgspec

from strongroom import errors
from strongroom.errors import Refused
from strongroom.money import JsonNumber

JsonValue: TypeAlias = "JsonNumber | str | bool | list[JsonValue] | dict[str, JsonValue] | None"
"""A JSON value whose numbers are still the text that was sent."""

MAX_DEPTH: Final = 32
"""Deepest nesting of objects and arrays in a body, the outermost object included."""

MAX_QUERY_BYTES: Final = 8192
"""Longest raw query string."""

MAX_QUERY_PAIRS: Final = 100
"""Most `name=value` pairs in a query string."""

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_SHOWN_CHARACTERS: Final = 40
# A string that is never closed runs to the end, so that the scan stays linear in the length of the body.
_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*(?:"|\\?\Z)', re.DOTALL)
_TEXTS: Final = msgspec.json.Decoder(dict[str, str | bool | None])
_PERCENT: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


def read_object(raw: bytes) -> dict[str, JsonValue]:
    """Return the one JSON object that `raw` holds, its numbers as `JsonNumber`; no bytes at all are an empty object.

    Raises PARAMETER_INVALID for what is not strict UTF-8 JSON, for anything but an object, and for duplicate keys, NaN,
    Infinity, lone surrogates, NUL characters and nesting beyond `MAX_DEPTH` at any place.
    """
    if not raw:
        return {}
    if (texts := _read_texts(raw)) is not None:
        return texts
    # Cheap and exact enough: nesting can only be too deep where there are that many brackets.
    if raw.count(b"{") + raw.count(b"[") > MAX_DEPTH and _nests_too_deep(raw):
        raise errors.PARAMETER_INVALID(f"the body is nested deeper than {MAX_DEPTH} levels")
    try:
        value: object = _DECODER.decode(raw.decode("utf-8"))
    except UnicodeDecodeError:
        raise errors.PARAMETER_INVALID("the body is not UTF-8") from None
    except json.JSONDecodeError as problem:
        raise _malformed(raw, problem) from None
    if not isinstance(value, dict):
        raise errors.PARAMETER_INVALID("the body is not a JSON object")
    found = cast("dict[str, JsonValue]", value)
    # UTF-8 holds no surrogate and JSON text no NUL, so only an escape can bring one in.
    if b"\\u" in raw:
        _check_texts(found)
    return found


def _read_texts(raw: bytes) -> dict[str, JsonValue] | None:
    """Return the body that nearly every client sends, an object of plain texts; None for any other, also a bad one.

    Without a backslash every quotation mark delimits a text: two to a name, two to a value that is a text. A name that
    came twice is in the mapping once, so that marks are left over.
    """
    if b"\\" in raw:
        return None
    try:
        found = _TEXTS.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    texts = len(found) + [*map(type, found.values())].count(str)
    return cast("dict[str, JsonValue]", found) if raw.count(b'"') == 2 * texts else None


def read_query(raw: bytes, known: Collection[str]) -> dict[str, str]:
    """Return the `known` parameters of a raw query string; unknown ones are ignored, empty ones count as absent.

    `+` is a space. Raises PARAMETER_INVALID for a known name that is there twice, for escapes that are not strict
    UTF-8, for NUL characters, and beyond `MAX_QUERY_BYTES` or `MAX_QUERY_PAIRS`.
    """
    if not raw:
        return {}
    if len(raw) > MAX_QUERY_BYTES:
        raise errors.PARAMETER_INVALID(f"the query is longer than {MAX_QUERY_BYTES} bytes")
    pairs = raw.split(b"&", MAX_QUERY_PAIRS)
    if len(pairs) > MAX_QUERY_PAIRS:
        raise errors.PARAMETER_INVALID(f"the query has more than {MAX_QUERY_PAIRS} parameters")
    found: dict[str, str] = {}
    for pair in pairs:
        raw_name, _, raw_value = pair.partition(b"=")
        name = _unescape(raw_name)
        if name not in known:
            continue
        if name in found:
            raise errors.PARAMETER_INVALID(f"{name} parameter is repeated")
        found[name] = _unescape(raw_value)
    return {name: value for name, value in found.items() if value}


def merge(body: Mapping[str, JsonValue], query: Mapping[str, str]) -> Mapping[str, JsonValue]:
    """Return the parameters of a GET or DELETE: its body's when that holds any, else its query's.

    Raises PARAMETER_INVALID for a parameter that is in both with different values.
    """
    if not body or not query:
        return body or query
    for name, value in query.items():
        other = body.get(name)
        if other is not None and other != "" and _text(other) != value:
            raise errors.PARAMETER_INVALID(f"{name} parameter differs between the body and the query")
    return body


def _text(value: JsonValue) -> str:
    """Return what a query says in place of a JSON value."""
    if isinstance(value, str):
        return value
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _unescape(raw: bytes) -> str:
    """Return the text of one percent-encoded name or value of a query."""
    if b"%" in raw or b"+" in raw:
        if _PERCENT.search(raw):
            raise errors.PARAMETER_INVALID("the query has a malformed percent escape")
        raw = unquote_to_bytes(raw.replace(b"+", b" "))
    if b"\0" in raw:
        raise errors.PARAMETER_INVALID("the query has a NUL character")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise errors.PARAMETER_INVALID("the query is not UTF-8") from None


def _unique(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    """Return the members of one JSON object, refusing a name that is there twice."""
    members = dict(pairs)
    if len(members) == len(pairs):
        return members
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            raise errors.PARAMETER_INVALID(f"{_shown(name)} parameter is repeated")
        seen.add(name)
    raise errors.InvariantBroken("fewer members than pairs means a repeated name")


def _refuse_constant(name: str) -> Never:
    """Refuse NaN and the infinities, which the standard library's decoder lets through."""
    raise errors.PARAMETER_INVALID(f"the body has {name}, which is not a JSON number")


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_unique, parse_int=JsonNumber, parse_float=JsonNumber, parse_constant=_refuse_constant
)


def _malformed(raw: bytes, problem: json.JSONDecodeError) -> Refused:
    """Return the refusal that tells a client what is wrong with the form of its body."""
    if raw.startswith(_BYTE_ORDER_MARK):
        return errors.PARAMETER_INVALID("the body starts with a byte order mark")
    return errors.PARAMETER_INVALID(f"the body is not valid JSON (character {problem.pos})")


def _nests_too_deep(raw: bytes) -> bool:
    """Say whether objects and arrays nest deeper than `MAX_DEPTH`, brackets inside strings aside."""
    depth = 0
    for mark in _STRING.sub("", raw.decode("utf-8", "replace")):
        if mark in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                return True
        elif mark in "]}":
            depth -= 1
    return False


def _check_texts(value: JsonValue) -> None:
    """Refuse lone surrogates and NUL characters in any text below `value`; `MAX_DEPTH` bounds the recursion."""
    if isinstance(value, str):
        if "\0" in value:
            raise errors.PARAMETER_INVALID("the body has a NUL character")
        if _SURROGATE.search(value):
            raise errors.PARAMETER_INVALID("the body has half of a surrogate pair")
    elif isinstance(value, dict):
        for name, member in value.items():
            _check_texts(name)
            _check_texts(member)
    elif isinstance(value, list):
        for member in value:
            _check_texts(member)


def _shown(name: str) -> str:
    """Return the start of a client's text in a form that any reply can carry."""
    return name[:_SHOWN_CHARACTERS].encode("utf-8", "replace").decode("utf-8").replace("\0", "?")
