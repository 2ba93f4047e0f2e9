"""Many seeds on every core, and the command `make simulate`: `python -m support.simulation_runs --help`."""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from typing import Final

from support.simulation import Played, play
from support.simulation_mistakes import MISTAKES

AT_ONCE: Final = 10
WORKERS: Final = max(2, len(os.sched_getaffinity(0)))
MOST_TOLD: Final = 5
EVENTS: Final = {
    "log payment_reopened final": 20,
    "log payment_reopened voided": 4,
    "log payment reverted": 20,
    "log move_reserved": 200,
    "to the cold address": 50,
    "back from the cold address": 10,
    "restored": 150,
    "moves and a restore": 50,
    "log payment_adopted": 20,
    "somebody named": 10,
    "given after a restore": 20,
    "with coins": 300,
    "change spent": 200,
    "several paid at once": 100,
    "coins consolidated": 40,
    "payment given up": 1,
}
"""What is rare by itself and must not be: how often it happens at least in a thousand seeds."""

_HIGHEST: Final = 10**9


def play_all(seeds: Iterable[int]) -> list[Played]:
    """Play seeds one after the other; the trace of a good one is not kept."""
    found = [played if played.failure else _without_trace(played) for played in map(play, seeds)]
    gc.collect()
    return found


def play_many(seeds: Sequence[int], workers: int = WORKERS) -> Iterator[Played]:
    """Play seeds in processes of their own, and yield what became of each in their order."""
    shares = [seeds[first : first + AT_ONCE] for first in range(0, len(seeds), AT_ONCE)]
    with _pool(workers) as pool:
        for share in pool.map(play_all, shares):
            yield from share


def find(mistake: str, seeds: Iterable[int]) -> tuple[int, str]:
    """Return how many seeds it took to find a mistake and how it shows; 0 if none of them finds it."""
    with MISTAKES[mistake]():
        for tried, seed in enumerate(seeds, 1):
            played = play(seed)
            if played.failure:
                same = play(seed).digest == played.digest
                return tried, played.failure if same else "another failure each time"
    return 0, ""


def find_all(mistakes: Sequence[str], seeds: Sequence[int]) -> dict[str, tuple[int, str]]:
    """Look for mistakes in processes of their own, and return what `find` says of each."""
    with _pool(WORKERS) as pool:
        return dict(zip(mistakes, pool.map(find, mistakes, repeat(seeds)), strict=True))


def _pool(workers: int) -> ProcessPoolExecutor:
    """Return processes that are spawned, not forked, since whoever asks may have threads."""
    return ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_settle_in)


def _settle_in() -> None:
    """Look for garbage between shares of seeds only, and never among what was imported."""
    gc.disable()
    gc.freeze()


def _without_trace(played: Played) -> Played:
    return Played(played.seed, played.failure, played.digest, [], played.counts)


def main() -> int:
    """Play one seed and print all that happens, or many and print those that fail."""
    parser = argparse.ArgumentParser(prog="make simulate", description=main.__doc__)
    parser.add_argument("--seeds", type=int, default=1_000, help="how many seeds to play")
    parser.add_argument("--first", type=int, default=None, help="the first of them; a random one unless given")
    parser.add_argument("--seed", type=int, default=None, help="the one seed to play, with its whole trace")
    parser.add_argument("--digests", action="store_true", help="print a digest of each seed's trace, nothing else")
    given = parser.parse_args()
    if given.seed is not None:
        return _play_one(given.seed)
    first = random.SystemRandom().randrange(_HIGHEST) if given.first is None else given.first
    seeds = range(first, first + given.seeds)
    return _print_digests(seeds) if given.digests else _play_range(seeds)


def _play_one(seed: int) -> int:
    played = play(seed)
    print(played.story(len(played.trace) + 1))
    print(played.failure or f"seed {seed}: every rule held")
    return 1 if played.failure else 0


def _print_digests(seeds: Iterable[int]) -> int:
    for seed in seeds:
        print(seed, play(seed).digest)
    return 0


def _play_range(seeds: range) -> int:
    began_s, failed, counts = time.monotonic(), 0, Counter[str]()
    for played in play_many(seeds):
        counts.update(played.counts)
        if played.failure:
            failed += 1
            if failed <= MOST_TOLD:
                print(played.story(), flush=True)
            else:
                print(f"make simulate SEED={played.seed}  {played.failure}", flush=True)
    print(
        f"seeds {seeds.start} to {seeds.stop - 1}: {failed} failed; {counts['deeds']} requests, {counts['happened']} "
        f"done, {counts['lives']} lives, {time.monotonic() - began_s:.0f} s"
    )
    print("\n".join(f"{counts[name]:8}  {name.removeprefix('log ')}" for name in EVENTS))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
