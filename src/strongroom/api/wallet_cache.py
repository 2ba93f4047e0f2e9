"""Encoded wallets: the body of a balance reply, kept until a commit touches what it tells."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from strongroom.engine.port import Reads
from strongroom.engine.state import State
from strongroom.ledger.accounts import owner_of
from strongroom.records.settings import Settings
from strongroom.records.users import User

MAX_WALLETS: Final = 100_000
"""Most users whose wallets are kept."""


class WalletCache:
    """Bodies by user and spelling. A commit drops the bodies of every user it touches before anyone is answered."""

    def __init__(self, reads: Reads) -> None:
        self._bodies: dict[int, dict[str, bytes]] = {}
        reads.subscribe(self._drop)

    def body(self, owner: int, spelling: str, make: Callable[[], bytes]) -> bytes:
        """Return a user's body in a spelling, made anew if it is not there."""
        bodies = self._bodies.get(owner)
        if bodies is None:
            if len(self._bodies) >= MAX_WALLETS:
                self._bodies.clear()
            bodies = self._bodies[owner] = {}
        body = bodies.get(spelling)
        if body is None:
            body = bodies[spelling] = make()
        return body

    def _drop(self, state: State) -> None:
        for account in state.heads:
            _ = self._bodies.pop(owner_of(account), None)
        for key in state.rows:
            if key[0] is User:
                _ = self._bodies.pop(key[1], None)
            elif key[0] is Settings:
                self._bodies.clear()
