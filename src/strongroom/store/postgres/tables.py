"""PostgreSQL's tables: its mark for a value, and statements that read or write many rows at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, Final, TypeAlias

from strongroom.records.guards import Nonce
from strongroom.records.kept import Kept
from strongroom.records.settings import Settings
from strongroom.store.postgres.arrays import columns, place_of
from strongroom.store.tables import KINDS, Table

Statement: TypeAlias = tuple[str, Sequence[Any]]


def has_nul(values: Iterable[Any]) -> bool:
    """Say whether one of the values is a text with the one character that PostgreSQL keeps in none."""
    return any(isinstance(value, str) and "\0" in value for value in values)


class KeyedTable:
    """A table of rows with a key, by name: the statements that fetch and write many of its rows."""

    def __init__(self, name: str, names: Sequence[str], types: Sequence[type], keys: int) -> None:
        """`names` and `types` are those of its columns, of which the first `keys` are the key."""
        self.types = tuple(types)
        self.key_types = self.types[:keys]
        listed, key, rest = ", ".join(names), ", ".join(names[:keys]), names[keys:]
        places = ", ".join(map(place_of, self.types))
        wanted = ", ".join(map(place_of, self.key_types))
        changes = ", ".join(f"{column} = EXCLUDED.{column}" for column in rest)
        self._fetch = f"SELECT {listed} FROM unnest({wanted}) AS wanted ({key}) JOIN {name} USING ({key})"
        self._write = f"INSERT INTO {name} ({listed}) SELECT * FROM unnest({places}) ON CONFLICT ({key})"
        self._write += f" DO UPDATE SET {changes}"
        self._has_text = str in self.key_types

    def fetch(self, keys: Sequence[Sequence[Any]]) -> Statement | None:
        """Return the statement that fetches the rows with these keys; None if there can be none."""
        if self._has_text:
            keys = [key for key in keys if not has_nul(key)]
        return (self._fetch, columns(self.key_types, keys)) if keys else None

    def write(self, rows: Sequence[Sequence[Any]]) -> Statement:
        """Return the statement that writes rows, at least one, over those with the same keys."""
        return self._write, columns(self.types, rows)


class FolioTable(KeyedTable):
    """The table of folios: each is written as the edition that follows the one there is, and as no other."""

    def __init__(self) -> None:
        super().__init__("folio", ("owner", "heads", "spines", "edition"), (int, str, bytes, int), 1)
        # Over any other edition it is null, which the column is not: the server refuses the whole batch.
        follows = "CASE WHEN folio.edition = EXCLUDED.edition - 1 THEN EXCLUDED.edition END"
        self._write = self._write.replace("edition = EXCLUDED.edition", f"edition = {follows}")


class KindTable(Table, KeyedTable):
    """The table of one kind of kept row."""

    def __init__(self, kind: type[Kept]) -> None:
        Table.__init__(self, kind, "%s")
        KeyedTable.__init__(self, self.quoted, self.columns, self.types, kind.KEY)

    def decode(self, values: Sequence[Any]) -> Kept:
        """Return the kept row of a row of SQL; of equal settings the same, since much is worked out from them."""
        return _settings(tuple(values)) if self.kind is Settings else super().decode(values)


@lru_cache(maxsize=2)
def _settings(values: tuple[Any, ...]) -> Kept:
    return Table(Settings, "%s").decode(values)


TABLES: Final[dict[type[Kept], KindTable]] = {kind: KindTable(kind) for kind in (Nonce, *KINDS)}

FOLIO: Final = FolioTable()
