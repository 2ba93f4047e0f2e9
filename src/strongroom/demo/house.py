"""The demo's house: its settings, its files, and how much everybody has."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Final

import msgspec

from strongroom.config.settings import Config, Node, Offer, Simulation, Tier, load_config
from strongroom.demo.chains import TOKENS

KEYS_FILE: Final = "demo.json"
"""Who there is, with their API keys: the last file of a demo to come into being, so that it marks a whole one."""

MASTER_KEY_FILE: Final = "master.key"
DRAIN_S: Final = 0.2


class DemoUser(msgspec.Struct, frozen=True):
    """A user of the demo with its key, as the demo shows them; `uid` as text, `parent` is the parent's username."""

    username: str
    email: str
    uid: str
    api_key: str
    api_secret: str
    permissions: list[str]
    parent: str | None


class DemoKeys(msgspec.Struct, frozen=True):
    """The content of the demo's file of keys; `chains` are the names of those that are not simulated."""

    users: list[DemoUser]
    chains: list[str] = []


class Opening(msgspec.Struct, frozen=True):
    """How a demo is started: where it listens, how fast its chains are, and what it goes without."""

    host: str = "127.0.0.1"
    port: int = 8080
    seconds_per_block: float = 2
    rate_limits: bool = True


def demo_config(folder: Path, opening: Opening, nodes: Mapping[str, Node] | None = None) -> Config:
    """Return the settings of a demo in a data folder, with its nodes by their network's id.

    The environment has no say in them.
    """
    with resources.as_file(resources.files("strongroom.demo") / "house.toml") as file:
        packaged = load_config(file, {})
    return msgspec.structs.replace(
        packaged,
        data=str(folder),
        host=opening.host,
        port=opening.port,
        master_key_file=str(folder / MASTER_KEY_FILE),
        drain_s=DRAIN_S,
        rate_limits={"default": Tier(unlimited=not opening.rate_limits)},
        simulation=Simulation(enabled=True, seconds_per_block=opening.seconds_per_block),
        nodes=dict(nodes or {}),
        offers={code: _offers(code, offers, nodes or {}) for code, offers in packaged.offers.items()},
    )


def _offers(code: str, offers: Mapping[str, Offer], nodes: Mapping[str, Node]) -> dict[str, Offer]:
    """Return an asset's offers; on a node a token has the name that the chain gives it, its contract's address."""
    contracts = {network: TOKENS[network][code] for network in nodes if code in TOKENS.get(network, {})}
    return {
        network: msgspec.structs.replace(offer, token=contracts.get(network, offer.token))
        for network, offer in offers.items()
    }


def read_keys(folder: Path) -> DemoKeys:
    """Return the demo's users and keys. Raises `FileNotFoundError` where there is no whole demo."""
    return msgspec.json.decode((folder / KEYS_FILE).read_bytes(), type=DemoKeys)


def is_demo(folder: Path) -> bool:
    """Say whether a folder has a whole demo."""
    return (folder / KEYS_FILE).is_file()
