"""Listeners: who is told of commits, those of this node and those that were heard of, in the event loop."""

from __future__ import annotations

from collections.abc import Callable

from strongroom.crashpoints import reach
from strongroom.engine.state import State
from strongroom.engine.telling import tell
from strongroom.store.postgres.announcements import News
from strongroom.store.postgres.copies import Copies
from strongroom.store.postgres.fetched import Fetched
from strongroom.store.postgres.remembered import Remembered


class Listeners:
    """Those who subscribed, and before them what is remembered here: it forgets what has changed."""

    def __init__(self, remembered: Remembered, copies: Copies) -> None:
        self._remembered = remembered
        self._copies = copies
        self._listeners: list[Callable[[State], None]] = []

    def subscribe(self, listener: Callable[[State], None]) -> None:
        """Call the listener with the state of each commit."""
        self._listeners.append(listener)

    def tell(self, state: State) -> None:
        """Tell of a commit of this node."""
        self._tell(state)
        reach("batch folded")

    def tell_news(self, news: News) -> None:
        """Tell of commits that were heard of, as a state of nothing but the rows they changed."""
        self._copies.hear(news.commits, news.heard.number)
        if news.rows:
            state = State(Fetched(), 0, 0)
            state.rows = news.rows
            self._tell(state)

    def _tell(self, state: State) -> None:
        self._remembered.forget(state.rows)
        tell(self._listeners, state)
