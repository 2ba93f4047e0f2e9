"""Chains: the real networks of the settings as parts, each with its node, its keys and how its payments are made.

A network that the settings name no node for is simulated; those are in `custody.families`. What a real network needs
is imported only where there is one: the libraries for EVM chains alone would double the time that a start takes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlsplit, urlunsplit

import msgspec

from strongroom.config.settings import Config, ConfigError, Hot, Offer
from strongroom.config.settings import Node as NodeSettings
from strongroom.custody.chain import Chain
from strongroom.custody.derivation import NO_FINGERPRINT, TAPROOT_PURPOSE, Branch
from strongroom.custody.families import NATIVE, NETWORKS, Family, Network
from strongroom.custody.freshness import FreshnessTerms
from strongroom.custody.keeper import KeeperTerms, Marks
from strongroom.custody.networks.simulated_signing import SimulatedScheme
from strongroom.custody.networks.utxo_parameters import CHAINS
from strongroom.custody.sender import PaymentTerms
from strongroom.custody.signer import Scheme
from strongroom.money import AmountError, parse_amount
from strongroom.records.settings import AssetSettings, NetworkSettings, OfferSettings
from strongroom.wallet.catalogue import Catalogue

if TYPE_CHECKING:
    from strongroom.custody.networks.utxo import FeePolicy
    from strongroom.custody.rpc import Node

EVM: Final = "evm"
"""The chain of a node of an EVM network."""

GWEI: Final = 10**9

_DECIMALS: Final = 8
_SECONDS_PER_BLOCK: Final = 600.0
_PER_KVB: Final = 1_000
_FALLBACK_PER_VB: Final = 10
_BITCOIN: Final = "bitcoin"
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

    @property
    def is_evm(self) -> bool:
        """Whether it is a chain of accounts."""
        return self.settings.chain == EVM

    def keeping(self, catalogue: Catalogue, network: int) -> KeeperTerms:
        """Return how its hot wallet is kept. Raises `ConfigError` for marks and an address that cannot be."""
        at = f"nodes.{self.spec.id}"
        problems: list[str] = []
        marks: dict[int, Marks] = {}
        for code, hot in self.settings.hot.items():
            offer = next((it for it in catalogue.snapshot.offers if _is_offer(catalogue, it, code, network)), None)
            if offer is None:
                problems.append(f"setting '{at}.hot.{code}' names no asset of the network")
                continue
            marks[offer.asset] = _marks(hot, offer, catalogue.assets[offer.asset], f"{at}.hot.{code}", problems)
            if marks[offer.asset].high and not self.settings.cold_address:
                problems.append(f"setting '{at}.hot.{code}.high' needs '{at}.cold_address'")
        cold = self.settings.cold_address
        try:
            if cold and self.spec.format.normalise(cold) != cold:
                problems.append(f"setting '{at}.cold_address' is not in its usual spelling")
        except ValueError as error:
            problems.append(f"setting '{at}.cold_address': {error}")
        if problems:
            raise ConfigError(problems)
        return KeeperTerms(marks, cold, 0 if self.is_evm else self.settings.consolidate_above)

    def open(self, xpub: str, tokens: Collection[str] = (), fingerprint: bytes = NO_FINGERPRINT) -> tuple[Node, Chain]:
        """Return the way to its node, and the chain as the node tells it; `xpub` is the deposit account's, `tokens` the
        contracts of an EVM network that are offered.

        `fingerprint` is the master key's, for signers elsewhere. Raises `ConfigError` for a password file that cannot
        be used, `ValueError` for what is no xpub.
        """
        from strongroom.custody.rpc import Node

        node, branch = Node(_url(self.settings), self.settings.answer_within_s), Branch(self.spec, xpub)

        def address_at(position: int) -> str:
            return branch.address(position).address

        if self.is_evm:
            from strongroom.custody.networks.evm import EvmChain
            from strongroom.custody.networks.evm_fees import FeeTerms

            terms = FeeTerms(self.settings.fee_floor * GWEI, self.settings.fee_cap * GWEI)
            return node, EvmChain(self.spec, self.settings.chain_id, address_at, tokens, node, terms=terms)
        from strongroom.custody.networks.utxo import UtxoChain

        parameters, fees = CHAINS[self.settings.chain], self._fee_policy()
        return node, UtxoChain(self.spec, parameters, node, address_at, fees=fees, keys=branch, fingerprint=fingerprint)

    def _fee_policy(self) -> FeePolicy:
        from strongroom.custody.networks.utxo import FeePolicy

        fees = self.settings
        fallback = min(max(_FALLBACK_PER_VB, fees.fee_floor), fees.fee_cap)
        quiet = min(fees.consolidate_fee, fees.fee_cap)
        return FeePolicy(*(rate * _PER_KVB for rate in (fees.fee_floor, fallback, fees.fee_cap, quiet)))

    def scheme(self, seed: bytes) -> Scheme:
        """Return how its payments are signed."""
        if self.is_evm:
            from strongroom.custody.networks.evm_signing import EvmScheme

            return EvmScheme(seed, self.spec, self.settings.chain_id)
        from strongroom.custody.networks.utxo_signing import UtxoScheme

        return UtxoScheme(seed, self.spec, CHAINS[self.settings.chain])


def _is_offer(catalogue: Catalogue, offer: OfferSettings, code: str, network: int) -> bool:
    return offer.network == network and catalogue.assets[offer.asset].code == code


def _marks(hot: Hot, offer: OfferSettings, asset: AssetSettings, at: str, problems: list[str]) -> Marks:
    """Return an asset's marks in the chain's unit, and note what is wrong with them."""
    scale = min(asset.scale, offer.decimals)

    def units(name: str, text: str) -> int:
        if not text.strip("0."):
            return 0
        try:
            return parse_amount(text, scale) * 10 ** (offer.decimals - scale)
        except AmountError as error:
            problems.append(f"setting '{at}.{name}' is {text!r}: it {error}")
            return 0

    marks = Marks(*(units(name, getattr(hot, name)) for name in ("low", "high", "keep", "sweep_above")))
    if marks.high and not marks.low <= marks.keep <= marks.high:
        problems.append(f"settings '{at}': keep lies between low and high")
    return marks


def real_chains(config: Config) -> dict[str, RealChain]:
    """Return the real networks by their ids. Raises `ConfigError` for settings that contradict each other."""
    nodes = config.nodes
    problems = [f"setting 'nodes.{code}.fee_floor' is above its fee_cap" for code, node in nodes.items()
                if node.fee_floor > node.fee_cap]  # fmt: skip
    problems += [f"setting 'nodes.{code}.url' is not an http or https address" for code, node in nodes.items()
                 if not node.url.startswith(("http://", "https://"))]  # fmt: skip
    problems += [f"setting 'nodes.{code}.chain_id' is for chain 'evm', and needed there" for code, node in nodes.items()
                 if bool(node.chain_id) != (node.chain == EVM)]  # fmt: skip
    problems += [f"setting 'nodes.{code}.taproot' is for Bitcoin only" for code, node in nodes.items()
                 if node.taproot and not node.chain.startswith(_BITCOIN)]  # fmt: skip
    problems += [f"setting 'nodes.{code}.suspend_deposits_after_s' is below its stale_after_s"
                 for code, node in nodes.items() if node.suspend_deposits_after_s < node.stale_after_s]  # fmt: skip
    if problems:
        raise ConfigError(problems)
    return {code: RealChain(_spec(code, node, config.offers), node) for code, node in nodes.items()}


def _spec(code: str, node: NodeSettings, offers: Mapping[str, Mapping[str, Offer]]) -> Network:
    if node.chain == EVM:
        from strongroom.custody.networks.evm_transactions import network_of

        offered = [by_network[code] for by_network in offers.values() if code in by_network]
        try:
            return network_of(code, {offer.token: offer.decimals for offer in offered if offer.token})
        except ValueError as problem:
            raise ConfigError([f"a token of network {code}: {problem}"]) from None
    from strongroom.custody.networks.utxo_signing import SEGWIT_PURPOSE

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
    real = {} if config is None else real_chains(config)
    return list({**NETWORKS, **{code: chain.spec for code, chain in real.items()}}.values())


def schemes_of(seed: bytes, config: Config | None) -> dict[str, Scheme]:
    """Return how the payments of each network are signed."""
    real = {} if config is None else real_chains(config)
    schemes: dict[str, Scheme] = {code: SimulatedScheme(network, seed) for code, network in NETWORKS.items()}
    return {**schemes, **{code: chain.scheme(seed) for code, chain in real.items()}}


def check_networks(served: Iterable[NetworkSettings], nodes: Mapping[str, NodeSettings]) -> None:
    """Raise `ConfigError` for a node without its network, and for a network of another family than its node's."""
    families = {network.code: network.family for network in served}
    problems = [f"setting 'nodes.{code}' names no network" for code in nodes if code not in families]
    for code, node in nodes.items():
        family = (Family.EVM if node.chain == EVM else Family.BITCOIN).value
        if families.get(code, family) != family:
            problems.append(f"network {code} is of the family {families[code]}, and its node of {family}")
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
