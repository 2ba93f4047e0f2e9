"""Transfers over HTTP where the books are in PostgreSQL: one server, and two that share the load, beside SQLite."""

from __future__ import annotations

import argparse
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import ours
import world
from load import Result
from postgres import Cluster
from signing import transfers
from world import World

SQLITE = "SQLite, transfers, both cores"
POSTGRES = "PostgreSQL, transfers, {} node(s), both cores"
COUNTS = (1, 2)


def embedded(house: World, connections: int, seconds: float) -> Result:
    """Return what one server with its books in SQLite measured, on both cores."""
    with ours.serving(house, anywhere=True) as server:
        server.see_everyone(connections)
        return server.measure(lambda signer: transfers(house, signer), connections, seconds)


def make(folder: Path, users: int, cluster: Cluster) -> World:
    """Make a house in a new database."""
    _ = cluster.run("createdb", "house")
    return world.make(folder, users, database=cluster.url("house"))


def measure(house: World, cluster: Cluster, count: int, options: argparse.Namespace) -> Result:
    """Return what so many nodes measured together, each with its share of the connections and its own load."""
    with ExitStack() as stack:
        servers = [stack.enter_context(ours.serving(_node(house, number), anywhere=True)) for number in range(count)]
        for server in servers:
            server.see_everyone(options.connections)
        servers[0].beside = (cluster.pid,)
        threads = stack.enter_context(ThreadPoolExecutor(count))

        def load(number: int) -> Result:
            # Each load has customers of its own, so that no two requests are equal.
            some = house._replace(customers=house.customers[number::count])
            share = options.connections // count
            return servers[number].measure(lambda signer: transfers(some, signer), share, options.seconds)

        return _together(list(threads.map(load, range(count))))


def _node(house: World, number: int) -> World:
    """Return the house as one node has it: with the settings and the keys of the first in a folder of its own."""
    if not number:
        return house
    folder = house.folder.with_name(f"{house.folder.name}-{number}")
    if not folder.exists():
        _ = shutil.copytree(house.folder, folder, ignore=shutil.ignore_patterns("*.sock"))
    return house._replace(folder=folder)


def _together(results: list[Result]) -> Result:
    rates = [result.per_second for result in results]
    return Result(
        sum(rates),
        sum(result.p50_ms * rate for result, rate in zip(results, rates, strict=True)) / sum(rates),
        max(result.p99_ms for result in results),
        sum(result.cpu_us * rate for result, rate in zip(results, rates, strict=True)) / sum(rates),
        sum(result.busy for result in results),
        sum(result.failures for result in results),
    )
