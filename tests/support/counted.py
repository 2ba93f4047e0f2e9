"""A store on PostgreSQL that counts the questions it asks: each is a round trip for whoever waits for the answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from strongroom.store.postgres.connection import Connection
from strongroom.store.postgres.store import PostgresStore

Answer = TypeVar("Answer")


class Counted(PostgresStore):
    """`questions` are those that were asked so far."""

    questions = 0

    def _asked(self, question: Callable[[Connection], Answer]) -> Answer:
        self.questions += 1
        return super()._asked(question)
