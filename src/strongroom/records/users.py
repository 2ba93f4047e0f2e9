"""Users: who owns accounts. Names and mails stand in rows of their own, so that they can be erased."""

from __future__ import annotations

from typing import ClassVar

from strongroom.records.kept import Kept


class User(Kept, frozen=True, gc=False):
    """A customer, or with `parent` a sub-account; `frozen` ones may receive but not spend, inactive ones neither."""

    uid: int
    parent: int = 0
    created_ms: int = 0
    frozen: bool = False
    active: bool = False


class Profile(Kept, frozen=True, gc=False):
    """A user's names, as they were given."""

    SEALED: ClassVar[bool] = False

    uid: int
    username: str = ""
    mail: str = ""


class Name(Kept, frozen=True, gc=False):
    """The index from a folded username or mail (they share no text: a mail has an @) to its user."""

    SEALED: ClassVar[bool] = False

    folded: str
    uid: int = 0


def fold(name: str) -> str:
    """Return the form in which names and mails are compared: without case and outer spaces."""
    return name.strip().casefold()
