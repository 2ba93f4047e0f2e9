"""A server whose database is away: what it still answers, and that it is soon itself again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from strongroom import crashpoints
from strongroom.clock import Clock, Ids
from strongroom.config.settings import Config
from strongroom.custody.signer import seal_seed
from strongroom.store.postgres.following import CURRENT_S
from strongroom.treasury import SEED_FILE
from support.evm import SEED
from support.fault_proxy import Mode
from support.nodes import wait_until
from support.postgres import database_of, shared_server
from support.proxied import Line, proxied
from support.server import MASTER_KEY, TRANSFER, Served, join, served, settings, transfer_to


async def is_ready(house: Served) -> bool:
    """Say whether `/readyz` is green."""
    return (await house.client.get("/readyz")).status_code == 200


@contextmanager
def behind_a_line(folder: Path) -> Iterator[tuple[Config, Line]]:
    """Yield the settings of a server whose database is behind a line."""
    names = dict(part.split("=", 1) for part in database_of(folder).split())
    with proxied(shared_server().port) as line:
        config = settings(folder, store=f"postgresql://postgres@127.0.0.1:{line.port}/{names['dbname']}")
        config.folder.mkdir(parents=True)
        (config.folder / SEED_FILE).write_bytes(seal_seed(SEED, MASTER_KEY, Ids(Clock())))
        yield config, line


async def test_health_and_metrics_are_answered_while_the_database_is_away(tmp_path: Path) -> None:
    """`/readyz` is red with a reason, `/metrics` lacks what is read from the books, `/healthz` is as ever."""
    with behind_a_line(tmp_path) as (config, line):
        async with served(config) as house:
            assert await is_ready(house)
            line.turn(Mode.REFUSE)

            async def is_red() -> bool:
                return not await is_ready(house)

            await wait_until(is_red, "the server says that it is not ready")
            readiness = await house.client.get("/readyz")
            assert readiness.status_code == 503
            assert readiness.json()["details"]["writer"].startswith("Ledger")
            page = (await house.client.get("/metrics")).text
            assert "strongroom_ready 0.0" in page
            assert "strongroom_journal_items NaN" in page
            assert (await house.client.get("/healthz")).status_code == 200
            line.turn(Mode.PASS)

            async def is_green() -> bool:
                return await is_ready(house)

            await wait_until(is_green, "the server is ready again")
            assert "strongroom_ready 1.0" in (await house.client.get("/metrics")).text


async def test_what_was_done_is_answered_although_the_database_has_gone_since(tmp_path: Path) -> None:
    """Everything that the reply tells was known before the change was made."""
    with behind_a_line(tmp_path) as (config, line):
        async with served(config) as house:
            alice, bob = await join(house.application, "alice", 100_000_000), await join(house.application, "bob")

            def go(point: str) -> None:
                if point == "batch folded":
                    crashpoints.arm(None)
                    line.turn(Mode.REFUSE)
                    # Until what is remembered of the settings is too old to be used.
                    time.sleep(2 * CURRENT_S)

            crashpoints.arm(go)
            answer = await house.post(alice, TRANSFER, transfer_to(bob))
            line.turn(Mode.PASS)
            assert (answer.status_code, answer.json()["toUser"]) == (200, "bob")
