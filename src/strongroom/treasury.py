"""The treasury: the custody parts of one server put together, for every network of the settings."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import structlog

from strongroom.chains import RealChain, check_networks, real_chains
from strongroom.config.settings import Config, ConfigError, Simulation
from strongroom.custody.chain import Chain, ChainError
from strongroom.custody.cold_reconciliation import reconcile_cold
from strongroom.custody.derivation import (
    NO_FINGERPRINT,
    Branch,
    account_xpubs,
    master_fingerprint,
    new_mnemonic,
    seed_of,
)
from strongroom.custody.families import NETWORKS, Network
from strongroom.custody.freshness import Freshness, FreshnessTerms
from strongroom.custody.giving_up import give_up
from strongroom.custody.keeper import Keeper, KeeperTerms
from strongroom.custody.networks.simulated import SimulatedNode
from strongroom.custody.pool import AddressPools, Source
from strongroom.custody.reconciliation import Reconciliation, reconcile
from strongroom.custody.remote_signer import RemoteSigner
from strongroom.custody.sender import Sender
from strongroom.custody.signer import LocalSigner, SealError, Signer, open_seed, seal_seed
from strongroom.custody.watcher import IDLE_S, Watcher
from strongroom.custody.xpubs import XPUBS_FILE, PublicKeys, PublicKeysError, read_public_keys
from strongroom.engine.leadership import Leadership, rest
from strongroom.engine.supervisor import Loop, Supervisor
from strongroom.files import write_new
from strongroom.records.addresses import Branch as BranchRow
from strongroom.records.chains import Tip
from strongroom.records.settings import NetworkSettings, Snapshot
from strongroom.records.withdrawals import Payment
from strongroom.wallet.addresses import HOUSE_POSITION, house_address
from strongroom.wallet.catalogue import Catalogue
from strongroom.wallet.context import Context

if TYPE_CHECKING:
    from strongroom.custody.rpc import Node

SEED_FILE: Final = "seed.sealed"
CHAINS_FILE: Final = "chains.sqlite"
FRESHNESS: Final = "freshness"
"""The loop that looks whether networks are away."""

HOUSE_SEAT: Final = "house"
"""The seat of the loops that belong to no network."""

RECONCILE_EVERY_S: Final = 600.0
"""So often the books are held against the chains."""

_ENTROPY_BYTES: Final = 32

log: structlog.stdlib.BoundLogger = structlog.get_logger("treasury")


class Treasury:
    """The nodes, the signer, the pool of addresses, and a watcher and a sender per network.

    Networks that the settings name a node for are real, the others simulated. Without any the pool is empty.
    """

    def __init__(
        self, config: Config, master_key: bytes, snapshot: Snapshot, context: Context, leadership: Leadership
    ) -> None:
        """Open the simulated node's file, the ways to real nodes, and the keys.

        Raises `ConfigError` for networks that cannot be served, and for keys that are not there.
        """
        self._config = config
        self._context = context
        self._leadership = leadership
        self.node: SimulatedNode | None = None
        self.pools = AddressPools(context, {})
        self.freshness = Freshness(context)
        self.watchers: dict[str, Watcher] = {}
        self.senders: dict[str, Sender] = {}
        self.keepers: dict[str, Keeper] = {}
        self._signer: Signer | None = None
        self._real = real_chains(config)
        self._nodes: list[Node] = []
        self._fingerprint = NO_FINGERPRINT
        self._sources: dict[int, Source] = {}
        self.unexplained: dict[tuple[str, str], int] = {}
        self._catalogue = Catalogue(snapshot)
        check_networks(snapshot.networks, config.nodes)
        served = _served(snapshot.networks, self._real, config.simulation)
        specs = {network.code: self.spec(network.code) for network in served}
        context.formats = {code: spec.format for code, spec in specs.items()}
        if served:
            self._open(master_key, served, specs)

    def is_simulated(self, code: str) -> bool:
        """Say whether a network is simulated."""
        return self.node is not None and code not in self._real

    def spec(self, code: str) -> Network:
        """Return how a network is spelled and derived."""
        return self._real[code].spec if code in self._real else NETWORKS[code]

    def _open(self, master_key: bytes, served: list[NetworkSettings], specs: dict[str, Network]) -> None:
        keys, self._signer = self._keys(master_key, served, specs)
        simulated = [spec for code, spec in specs.items() if code not in self._real]
        if simulated:
            pace = self._config.simulation.seconds_per_block or None
            path = self._config.folder / CHAINS_FILE
            self.node = SimulatedNode(path, simulated, self._context.clock, pace)
            self._check_practice(self.node, served)
        sources = self._sources
        for network in served:
            chain = self._chain(network, keys[network.code])
            sources[network.number] = Source(Branch(specs[network.code], keys[network.code]), chain)
            self._follow(network, chain, self._signer)
        self.pools = AddressPools(self._context, sources)
        self.check_keys()

    def check_keys(self) -> None:
        """Raise `ConfigError` unless the books' addresses are derived from the keys of this process.

        Nodes share the books, not the keys: each must have been given the same.
        """
        if not self._context.reads.is_shared:
            return
        for number, source in self._sources.items():
            known = house_address(self._context.reads, number).address
            if known and known != source.branch.address(HOUSE_POSITION).address:
                code = self._catalogue.network(number).code
                raise ConfigError([f"the keys here are not those that the books' addresses of {code} were made from"])

    def leads(self, code: str) -> bool:
        """Say whether this process follows a network and pays on it, and not another node."""
        return _seat(code) in self._leadership.led

    def _check_practice(self, node: SimulatedNode, served: list[NetworkSettings]) -> None:
        """Raise `ConfigError` where the books follow another practice chain than the one of this data folder."""
        for network in served:
            block = self._context.reads.row(Tip, network.number).block
            is_simulated = self._context.reads.is_shared and self.is_simulated(network.code)
            if is_simulated and block and not node.knows(network.code, block):
                problem = f"network {network.code} is simulated, and the books follow another node's simulation"
                raise ConfigError([f"{problem}: a simulation is for one node only"])

    def _keys(
        self, master_key: bytes, served: list[NetworkSettings], specs: dict[str, Network]
    ) -> tuple[dict[str, str], Signer]:
        """Return the networks' extended public keys, and who signs: the process at the socket, or this one."""
        if self._config.signer_socket:
            public = _public_keys(self._config.folder / XPUBS_FILE, specs)
            signer = RemoteSigner(Path(self._config.signer_socket), public)
            self._fingerprint = bytes.fromhex(public.fingerprint)
            return {code: public.networks[code].xpub for code in specs}, signer
        seed = _seed(self._config.folder / SEED_FILE, master_key, self._context, served)
        self._fingerprint = master_fingerprint(seed)
        schemes = {code: chain.scheme(seed) for code, chain in self._real.items()}
        return account_xpubs(seed, specs.values()), LocalSigner(seed, specs.values(), schemes)

    def _chain(self, network: NetworkSettings, xpub: str) -> Chain:
        if network.code not in self._real:
            return cast(SimulatedNode, self.node).chain(network.code)
        offers = self._catalogue.snapshot.offers
        tokens = [offer.token for offer in offers if offer.network == network.number and offer.token]
        node, chain = self._real[network.code].open(xpub, tokens, self._fingerprint)
        self._nodes.append(node)
        return chain

    def _follow(self, network: NetworkSettings, chain: Chain, signer: Signer) -> None:
        code, context = network.code, self._context
        real = self._real.get(code)
        fresh = real.freshness if real else FreshnessTerms()
        idle_s, start = min(IDLE_S, fresh.stale_after_s / 2), real.start if real else 0
        keeping = real.keeping(self._catalogue, network.number) if real else KeeperTerms()
        self.watchers[code] = Watcher(
            context, chain, network.number, start=start, idle_s=idle_s, cold_address=keeping.cold_address
        )
        self.freshness.add(network.number, self.watchers[code], fresh)
        drafting = asyncio.Lock()
        terms = real.terms if real else None
        self.senders[code] = Sender(context, chain, signer, network.number, terms=terms, drafting=drafting)
        if real:
            self.keepers[code] = Keeper(context, chain, network.number, keeping, drafting)

    async def start(self, supervisor: Supervisor) -> None:
        """Register the hot wallets with the simulated node and start every loop."""
        if self._signer is None:
            return
        if self.node is not None:
            for code in self.watchers:
                if code not in self._real:
                    self.node.register(code, await self._signer.public_key(code))
        supervisor.start("addresses", self.pools.run)
        for code, watcher in self.watchers.items():
            self._start(supervisor, "watcher", code, watcher.run, watcher.stand_by)
        for code, sender in self.senders.items():
            self._start(supervisor, "sender", code, sender.run)
        for code, keeper in self.keepers.items():
            self._start(supervisor, "keeper", code, keeper.run)
        supervisor.start(FRESHNESS, self.freshness.run)
        lead = self._leadership.lead
        supervisor.start("reconciliation", lambda: lead(HOUSE_SEAT, self._reconcile_again_and_again))
        if self.node is not None:
            supervisor.start("miner", self.node.run)

    def _start(self, supervisor: Supervisor, name: str, code: str, loop: Loop, standby: Loop = rest) -> None:
        """Start a loop of a network. All of one are led together: they take turns in drafting payments."""
        supervisor.start(f"{name} {code}", lambda: self._leadership.lead(_seat(code), loop, standby))

    async def close(self) -> None:
        """Close the simulated node's file and the ways to the real ones."""
        if self.node is not None:
            self.node.close()
        for node in self._nodes:
            await node.close()

    async def give_up(self, payment: Payment) -> None:
        """Fail a payment whose coin is gone for good. Raises `Refused` PARAMETER_INVALID, `Unreachable`."""
        await give_up(self._context, self._sources[payment.network].chain, payment)

    async def reconcile(self) -> list[Reconciliation]:
        """Hold the books against every network's chain. Raises `Unreachable` where one cannot be asked."""
        found: list[Reconciliation] = []
        for number, source in self._sources.items():
            found += await reconcile(self._context, source.chain, number)
        cold = {number: (keeper.chain, keeper.terms.cold_address) for number, keeper in self._cold_keepers()}
        found += await reconcile_cold(self._context, cold)
        self.unexplained = {(it.network, it.asset): it.unexplained_units for it in found}
        return found

    def _cold_keepers(self) -> list[tuple[int, Keeper]]:
        """Return the keepers of networks that have a cold address, by the network's number."""
        networks = self._context.catalogue.snapshot.networks
        keepers = [(network.number, self.keepers.get(network.code)) for network in networks]
        return [(number, keeper) for number, keeper in keepers if keeper and keeper.terms.cold_address]

    async def _reconcile_again_and_again(self) -> None:
        while True:
            await asyncio.sleep(RECONCILE_EVERY_S)
            try:
                found = await self.reconcile()
            except ChainError as problem:
                log.warning("not_reconciled", problem=str(problem))
                continue
            for it in found:
                if it.unexplained_units:
                    log.error("books_and_chain_differ", network=it.network, asset=it.asset, units=it.unexplained_units)

    def status(self) -> dict[str, Any]:
        """Return how each network fares, for the operator."""
        return {code: self._status(code, watcher) for code, watcher in self.watchers.items()}

    def _status(self, code: str, watcher: Watcher) -> dict[str, Any]:
        age, sender = self.freshness.age(code), self.senders[code].status
        return {
            "height": watcher.status.height,
            "followed_s_ago": age.ms // 1_000,
            "stale": age.stale,
            "deposits_suspended": self.freshness.is_suspended(code),
            "watcher": watcher.status.error,
            "sender": sender.trouble,
            "open_payments": sender.open_payments,
            "stuck_payments": len(sender.stuck),
            "unbooked": watcher.unbooked,
            "reversed_deposits": watcher.status.reversed,
            "reopened_payments": watcher.status.reopened,
            "restored": watcher.restoration.reason,
        }


def _seat(code: str) -> str:
    return f"network {code}"


def _public_keys(path: Path, specs: Iterable[str]) -> PublicKeys:
    """Return the public keys that a vault wrote. Raises `ConfigError` where they lack a network."""
    try:
        keys = read_public_keys(path)
    except (PublicKeysError, OSError) as error:
        raise ConfigError([f"a signer needs the vault's public keys: {error}"]) from None
    if missing := [code for code in specs if code not in keys.networks]:
        raise ConfigError([f"{path} has no public keys for {', '.join(missing)}: make the vault with these settings"])
    return keys


def _served(
    networks: Iterable[NetworkSettings], real: Mapping[str, RealChain], simulation: Simulation
) -> list[NetworkSettings]:
    """Return the networks to serve. Raises `ConfigError` for one that there is no node for, real or simulated."""
    found = list(networks)
    simulated = [network for network in found if network.code not in real]
    problems = [
        f"network {network.code} has no node ('nodes.{network.code}.url'), and is not among those that can be "
        f"simulated: {', '.join(NETWORKS)}"
        for network in simulated
        if network.code not in NETWORKS
    ]
    problems += [
        f"network {network.code} is of the family {NETWORKS[network.code].family.value}, not {network.family}"
        for network in simulated
        if network.code in NETWORKS and NETWORKS[network.code].family.value != network.family
    ]
    if simulated and not simulation.enabled:
        names = ", ".join(network.code for network in simulated)
        problems.append(f"{names}: without a node ('nodes'), a network must be simulated: set 'simulation.enabled'")
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
        if any(context.reads.row(BranchRow, network.number, 0).derived for network in served):
            raise ConfigError([f"{path} is lost, but addresses were derived from it: restore it"]) from None
    seed = seed_of(new_mnemonic(context.ids.random_bytes(_ENTROPY_BYTES)))
    write_new(path, seal_seed(seed, master_key, context.ids))
    return seed
