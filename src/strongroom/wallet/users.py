"""Users and sub-accounts: opening them, finding them by name, mail or id, freezing them."""

from __future__ import annotations

import re
from typing import ClassVar, Final

import msgspec

from strongroom.engine.command import Command, Decision, Guard, Stale, View
from strongroom.engine.port import Reads
from strongroom.errors import PARAMETER_INVALID, RECEIVER_NOT_FOUND
from strongroom.records.kept import Key
from strongroom.records.users import Name, Profile, User, fold
from strongroom.wallet.context import Context

_USERNAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,63}", re.ASCII)
_MAIL: Final = re.compile(r"[^@\s\x00-\x1f]{1,64}@[^@\s\x00-\x1f]{1,189}")


class UserOpened(msgspec.Struct, frozen=True):
    """The new user's id."""

    uid: int


class OpenUser(Command, frozen=True):
    """Open a user, or with `parent` a sub-account."""

    PRIVATE: ClassVar[frozenset[str]] = frozenset({"username", "mail"})

    uid: int
    username: str
    mail: str
    parent: int = 0

    def needs(self) -> list[Key]:
        """The user's rows, the names' index, and the parent."""
        names = [Name.at(fold(self.username)), Name.at(fold(self.mail))]
        return [User.at(self.uid), Profile.at(self.uid), User.at(self.parent), *names]

    def decide(self, view: View, now_ms: int) -> Decision:
        """Keep the user unless a name is taken or the parent cannot have sub-accounts."""
        if view.get(User, self.uid).created_ms:
            raise Stale
        for what, name in (("username", self.username), ("mail", self.mail)):
            if view.get(Name, fold(name)).uid:
                raise PARAMETER_INVALID(f"{what} is taken")
        parent = view.get(User, self.parent)
        if self.parent and (not parent.active or parent.parent):
            raise PARAMETER_INVALID("parent is not an active user of its own")
        names = [Name(fold(self.username), self.uid), Name(fold(self.mail), self.uid)]
        user = User(self.uid, self.parent, now_ms, active=True)
        return Decision(rows=[user, Profile(self.uid, self.username, self.mail), *names], result=UserOpened(self.uid))


class MarkUser(Command, frozen=True):
    """Freeze or unfreeze a user, or make it inactive or active."""

    uid: int
    frozen: bool
    active: bool

    def needs(self) -> list[Key]:
        """The user."""
        return [User.at(self.uid)]

    def decide(self, view: View, now_ms: int) -> Decision:
        """Keep the marks of a user that exists."""
        user = view.get(User, self.uid)
        if not user.created_ms:
            raise PARAMETER_INVALID("user is unknown")
        return Decision(rows=[msgspec.structs.replace(user, frozen=self.frozen, active=self.active)])


def prepare_user(context: Context, guard: Guard, username: str, mail: str, parent: int = 0) -> OpenUser:
    """Return the command that opens a user. Raises `Refused` PARAMETER_INVALID for an unusable name or mail."""
    if not _USERNAME.fullmatch(username):
        raise PARAMETER_INVALID("username must be 2 to 64 letters, digits, dots, dashes or underscores")
    if not _MAIL.fullmatch(mail):
        raise PARAMETER_INVALID("mail is not a mail address")
    return OpenUser(guard, context.ids.uid(), username, mail, parent)


def find_user(reads: Reads, name: str) -> User:
    """Return the user of a username, mail or uid; the absent one if there is none."""
    uid = reads.row(Name, fold(name)).uid
    if not uid and name.isascii() and name.isdigit() and len(name) <= 12:
        uid = int(name)
    return reads.row(User, uid)


def find_receiver(reads: Reads, username: str | None, *, mail: str | None = None, uid: str | None = None) -> User:
    """Return the one active user that all given names agree on. Raises `Refused` RECEIVER_NOT_FOUND, the same for all.

    At least one of them must be given.
    """
    found: set[int] = set()
    for name, is_mail in ((username, False), (mail, True)):
        if name is not None:
            folded = fold(name)
            # Only mails have an @: so what was given as a username is one, and what was given as a mail.
            found.add(reads.row(Name, folded).uid if ("@" in folded) is is_mail else 0)
    if uid is not None:
        found.add(int(uid) if uid.isascii() and uid.isdigit() and len(uid) <= 12 else 0)
    if len(found) != 1:
        raise RECEIVER_NOT_FOUND()
    user = reads.row(User, found.pop())
    if not user.active:
        raise RECEIVER_NOT_FOUND()
    return user


def subaccounts_of(reads: Reads, uid: int, limit: int = 1000) -> list[User]:
    """Return a user's sub-accounts, at most `limit`."""
    return reads.rows(User, {"parent": uid}, limit) if uid else []
