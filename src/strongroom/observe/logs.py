"""Logs: a line an event on standard error, as JSON or for people, with nothing secret in it.

What is logged is chosen where it is logged; this is the second line of defence. A field whose name sounds secret loses
its value, and in every other text whatever looks like a key, a signature or an address is taken out. A successful
request has no line: the journal is its record.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final, TextIO, cast

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

REDACTED: Final = "[redacted]"

_SECRET_NAME: Final = re.compile(
    r"secret|token|signature|sign$|password|passphrase|mnemonic|seed|private|master|authori[sz]ation|cookie|address"
    r"|(^|_)key$|(^|_)mail$|email|username|blob",
    re.IGNORECASE,
)
_PUBLIC_NAME: Final = frozenset({"txid", "block", "root", "request_id", "event", "level", "timestamp", "logger"})
"""Fields whose long hex is public by its nature, and those that every line has."""

_ADDRESS: Final = re.compile(
    r"\b0x[0-9a-fA-F]{40}\b"
    r"|\b(?:bc|tb|bcrt|ltc|tltc|rltc)1[02-9ac-hj-np-z]{11,71}\b"
    r"|\b(?=[A-Za-z]*[0-9])[123mnLMQr][1-9A-HJ-NP-Za-km-z]{25,34}\b"
)
_LONG_HEX: Final = re.compile(r"\b(?:0x)?[0-9a-fA-F]{48,}\b")
_LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Take out of an event whatever its name or its look says is secret."""
    return {name: _redacted(name, value) for name, value in event.items()}


def _redacted(name: str, value: Any) -> Any:
    if name in _PUBLIC_NAME:
        return _without_addresses(value) if name == "event" else value
    if _SECRET_NAME.search(name):
        return REDACTED
    if isinstance(value, Mapping):
        fields = cast(Mapping[Any, Any], value)
        return {inner: _redacted(str(inner), member) for inner, member in fields.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_redacted("", member) for member in cast(list[Any], value)]
    return value if isinstance(value, (int, float, type(None))) else _without_addresses(value)


def _without_addresses(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return _LONG_HEX.sub(REDACTED, _ADDRESS.sub(REDACTED, text))


class _Patient:
    """A stream that loses what it cannot write: a full disk or a closed pipe for the log must not end the server."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write, if the stream takes it."""
        with suppress(OSError, ValueError):
            _ = self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush, if the stream takes it."""
        with suppress(OSError, ValueError):
            self._stream.flush()


def configure_logs(level: str = "info", form: str = "json", stream: TextIO | None = None) -> None:
    """Log events of at least a level (`debug` to `error`) to a stream, standard error by default.

    `form` is `json`, or `console` for people. What libraries log goes the same way, from warnings on.
    """
    out, least = stream or sys.stderr, _LEVELS[level]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        redact,
    ]
    renderer: Processor = structlog.dev.ConsoleRenderer(colors=out.isatty())
    if form == "json":
        renderer = structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(least),
        logger_factory=structlog.PrintLoggerFactory(cast(TextIO, _Patient(out))),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(out)
    plain = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=[plain, redact, renderer])
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(least, logging.WARNING))
