"""Age: the same server on an old and large ledger and on a young one, in one run."""

from __future__ import annotations

import hashlib
import json
import os
import random
import resource
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import NamedTuple

import msgspec
import ours
import table
import world
from load import Result, check_answer, wrk_command
from ours import Server
from processes import BenchError, cpu_s, memory_mib, started
from signing import Signer, pages, transfers, write
from world import World

from strongroom.clock import DAY_MS, Clock, Ids, SetClock
from strongroom.config.settings import load_config
from strongroom.engine.command import Command, Guard
from strongroom.store.sqlite.connection import migrations
from strongroom.wallet.transfers import Transfer

ROUNDS = 6
"""How often the two ledgers take turns: with 10 s each that is a minute of load."""

KILLS = 3
PAGE_ROUNDS = 3
_PAGE_S = 3
_PAGES = 5_000
_AGE_MS = 180 * DAY_MS
_ENTRIES_PER_USER = 100
_WHALE_SHARE = 10
_SMALL_LINES = 100
_BUSY_USERS = 10_000
_BATCH = 1_000
_MOST_UNITS = 1_000_000
_BYTES_PER_ENTRY = 3_000
_LAYOUT_FILE = "layout.json"
_SEED = 10_000_000

Say = Callable[[str], None]


class Layout(msgspec.Struct, frozen=True):
    """What a kept ledger was made as; the times are Unix ms of its first and its last transfer."""

    entries: int
    users: int
    schema: str
    first_ms: int
    last_ms: int


class Report(NamedTuple):
    """What the ageing part measured."""

    results: dict[str, Result]
    aims: list[table.Aim]


# -- making it, once


def prepare(folder: Path, entries: int, say: Say) -> Layout:
    """Return the layout of the ledgers in a folder, after making them if it is empty.

    `empty` has the customers, their keys and funds; `aged` has so many transfers more. Raises `BenchError` if the
    folder holds something else.
    """
    schema = hashlib.sha256("".join(migrations()).encode()).hexdigest()
    if (folder / _LAYOUT_FILE).exists():
        kept = msgspec.json.decode((folder / _LAYOUT_FILE).read_bytes(), type=Layout)
        if (kept.entries, kept.schema) != (entries, schema):
            raise BenchError(f"{folder} was made with {kept.entries:,} entries, or for another schema: remove it")
        return kept
    if folder.exists() and any(folder.iterdir()):
        raise BenchError(f"{folder} holds something else, or a ledger that was not finished: remove it")
    folder.mkdir(parents=True, exist_ok=True)
    _check_room(folder, entries)
    return _make(folder, entries, schema, say)


def users_of(entries: int) -> int:
    """Return how many customers have so many transfers between them."""
    return max(1_000, entries // _ENTRIES_PER_USER)


def _make(folder: Path, entries: int, schema: str, say: Say) -> Layout:
    users = users_of(entries)
    clock = SetClock(Clock().now_ms() - _AGE_MS)
    say(f"making {users:,} customers with ten accounts each in {folder}")
    young = world.make(folder / "empty", users, clock)
    copy(folder / "empty", folder / "aged")
    first_ms = clock.at_ms
    say(f"making {entries:,} transfers between them")
    world.fill(load_config(folder / "aged" / world.CONFIG_FILE, {}), _past(young, entries, clock), entries, clock)
    layout = Layout(entries, users, schema, first_ms, clock.at_ms)
    (folder / _LAYOUT_FILE).write_bytes(msgspec.json.encode(layout))
    return layout


def _check_room(folder: Path, entries: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < entries * _BYTES_PER_ENTRY:
        raise BenchError(f"{folder} needs {entries * _BYTES_PER_ENTRY / 1e9:.0f} GB and has {free / 1e9:.0f} GB")


def _past(house: World, entries: int, clock: SetClock) -> Iterator[Command]:
    """Yield transfers of half a year.

    The first customer, the whale, is in every tenth; the second, the small one, in so few that it has a hundred lines
    with its deposits. Of all others ten thousand at a time meet at random, so that this is written in a third of the
    time; at the end all of them have a past.
    """
    rng, ids = random.Random(_SEED), Ids(clock)
    whale, small, *others = [customer.uid for customer in house.customers]
    assets, count = len(house.assets), len(others)
    of_small = max(1, entries // (_SMALL_LINES - assets))
    step_ms = max(1, (_AGE_MS - DAY_MS) * _BATCH // max(entries, 1))
    busy, draw = min(count, _BUSY_USERS), rng.random
    begins = 0
    for n in range(entries):
        if n % _BATCH == 0:
            clock.at_ms += step_ms
            begins = (count - busy) * n // entries
        one, other = others[begins + int(draw() * busy)], others[begins + int(draw() * busy)]
        if n % of_small == 1:
            other = small
        elif n % _WHALE_SHARE == 0 or one == other:
            other = whale
        if n & 16:
            one, other = other, one
        amount, asset = 1 + int(draw() * _MOST_UNITS), 1 + int(draw() * assets)
        yield Transfer(Guard(one), one, other, asset, amount, ids.ref(), ids.ref(), within=False)


def copy(source: Path, target: Path) -> None:
    """Copy a house, sharing its blocks where the file system can, and wait until the disk has it."""
    _ = subprocess.run(["cp", "--archive", "--reflink=auto", str(source), str(target)], check=True)
    os.sync()


# -- measuring it


def measure(kept: Path, work: Path, entries: int, seconds: float, connections: int, say: Say) -> Report:
    """Return every row of the ageing part, measured on copies of the kept ledgers."""
    layout = prepare(kept, entries, say)
    say("copying the ledgers")
    for name in ("empty", "aged"):
        copy(kept / name, work / name)
    aged, empty = world.read(work / "aged"), world.read(work / "empty")
    results: dict[str, Result] = {}
    aims: list[table.Aim] = []
    with ExitStack() as stack:
        server = stack.enter_context(ours.serving(aged))
        fresh_mib, _ = memory_mib(server.pid)
        aims += _pages(server, layout, seconds, results, say)
        young = stack.enter_context(ours.serving(empty))
        aims += _turns(young, server, connections, seconds, results, say)
        loaded_mib, most_mib = memory_mib(server.pid)
    aims += _starts(aged, connections, say)
    aims += _verification(aged, say)
    aims += table.at_most("resident memory after the start", fresh_mib, 1024, "{:,.0f} MiB")
    aims += table.at_most("resident memory after the load", loaded_mib, 1024, "{:,.0f} MiB")
    aims += table.at_most("resident memory, the most of all this", most_mib, 1024, "{:,.0f} MiB")
    return Report(results, aims)


def _turns(
    young: Server, old: Server, connections: int, seconds: float, results: dict[str, Result], say: Say
) -> list[table.Aim]:
    """Let the empty and the aged ledger take turns, so that both have the same weather."""
    found: dict[str, list[Result]] = {f"Strongroom, transfers, {age} ledger": [] for age in ("empty", "aged")}
    for turn in range(ROUNDS):
        for server, (name, runs) in zip((young, old), found.items(), strict=True):
            say(f"{name}, {turn + 1} of {ROUNDS}")
            runs.append(server.measure(lambda signer, at=server.world: transfers(at, signer), connections, seconds))
    results.update({name: _middle(runs) for name, runs in found.items()})
    rates = [sum(run.per_second for run in runs) for runs in found.values()]
    return table.at_least("transfers/s on the aged ledger / on an empty one", rates[1] / rates[0], 0.9, "{:.2f}")


def _pages(server: Server, layout: Layout, seconds: float, results: dict[str, Result], say: Say) -> list[table.Aim]:
    """Read history pages of the customer with the most lines and of one with a hundred, taking turns."""
    # One key has a nonce a millisecond and no more: few enough are signed to stay within the window.
    server.signer = Signer(ahead_ms=0)
    whale, small, *_ = server.world.customers
    rng, span_ms = random.Random(_SEED), layout.last_ms - layout.first_ms
    middle_ms = _end_of_older_half(server)
    places = {
        "newest page": (lambda: None, lambda: None),
        "deep page": (lambda: layout.first_ms + span_ms // 10 + int(rng.random() * span_ms * 0.8), lambda: middle_ms),
    }
    aims: list[table.Aim] = []
    for place, (of_whale, of_small) in places.items():
        kinds = {
            f"history, {place}, {layout.entries // _WHALE_SHARE:,} lines": (whale, of_whale),
            f"history, {place}, {_SMALL_LINES} lines": (small, of_small),
        }
        runs: dict[str, list[Result]] = {name: [] for name in kinds}
        for _ in range(PAGE_ROUNDS):
            for name, (customer, end_times) in kinds.items():
                say(name)
                make = lambda signer, c=customer, t=end_times: pages(c, signer, t)  # noqa: E731
                runs[name].append(server.measure(make, 1, min(seconds, _PAGE_S), _PAGES))
        middles = {name: _middle(found) for name, found in runs.items()}
        results.update(middles)
        of_many, of_few = middles.values()
        title = f"history, {place}: p99 of the user with the most lines / with {_SMALL_LINES}"
        aims += table.at_most(title, of_many.p99_ms / of_few.p99_ms, 1.5, "{:.2f}")
    server.signer = Signer()
    return aims


def _end_of_older_half(server: Server) -> int:
    """Return the moment before which the small customer has just fifty lines, after seeing that pages are whole."""
    signer, (whale, small, *_) = Signer(), server.world.customers
    signer.begin()
    half = _SMALL_LINES // 2
    newest = json.loads(check_answer(server.port, next(pages(small, signer, lambda: None))))
    end_ms = int(newest[half - 1]["timestamp"])
    older = json.loads(check_answer(server.port, next(pages(small, signer, lambda: end_ms))))
    of_whale = json.loads(check_answer(server.port, next(pages(whale, signer, lambda: end_ms))))
    if not len(newest) == len(older) == len(of_whale) == half:
        raise BenchError(f"pages of {len(newest)}, {len(older)} and {len(of_whale)} lines, and not of {half}")
    return end_ms


def _starts(aged: World, connections: int, say: Say) -> list[table.Aim]:
    """Kill the server under load and measure how long the next start takes, several times."""
    times_s: list[float] = []
    used_s: list[float] = []
    for turn in range(KILLS + 1):
        with ours.serving(aged) as server:
            if turn:
                times_s.append(server.ready_s)
                used_s.append(cpu_s(server.pid))
                say(f"ready {server.ready_s:.2f} s after kill -9")
            if turn < KILLS:
                _kill_under_load(server, connections)
    note = f" ({max(used_s):.2f} s of CPU)"
    return table.at_most(f"start after kill -9, the longest of {KILLS}", max(times_s), 3, "{:.2f} s", note)


def _kill_under_load(server: Server, connections: int) -> None:
    requests = transfers(server.world, server.signer)
    _ = check_answer(server.port, write(server.requests_file, requests, server.signer, 100_000))
    command = wrk_command(server.port, connections, 10, server.requests_file)
    with started(command, server.world.folder / "wrk.log"):
        time.sleep(3)
        server.kill()


def _verification(aged: World, say: Say) -> list[table.Aim]:
    """Verify the aged ledger, after all the kills, as an auditor does."""
    say("verifying the aged ledger")
    began_s, before_s = time.perf_counter(), _children_cpu_s()
    command = [ours.STRONGROOM, "ledger", "verify", "--data", str(aged.folder / "data"), "--json"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    elapsed_s = time.perf_counter() - began_s
    report = json.loads(done.stdout) if done.stdout else {}
    if not report.get("whole"):
        raise BenchError(f"the aged ledger is not whole: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    rate = report["postings"] / elapsed_s
    note = f" ({report['postings']:,} in {elapsed_s:.1f} s, {_children_cpu_s() - before_s:.1f} s of CPU)"
    return table.at_least("ledger verify, postings a second", rate, 500_000, "{:,.0f}", note)


def _children_cpu_s() -> float:
    """Return the seconds of CPU that programs which were started here and have ended used."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _middle(runs: list[Result]) -> Result:
    """Return the median of every figure; failures are added up."""
    *figures, failures = zip(*runs, strict=True)
    per_second, p50_ms, p99_ms, cpu_us, busy = (median(figure) for figure in figures)
    return Result(per_second, p50_ms, p99_ms, cpu_us, busy, sum(failures))
