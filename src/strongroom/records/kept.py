"""What every kept row has in common: a frozen struct whose leading fields are its primary key.

A row whose other fields are all at their defaults means "absent": reading a key that was never written gives it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from operator import attrgetter
from typing import Any, ClassVar, Self, TypeAlias

import msgspec

Key: TypeAlias = tuple[Any, ...]
"""A row's address: its kind, then the values of its key fields."""


class Kept(msgspec.Struct, frozen=True, gc=False):
    """A row that the store keeps.

    `KEY` counts the leading fields that make the primary key. `SEALED` rows stand in the journal beside the command
    that wrote them; the others hold names, secrets or memories that must be erasable. `TRAILING` rows are not written
    with the commit but swept behind it: the store can work them out from the appended postings and lines.
    """

    KEY: ClassVar[int] = 1
    SEALED: ClassVar[bool] = True
    TRAILING: ClassVar[bool] = False

    @classmethod
    def at(cls, *key: int | str | bytes) -> Key:
        """Return the address of the row of this kind with these key values."""
        return (cls, *key)

    @classmethod
    def absent(cls, key: Key) -> Self:
        """Return the row that stands for "absent" at an address."""
        return cls(*key[1:])

    def key(self) -> Key:
        """Return this row's address."""
        return _key_reader(type(self))(self)


@cache
def _key_reader(kind: type[Kept]) -> Callable[[Kept], Key]:
    """Return what reads a kind's address off a row: addresses are asked for many times in every command."""
    read = attrgetter(*kind.__struct_fields__[: kind.KEY])
    return (lambda row: (kind, read(row))) if kind.KEY == 1 else (lambda row: (kind, *read(row)))
