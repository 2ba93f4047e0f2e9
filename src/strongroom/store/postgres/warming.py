"""Warming: what the customers of the newest commits need is read before a node takes its first request.

Read one by one as requests ask for it, each row would be a round trip for which everybody waits: with ten thousand
customers those were a third of a node's time in its first ten seconds.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, cast

from strongroom.records.kept import Kept
from strongroom.records.keys import ApiKey
from strongroom.records.users import Name, Profile, User, fold
from strongroom.store.folio import decode_folio
from strongroom.store.postgres.arrays import columns, place_of
from strongroom.store.postgres.connection import Connection
from strongroom.store.postgres.copies import Copies, Copy
from strongroom.store.postgres.pipeline import run_together
from strongroom.store.postgres.remembered import Remembered
from strongroom.store.postgres.tables import FOLIO, TABLES

MOST_OWNERS: Final = 10_000
"""So many customers at most, those of the newest commits: less than a second's reading."""

_AT_ONCE: Final = 500
_COMMITS: Final = "SELECT commits FROM journal"
_NEWEST: Final = "SELECT owners FROM batch ORDER BY number DESC LIMIT 5000"
_KEYS: Final = f"SELECT {', '.join(ApiKey.__struct_fields__)} FROM api_key WHERE owner = ANY({place_of(int)})"


def warm(reader: Connection, heard: int, copies: Copies, remembered: Remembered) -> None:
    """Read the folios, users, names and keys of the customers of the newest commits; `heard` is the last one heard of.

    In one go: nothing may be heard between a question and the moment at which its answer is kept. Of a server that
    lacks what was heard, one that led before a failover, nothing is kept: what it says is old, and nobody would tell.
    Raises `psycopg.Error`.
    """
    [[(commits,)], noted] = run_together(reader, [(_COMMITS, ()), (_NEWEST, ())])
    if commits < heard:
        return
    newest = list(dict.fromkeys(owner for (owners,) in noted for owner in owners))[:MOST_OWNERS]
    # The newest last: what was used last stays longest.
    for first in range(0, len(newest), _AT_ONCE):
        owners = [(owner,) for owner in newest[::-1][first : first + _AT_ONCE]]
        asked = (FOLIO.fetch(owners), *(TABLES[kind].fetch(owners) for kind in (User, Profile)))
        keys = (_KEYS, columns((int,), owners))
        folios, *found = run_together(reader, [*(it for it in asked if it), keys])
        for owner, heads, spines, edition in folios:
            copies.keep(owner, Copy(edition, decode_folio(heads, spines)))
        users, profiles, keys_found = (
            list(map(TABLES[kind].decode, rows)) for kind, rows in zip((User, Profile, ApiKey), found, strict=True)
        )
        names = _names(reader, cast(list[Profile], profiles))
        for row in (*users, *profiles, *keys_found, *names):
            remembered.keep(row, row.key()[1:])


def _names(reader: Connection, profiles: Iterable[Profile]) -> list[Kept]:
    folded = [(fold(name),) for profile in profiles for name in (profile.username, profile.mail) if name]
    wanted = TABLES[Name].fetch(folded)
    return [TABLES[Name].decode(row) for row in run_together(reader, [wanted])[0]] if wanted else []
