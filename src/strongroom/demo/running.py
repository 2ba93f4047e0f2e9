"""Running a demo: found it if it is new, then serve it like any other house, with its nodes beside it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from strongroom.admin import protocol
from strongroom.admin.hosting import carry_out_alone, check_address, host, run_until_stopped
from strongroom.config.secrets import load_master_key
from strongroom.config.settings import Config
from strongroom.demo.chains import CHAINS, check_same
from strongroom.demo.founding import chains_of, found
from strongroom.demo.house import Opening, demo_config, read_keys
from strongroom.demo.nodes import resting_settings, running_nodes
from strongroom.demo.programs import VARIABLE, find_programs
from strongroom.demo.telling import Ready
from strongroom.observe.logs import configure_logs

_OF_CHAINS: Final = (
    protocol.PayFromFaucet,
    protocol.Reconcile,
    protocol.GiveUpWithdrawal,
    protocol.HurryPayment,
    protocol.GiveUpPayment,
    protocol.ShowHotWallets,
    protocol.PrepareCold,
    protocol.MineBlocks,
    protocol.Reorganise,
)
"""The requests that ask the chains."""


OnReady = Callable[[Ready], None]


class Chosen(msgspec.Struct, frozen=True):
    """What is said of a demo's nodes: the chains that have one (None: as before), and the programs' folder."""

    chains: tuple[str, ...] | None = None
    programs: Path | None = None


def run_demo(folder: Path | None, opening: Opening, chosen: Chosen, on_ready: OnReady) -> int:
    """Serve a demo from a folder, a new temporary one without it, until a signal; return the process's exit code.

    `on_ready` is told what there is. Raises as `strongroom.admin.hosting.host`, and `ConfigError` for nodes that
    cannot be had.
    """
    check_address(opening.host, opening.port)
    chains = _chains(folder, chosen.chains)
    programs = find_programs((CHAINS[name].program for name in chains), chosen.programs)
    place = (folder or Path(tempfile.mkdtemp(prefix="strongroom-demo-"))).absolute()

    async def main() -> int:
        # What goes wrong in the demo's past is meant to, and is no news.
        configure_logs("error", "console")
        keys = await found(place, chains, programs)
        async with running_nodes(place, chains, programs) as nodes, nodes.mined(opening.seconds_per_block):
            config = demo_config(place, opening, nodes.settings)
            configure_logs(config.logs.level, "console")
            master_key = load_master_key(config, {})
            return await host(
                config,
                master_key,
                lambda url: on_ready(Ready(url, str(place), keys.users, nodes.views())),
                nodes.outside,
            )

    return run_until_stopped(main)


def resting_config(folder: Path) -> Config:
    """Return the settings of a demo that nobody serves: its nodes do not answer."""
    return demo_config(folder, Opening(), resting_settings(read_keys(folder).chains))


async def carry_out_in_demo(folder: Path, request: protocol.Request) -> Any:
    """Carry a request out in a demo that nobody serves, with its nodes running if it is about chains.

    Returns and raises as `strongroom.admin.hosting.carry_out_alone`.
    """
    resting = resting_config(folder)
    master_key = load_master_key(resting, {})
    chains = read_keys(folder).chains if isinstance(request, _OF_CHAINS) else []
    if not chains:
        return await carry_out_alone(resting, master_key, request)
    named = os.environ.get(VARIABLE)
    programs = find_programs((CHAINS[name].program for name in chains), Path(named) if named else None)
    async with running_nodes(folder, chains, programs) as nodes:
        config = demo_config(folder, Opening(), nodes.settings)
        return await carry_out_alone(config, master_key, request, nodes.outside)


def _chains(folder: Path | None, asked: tuple[str, ...] | None) -> Sequence[str]:
    """Return the chains that have nodes: as asked, or as the demo was founded. Raises `ConfigError` if they differ."""
    kept = chains_of(folder) if folder else None
    if kept is None:
        return asked or ()
    if asked is not None:
        check_same(asked, kept)
    return kept
