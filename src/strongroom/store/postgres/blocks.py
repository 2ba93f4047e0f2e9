"""Blocks among nodes: a row for each, written and read several times a second over a connection of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from strongroom.engine.blocks import Block
from strongroom.store.postgres.arrays import columns, place_of
from strongroom.store.postgres.connection import Connection, connect
from strongroom.store.postgres.pipeline import run_together
from strongroom.store.postgres.session import Session, limits_of

EVERY_S: Final = 0.25
MOST_WAITING: Final = 1_000
"""So many blocks wait to be told, of one name the newest; what is beyond that is this node's alone."""

_MOST_HEARD: Final = 1_000
_OVERLAP_MS: Final = 2_000
"""What was written so long before the newest that was heard is read again: it may have been committed after it."""

_FORGOTTEN_AT_ONCE: Final = 1_000
_LIMITS: Final = limits_of(1.0)
_TYPES: Final = (str, int, int, int)
_NOW_MS: Final = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"
_TELL: Final = (
    f"INSERT INTO block (name, until_ms, rung, fresh_ms, told_ms) SELECT told.*, {_NOW_MS} FROM"
    f" unnest({', '.join(map(place_of, _TYPES))}) AS told ON CONFLICT (name) DO UPDATE SET"
    " until_ms = EXCLUDED.until_ms, rung = EXCLUDED.rung, fresh_ms = EXCLUDED.fresh_ms, told_ms = EXCLUDED.told_ms"
    " WHERE block.until_ms < EXCLUDED.until_ms"
)
_HEAR: Final = (
    "SELECT name, until_ms, rung, fresh_ms, told_ms FROM block WHERE (told_ms, name) > (%s, %s)"
    " ORDER BY told_ms, name LIMIT %s"
)
_FORGET: Final = (
    f"DELETE FROM block WHERE ctid = ANY (ARRAY(SELECT ctid FROM block WHERE fresh_ms < {_NOW_MS} LIMIT %s))"
)


class PostgresBlocks:
    """The blocks of one node over a database (`engine.blocks.Blocks`).

    While the database does not answer, each node has its own; what it could not tell is told afterwards.
    """

    def __init__(self, conninfo: str) -> None:
        self._session = Session("blocks", lambda: connect(conninfo, _LIMITS), _LIMITS.answer_s)
        self._waiting: dict[str, Block] = {}
        self._behind: tuple[int, str] = (0, "")
        """What is heard next stands behind this moment and name."""

    def tell(self, block: Block) -> None:
        """Have other nodes told within `EVERY_S`, and about as long again until they have heard."""
        if len(self._waiting) < MOST_WAITING or block.name in self._waiting:
            self._waiting[block.name] = block

    async def run(self, hear: Callable[[Block], None]) -> None:
        """Tell and hear until cancelled; first of all that holds already."""
        while True:
            telling, self._waiting = self._waiting, {}
            rows = [(it.name, it.until_ms, it.rung, it.fresh_ms) for it in telling.values()]
            heard = await self._session.ask(lambda connection, rows=rows: self._exchange(connection, rows))
            if heard is None:
                self._waiting = telling | self._waiting
            for block in heard or ():
                hear(block)
            await asyncio.sleep(EVERY_S)

    def close(self) -> None:
        """Close the connection."""
        self._session.close()

    def _exchange(self, connection: Connection, telling: list[tuple[str, int, int, int]]) -> list[Block]:
        """Write blocks, and return those that were written lately."""
        if telling:
            _ = run_together(connection, [(_TELL, columns(_TYPES, telling)), (_FORGET, (_FORGOTTEN_AT_ONCE,))])
        found = connection.run(_HEAR, (*self._behind, _MOST_HEARD)).fetchall()
        if found:
            name, *_, told_ms = found[-1]
            # Where there is more it comes next; what was committed late is looked for once all was heard.
            self._behind = (told_ms, name) if len(found) == _MOST_HEARD else (told_ms - _OVERLAP_MS, "")
        return [Block(name, until_ms, rung, fresh_ms) for name, until_ms, rung, fresh_ms, _ in found]
