"""The peer under load: FastAPI and psycopg on PostgreSQL, doing the same transfers of the same customers."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from load import Result, check_answer, run
from postgres import Cluster
from processes import BenchError, cores, free_port, pin, started, wait_until
from signing import Signer, transfers, write
from world import FUNDS, World

HERE = Path(__file__).parent
_UVICORN = HERE.parent / ".venv-bench" / "bin" / "uvicorn"
DATABASE = "baseline"
_CONNECTIONS = 16
_WARM_UP_S = 2.0


def uvicorn() -> Path:
    """Return the server's program in the peer's own environment. Raises `BenchError` where it is missing."""
    if not _UVICORN.exists():
        raise BenchError(f"{_UVICORN} is missing: run scripts/setup-bench.sh")
    return _UVICORN


def fill(cluster: Cluster, world: World) -> None:
    """Make the peer's tables, with the world's customers, keys and funds."""
    _ = cluster.run("createdb", DATABASE)
    _ = cluster.run("psql", "--quiet", database=DATABASE, text=(HERE / "baseline" / "schema.sql").read_text())
    tables = {
        "users": ((c.uid, c.username, c.mail) for c in world.customers),
        "api_keys": ((c.key, c.secret, c.uid) for c in world.customers),
        "balances": ((c.uid, asset, FUNDS) for c in world.customers for asset in world.assets),
    }
    for name, rows in tables.items():
        text = "\n".join("\t".join(map(str, row)) for row in rows)
        _ = cluster.run("psql", "--quiet", "--command", f"COPY {name} FROM STDIN", database=DATABASE, text=text)
    _ = cluster.run("psql", "--quiet", "--command", "VACUUM ANALYZE", database=DATABASE)


def measure(cluster: Cluster, world: World, connections: int, seconds: float, on: Sequence[int]) -> Result:
    """Return what the peer measured with its server and its database on the given cores, a worker for each."""
    signer, requests = Signer(), world.folder / "requests"
    _ = cluster.run("psql", "--quiet", "--command", "CHECKPOINT")
    pin(cluster.pid, on)
    with _serving(cluster, on) as (port, pid):
        make, pids = transfers(world, signer), (pid, cluster.pid)
        _ = check_answer(port, write(requests, make, signer, 20_000))
        warmed = run(port, connections, _WARM_UP_S, requests, pids)
        _ = check_answer(port, write(requests, make, signer, round(warmed.per_second * seconds * 2) + 5_000))
        return run(port, connections, seconds, requests, pids)


@contextmanager
def _serving(cluster: Cluster, on: Sequence[int]) -> Iterator[tuple[int, int]]:
    port, log = free_port(), cluster.folder / "uvicorn.log"
    command = [str(uvicorn()), "app:app", "--app-dir", str(HERE / "baseline"), "--port", str(port)]
    command += ["--workers", str(len(on)), "--loop", "uvloop", "--http", "httptools", "--no-access-log"]
    environ = {"BASELINE_DSN": cluster.dsn(DATABASE), "BASELINE_CONNECTIONS": str(_CONNECTIONS // len(on))}
    with started(command, log, on, environ) as process:
        _ = wait_until(_listens(port, log, len(on)), process, log)
        yield port, process.pid


def _listens(port: int, log: Path, workers: int) -> Iterator[bool]:
    """Yield whether every worker has said that it is ready, and the port is open."""
    while True:
        if log.read_text().count("Application startup complete") < workers:
            yield False
            continue
        with socket.socket() as probe:
            yield probe.connect_ex(("127.0.0.1", port)) == 0


def placements() -> dict[str, tuple[int, ...]]:
    """Return where the peer may run: beside nothing on the server's core, or on both beside the load."""
    return {"on the server's core": cores()[:1], "on both cores": cores()}
