"""What the writer and the API tell of themselves, as metrics and as log lines; a success is never a log line."""

from __future__ import annotations

import structlog

from strongroom.engine.command import Command
from strongroom.observe.metrics import Metrics

log = structlog.get_logger("engine")


class Events:
    """Implements the writer's and the API's events over one server's metrics."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self.answered = metrics.answered

    def committed(self, commands: int, seconds: float) -> None:
        """Count a durable batch."""
        self._metrics.committed(commands, seconds)

    def failed(self, command: Command, error: Exception) -> None:
        """Log a command that met a mistake of ours: its kind only, since its fields may hold secrets."""
        self._metrics.command_failed(type(command).__name__)
        log.error("command failed", kind=type(command).__name__, owner=command.guard.owner, exc_info=error)

    def doubtful(self, error: Exception, *, resolved: bool) -> None:
        """Log a commit whose outcome is not known, and when it is."""
        if resolved:
            log.warning("commit resolved", error=str(error))
        else:
            self._metrics.commit_doubtful()
            log.critical("commit in doubt", error=str(error))

    def troubled(self, trouble: str) -> None:
        """Log why nothing is accepted, and when it is again."""
        if trouble:
            log.critical("nothing is accepted", trouble=trouble)
        else:
            log.warning("commands are accepted again")
