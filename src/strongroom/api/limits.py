"""Rate limits: token buckets, the ladder of blocks and the refusals of receivers (the contract's section 4).

A bucket holds two seconds' worth of calls. Which calls share one:

    wallet operations (they change state)   per user and operation
    other signed calls                      per key and operation, and per user over all its keys and operations
    public calls                            per client address (IPv6 per /64)
    failed authentications                  per client address

An operation is named once for all mounts, versions and dialects. A call that goes beyond any of its limits is charged
to none of them and blocks the limit it broke: for 1 s, then 5 minutes, then 15 minutes. Calls during a block neither
count nor prolong it. The ladder starts again after an hour without excess, and when a block of 15 minutes ends.

Everything is integer microseconds of the monotonic clock: a call costs `_TOKEN` units of debt, and a bucket of n calls
pays back n units every microsecond, so that nothing drifts.

Memory is bounded. A bucket that is full again and on no rung of the ladder equals one that was never there, and each
new bucket sweeps two of the oldest. If a table is full of buckets that must be kept (an attack from very many
addresses), none is given up: newcomers share a fixed set of buckets by the hash of their name, which can only make a
limit stricter; those always block for the ladder's first time, since a newcomer may answer for a stranger.

Where several nodes serve one ledger, each has its own buckets, and a block is told to the others (`engine.blocks`): so
a client of n nodes may make n times as many calls before it is blocked, and is blocked at all of them half a second
later. Refusals of receivers are each node's own.
"""

from __future__ import annotations

import json
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Mapping
from typing import Any, Final, cast

import msgspec

from strongroom import errors
from strongroom.clock import Clock
from strongroom.engine.blocks import Block, OwnBlocks
from strongroom.errors import Refused, check

DEFAULT_TIER: Final = "default"
"""The tier of client addresses, and of a key whose tier is not configured."""

HOUR_US: Final = 3_600_000_000

_SECOND_US: Final = 1_000_000
_MS_US: Final = 1_000
_WINDOW_US: Final = 2 * _SECOND_US
_TOKEN: Final = _WINDOW_US
_SWEPT_PER_NEW: Final = 2
_SHARED_BUCKETS: Final = 1024
_NOBODY: Final = OwnBlocks()


class TierLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The numbers of one tier: calls in two seconds, at least 1 each, as the contract's section 4 has them.

    `ladder_s` is how long the first, second and further excesses block, in seconds.
    """

    wallet_per_2s: int = 10
    operation_per_2s: int = 30
    user_per_2s: int = 60
    public_per_2s: int = 50
    failures_per_2s: int = 20
    receiver_refusals_per_hour: int = 20
    ladder_s: tuple[int, ...] = (1, 300, 900)
    unlimited: bool = False

    def __post_init__(self) -> None:
        numbers = (self.wallet_per_2s, self.operation_per_2s, self.user_per_2s, self.public_per_2s)
        numbers += (self.failures_per_2s, self.receiver_refusals_per_hour)
        check(min(numbers) >= 1, "a limit lets at least one call through")
        check(
            min(self.ladder_s, default=0) >= 1, "a ladder of blocks has a first rung, and each lasts a second or more"
        )


UNLIMITED: Final = TierLimits(unlimited=True)
"""A tier without limits; as the only tier it switches all rate limits off."""


class Standing(msgspec.Struct, frozen=True, gc=False):
    """Where a call stands with its tightest limit: `X-RateLimit-Limit`, `-Remaining` and `-Reset`.

    `reset_s` is the number of whole seconds until all of `limit` is there again, or until a block ends; at least 1.
    """

    limit: int
    remaining: int
    reset_s: int

    def headers(self) -> str:
        """Return the three headers as lines of a reply's head."""
        return (
            f"x-ratelimit-limit: {self.limit}\r\nx-ratelimit-remaining: {self.remaining}\r\n"
            f"x-ratelimit-reset: {self.reset_s}\r\n"
        )


class LimitExceeded(Refused):
    """RATE_LIMITED, with the standing that the reply's headers tell."""

    def __init__(self, limit: int, wait_us: int) -> None:
        wait_s = max(1, -(-wait_us // _SECOND_US))
        super().__init__(errors.RATE_LIMITED, errors.RATE_LIMITED.message, wait_s)
        self.standing = Standing(limit, 0, wait_s)


class _Bucket:
    """What one limit remembers of one client; all times in microseconds."""

    __slots__ = ("at_us", "blocked_until_us", "debt", "fresh_at_us", "limit", "name", "rung", "shared")

    def __init__(self, name: Hashable, limit: int, now_us: int, *, shared: bool = False) -> None:
        self.name = name
        self.limit = limit
        self.debt = 0
        self.at_us = now_us
        self.blocked_until_us = now_us
        self.rung: int = 0
        self.fresh_at_us = now_us
        self.shared = shared

    def block(self, now_us: int, ladder_s: tuple[int, ...]) -> None:
        """Climb one rung of the ladder and refuse all calls for its time."""
        rung = 0 if now_us >= self.fresh_at_us else min(self.rung, len(ladder_s) - 1)
        self.rung = rung + 1
        self.blocked_until_us = now_us + ladder_s[rung] * _SECOND_US
        if self.shared or self.rung == len(ladder_s):
            self.fresh_at_us = self.blocked_until_us
        else:
            self.fresh_at_us = max(self.blocked_until_us, now_us + HOUR_US)

    def take(self, until_us: int, rung: int, fresh_at_us: int) -> None:
        """Take over a block of another node, unless this one's ends later."""
        if until_us > self.blocked_until_us:
            self.blocked_until_us, self.rung, self.fresh_at_us = until_us, rung, fresh_at_us

    def equals_new(self, now_us: int) -> bool:
        """Say whether forgetting this bucket would change nothing."""
        return now_us - self.at_us >= _WINDOW_US and now_us >= self.fresh_at_us


class _Buckets:
    """A bounded table of buckets; see the module's text for what happens when it is full.

    `table` is its own name, to tell its blocks from another table's.
    """

    def __init__(self, table: str, most: int) -> None:
        self.table = table
        self._most = most
        self._by_name: OrderedDict[Hashable, _Bucket] = OrderedDict()
        self._shared: dict[tuple[int, int], _Bucket] = {}

    def __len__(self) -> int:
        return len(self._by_name) + len(self._shared)

    def known(self, name: Hashable, limit: int) -> _Bucket | None:
        """Return the bucket that `name` uses now, if there is one."""
        found = self._by_name.get(name)
        return found if found is not None or not self._shared else self._shared.get(_slot(name, limit))

    def of(self, name: Hashable, limit: int, now_us: int) -> _Bucket:
        """Return the bucket of `name`, a new one at its first call, with its debt as of now."""
        bucket = self._by_name.get(name)
        if bucket is None:
            bucket = self._new(name, limit, now_us)
        if bucket.debt:
            # A limit that was lowered meanwhile leaves no more debt than its own two seconds.
            debt = min(bucket.debt, limit * _TOKEN) - (now_us - bucket.at_us) * limit
            bucket.debt = max(0, debt)
        bucket.at_us = now_us
        bucket.limit = limit
        return bucket

    def own(self, name: Hashable, now_us: int) -> _Bucket | None:
        """Return the bucket of `name` alone, a new one if there is room."""
        if name not in self._by_name and len(self._by_name) >= self._most:
            return None
        return self._by_name.get(name) or self._new(name, 1, now_us)

    def _new(self, name: Hashable, limit: int, now_us: int) -> _Bucket:
        self._sweep(now_us)
        slot = _slot(name, limit)
        shared = self._shared.get(slot)
        if len(self._by_name) < self._most:
            bucket = self._by_name[name] = _Bucket((self.table, name), limit, now_us)
            if shared is not None:
                # What this name may have used while it had no bucket of its own.
                bucket.debt, bucket.at_us, bucket.blocked_until_us = shared.debt, shared.at_us, shared.blocked_until_us
            return bucket
        if shared is None:
            shared = self._shared[slot] = _Bucket(None, limit, now_us, shared=True)
        return shared

    def _sweep(self, now_us: int) -> None:
        """Look at the buckets longest in the queue: forget those that equal new ones, queue the others again."""
        for _ in range(min(_SWEPT_PER_NEW, len(self._by_name))):
            name, bucket = self._by_name.popitem(last=False)
            if not bucket.equals_new(now_us):
                self._by_name[name] = bucket


def _slot(name: Hashable, limit: int) -> tuple[int, int]:
    """Return which shared bucket a name uses; texts hash differently in every process, so nobody can aim at one."""
    return limit, hash(("shared", name)) % _SHARED_BUCKETS


class RateLimits:
    """All counters of one server, for its event loop only.

    `tiers` must have `DEFAULT_TIER`; at most `most_tracked` buckets are kept for client addresses, as many for keys and
    users, and as many users' receiver refusals. Each method answers None where the tier is `unlimited`.
    """

    def __init__(
        self,
        clock: Clock,
        tiers: Mapping[str, TierLimits],
        most_tracked: int = 200_000,
        *,
        tell: Callable[[Block], None] = _NOBODY.tell,
    ) -> None:
        """`tell` is told of every block that begins here; it must not wait."""
        check(DEFAULT_TIER in tiers, "the default tier of limits is configured")
        self._clock = clock
        self._tiers = dict(tiers)
        self._default = tiers[DEFAULT_TIER]
        self._most_tracked = most_tracked
        self._tell = tell
        self._clients = _Buckets("client", most_tracked)
        self._owners = _Buckets("owner", most_tracked)
        self._refusals: OrderedDict[int, deque[int]] = OrderedDict()

    @property
    def tracked(self) -> int:
        """Number of buckets kept, for the metrics."""
        return len(self._clients) + len(self._owners)

    def wallet_call(self, tier: str, user: int, operation: str) -> Standing | None:
        """Count a verified call that changes state; raises LimitExceeded."""
        limits = self._tiers.get(tier, self._default)
        if limits.unlimited:
            return None
        now_us = self._now_us()
        bucket = self._owners.of((user, operation), limits.wallet_per_2s, now_us)
        return self._charge(now_us, limits, (bucket,))

    def signed_call(self, tier: str, user: int, key: Hashable, operation: str) -> Standing | None:
        """Count any other verified call; raises LimitExceeded."""
        limits = self._tiers.get(tier, self._default)
        if limits.unlimited:
            return None
        now_us = self._now_us()
        of_operation = self._owners.of((key, operation), limits.operation_per_2s, now_us)
        of_user = self._owners.of(user, limits.user_per_2s, now_us)
        return self._charge(now_us, limits, (of_operation, of_user))

    def public_call(self, client: Hashable) -> Standing | None:
        """Count a public call of a client address (what `Client.bucket` says); raises LimitExceeded."""
        limits = self._default
        if limits.unlimited:
            return None
        now_us = self._now_us()
        bucket = self._clients.of(client, limits.public_per_2s, now_us)
        return self._charge(now_us, limits, (bucket,))

    def check_client(self, client: Hashable) -> None:
        """Raise LimitExceeded while failed authentications block this client address; ask before verifying anything."""
        limit = self._default.failures_per_2s
        bucket = self._clients.known(("failures", client), limit)
        if bucket is not None and not self._default.unlimited:
            wait_us = bucket.blocked_until_us - self._now_us()
            if wait_us > 0:
                raise LimitExceeded(limit, wait_us)

    def authentication_failed(self, client: Hashable) -> None:
        """Count a failed authentication against its client address; raises LimitExceeded."""
        limits = self._default
        if limits.unlimited:
            return
        now_us = self._now_us()
        bucket = self._clients.of(("failures", client), limits.failures_per_2s, now_us)
        _ = self._charge(now_us, limits, (bucket,))

    def check_receiver_refusals(self, tier: str, user: int) -> None:
        """Raise LimitExceeded while the last hour holds as many refusals of this user's receivers as the tier allows.

        Ask before a receiver is looked up: after that many, nobody is told any more which names exist.
        """
        limits = self._tiers.get(tier, self._default)
        refused = self._refusals.get(user)
        most = limits.receiver_refusals_per_hour
        if refused is None or len(refused) < most or limits.unlimited:
            return
        wait_us = refused[-most] + HOUR_US - self._now_us()
        if wait_us > 0:
            raise LimitExceeded(most, wait_us)

    def note_receiver_refusal(self, user: int) -> None:
        """Remember that a transfer of this user was refused for its receiver."""
        now_us = self._now_us()
        refused = self._refusals.pop(user, None)
        if refused is None:
            most = max(limits.receiver_refusals_per_hour for limits in self._tiers.values())
            refused = deque[int](maxlen=most)
            self._forget_refusals(now_us)
        refused.append(now_us)
        self._refusals[user] = refused

    def _forget_refusals(self, now_us: int) -> None:
        """Make room: forget what is over an hour old, and when still full the user whose last refusal is the oldest."""
        for _ in range(_SWEPT_PER_NEW):
            oldest = next(iter(self._refusals.values()), None)
            if oldest is None:
                return
            if now_us - oldest[-1] >= HOUR_US or len(self._refusals) >= self._most_tracked:
                self._refusals.popitem(last=False)

    def hear(self, block: Block) -> None:
        """Take over another node's block; one that is over, or for which there is no room, changes nothing.

        Neither does one whose name this release does not know: nodes of another one may name theirs in other ways.
        """
        now_us, now_ms = self._now_us(), self._clock.now_ms()
        table, name = _read_name(block.name)
        buckets = {it.table: it for it in (self._clients, self._owners)}.get(table)
        if buckets is None:
            return
        fresh_at_us = now_us + (block.fresh_ms - now_ms) * _MS_US
        if fresh_at_us > now_us and (bucket := buckets.own(name, now_us)) is not None:
            bucket.take(now_us + (block.until_ms - now_ms) * _MS_US, block.rung, fresh_at_us)

    def _charge(self, now_us: int, limits: TierLimits, buckets: tuple[_Bucket, ...]) -> Standing:
        """Charge one call to each bucket, or to none and raise LimitExceeded."""
        standing = _take(now_us, buckets)
        if standing is None:
            raise self._excess(now_us, limits.ladder_s, buckets)
        return standing

    def _excess(self, now_us: int, ladder_s: tuple[int, ...], buckets: tuple[_Bucket, ...]) -> LimitExceeded:
        """Return the refusal of a call; one outside every block starts a block for each limit that it broke."""
        if all(bucket.blocked_until_us <= now_us for bucket in buckets):
            for bucket in buckets:
                if bucket.debt > (bucket.limit - 1) * _TOKEN:
                    bucket.block(now_us, ladder_s)
                    self._tell_of(bucket, now_us)
        longest = max(buckets, key=lambda bucket: bucket.blocked_until_us)
        return LimitExceeded(longest.limit, longest.blocked_until_us - now_us)

    def _tell_of(self, bucket: _Bucket, now_us: int) -> None:
        if not bucket.shared:
            now_ms = self._clock.now_ms()
            until_ms = now_ms + (bucket.blocked_until_us - now_us) // _MS_US
            fresh_ms = now_ms + (bucket.fresh_at_us - now_us) // _MS_US
            self._tell(Block(json.dumps(bucket.name), until_ms, bucket.rung, fresh_ms))

    def _now_us(self) -> int:
        return int(self._clock.monotonic_s() * _SECOND_US)


def _take(now_us: int, buckets: tuple[_Bucket, ...]) -> Standing | None:
    """Charge one call to each bucket; None, and to none, where one has no room for it or is blocked."""
    for bucket in buckets:
        if bucket.debt > (bucket.limit - 1) * _TOKEN or bucket.blocked_until_us > now_us:
            return None
    tightest, remaining, debt = 0, -1, 0
    for bucket in buckets:
        bucket.debt += _TOKEN
        left = bucket.limit - -(-bucket.debt // _TOKEN)
        if remaining < 0 or left < remaining:
            tightest, remaining, debt = bucket.limit, left, bucket.debt
    return Standing(tightest, remaining, -(-debt // (tightest * _SECOND_US)))


def _read_name(text: str) -> tuple[str, Hashable]:
    """Return the table and the name that a block's name was made of; of any other text no table."""
    try:
        table, name = json.loads(text)
    except (TypeError, ValueError):
        return "", ""
    parts = cast(list[Any], name) if isinstance(name, list) else [name]
    if not isinstance(table, str) or not all(isinstance(part, str | int) for part in parts):
        return "", ""
    return table, tuple(parts) if isinstance(name, list) else name
