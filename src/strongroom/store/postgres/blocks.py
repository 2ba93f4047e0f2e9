"""Blocks among nodes: a row for each, written and read several times a second over a connection of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final

import psycopg

from strongroom.engine.blocks import Block
from strongroom.store.postgres.arrays import columns
from strongroom.store.postgres.connection import Connection, Limits, connect

EVERY_S: Final = 0.25
MOST_WAITING: Final = 1_000
"""So many blocks wait to be told, of one name the newest; what is beyond that is this node's alone."""

_MOST_HEARD: Final = 1_000
_OVERLAP_MS: Final = 2_000
"""What was written so long before the newest that was heard is read again: it may have been committed after it."""

_FORGOTTEN_AT_ONCE: Final = 1_000
_LIMITS: Final = Limits(connect_s=2, answer_s=1.0)
_NOW_MS: Final = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"
_TELL: Final = (
    f"INSERT INTO block (name, until_ms, rung, fresh_ms, told_ms) SELECT told.*, {_NOW_MS} FROM"
    " unnest(%s::text[], %s::bigint[], %s::bigint[], %s::bigint[]) AS told ON CONFLICT (name) DO UPDATE SET"
    " until_ms = EXCLUDED.until_ms, rung = EXCLUDED.rung, fresh_ms = EXCLUDED.fresh_ms, told_ms = EXCLUDED.told_ms"
    " WHERE block.until_ms < EXCLUDED.until_ms"
)
_HEAR: Final = "SELECT name, until_ms, rung, fresh_ms, told_ms FROM block WHERE told_ms > %s ORDER BY told_ms LIMIT %s"
_FORGET: Final = (
    f"DELETE FROM block WHERE ctid = ANY (ARRAY(SELECT ctid FROM block WHERE fresh_ms < {_NOW_MS} LIMIT %s))"
)


class PostgresBlocks:
    """The blocks of one node over a database (`engine.blocks.Blocks`).

    While the database does not answer, each node has its own; what it could not tell is told afterwards.
    """

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo
        self._thread = ThreadPoolExecutor(1, "strongroom-blocks")
        self._session: Connection | None = None
        self._waiting: dict[str, Block] = {}
        self._heard_ms = 0

    def tell(self, block: Block) -> None:
        """Have other nodes told within `EVERY_S`, and about as long again until they have heard."""
        if len(self._waiting) < MOST_WAITING or block.name in self._waiting:
            self._waiting[block.name] = block

    async def run(self, hear: Callable[[Block], None]) -> None:
        """Tell and hear until cancelled; first of all that holds already."""
        running = asyncio.get_running_loop()
        while True:
            telling, self._waiting = self._waiting, {}
            heard = await running.run_in_executor(self._thread, self._exchange, list(telling.values()))
            if heard is None:
                self._waiting = telling | self._waiting
            for block in heard or ():
                hear(block)
            await asyncio.sleep(EVERY_S)

    def close(self) -> None:
        """Close the connection."""
        self._thread.shutdown()
        self._drop()

    def _exchange(self, telling: list[Block]) -> list[Block] | None:
        """Write blocks and return those that were written lately; None while the database does not answer."""
        try:
            if self._session is None or self._session.is_lost:
                self._drop()
                self._session = connect(self._conninfo, _LIMITS)
            with self._session.within(_LIMITS.answer_s):
                if telling:
                    rows = [(it.name, it.until_ms, it.rung, it.fresh_ms) for it in telling]
                    self._session.run(_TELL, columns((str, int, int, int), rows))
                    self._session.run(_FORGET, (_FORGOTTEN_AT_ONCE,))
                found = self._session.run(_HEAR, (self._heard_ms - _OVERLAP_MS, _MOST_HEARD)).fetchall()
        except psycopg.Error:
            self._drop()
            return None
        self._heard_ms = max([self._heard_ms, *(told_ms for *_, told_ms in found)])
        return [Block(name, until_ms, rung, fresh_ms) for name, until_ms, rung, fresh_ms, _ in found]

    def _drop(self) -> None:
        if self._session is not None:
            with suppress(psycopg.Error):
                self._session.close()
            self._session = None
