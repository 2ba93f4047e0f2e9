"""Arrays: one column of many rows as one parameter, in PostgreSQL's binary format (`array_recv`).

A batch's rows go to the server as one array for each column. Encoded here, and not value by value by the driver, a
column is a few joins of bytes, and always has the type of its table, whatever its values happen to be.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

_HEADER: Final = struct.Struct(">iiIii")
_EMPTY: Final = struct.Struct(">iiI")
_LENGTH: Final = struct.Struct(">i")
_INTEGER: Final = struct.Struct(">iq")
_FLAG: Final = struct.Struct(">i?")
_INTEGER_BYTES: Final = 8


def _integers(values: Sequence[int]) -> list[bytes]:
    pack = _INTEGER.pack
    return [pack(_INTEGER_BYTES, value) for value in values]


def _texts(values: Sequence[str]) -> list[bytes]:
    return _blobs([value.encode() for value in values])


def _blobs(values: Sequence[bytes]) -> list[bytes]:
    pack = _LENGTH.pack
    return [part for value in values for part in (pack(len(value)), value)]


def _flags(values: Sequence[bool]) -> list[bytes]:
    pack = _FLAG.pack
    return [pack(1, value) for value in values]


class _Element(NamedTuple):
    sql: str
    oid: int
    encode: Callable[[Sequence[Any]], list[bytes]]


_ELEMENTS: Final[dict[type, _Element]] = {
    int: _Element("bigint", 20, _integers),
    str: _Element("text", 25, _texts),
    bytes: _Element("bytea", 17, _blobs),
    bool: _Element("boolean", 16, _flags),
}


def place_of(type_: type) -> str:
    """Return what stands in a statement for an array of values of this type: int, str, bytes or bool."""
    return f"%s::{_ELEMENTS[type_].sql}[]"


def pack(type_: type, values: Sequence[Any]) -> bytes:
    """Return the values (int64, str, bytes or bool, as `type_` says) as an array. Raises `struct.error`."""
    element = _ELEMENTS[type_]
    if not values:
        return _EMPTY.pack(0, 0, element.oid)
    return b"".join([_HEADER.pack(1, 0, element.oid, len(values), 1), *element.encode(values)])


def columns(types: Sequence[type], rows: Sequence[Sequence[Any]]) -> list[bytes]:
    """Return the columns of rows, at least one, an array each."""
    return [pack(type_, column) for type_, column in zip(types, zip(*rows, strict=True), strict=True)]
