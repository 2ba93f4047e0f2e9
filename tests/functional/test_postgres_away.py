"""A server whose database is away: what it still answers, and that it is soon itself again."""

from __future__ import annotations

from pathlib import Path

from strongroom.clock import Clock, Ids
from strongroom.custody.signer import seal_seed
from strongroom.treasury import SEED_FILE
from support.evm import SEED
from support.fault_proxy import Mode
from support.nodes import wait_until
from support.postgres import database_of, shared_server
from support.proxied import proxied
from support.server import MASTER_KEY, Served, served, settings


async def is_ready(house: Served) -> bool:
    """Say whether `/readyz` is green."""
    return (await house.client.get("/readyz")).status_code == 200


async def test_health_and_metrics_are_answered_while_the_database_is_away(tmp_path: Path) -> None:
    """`/readyz` is red with a reason, `/metrics` lacks what is read from the books, `/healthz` is as ever."""
    names = dict(part.split("=", 1) for part in database_of(tmp_path).split())
    with proxied(shared_server().port) as line:
        config = settings(tmp_path, store=f"postgresql://postgres@127.0.0.1:{line.port}/{names['dbname']}")
        config.folder.mkdir(parents=True)
        (config.folder / SEED_FILE).write_bytes(seal_seed(SEED, MASTER_KEY, Ids(Clock())))
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
