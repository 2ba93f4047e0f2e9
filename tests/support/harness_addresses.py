"""Which deposit addresses must be listed after a crash, worked out from what was asked and answered alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final, TypeAlias

from support.harness_model import GIVE_UP, MAKE, Deed

MOST_LISTED: Final = 10
"""So many of a user's addresses are listed; the customers stay below it, so that what is not listed is not there."""

Listed: TypeAlias = Mapping[tuple[str, str], list[str]]
"""The addresses, each with its tag, that a user has for an asset."""


def spelled(address: str, tag: str | None) -> str:
    """Return an address and its tag as one text."""
    return f"{address}:{tag or ''}"


def given(deed: Deed) -> str:
    """Return the address that a deed's answer told."""
    assert deed.done is not None
    data = deed.done.json()["data"]
    return spelled(data["address"], data["addressExtension"])


def check_addresses(opening: Listed, deeds: Iterable[Deed], closing: Listed) -> list[Deed]:
    """Return the deeds of which it is known that they happened; raise `AssertionError` for whatever must not be."""
    everybodys = Counter(address for listed in closing.values() for address in listed)
    assert everybodys.total() == len(everybodys), "one address is given to two"
    asked = [deed for deed in deeds if not deed.moves_money]
    told = [given(deed) for deed in asked if deed.kind == MAKE and deed.done]
    assert len(set(told)) == len(told), "one address is given for two requests"
    happened: list[Deed] = []
    for owner, listed in closing.items():
        theirs = [deed for deed in asked if (deed.user, deed.asset) == owner]
        happened += _check_book(set(opening[owner]), theirs, set(listed))
    return happened


def _check_book(before: set[str], deeds: list[Deed], after: set[str]) -> list[Deed]:
    """Check what one user has for one asset."""
    assert len(after) < MOST_LISTED, "all that there is is listed"
    made = [deed for deed in deeds if deed.kind == MAKE]
    given_up = [deed for deed in deeds if deed.kind == GIVE_UP]
    told = {given(deed): deed for deed in made if deed.done}
    unknown = [deed for deed in made if deed.unanswered and not deed.done]
    extra = after - before - set(told)
    assert len(extra) <= len(unknown), f"addresses that nobody asked for: {extra}"
    gone = {deed.address for deed in given_up if deed.address not in after}
    for deed in given_up:
        assert not (deed.done and deed.address in after), f"answered and lost: {deed}"
        assert not (deed.refused and deed.address in gone), f"refused and done: {deed}"
    lost = (before | set(told)) - after - gone
    assert not lost, f"answered and lost: {lost}"
    _check_repeats(deeds)
    # Where some of the unanswered came through and some did not, only the next answer tells which.
    clear = unknown if len(extra) == len(unknown) else []
    return [*told.values(), *clear, *(deed for deed in given_up if deed.address in gone)]


def _check_repeats(deeds: Iterable[Deed]) -> None:
    """Whoever asks again with the same key is answered the same."""
    for deed in deeds:
        bodies = {answer.body for answer in deed.answers if answer.status == 200}
        assert len(bodies) <= 1, f"two answers: {deed}"
