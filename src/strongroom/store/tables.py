"""Tables: how each kind of kept row becomes a row of SQL and back, in the words that all dialects share.

A dialect gives the mark that stands for a value, and what only it can say in a module of its own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from strongroom.records.addresses import Address, AddressBook, Branch, Placed
from strongroom.records.chains import Holding, Passed, Tip
from strongroom.records.coins import Coin, Pot, Sent
from strongroom.records.deposits import Deposit, Outpoint
from strongroom.records.epochs import Epoch, Reconciled
from strongroom.records.guards import Reply
from strongroom.records.kept import Kept
from strongroom.records.keys import ApiKey
from strongroom.records.settings import Settings
from strongroom.records.users import Name, Profile, User
from strongroom.records.withdrawals import Payment, Reserved, Spent, Withdrawal

KINDS: Final[tuple[type[Kept], ...]] = (
    Reply, User, Profile, Name, ApiKey, Address, AddressBook, Placed, Branch, Tip, Passed, Holding,
    Coin, Pot, Sent, Deposit, Outpoint, Withdrawal, Payment, Reserved, Spent, Epoch, Reconciled, Settings,
)  # fmt: skip
"""Every kind of row that has a table of its own."""

_SQL_TYPES: Final = (int, str, bytes, bool)


class Table:
    """One kind's table: its SQL, and the translation of its rows. Fields that SQL has no type for are kept as JSON.

    `types` are those of its columns: int, str, bytes or bool.
    """

    def __init__(self, kind: type[Kept], mark: str) -> None:
        """`mark` stands for a value in this dialect's SQL."""
        self.kind = kind
        self.name = re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()
        self.columns = kind.__struct_fields__
        self.key_columns = self.columns[: kind.KEY]
        types = {field.name: field.type for field in msgspec.structs.fields(kind)}
        self._json = [(i, types[c]) for i, c in enumerate(self.columns) if types[c] not in _SQL_TYPES]
        self._bools = [i for i, c in enumerate(self.columns) if types[c] is bool]
        self._plain = not self._json and not self._bools
        self._mark = mark
        self.types: tuple[type, ...] = tuple(types[c] if types[c] in _SQL_TYPES else str for c in self.columns)
        self.quoted = f'"{self.name}"'
        where = " AND ".join(f"{column} = {mark}" for column in self.key_columns)
        self.select_one = f"SELECT {', '.join(self.columns)} FROM {self.quoted} WHERE {where}"

    def encode(self, row: Kept) -> list[Any]:
        """Return the row's values in the order of the columns."""
        values = [getattr(row, column) for column in self.columns]
        for i, _ in self._json:
            values[i] = msgspec.json.encode(values[i]).decode()
        return values

    def decode(self, values: Sequence[Any]) -> Kept:
        """Return the kept row of a row of SQL, in which a bool may have become an int."""
        if self._plain:
            return self.kind(*values)
        fields = list(values)
        for i, type_ in self._json:
            fields[i] = msgspec.json.decode(fields[i], type=type_)
        for i in self._bools:
            fields[i] = bool(fields[i])
        return self.kind(*fields)

    def select_where(self, names: Sequence[str], *, newest_first: bool) -> str:
        """Return the query for rows whose columns equal given values, in key order, with a limit."""
        where = " AND ".join(f"{name} = {self._mark}" for name in names if name in self.columns)
        direction = "DESC" if newest_first else "ASC"
        order = ", ".join(f"{column} {direction}" for column in self.key_columns)
        condition = f" WHERE {where}" if where else ""
        return f"SELECT {', '.join(self.columns)} FROM {self.quoted}{condition} ORDER BY {order} LIMIT {self._mark}"
