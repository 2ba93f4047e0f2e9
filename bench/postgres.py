"""PostgreSQL with Debian's defaults, in a folder and on a socket of its own, and pgbench against it."""

from __future__ import annotations

import os
import pwd
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlencode

from processes import BenchError, free_port, started, wait_until

_TPS = re.compile(r"^tps = ([0-9.]+)", re.MULTILINE)
_LATENCY = re.compile(r"^latency average = ([0-9.]+) ms", re.MULTILINE)
SCALE = 10


class Cluster(NamedTuple):
    """A running cluster: the folder of its socket, the port that names the socket, and its first process."""

    programs: Path
    folder: Path
    port: int
    pid: int

    def dsn(self, database: str) -> str:
        """Return how libpq finds a database."""
        return f"host={self.folder} port={self.port} user=postgres dbname={database}"

    def url(self, database: str) -> str:
        """Return how a server finds a database by its setting `store`."""
        return f"postgresql://postgres@/{database}?{urlencode({'host': self.folder, 'port': self.port})}"

    def run(self, program: str, *arguments: str, database: str = "postgres", text: str = "") -> str:
        """Run a client program and return its output."""
        environ = {"PGHOST": str(self.folder), "PGPORT": str(self.port), "PGUSER": "postgres", "PGDATABASE": database}
        return _run([str(self.programs / program), *arguments], environ, text)


@contextmanager
def running(folder: Path) -> Iterator[Cluster]:
    """Make a cluster in a new folder and run it until the end of the block, as an ordinary user when we are root."""
    binaries, port, log = programs(), free_port(), folder / "postgres.log"
    folder.mkdir(mode=0o755)
    if user := _user():
        os.chown(folder, user.pw_uid, user.pw_gid)
    data = str(folder / "data")
    initialise = ["--auth", "trust", "--username", "postgres", "--encoding", "UTF8", "--no-locale", "--no-instructions"]
    _ = _run([*_as_ordinary_user(), str(binaries / "initdb"), *initialise, "--pgdata", data])
    serve = ["-D", data, "-p", str(port), "-k", str(folder), "-c", "listen_addresses="]
    # SIGINT is its fast shutdown; SIGTERM would wait for clients to go.
    with started([*_as_ordinary_user(), str(binaries / "postgres"), *serve], log, stop_with=signal.SIGINT) as process:
        cluster = Cluster(binaries, folder, port, process.pid)
        _ = wait_until(_answers(cluster), process, log)
        yield cluster


def pgbench(cluster: Cluster, clients: int, seconds: float) -> tuple[float, float]:
    """Return TPC-B transactions a second, and their average latency in ms, without any pinning."""
    _ = cluster.run("psql", "--quiet", "--command", "CHECKPOINT")
    told = cluster.run("pgbench", "-c", str(clients), "-j", "2", "-T", str(max(1, round(seconds))))
    rate, latency = _TPS.search(told), _LATENCY.search(told)
    if rate is None or latency is None:
        raise BenchError(f"pgbench said: {told}")
    return float(rate[1]), float(latency[1])


def fill_pgbench(cluster: Cluster) -> None:
    """Make pgbench's tables."""
    _ = cluster.run("pgbench", "--initialize", "--quiet", "--scale", str(SCALE))


def _answers(cluster: Cluster) -> Iterator[bool]:
    while True:
        try:
            yield bool(cluster.run("psql", "--quiet", "--command", "SELECT 1"))
        except BenchError:
            yield False


def programs() -> Path:
    """Return the folder of the newest PostgreSQL's programs. Raises `BenchError` where there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[4]))
    if not found:
        raise BenchError("PostgreSQL is missing: run scripts/setup-bench.sh as root, or install it")
    return found[-1].parent


def _user() -> pwd.struct_passwd | None:
    """Return whom PostgreSQL runs as when we are root, which it refuses to be."""
    return pwd.getpwnam("postgres") if os.getuid() == 0 else None


def _as_ordinary_user() -> list[str]:
    return ["setpriv", "--reuid", "postgres", "--regid", "postgres", "--init-groups"] if _user() else []


def _run(command: list[str], environ: dict[str, str] | None = None, text: str = "") -> str:
    whole = {**os.environ, **(environ or {})}
    done = subprocess.run(command, check=False, input=text, capture_output=True, text=True, env=whole, cwd="/")
    if done.returncode:
        raise BenchError(f"{' '.join(command)} failed: {done.stderr[-2000:]}")
    return done.stdout
