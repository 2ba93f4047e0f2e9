"""What is counted of every request: plain numbers while it is answered, Prometheus' families when it asks."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from itertools import accumulate
from typing import Final

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from strongroom.clock import Clock

LATENCY_S: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""Upper bounds of the buckets of request times; one more has what took longer."""

_BOUNDS: Final = [*map(str, LATENCY_S), "+Inf"]


class _Times:
    """The times that one operation's requests took."""

    __slots__ = ("buckets", "seconds", "since_s")

    def __init__(self, since_s: float) -> None:
        self.since_s = since_s
        self.seconds = 0.0
        self.buckets = [0] * len(_BOUNDS)


class AnsweredRequests(Collector):
    """Counts answered requests by operation, status and refusal, and the times they took by operation."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._counts: dict[tuple[str, int, str], int] = {}
        self._since_s: dict[tuple[str, ...], float] = {}
        self._times: dict[str, _Times] = {}

    def answered(self, operation: str, status: int, code: str, seconds: float) -> None:
        """Count an answered request; `code` is the refusal's name in the list of errors, or empty."""
        kind = (operation, status, code)
        if kind not in self._counts:
            self._begin(operation, status, code)
        self._counts[kind] += 1
        times = self._times[operation]
        times.seconds += seconds
        times.buckets[bisect_left(LATENCY_S, seconds)] += 1

    def _begin(self, operation: str, status: int, refusal: str) -> None:
        """Count a kind of request from now on."""
        since_s = self._clock.now_ms() / 1000
        self._counts[operation, status, refusal] = 0
        for labels in ((operation, str(status)), *([(refusal,)] if refusal else [])):
            self._since_s.setdefault(labels, since_s)
        self._times.setdefault(operation, _Times(since_s))

    def describe(self) -> Iterable[Metric]:
        """Return the empty families, so that no other metric can take their names."""
        return self._families()

    def collect(self) -> Iterable[Metric]:
        """Return the counts as they are now."""
        requests, refusals, latency = self._families()
        answered: dict[tuple[str, ...], int] = {}
        refused: dict[tuple[str, ...], int] = {}
        for (operation, status, refusal), count in self._counts.items():
            answered[operation, str(status)] = answered.get((operation, str(status)), 0) + count
            if refusal:
                refused[refusal,] = refused.get((refusal,), 0) + count
        for family, counts in ((requests, answered), (refusals, refused)):
            for labels, count in counts.items():
                family.add_metric(labels, count, created=self._since_s[labels])
        for operation, times in self._times.items():
            buckets = list(zip(_BOUNDS, accumulate(times.buckets), strict=True))
            latency.add_metric((operation,), buckets, times.seconds)
            latency.add_sample(f"{latency.name}_created", {"operation": operation}, times.since_s)
        return requests, refusals, latency

    def _families(self) -> tuple[CounterMetricFamily, CounterMetricFamily, HistogramMetricFamily]:
        return (
            CounterMetricFamily("strongroom_requests", "Answered requests", labels=("operation", "status")),
            CounterMetricFamily("strongroom_refusals", "Refused requests", labels=("refusal",)),
            HistogramMetricFamily(
                "strongroom_request_seconds", "Time from a request's head to its answer", labels=("operation",)
            ),
        )
