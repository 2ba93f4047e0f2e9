"""Commands: what somebody wants done, with all that was computed for it, and the pure decision whether it is done."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar, Protocol, TypeVar

import msgspec

from strongroom.ledger.entries import Posting
from strongroom.records.history import Entry
from strongroom.records.kept import Kept, Key

Row = TypeVar("Row", bound=Kept)


class Guard(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Who asked, and what keeps the request from being carried out twice.

    `api_key` is the key's number and `signature` its raw bytes, both empty for a door without signatures (the operator,
    the chain watcher). `expires_ms` is when the nonce's window closes: until then the signature is remembered.
    `digest` is the SHA-256 of the Idempotency-Key, `fingerprint` that of the request.
    """

    owner: int = 0
    api_key: int = 0
    signature: bytes = b""
    expires_ms: int = 0
    digest: bytes = b""
    fingerprint: bytes = b""


NOBODY = Guard()


class Decision(msgspec.Struct, frozen=True, gc=False):
    """The effects of a command: postings that sum to zero, rows to keep, history lines, and the result to answer."""

    postings: Sequence[Posting] = ()
    rows: Sequence[Kept] = ()
    lines: Sequence[Entry] = ()
    result: msgspec.Struct | None = None


class Stale(Exception):
    """What the preparation assumed has changed meanwhile: nothing was done, the use case prepares again."""


class View(Protocol):
    """What a decision may read: the committed rows, with what earlier commands of the batch changed."""

    def get(self, kind: type[Row], *key: int | str | bytes) -> Row:
        """Return the row, or the absent one; raises `InvariantBroken` if the command did not declare the need."""
        ...


class Command(msgspec.Struct, frozen=True, tag=True, tag_field="command"):
    """One thing to be done or refused as a whole.

    By itself it changes nothing; each kind of command says what it needs and decides. `JOURNALED` is false for a
    command that only remembers something. `PRIVATE` names the fields (names, mails,
    secrets) that the journal must not hold.
    """

    JOURNALED: ClassVar[bool] = True
    PRIVATE: ClassVar[frozenset[str]] = frozenset()

    guard: Guard

    def needs(self) -> Iterable[Key]:
        """Return the address of each row that `decide` may read or change, accounts' heads and threads included."""
        return ()

    def decide(self, view: View, now_ms: int) -> Decision:
        """Return the effects, or raise `Refused` or `Stale`; pure, and rechecks what the preparation assumed."""
        return Decision()
