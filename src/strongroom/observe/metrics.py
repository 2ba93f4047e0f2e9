"""Metrics in Prometheus' text format: of requests, the writer and, at scrape time, the books."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from strongroom.clock import Clock
from strongroom.engine.port import DiskFailed
from strongroom.observe.requests import AnsweredRequests

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_COMMIT_S: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)
_BATCH: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class Metrics:
    """All metrics of one server, in a registry of their own.

    Every label comes from a closed set: operations, statuses, refusals' names, assets, networks. No client can add one.
    """

    def __init__(self, clock: Clock) -> None:
        self.registry = CollectorRegistry(auto_describe=True)
        self._requests = AnsweredRequests(clock)
        self.registry.register(self._requests)
        self.answered = self._requests.answered
        self._batches = Histogram(
            "strongroom_batch_commands", "Commands made durable together", buckets=_BATCH, registry=self.registry
        )
        self._commits = Histogram(
            "strongroom_commit_seconds", "Time a batch's commit took", buckets=_COMMIT_S, registry=self.registry
        )
        self._failed = Counter(
            "strongroom_commands_failed", "Commands that met a mistake of ours", ["command"], registry=self.registry
        )
        self._doubtful = Counter(
            "strongroom_commits_doubtful", "Commits whose outcome was not known at first", registry=self.registry
        )

    def committed(self, commands: int, seconds: float) -> None:
        """Count a durable batch of `commands` and how long its commit took."""
        self._batches.observe(commands)
        self._commits.observe(seconds)

    def command_failed(self, command: str) -> None:
        """Count a command of this kind that met a mistake of ours."""
        self._failed.labels(command).inc()

    def commit_doubtful(self) -> None:
        """Count a commit whose outcome was not known at first."""
        self._doubtful.inc()

    def watch(self, name: str, description: str, read: Callable[[], float]) -> None:
        """Show a number that is read at each scrape: no number while the books cannot be read."""
        Gauge(name, description, registry=self.registry).set_function(lambda: _read_or_nan(read))

    def collect_with(self, collect: Callable[[], Iterable[Metric]]) -> None:
        """Show what a function of the books returns at each scrape; nothing while they cannot be read."""
        self.registry.register(_Collected(collect))

    def page(self) -> bytes:
        """Return all metrics as text."""
        return generate_latest(self.registry)


class _Collected(Collector):
    def __init__(self, collect: Callable[[], Iterable[Metric]]) -> None:
        self._collect = collect

    def describe(self) -> Iterable[Metric]:
        """Return nothing: the names are known when the books are read."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Return the metrics as they are now."""
        try:
            return list(self._collect())
        except DiskFailed:
            return ()


def _read_or_nan(read: Callable[[], float]) -> float:
    try:
        return read()
    except DiskFailed:
        return math.nan


def gauge(name: str, description: str, labels: tuple[str, ...]) -> GaugeMetricFamily:
    """Return an empty gauge with labels, for a collecting function to fill."""
    return GaugeMetricFamily(name, description, labels=labels)
