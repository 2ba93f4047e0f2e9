"""Checkpoints: the log's pages are copied into the database beside the commits, not within one of them.

A checkpoint within a commit would hold that commit, and all that wait for it, for as long as thousands of pages take.
Beside the commits it never ends, since they go on writing: so a thread of its own copies nearly all, in several passes,
and the last few pages follow right behind a commit, when nobody writes. After that the log starts anew.
"""

from __future__ import annotations

from typing import Final

import apsw

from strongroom.store.sqlite.connection import run

START_AT_PAGES: Final = 500
"""A log of 64 MB: the last copying holds one commit up, and the longer the log, the more seldom."""

FINISH_AT_PAGES: Final = 50
"""So few pages are copied right behind a commit."""

LOOK_EVERY_COMMITS: Final = 16
_MOST_PASSES: Final = 6


class Checkpoints:
    """When to copy, and how far it has come. `pages` are those in the log when it was last looked at."""

    def __init__(self, writer: apsw.Connection, beside: apsw.Connection) -> None:
        """`writer` makes the commits; `beside` is a connection for another thread."""
        self._writer = writer
        self._beside = beside
        self._commits = 0
        self._is_looking = False
        self._is_nearly_done = False
        self._start_at_pages = START_AT_PAGES
        self.pages = 0

    def begin(self) -> bool:
        """Say after a commit whether it is time to `copy`; once so, not again before that has ended."""
        self._commits += 1
        if self._is_looking or self._is_nearly_done or self._commits % LOOK_EVERY_COMMITS:
            return False
        self._is_looking = True
        return True

    def copy(self) -> None:
        """Where the log is long, copy its pages beside the commits, pass by pass, until only a few are left."""
        try:
            if self._left(self._beside, "NOOP") < self._start_at_pages:
                return
            for _ in range(_MOST_PASSES):
                if self._left(self._beside, "PASSIVE") <= FINISH_AT_PAGES:
                    break
            self._is_nearly_done = True
        finally:
            self._is_looking = False

    def finish(self) -> None:
        """Right behind a commit: copy what `copy` left, so that the next commit starts the log anew.

        While a reader holds an old state the log cannot start anew; then it is tried again some pages later.
        """
        if self._is_nearly_done:
            self._is_nearly_done = False
            left = self._left(self._writer, "PASSIVE")
            self._start_at_pages = START_AT_PAGES + (self.pages if left else 0)

    def _left(self, connection: apsw.Connection, mode: str) -> int:
        """Do what a mode does and return how many pages of the log are not copied then.

        What a full or broken disk refuses stays in the log, whose size the metrics tell; the commits themselves say
        what is wrong.
        """
        try:
            _, self.pages, _ = run(connection, f"PRAGMA wal_checkpoint({mode})").fetchone()
            _, self.pages, copied = run(connection, "PRAGMA wal_checkpoint(NOOP)").fetchone()
        except apsw.Error:
            return self.pages
        return self.pages - copied
