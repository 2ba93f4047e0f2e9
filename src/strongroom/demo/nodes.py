"""The nodes of a demo: one process for each chain that is not simulated, mined at the demo's pace."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Protocol

import msgspec
import structlog

from strongroom.clock import Clock
from strongroom.config.settings import Node as NodeSettings
from strongroom.custody.chain import Unreachable
from strongroom.custody.outside import Outside
from strongroom.demo.chains import CHAINS, DemoChain
from strongroom.demo.coin_node import KINDS, CoinNode, coin_settings
from strongroom.demo.process import NodeProcess, lock_when_free

FOLDER: Final = "nodes"
"""Where the nodes keep their data, in the demo's data folder."""

_NOWHERE: Final = "http://127.0.0.1:1"
"""An address at which nobody answers: that of a node which is not running."""

log = structlog.get_logger("node")


class DemoNode(Outside, Protocol):
    """A node that can be started and stopped, and plays the world outside on its network."""

    @property
    def chain(self) -> DemoChain:
        """Return which chain it is on."""
        ...

    @property
    def process(self) -> NodeProcess:
        """Return its process."""
        ...

    @property
    def settings(self) -> NodeSettings:
        """Return the settings of the house's network for this node."""
        ...

    async def start(self) -> None:
        """Start the node, with money for the world outside."""
        ...

    async def stop(self) -> None:
        """Stop the node, and keep its chain for the next start."""
        ...


class NodeView(msgspec.Struct, frozen=True):
    """A node as the demo shows it; its password, where it has one, is in the file."""

    network: str
    title: str
    program: str
    pid: int
    data: str
    url: str
    user: str
    password_file: str


class Nodes:
    """The nodes of a demo while they run."""

    def __init__(self, nodes: Sequence[DemoNode]) -> None:
        self._nodes = nodes

    @property
    def settings(self) -> dict[str, NodeSettings]:
        """The settings of the house's networks for their nodes, by the network's id."""
        return {node.chain.network: node.settings for node in self._nodes}

    @property
    def outside(self) -> dict[str, Outside]:
        """Who plays the world outside on each network, by its id."""
        return {node.chain.network: node for node in self._nodes}

    def views(self) -> tuple[NodeView, ...]:
        """Return the nodes as they are shown."""
        return tuple(_view(node) for node in self._nodes)

    @asynccontextmanager
    async def mined(self, seconds_per_block: float) -> AsyncGenerator[None]:
        """Mine a block on every chain again and again while the block runs."""
        miners = [asyncio.create_task(_mine_on(node, seconds_per_block)) for node in self._nodes]
        try:
            yield
        finally:
            for miner in miners:
                _ = miner.cancel()
            _ = await asyncio.gather(*miners, return_exceptions=True)


@asynccontextmanager
async def running_nodes(
    folder: Path, chains: Sequence[str], programs: Mapping[str, Path], clock: Clock | None = None
) -> AsyncGenerator[Nodes]:
    """Run the nodes of a demo's data folder while the block runs; they go by `clock` if it is given.

    Raises `AdminError` for a node that does not start; the others are stopped then.
    """
    nodes = [_node(CHAINS[name], programs, folder, clock) for name in chains]
    try:
        await _start_all(nodes)
        yield Nodes(nodes)
    finally:
        _ = await asyncio.gather(*(node.stop() for node in nodes))


def resting_settings(chains: Sequence[str]) -> dict[str, NodeSettings]:
    """Return the settings of a demo's networks while its nodes do not run: nobody answers."""
    return {CHAINS[name].network: _resting(name) for name in chains}


def _resting(name: str) -> NodeSettings:
    if name in KINDS:
        return coin_settings(KINDS[name], _NOWHERE)
    from strongroom.demo.evm_node import evm_settings

    return evm_settings(_NOWHERE)


async def wait_until_gone(folder: Path) -> None:
    """Wait until no node of an earlier demo has files open in a data folder. Raises `AdminError` after a while."""
    for place in (folder / FOLDER / name for name in CHAINS):
        if place.is_dir():
            (await lock_when_free(place)).close()


def _node(chain: DemoChain, programs: Mapping[str, Path], folder: Path, clock: Clock | None) -> DemoNode:
    program, place = programs[chain.program], folder / FOLDER / chain.name
    if chain.name in KINDS:
        return CoinNode(chain, program, place, clock)
    # Late, as its libraries take long to import and most demos have simulated chains.
    from strongroom.demo.evm_node import EvmNode

    return EvmNode(chain, program, place, clock)


async def _start_all(nodes: Sequence[DemoNode]) -> None:
    """Start all nodes at once. Raises what the first of them raises that fails, once the others have stopped trying."""
    starts = [asyncio.create_task(node.start()) for node in nodes]
    try:
        _ = await asyncio.gather(*starts)
    finally:
        for start in starts:
            _ = start.cancel()
        _ = await asyncio.gather(*starts, return_exceptions=True)


async def _mine_on(node: DemoNode, seconds_per_block: float) -> None:
    """Mine at a pace until cancelled, or until the node is gone, which is told elsewhere."""
    trouble = ""
    while not node.process.has_ended:
        await asyncio.sleep(seconds_per_block)
        try:
            _ = await node.mine(node.chain.network)
            trouble = ""
        except (Unreachable, ValueError) as problem:
            if str(problem) != trouble and not node.process.has_ended:
                log.warning("nothing_mined", network=node.chain.network, problem=str(problem))
            trouble = str(problem)


def _view(node: DemoNode) -> NodeView:
    settings, process = node.settings, node.process
    return NodeView(
        node.chain.network,
        node.chain.title,
        process.name,
        process.pid,
        str(process.folder),
        settings.url,
        settings.user,
        settings.password_file,
    )
