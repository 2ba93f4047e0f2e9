"""Tables: how each kind of kept row becomes a row of SQL and back, in the words that all dialects share.

A dialect gives the mark that stands for a value, and what only it can say in a module of its own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import chain, product
from typing import Any, Final

import msgspec

from strongroom.engine.port import Equal
from strongroom.errors import check
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
        self._selects: dict[tuple[tuple[str, ...], int, bool], str] = {}
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

    def select_where(self, equal: Equal, limit: int | None, *, newest_first: bool = False) -> tuple[str, list[Any]]:
        """Return the query for at most so many rows whose columns equal given values, in key order, and its values.

        Each of several values is looked for by itself and in order, as the indices have them: nothing is sorted but
        what is found.
        """
        known = {name: value for name, value in equal.items() if name in self.columns}
        choices = list(product(*(value if isinstance(value, tuple) else (value,) for value in known.values())))
        check(bool(choices), "one value at least is looked for")
        shape = (tuple(known), len(choices), newest_first)
        sql = self._selects.get(shape)
        if sql is None:
            sql = self._selects[shape] = self._select(*shape)
        if len(choices) == 1:
            return sql, [*choices[0], limit]
        return sql, [*chain.from_iterable((*choice, limit) for choice in choices), limit]

    def _select(self, names: Sequence[str], choices: int, newest_first: bool) -> str:
        where = " AND ".join(f"{name} = {self._mark}" for name in names)
        direction = "DESC" if newest_first else "ASC"
        order = f"ORDER BY {', '.join(f'{column} {direction}' for column in self.key_columns)} LIMIT {self._mark}"
        condition = f" WHERE {where}" if where else ""
        one = f"SELECT {', '.join(self.columns)} FROM {self.quoted}{condition} {order}"
        if choices == 1:
            return one
        parts = " UNION ALL ".join(f"SELECT * FROM ({one}) AS part{number}" for number in range(choices))
        return f"{parts} {order}"
