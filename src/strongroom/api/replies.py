"""Replies: the envelopes of both dialects, exact numbers, and errors in every shape that clients read."""

from __future__ import annotations

from typing import Annotated, Any, Final, Generic, TypeAlias, TypeVar

import msgspec

from strongroom.api.operations import Dialect
from strongroom.errors import Refused
from strongroom.money import format_amount

encode: Final = msgspec.json.Encoder().encode

Number: TypeAlias = Annotated[msgspec.Raw, msgspec.Meta(extra_json_schema={"type": "number", "examples": [1.5]})]
"""A JSON number in plain notation, exact to its last digit: never a binary float."""

Decimal: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^-?\d+(\.\d+)?$", examples=["1.5"])]
"""A decimal number as text."""


Data = TypeVar("Data")


class Envelope(msgspec.Struct, Generic[Data], frozen=True):
    """The success envelope: code 1, `Success`, the time in Unix milliseconds, and the data."""

    code: int
    msg: str
    time: int
    data: Data
    success: bool


class Reply(msgspec.Struct, frozen=True):
    """What goes out: status, body, and the lines of the headers beyond the usual ones (see `header`).

    `refusal` is the refusal's name, empty for a success.
    """

    status: int
    body: bytes
    headers: str = ""
    refusal: str = ""


def header(name: str, value: object) -> str:
    """Return one header as its line of a head; neither part holds a line break, as nothing a client sent is in it."""
    return f"{name}: {value}\r\n"


def header_pairs(lines: str) -> list[tuple[bytes, bytes]]:
    """Return header lines as ASGI has them."""
    pairs = (line.partition(b": ") for line in lines.encode("latin-1").split(b"\r\n") if line)
    return [(name, value) for name, _, value in pairs]


def number(units: int, scale: int) -> msgspec.Raw:
    """Return an amount as a JSON number without padding (v3)."""
    return msgspec.Raw(format_amount(units, scale).encode())


def raw_number(text: str) -> msgspec.Raw:
    """Return a decimal text as a JSON number."""
    return msgspec.Raw(text.encode())


def envelope(data: Any, at_ms: int) -> bytes:
    """Return the success envelope round `data`."""
    return encode(Envelope(1, "Success", at_ms, data, success=True))


def error_body(refusal: Refused, dialect: Dialect, now_ms: int) -> bytes:
    """Return a failure's body: one set of fields for all, and beside it in v3 the set of its older clients."""
    body: dict[str, Any] = {
        "code": refusal.error.code,
        "msg": refusal.message,
        "time": now_ms,
        "data": None,
        "success": False,
    }
    if dialect is Dialect.V3:
        body |= {"status": refusal.error.status, "errorCode": refusal.error.code, "message": refusal.message}
    return encode(body)
