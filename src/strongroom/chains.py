"""Chains: the real networks of the settings as parts, each with its node, its keys and how its payments are made.

A network that the settings name no node for is simulated; those are in `custody.families`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlsplit, urlunsplit

import msgspec

from strongroom.config.settings import Config, ConfigError
from strongroom.config.settings import Node as NodeSettings
from strongroom.custody.derivation import TAPROOT_PURPOSE, Branch
from strongroom.custody.families import NATIVE, NETWORKS, Family, Network
from strongroom.custody.freshness import FreshnessTerms
from strongroom.custody.networks.simulated_signing import SimulatedScheme
from strongroom.custody.networks.utxo import FeePolicy, UtxoChain
from strongroom.custody.networks.utxo_parameters import CHAINS
from strongroom.custody.networks.utxo_signing import SEGWIT_PURPOSE, UtxoScheme
from strongroom.custody.rpc import Node
from strongroom.custody.sender import PaymentTerms
from strongroom.custody.signer import Scheme
from strongroom.records.settings import NetworkSettings

_DECIMALS: Final = 8
_SECONDS_PER_BLOCK: Final = 600.0
_PER_KVB: Final = 1_000
_FALLBACK_PER_VB: Final = 10
_LITECOIN: Final = "litecoin"
_LITECOIN_COIN: Final = 2
_OTHERS: Final = 0o077
_MAX_PASSWORD_BYTES: Final = 4_096


class RealChain(msgspec.Struct, frozen=True):
    """One real network: how it is spelled and derived, its node, and the terms of our payments on it."""

    spec: Network
    settings: NodeSettings

    @property
    def start(self) -> int | None:
        """The block to begin with at the very first start, None for the newest of that moment."""
        return None if self.settings.start_height < 0 else self.settings.start_height

    @property
    def terms(self) -> PaymentTerms:
        """How its payments are made."""
        return PaymentTerms(self.settings.batch, self.settings.redraft_after_s)

    @property
    def freshness(self) -> FreshnessTerms:
        """When it is stale, and when no deposits are offered on it any more."""
        return FreshnessTerms(self.settings.stale_after_s, self.settings.suspend_deposits_after_s)

    def open(self, xpub: str) -> tuple[Node, UtxoChain]:
        """Return the way to its node, and the chain as the node tells it; `xpub` is the deposit account's.

        Raises `ConfigError` for a password file that cannot be used, `ValueError` for what is no xpub.
        """
        node, branch, fees = (
            Node(_url(self.settings), self.settings.answer_within_s),
            Branch(self.spec, xpub),
            self.settings,
        )
        fallback = min(max(_FALLBACK_PER_VB, fees.fee_floor), fees.fee_cap)
        policy = FeePolicy(fees.fee_floor * _PER_KVB, fallback * _PER_KVB, fees.fee_cap * _PER_KVB)
        chain = UtxoChain(
            self.spec, CHAINS[fees.chain], node, lambda position: branch.address(position).address, fees=policy
        )
        return node, chain

    def scheme(self, seed: bytes) -> UtxoScheme:
        """Return how its payments are signed."""
        return UtxoScheme(seed, self.spec, CHAINS[self.settings.chain])


def real_chains(nodes: Mapping[str, NodeSettings]) -> dict[str, RealChain]:
    """Return the real networks by their ids. Raises `ConfigError` for settings that contradict each other."""
    problems = [f"setting 'nodes.{code}.fee_floor' is above its fee_cap" for code, node in nodes.items()
                if node.fee_floor > node.fee_cap]  # fmt: skip
    problems += [f"setting 'nodes.{code}.url' is not an http or https address" for code, node in nodes.items()
                 if not node.url.startswith(("http://", "https://"))]  # fmt: skip
    problems += [f"setting 'nodes.{code}.taproot' is for Bitcoin only" for code, node in nodes.items()
                 if node.taproot and node.chain.startswith(_LITECOIN)]  # fmt: skip
    problems += [f"setting 'nodes.{code}.suspend_deposits_after_s' is below its stale_after_s"
                 for code, node in nodes.items() if node.suspend_deposits_after_s < node.stale_after_s]  # fmt: skip
    if problems:
        raise ConfigError(problems)
    return {code: RealChain(_spec(code, node), node) for code, node in nodes.items()}


def _spec(code: str, node: NodeSettings) -> Network:
    parameters = CHAINS[node.chain]
    # Not 1, the coin of all practice chains: two networks of one seed never share a key.
    coin = _LITECOIN_COIN if node.chain.startswith(_LITECOIN) else parameters.coin_type
    return Network(
        id=code,
        family=Family.BITCOIN,
        purpose=TAPROOT_PURPOSE if node.taproot else SEGWIT_PURPOSE,
        coin_type=coin,
        decimals={NATIVE: _DECIMALS},
        seconds_per_block=_SECONDS_PER_BLOCK,
        payment_fee=0,
        bitcoin=parameters.format,
    )


def specs_of(config: Config | None) -> list[Network]:
    """Return every network that there are keys for: the simulated ones, and those of the settings in their place."""
    real = {} if config is None else real_chains(config.nodes)
    return list({**NETWORKS, **{code: chain.spec for code, chain in real.items()}}.values())


def schemes_of(seed: bytes, config: Config | None) -> dict[str, Scheme]:
    """Return how the payments of each network are signed."""
    real = {} if config is None else real_chains(config.nodes)
    schemes: dict[str, Scheme] = {code: SimulatedScheme(network, seed) for code, network in NETWORKS.items()}
    return {**schemes, **{code: chain.scheme(seed) for code, chain in real.items()}}


def check_networks(served: Iterable[NetworkSettings], nodes: Mapping[str, NodeSettings]) -> None:
    """Raise `ConfigError` for a node without its network, and for a network of another family than its node's."""
    families = {network.code: network.family for network in served}
    problems = [f"setting 'nodes.{code}' names no network" for code in nodes if code not in families]
    problems += [
        f"network {code} is of the family {families[code]}, and its node of bitcoin"
        for code in nodes
        if families.get(code, Family.BITCOIN.value) != Family.BITCOIN.value
    ]
    if problems:
        raise ConfigError(problems)


def _url(settings: NodeSettings) -> str:
    """Return the node's address with the user and the password in it. Raises `ConfigError`."""
    if not settings.user:
        return settings.url
    parts = urlsplit(settings.url)
    secret = f"{quote(settings.user, safe='')}:{quote(_password(settings.password_file), safe='')}"
    return urlunsplit(parts._replace(netloc=f"{secret}@{parts.netloc.rpartition('@')[2]}"))


def _password(file: str) -> str:
    if not file:
        return ""
    path = Path(file)
    try:
        mode = path.stat().st_mode
        content = path.read_bytes()[:_MAX_PASSWORD_BYTES].decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"cannot read the node's password file {path}: {error}"]) from None
    if mode & _OTHERS:
        raise ConfigError([f"others may read the node's password file {path}: chmod 600 it"])
    return content
