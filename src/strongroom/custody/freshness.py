"""Freshness: for how long each network has not been followed, and what comes of it.

    stale       nothing new is seen on it: told by `/readyz`, the metrics and the log
    suspended   it has been stale for too long: no deposit is offered on it until it is followed again

Nothing else changes. Withdrawals are accepted and wait, and what was paid meanwhile is found when the node is back.
"""

from __future__ import annotations

import asyncio
from typing import Final, NamedTuple

import msgspec
import structlog

from strongroom.custody.watcher import NetworkStatus, Watcher
from strongroom.records.chains import Tip
from strongroom.wallet.context import Context

STALE_AFTER_S: Final = 120
SUSPEND_AFTER_S: Final = 900

_LOOK_EVERY_S: Final = 5.0
_LOOKS: Final = 4
"""The ages are looked at so often, at least, before the shortest limit has passed."""

log = structlog.get_logger("freshness")


class FreshnessTerms(msgspec.Struct, frozen=True):
    """How many seconds after its last successful round a network is stale, and how many until it is suspended."""

    stale_after_s: int = STALE_AFTER_S
    suspend_after_s: int = SUSPEND_AFTER_S


class NetworkAge(msgspec.Struct, frozen=True):
    """How long ago a network is known to have been followed, in ms, and what that means."""

    ms: int
    stale: bool
    suspended: bool


class _Followed(NamedTuple):
    number: int
    watcher: Watcher
    terms: FreshnessTerms


class Freshness:
    """Looks after the age of every network's last successful round; networks by their codes."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._started_ms = context.clock.now_ms()
        self._followed: dict[str, _Followed] = {}
        self._told: dict[str, NetworkAge] = {}

    def add(self, number: int, watcher: Watcher, terms: FreshnessTerms) -> None:
        """Look after one more network."""
        self._followed[watcher.status.network] = _Followed(number, watcher, terms)

    def age(self, network: str) -> NetworkAge:
        """Return how a network is now."""
        followed = self._followed[network]
        age_ms = max(self._context.clock.now_ms() - self._success_ms(followed), 0)
        stale = age_ms > followed.terms.stale_after_s * 1_000
        return NetworkAge(age_ms, stale, stale and age_ms > followed.terms.suspend_after_s * 1_000)

    def is_suspended(self, network: str) -> bool:
        """Say whether no deposit is offered on a network now."""
        return self._followed[network].number in self._context.suspensions.networks

    def _success_ms(self, followed: _Followed) -> int:
        """Return when a network was followed to its end last, in Unix ms.

        Before the first round of this run has ended that is taken to be the start. When that round fails the network
        may have been away for long: what is certain is when the books' newest block was worked through, if one was.
        """
        status = followed.watcher.status
        if status.last_success_ms:
            return status.last_success_ms
        return self._context.reads.row(Tip, followed.number).at_ms if status.error else self._started_ms

    async def run(self) -> None:
        """Look again and again until cancelled."""
        shortest_s = min((it.terms.stale_after_s for it in self._followed.values()), default=STALE_AFTER_S)
        while True:
            self.look()
            await asyncio.sleep(min(_LOOK_EVERY_S, shortest_s / _LOOKS))

    def look(self) -> None:
        """Suspend what has been stale for too long and nothing else, and log what is another than before."""
        suspended: set[int] = set()
        for network, followed in self._followed.items():
            age = self.age(network)
            if age.suspended:
                suspended.add(followed.number)
            self._tell(followed.watcher.status, self._told.get(network), age)
            self._told[network] = age
        self._context.suspensions.change(frozenset(suspended))

    def _tell(self, status: NetworkStatus, before: NetworkAge | None, now: NetworkAge) -> None:
        was_stale, was_suspended = (before.stale, before.suspended) if before else (False, False)
        if now.stale and not was_stale:
            log.warning("network_stale", network=status.network, age_s=now.ms // 1_000, problem=status.error)
        if now.suspended and not was_suspended:
            log.error("deposits_suspended", network=status.network, age_s=now.ms // 1_000, problem=status.error)
        if was_stale and not now.stale:
            log.warning("network_followed_again", network=status.network, height=status.height)
