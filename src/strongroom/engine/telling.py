"""Telling subscribers of a commit."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from strongroom.engine.port import StoreError
from strongroom.engine.state import State
from strongroom.errors import InvariantBroken


def tell(listeners: Iterable[Callable[[State], None]], state: State) -> None:
    """Call each listener with what is durable by now.

    A listener reads no books: where they fail it, it would seem that nothing was kept, and whoever waits for the commit
    would be told so. Raises `InvariantBroken` instead.
    """
    for listener in listeners:
        try:
            listener(state)
        except StoreError as error:
            raise InvariantBroken(f"a subscriber has read the books: {error}") from error
