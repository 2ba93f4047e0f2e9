"""What the modules of the v3 dialect share: the versions it is served under."""

from __future__ import annotations

from typing import Final

VERSIONS: Final = ("v3.2", "v3.3")


def paths(tail: str, *more: str) -> tuple[str, ...]:
    """Return the signed paths of an operation in every version; `more` names further versions."""
    return tuple(f"/api/{version}/{tail}" for version in (*VERSIONS, *more))
