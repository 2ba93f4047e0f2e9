"""API keys: what a request is signed with, and what it may do."""

from __future__ import annotations

from enum import IntFlag
from typing import ClassVar

from strongroom.records.kept import Kept


class Permission(IntFlag):
    """What a key may be used for (the contract's section 2)."""

    READ = 1
    TRADING = 2
    TRANSFER = 4
    WALLET = 8
    WITHDRAW = 16


ALL_PERMISSIONS = Permission.READ | Permission.TRADING | Permission.TRANSFER | Permission.WALLET | Permission.WITHDRAW


class ApiKey(Kept, frozen=True, gc=False):
    """A key by its public text. `secret` is encrypted under the master key; `number` names the key where its text need
    not be known. `networks` is the allow-list of client addresses in CIDR form, empty for all; 0 means "never" in
    `expires_ms` and `revoked_ms`."""

    SEALED: ClassVar[bool] = False

    text: str
    number: int = 0
    owner: int = 0
    secret: bytes = b""
    permissions: int = 0
    networks: tuple[str, ...] = ()
    expires_ms: int = 0
    revoked_ms: int = 0
    created_ms: int = 0
    tier: str = ""
    label: str = ""
