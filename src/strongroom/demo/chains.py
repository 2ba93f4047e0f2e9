"""Which of a demo's networks run on nodes of their own: chosen by name at its first start, and kept with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from strongroom.config.settings import ConfigError


class DemoChain(NamedTuple):
    """A chain that a demo can run on a node: its name for the command line, what people call it, the id of its network,
    and the node's program."""

    name: str
    title: str
    network: str
    program: str


CHAINS: Final[dict[str, DemoChain]] = {
    chain.name: chain
    for chain in (
        DemoChain("bitcoin", "Bitcoin", "BITCOIN", "bitcoind"),
        DemoChain("litecoin", "Litecoin", "LITECOIN", "litecoind"),
        DemoChain("evm", "Ethereum", "ERC20", "anvil"),
    )
}

TOKENS: Final = {
    "ERC20": {
        "USDT": "0x5FbDB2315678afecb367f032d93F642f64180aa3",
        "USDC": "0xe7f1725E7734CE288F8367e1Bb143E90bb3F0512",
    }
}
"""The contracts of tokens on each network that has some, by the asset's code; see `demo.evm_node`."""


def read_chains(text: str) -> tuple[str, ...]:
    """Return the names of a list such as `bitcoin,litecoin`, each once, in the order of `CHAINS`.

    Raises `ConfigError` for a name that is none.
    """
    names = [name for part in text.split(",") if (name := part.strip().lower())]
    unknown = [name for name in names if name not in CHAINS]
    problems = [f"there is no chain '{name}' for --chains: there are {', '.join(CHAINS)}" for name in unknown]
    if problems:
        raise ConfigError(problems)
    return tuple(name for name in CHAINS if name in names)


def check_same(asked: Sequence[str], kept: Sequence[str]) -> None:
    """Raise `ConfigError` if a demo that was founded on some chains is asked to run on others."""
    if set(asked) != set(kept):
        raise ConfigError([f"this demo began with {_said(kept)}, and goes on with that: give another --data folder"])


def _said(chains: Sequence[str]) -> str:
    return f"--chains {','.join(chains)}" if chains else "simulated chains only"
