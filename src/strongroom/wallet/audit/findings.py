"""Findings: what an audit holds against the books."""

from __future__ import annotations

from typing import Final

MAX_FINDINGS: Final = 20
"""After so many, more would tell no more."""

_MAX_AT_ONCE: Final = 5_000


class Findings:
    """What is wrong: (item, text), at most 20 of them, in the order in which one reading comes upon them."""

    def __init__(self) -> None:
        self.found: list[tuple[int, str]] = []
        self._latest: list[tuple[int, int, str]] = []

    def __bool__(self) -> bool:
        """Whether anything is wrong."""
        return bool(self.found or self._latest)

    def add(self, item: int, what: str, noticed_at: int = 0) -> None:
        """Note what is wrong with an item, 0 for none; `noticed_at` is the item that it shows at if that is another."""
        if len(self.found) < MAX_FINDINGS and len(self._latest) < _MAX_AT_ONCE:
            self._latest.append((noticed_at or item, item, what))

    def settle(self, *, by_item: bool) -> None:
        """Put what was noted since the last time behind the rest; items are checked for one thing after the other."""
        if by_item:
            self._latest.sort(key=lambda finding: finding[0])
        self.found += [(item, what) for _, item, what in self._latest[: MAX_FINDINGS - len(self.found)]]
        self._latest.clear()


class FoundWrong(Exception):
    """Something is wrong: for an audit that has only to tell whether everything is right."""


class NoFindings(Findings):
    """Findings for such an audit, which ends with the first."""

    def add(self, item: int, what: str, noticed_at: int = 0) -> None:
        """Raise `FoundWrong`."""
        raise FoundWrong(f"item {item}: {what}" if item else what)
