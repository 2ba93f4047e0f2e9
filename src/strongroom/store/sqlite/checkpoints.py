"""Checkpoints: the log's pages are copied into the database beside the commits, not within one of them.

A checkpoint within a commit would hold that commit, and all that wait for it, for as long as thousands of pages take.
Beside the commits it never ends, since they go on writing: so a thread of its own copies nearly all, in several passes,
and the last few pages follow right behind a commit, when nobody writes. After that the log starts anew.
"""

from __future__ import annotations

from typing import Final

import apsw

from strongroom.store.sqlite.connection import run

START_AT_PAGES: Final = 4_000
FINISH_AT_PAGES: Final = 250
"""So few pages are copied right behind a commit."""

_MOST_PASSES: Final = 6


class Checkpoints:
    """When to copy, and how far it has come. `pages` are those in the log since it started anew."""

    def __init__(self, writer: apsw.Connection, beside: apsw.Connection) -> None:
        """`writer` makes the commits; `beside` is a connection for another thread."""
        self._writer = writer
        self._beside = beside
        self._is_copying = False
        self._is_nearly_done = False
        self._start_at_pages = START_AT_PAGES
        self.pages = 0
        writer.set_wal_hook(self._note)

    def begin(self) -> bool:
        """Say whether it is time to `copy`; once so, not again before that has ended."""
        if self._is_copying or self._is_nearly_done or self.pages < self._start_at_pages:
            return False
        self._is_copying = True
        return True

    def copy(self) -> None:
        """Copy pages beside the commits, pass by pass, until only a few are left."""
        try:
            for _ in range(_MOST_PASSES):
                if self._pass(self._beside) <= FINISH_AT_PAGES:
                    break
            self._is_nearly_done = True
        finally:
            self._is_copying = False

    def finish(self) -> None:
        """Right behind a commit: copy what `copy` left, so that the next commit starts the log anew.

        While a reader holds an old state the log cannot start anew; then it is tried again some pages later.
        """
        if self._is_nearly_done:
            self._is_nearly_done = False
            self._start_at_pages = START_AT_PAGES + (self.pages if self._pass(self._writer) else 0)

    def _note(self, connection: apsw.Connection, database: str, pages: int) -> int:
        self.pages = pages
        return apsw.SQLITE_OK

    def _pass(self, connection: apsw.Connection) -> int:
        """Copy what is in the log now; return how many pages came meanwhile or could not be copied yet.

        What a full or broken disk refuses stays in the log, whose size the metrics tell; the commits themselves say
        what is wrong.
        """
        try:
            _, logged, copied = run(connection, "PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        except apsw.Error:
            return self.pages
        return max(self.pages, logged) - copied
