"""The founding of a demo: its past is written in a folder of its own, and moved into its place when it is whole.

A demo is whole once its file of keys is there, which is moved last. Whatever a kill leaves before that is either begun
anew (the folder `.founding`) or brought to its end (when that folder says `done`), so that the next start has a whole
demo whenever the first one stopped. Nodes keep their data in the same folder, and move with it while they are stopped.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, cast

import msgspec

from strongroom.application import Application
from strongroom.clock import Clock, Ids, SetClock
from strongroom.config.secrets import load_master_key, write_master_key
from strongroom.config.settings import ConfigError
from strongroom.demo.house import KEYS_FILE, MASTER_KEY_FILE, DemoKeys, Opening, demo_config, is_demo, read_keys
from strongroom.demo.nodes import running_nodes, wait_until_gone
from strongroom.demo.past import PAST_MS, Past
from strongroom.engine.supervisor import Supervisor
from strongroom.files import sync_folder, write_over
from strongroom.store.sqlite.connection import DATABASE_FILE, LOCK_FILE, lock_folder
from strongroom.treasury import FRESHNESS

FOLDER: Final = ".founding"
DONE: Final = "done"

_NO_BLOCKS_S: Final = 31_536_000
"""While the past is written the miner only works when it is told to."""

_MASTER_KEY_BYTES: Final = 32


async def found(folder: Path, chains: Sequence[str] = (), programs: Mapping[str, Path] | None = None) -> DemoKeys:
    """Make a folder's demo if it is not whole yet, and return its users and keys.

    A new one is on the nodes of `chains`, which `programs` has; all others are simulated. Raises `ConfigError` if the
    folder holds something else, `StoreError` if a server has it open, `AdminError` for a node that does not start.
    """
    lock = lock_folder(folder)
    try:
        if not is_demo(folder):
            await _found(folder, chains, programs or {})
        return read_keys(folder)
    finally:
        lock.close()


def chains_of(folder: Path) -> list[str] | None:
    """Return the chains of a demo that is whole, or whole but for its last move; None where there is none."""
    for place in (folder, folder / FOLDER):
        if is_demo(place) and (place == folder or _is_done(place)):
            return read_keys(place).chains
    return None


async def _found(folder: Path, chains: Sequence[str], programs: Mapping[str, Path]) -> None:
    workshop = folder / FOLDER
    await wait_until_gone(workshop)
    if not _is_done(workshop):
        _make_room(folder, workshop)
        await _write(workshop, chains, programs)
        write_over(workshop / DONE, b"")
    _move(workshop, folder)


def _is_done(workshop: Path) -> bool:
    return (workshop / DONE).exists()


def _make_room(folder: Path, workshop: Path) -> None:
    """Begin with an empty folder. Raises `ConfigError` if the demo would lie beside somebody's books."""
    if (folder / DATABASE_FILE).exists():
        raise ConfigError([f"{folder} has books that are not a demo's"])
    shutil.rmtree(workshop, ignore_errors=True)
    workshop.mkdir(mode=0o700)


async def _write(workshop: Path, chains: Sequence[str], programs: Mapping[str, Path]) -> None:
    """Write a whole demo into a new folder."""
    clock = SetClock(Clock().now_ms() - PAST_MS)
    write_master_key(workshop / MASTER_KEY_FILE, Ids(clock).random_bytes(_MASTER_KEY_BYTES))
    async with running_nodes(workshop, chains, programs, clock) as nodes:
        config = demo_config(workshop, Opening(seconds_per_block=_NO_BLOCKS_S), nodes.settings)
        application = Application(config, load_master_key(config, {}), clock, outside=nodes.outside)
        async with application.running():
            # The clock of a past jumps over hours, and no network is away for that.
            await cast(Supervisor, application.supervisor).join(FRESHNESS, 0)
            users = await Past(application, clock).write()
    write_over(workshop / KEYS_FILE, msgspec.json.encode(DemoKeys(users, list(chains))))


def _move(workshop: Path, folder: Path) -> None:
    """Move every file of a finished demo to its place, the keys last."""
    names = [entry.name for entry in workshop.iterdir() if entry.name not in (DONE, LOCK_FILE, KEYS_FILE)]
    for name in names:
        os.replace(workshop / name, folder / name)
    sync_folder(folder)
    if (workshop / KEYS_FILE).exists():
        os.replace(workshop / KEYS_FILE, folder / KEYS_FILE)
        sync_folder(folder)
    shutil.rmtree(workshop)
