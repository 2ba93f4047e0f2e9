"""The treasury: the custody parts of one server put together, for every network of the settings."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from strongroom.config.settings import ConfigError, Simulation
from strongroom.custody.derivation import Branch, account_xpubs, new_mnemonic, seed_of
from strongroom.custody.families import NETWORKS
from strongroom.custody.networks.simulated import SimulatedNode
from strongroom.custody.pool import AddressPools, Source
from strongroom.custody.sender import Sender
from strongroom.custody.signer import LocalSigner, SealError, open_seed, seal_seed
from strongroom.custody.watcher import Watcher
from strongroom.engine.supervisor import Supervisor
from strongroom.files import write_new
from strongroom.records.addresses import Branch as BranchRow
from strongroom.records.settings import NetworkSettings, Snapshot
from strongroom.wallet.context import Context

SEED_FILE: Final = "seed.sealed"
CHAINS_FILE: Final = "chains.sqlite"
STALE_MS: Final = 120_000
"""A network whose latest successful round is older is shown as stale."""

_ENTROPY_BYTES: Final = 32


class Treasury:
    """The simulated node, the signer, the pool of addresses, and a watcher and a sender per network.

    Without simulated chains there is no network to serve, and the pool is empty.
    """

    def __init__(
        self, folder: Path, master_key: bytes, simulation: Simulation, snapshot: Snapshot, context: Context
    ) -> None:
        """Open the node's file and the seed. Raises `ConfigError` for networks that cannot be served."""
        self._context = context
        self.node: SimulatedNode | None = None
        self.pools = AddressPools(context, {})
        self.watchers: dict[str, Watcher] = {}
        self.senders: dict[str, Sender] = {}
        self._signer: LocalSigner | None = None
        served = _served(snapshot.networks, simulation)
        context.formats = {network.code: NETWORKS[network.code].format for network in served}
        if served:
            self._open(folder, master_key, simulation, served)

    def _open(self, folder: Path, master_key: bytes, simulation: Simulation, served: list[NetworkSettings]) -> None:
        families = [NETWORKS[network.code] for network in served]
        seed = _seed(folder / SEED_FILE, master_key, self._context, served)
        pace = simulation.seconds_per_block or None
        self.node = node = SimulatedNode(folder / CHAINS_FILE, families, self._context.clock, pace)
        self._signer = signer = LocalSigner(seed, families)
        xpubs = account_xpubs(seed, families)
        sources = {
            network.number: Source(Branch(family, xpubs[network.code]), node.chain(network.code))
            for network, family in zip(served, families, strict=True)
        }
        self.pools = AddressPools(self._context, sources)
        for network in served:
            chain = node.chain(network.code)
            self.watchers[network.code] = Watcher(self._context, chain, network.number)
            self.senders[network.code] = Sender(self._context, chain, signer, network.number)

    async def start(self, supervisor: Supervisor) -> None:
        """Register the hot wallets with the node and start every loop."""
        if self.node is None or self._signer is None:
            return
        for code in self.watchers:
            self.node.register(code, await self._signer.public_key(code))
        supervisor.start("addresses", self.pools.run)
        for code, watcher in self.watchers.items():
            supervisor.start(f"watcher {code}", watcher.run)
        for code, sender in self.senders.items():
            supervisor.start(f"sender {code}", sender.run)
        supervisor.start("miner", self.node.run)

    def close(self) -> None:
        """Close the node's file."""
        if self.node is not None:
            self.node.close()

    def status(self, now_ms: int) -> dict[str, Any]:
        """Return how each network fares, for the operator."""
        return {
            code: {
                "height": watcher.status.height,
                "stale": now_ms - watcher.status.last_success_ms > STALE_MS,
                "watcher": watcher.status.error,
                "sender": self.senders[code].status.trouble,
                "open_payments": self.senders[code].status.open_payments,
                "stuck_payments": len(self.senders[code].status.stuck),
                "unbooked": watcher.status.unbooked,
            }
            for code, watcher in self.watchers.items()
        }


def _served(networks: Iterable[NetworkSettings], simulation: Simulation) -> list[NetworkSettings]:
    """Return the networks to serve. Raises `ConfigError` for one that this release has no node for."""
    found = list(networks)
    problems = [
        f"network {network.code} is not among those that can be simulated: {', '.join(NETWORKS)}"
        for network in found
        if network.code not in NETWORKS
    ]
    problems += [
        f"network {network.code} is of the family {NETWORKS[network.code].family.value}, not {network.family}"
        for network in found
        if network.code in NETWORKS and NETWORKS[network.code].family.value != network.family
    ]
    if found and not simulation.enabled:
        problems.append("networks need nodes, and this release has simulated ones only: set 'simulation.enabled'")
    if problems:
        raise ConfigError(problems)
    return found


def _seed(path: Path, master_key: bytes, context: Context, served: list[NetworkSettings]) -> bytes:
    """Return the seed of all keys, made at the first start. Raises `ConfigError` if it is lost or not to be opened."""
    try:
        return open_seed(path.read_bytes(), master_key)
    except SealError as error:
        raise ConfigError([f"{path}: {error}"]) from None
    except FileNotFoundError:
        if any(context.reads.row(BranchRow, network.number).derived for network in served):
            raise ConfigError([f"{path} is lost, but addresses were derived from it: restore it"]) from None
    seed = seed_of(new_mnemonic(context.ids.random_bytes(_ENTROPY_BYTES)))
    write_new(path, seal_seed(seed, master_key, context.ids))
    return seed
