"""Encoded wallets: the body of a balance reply, kept until a commit touches what it tells.

Where other processes commit as well nothing is kept: what they were answered must show in the very next reply.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from strongroom.engine.state import State
from strongroom.ledger.accounts import owner_of
from strongroom.records.settings import SETTINGS_KEY
from strongroom.records.users import User
from strongroom.wallet.context import Context

MAX_WALLETS: Final = 100_000
"""Most users whose wallets are kept in each spelling."""


class WalletCache:
    """Bodies by user and spelling. A commit drops the bodies of every user it touches before anyone is answered."""

    def __init__(self, context: Context) -> None:
        self._bodies: dict[str, dict[int, bytes]] = {}
        self._is_shared = context.reads.is_shared
        context.reads.subscribe(self._drop)
        context.suspensions.subscribe(self._bodies.clear)

    def body(self, owner: int, spelling: str, make: Callable[[], bytes]) -> bytes:
        """Return a user's body in a spelling, made anew if it is not there."""
        if self._is_shared:
            return make()
        bodies = self._bodies.get(spelling)
        if bodies is None:
            bodies = self._bodies[spelling] = {}
        body = bodies.get(owner)
        if body is None:
            if len(bodies) >= MAX_WALLETS:
                bodies.clear()
            body = bodies[owner] = make()
        return body

    def _drop(self, state: State) -> None:
        owners = {owner_of(account) for account in state.heads}
        owners.update(key[1] for key in state.rows if key[0] is User)
        for bodies in self._bodies.values():
            for owner in owners:
                _ = bodies.pop(owner, None)
        if SETTINGS_KEY in state.rows:
            self._bodies.clear()
