"""Rows that guard a command: used signatures and remembered replies, forgotten by the store after `expires_ms`."""

from __future__ import annotations

from typing import ClassVar

from strongroom.records.kept import Kept


class Nonce(Kept, frozen=True, gc=False):
    """A signature that a key has used; `spent` when it authorised a change, else only seen on a GET."""

    KEY: ClassVar[int] = 2
    SEALED: ClassVar[bool] = False

    api_key: int
    signature: bytes
    expires_ms: int = 0
    spent: bool = False


class Reply(Kept, frozen=True, gc=False):
    """The first reply to an Idempotency-Key of a user: its request's fingerprint, its stamp and its encoded result."""

    KEY: ClassVar[int] = 2
    SEALED: ClassVar[bool] = False

    owner: int
    digest: bytes
    fingerprint: bytes = b""
    at_ms: int = 0
    result: bytes = b""
    expires_ms: int = 0
