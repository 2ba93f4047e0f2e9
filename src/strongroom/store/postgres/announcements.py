"""Announcements: what commits have changed that nodes keep in memory or wait for, noted in each commit's own row.

A node reads the rows of all commits since it last looked: under the journal's lock with every batch of its own, and
several times a second beside that. It is told which rows changed, and reads them as they stand by then.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

import msgspec

from strongroom.engine.state import State
from strongroom.records.chains import Tip
from strongroom.records.coins import Coin, Pot
from strongroom.records.epochs import Epoch, Reconciled
from strongroom.records.kept import Kept, Key
from strongroom.records.keys import ApiKey
from strongroom.records.settings import Settings
from strongroom.records.users import User
from strongroom.records.withdrawals import Payment, Withdrawal
from strongroom.store.postgres.connection import Connection
from strongroom.store.postgres.copies import Commit
from strongroom.store.postgres.fetched import Fetched, take_all
from strongroom.store.postgres.pipeline import run_together
from strongroom.store.postgres.tables import Statement

ANNOUNCED: Final[tuple[type[Kept], ...]] = (
    ApiKey, User, Settings, Withdrawal, Payment, Coin, Pot, Tip, Epoch, Reconciled,
)  # fmt: skip
"""The kinds of rows that a server keeps in memory, or whose changes wake a loop."""

AT_ONCE: Final = 500
"""So many commits are caught up with in one step."""

NEWS: Final = "SELECT number, changed, id::text, owners FROM batch WHERE number >= %s ORDER BY number LIMIT %s"
"""Asks for the notes of a commit and of those behind it (`Commit`)."""

_KINDS: Final = {kind.__name__: kind for kind in ANNOUNCED}


class Heard(NamedTuple):
    """The commit up to which everything was heard, and its id; empty where that is not known."""

    number: int = 0
    id: str = ""

    @property
    def news(self) -> Statement:
        """What to ask for to hear more."""
        return NEWS, (self.number, AT_ONCE)

    def after(self, commits: int, found: Sequence[Commit]) -> Heard | None:
        """Return what was heard when the books have so many commits, and have told of these.

        None where they lack what was heard before, or have something else in its place: a failover, or a restore, has
        lost commits.
        """
        ids = {commit.number: commit.id for commit in found}
        if commits < self.number or (self.id and ids.get(self.number, self.id) != self.id):
            return None
        last = found[-1].number if found else commits
        number = last if len(found) == AT_ONCE else max(last, commits)
        return Heard(number, ids.get(number, ""))

    def unheard(self, found: Sequence[Commit]) -> Iterator[str]:
        """Yield what those of the commits have changed that are new."""
        return (commit.changed for commit in found if commit.changed and commit.number > self.number)


class News(NamedTuple):
    """What was heard: every commit up to one, the rows that they changed, and the commits."""

    heard: Heard
    rows: dict[Key, Kept]
    commits: Sequence[Commit] = ()


def changed_text(state: State) -> str:
    """Return what a commit notes of the rows it changes."""
    changed = [[key[0].__name__, *key[1:]] for key in state.rows if key[0] in ANNOUNCED]
    return msgspec.json.encode(changed).decode() if changed else ""


class Changed:
    """The rows that commits have noted, to be read as they are now."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._keys = {key for text in texts for key in _keys_of(text)}
        self._fetched = Fetched()
        self.wanted = self._fetched.statements(self._keys)
        """What to ask for, each with who takes its answer; nothing, where there is none."""

    @property
    def rows(self) -> dict[Key, Kept]:
        """The rows, once the answers were taken."""
        return {key: self._fetched.kept(key) for key in self._keys}


def read_changed(reader: Connection, texts: Iterable[str]) -> dict[Key, Kept]:
    """Return the rows that commits have noted, as they are now. Raises `psycopg.Error`."""
    changed = Changed(texts)
    if changed.wanted:
        take_all(changed.wanted, run_together(reader, [statement for statement, _ in changed.wanted]))
    return changed.rows


def _keys_of(text: str) -> list[Key]:
    """Return the addresses in a commit's note; a newer release may note kinds that this one does not know."""
    return [(_KINDS[name], *key) for name, *key in msgspec.json.decode(text) if name in _KINDS]
