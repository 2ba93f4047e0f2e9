"""What every kept row has in common: a frozen struct whose leading fields are its primary key.

A row whose other fields are all at their defaults means "absent": reading a key that was never written gives it.
"""

from __future__ import annotations

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
        kind = type(self)
        return (kind, *[getattr(self, name) for name in kind.__struct_fields__[: kind.KEY]])
