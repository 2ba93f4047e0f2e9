"""States by the names that an operator gives them."""

from __future__ import annotations

from enum import IntEnum
from typing import Final, TypeVar

from strongroom.admin.protocol import AdminError

State = TypeVar("State", bound=IntEnum)

_ALL: Final = "all"
_OPEN: Final = "open"


def states_named(name: str, kind: type[State], open_ones: tuple[State, ...]) -> tuple[State, ...]:
    """Return the state of that name; `open` stands for `open_ones`, `all` for every one. Raises `AdminError`."""
    if name == _ALL:
        return tuple(kind)
    if name == _OPEN:
        return open_ones
    if name.upper() in kind.__members__:
        return (kind[name.upper()],)
    known = ", ".join(state.name.lower() for state in kind)
    raise AdminError(f"there is no state {name}: the states are {known}, open and all")
