"""Our speed beside our peers' and the limit of the machine, in one run: the table of docs/performance.md.

    make bench                                        # the comparison; installs what it needs when root
    make bench BENCH="--aged DIR"                     # and the ageing rows, on a ledger that is made once in DIR
    .venv/bin/python bench/run.py --only ours         # our rows alone: needs wrk and nothing else

The server has one core, the load another. Machines are noisy: read ratios within one run, and CPU time per request.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import ageing
import nginx
import nodes
import ours
import peer
import postgres
import table
import world
from load import Result, need
from processes import BenchError, cores

PARTS = ("ours", "nginx", "pgbench", "baseline", "nodes", "ageing")
_FEWEST_USERS = 200
NGINX = "nginx, a constant"
PGBENCH = "pgbench TPC-B, {} clients"
BASELINE = "FastAPI + psycopg, transfers, {}"


def say(text: str) -> None:
    """Tell whoever waits what is going on; the table alone goes to standard output."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def measure_ours(house: world.World, options: argparse.Namespace) -> Iterator[tuple[str, Result]]:
    """Yield our rows."""
    with ours.serving(house) as server:
        say("ours: every customer once")
        server.see_everyone(options.connections)
        for name, make in ours.kinds(house).items():
            say(f"ours: {name}")
            yield f"Strongroom, {name}", server.measure(make, options.connections, options.seconds)


def measure_nginx(folder: Path, options: argparse.Namespace) -> Iterator[tuple[str, Result]]:
    """Yield the row of nginx."""
    say("nginx")
    yield NGINX, nginx.measure(folder / "nginx", options.connections, options.seconds)


def measure_postgres(folder: Path, house: world.World, options: argparse.Namespace) -> Iterator[tuple[str, Result]]:
    """Yield the rows of pgbench and of the baseline, each on a new cluster."""
    if "pgbench" in options.only:
        with postgres.running(folder / "pgbench") as cluster:
            postgres.fill_pgbench(cluster)
            for clients in (8, 32):
                say(f"pgbench, {clients} clients")
                rate, average_ms = postgres.pgbench(cluster, clients, options.seconds)
                yield PGBENCH.format(clients), Result(rate, average_ms, 0, 0, 0, 0)
    if "baseline" in options.only:
        with postgres.running(folder / "baseline") as cluster:
            peer.fill(cluster, house)
            for where, on in peer.placements().items():
                say(f"baseline {where}")
                found = peer.measure(cluster, house, options.connections, options.seconds, on)
                yield BASELINE.format(where), found


def measure_nodes(folder: Path, house: world.World, options: argparse.Namespace) -> Iterator[tuple[str, Result]]:
    """Yield the rows of one server and of several, where nothing but the load is bound to a core."""
    say("nodes: SQLite")
    yield nodes.SQLITE, nodes.embedded(house, options.connections, options.seconds)
    with postgres.running(folder / "nodes") as cluster:
        say("nodes: making the same customers in PostgreSQL")
        shared = nodes.make(folder / "shared", options.users, cluster)
        for count in nodes.COUNTS:
            say(f"nodes: PostgreSQL, {count}")
            yield nodes.POSTGRES.format(count), nodes.measure(shared, cluster, count, options)


def comparison(folder: Path, options: argparse.Namespace) -> dict[str, Result]:
    """Measure the parts that were asked for, in one run."""
    results: dict[str, Result] = {}
    if not set(options.only) & set(PARTS[:5]):
        return results
    say(f"making a house of {options.users:,} users")
    house = world.make(folder / "house", options.users)
    if "ours" in options.only:
        results.update(measure_ours(house, options))
    if "nginx" in options.only:
        results.update(measure_nginx(folder, options))
    results.update(measure_postgres(folder, house, options))
    if "nodes" in options.only:
        results.update(measure_nodes(folder, house, options))
    shutil.rmtree(house.folder)
    return results


def age(folder: Path, options: argparse.Namespace) -> ageing.Report:
    """Measure the ageing part."""
    kept = options.aged.absolute()
    return ageing.measure(kept, folder, options.entries, options.seconds, options.connections, say)


def aims(results: dict[str, Result]) -> list[table.Aim]:
    """Return the figures that the issue names, beside their aims."""

    def best(beginning: str) -> float | None:
        return max((r.per_second for name, r in results.items() if name.startswith(beginning)), default=None)

    def ratio(one: float | None, other: float | None) -> float | None:
        return None if one is None or other is None else one / other

    transfers = results.get("Strongroom, transfers")
    rate = transfers and transfers.per_second
    one, two = (results.get(nodes.POSTGRES.format(count)) for count in nodes.COUNTS)
    reads = ratio(best("Strongroom, balance reads"), best(NGINX))
    return [
        *table.at_least("durable signed transfers / pgbench TPC-B", ratio(rate, best("pgbench")), 8, "{:.2f}"),
        *table.at_least("durable signed transfers / FastAPI + PostgreSQL", ratio(rate, best("FastAPI")), 8, "{:.2f}"),
        *table.at_least("signed balance reads / nginx constant", reads, 0.3, "{:.3f}"),
        *table.at_least("the same, as the next step", reads, 0.4, "{:.3f}"),
        *table.at_least("signed transfers a second, one node on PostgreSQL", one and one.per_second, 5_000, "{:,.0f}"),
        *table.at_least("two nodes / one", one and two and two.per_second / one.per_second, 1, "{:.2f}"),
        *table.at_most("transfers' p99", transfers and transfers.p99_ms, 8, "{:.2f} ms"),
    ]


def machine(options: argparse.Namespace) -> str:
    """Return what was measured where."""
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    model = models[0].partition(":")[2].strip() if models else platform.machine()
    users = ageing.users_of(options.entries)
    aged = f"; aged ledger: {options.entries:,} transfers, {users:,} users" if "ageing" in options.only else ""
    revision = _told(["git", "-C", str(world.HERE), "describe", "--always", "--dirty"])
    return (
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, revision {revision}, Python {platform.python_version()}, "
        f"Linux {platform.release()}, {model}, {os.cpu_count()} cores, {file_system(options.work)}; "
        f"load average before {options.load_before:.1f}; {options.users:,} users x 10 assets, "
        f"{options.connections} connections, {options.seconds:g} s a row{aged}."
    )


def file_system(folder: str) -> str:
    """Return the kind of the file system that a folder is on, with a warning where nothing on it is durable."""
    kind = _told(["stat", "-f", "-c", "%T", folder])
    return f"{kind}, WHICH IS MEMORY: NOTHING HERE IS DURABLE" if kind in ("tmpfs", "ramfs") else kind


def _told(command: list[str]) -> str:
    """Return what a command says, nothing if it fails."""
    return subprocess.run(command, check=False, capture_output=True, text=True).stdout.strip()


@contextmanager
def work_folder(base: str) -> Iterator[Path]:
    """Give a new folder on the disk of `base`, and remove it at the end."""
    folder = Path(tempfile.mkdtemp(prefix="strongroom-bench-", dir=base))
    try:
        # PostgreSQL is another user and must get through.
        folder.chmod(0o711)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def check_programs(only: list[str]) -> None:
    """Raise `BenchError` if a program that the parts need is missing: better known now than after minutes."""
    _ = cores(), need("taskset")
    if set(only) != {"pgbench"}:
        _ = need("wrk")
    if "nginx" in only:
        _ = need("nginx")
    if {"pgbench", "baseline", "nodes"} & set(only):
        _ = postgres.programs(), need("setpriv")
    if "baseline" in only:
        _ = peer.uvicorn()


def read_options() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help=f"the parts to measure, of {','.join(PARTS)}; default: all, ageing with --aged")
    parser.add_argument("--seconds", type=float, default=10, help="how long each row is measured, 1 to 20 (10)")
    parser.add_argument("--users", type=int, default=10_000, help="customers, each with ten assets (10000)")
    parser.add_argument("--connections", type=int, default=64, help="connections of the load (64)")
    parser.add_argument("--aged", metavar="DIR", type=Path, help="where the ledgers of the ageing part are kept")
    parser.add_argument("--entries", type=int, default=10_000_000, help="transfers in the aged ledger (10000000)")
    parser.add_argument("--work", default="/var/tmp", help="where to work: a folder on the disk to measure (/var/tmp)")
    options = parser.parse_args()
    options.only = options.only.split(",") if options.only else list(PARTS if options.aged else PARTS[:5])
    if unknown := set(options.only) - set(PARTS):
        parser.error(f"there is no part {', '.join(unknown)}: choose of {', '.join(PARTS)}")
    if "ageing" in options.only and options.aged is None:
        parser.error("the ageing part needs --aged DIR")
    if options.users < _FEWEST_USERS:
        parser.error(f"--users is {_FEWEST_USERS} or more: each has a nonce a millisecond, and needs many a second")
    if not 1 <= options.seconds <= 20:
        parser.error("--seconds is 1 to 20: the requests are signed before, and their nonces are good for 50 s")
    return options


def main() -> int:
    """Measure, print the tables, and return 1 if a request failed."""
    options = read_options()
    options.load_before = os.getloadavg()[0]
    _ = signal.signal(signal.SIGTERM, lambda *_: sys.exit("bench: stopped"))
    try:
        check_programs(options.only)
        with work_folder(options.work) as folder:
            results = comparison(folder, options)
            found = aims(results)
            if "ageing" in options.only:
                report = age(folder, options)
                results.update(report.results)
                found += report.aims
    except BenchError as error:
        sys.exit(f"bench: {error}")
    print(machine(options), table.of_results(results), table.of_aims(found), sep="\n\n")
    return 1 if any(result.failures for result in results.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
