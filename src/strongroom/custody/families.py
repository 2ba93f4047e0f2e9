"""The table of networks the demo runs: family, address format, derivation path, chain decimals and pace.

The chains are practice chains, so prefixes are regtest's. An asset's id on a network is the chain's own name for it:
`""` for the native coin, else the token's.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

import msgspec

from strongroom.custody import formats
from strongroom.custody.formats import AddressFormat, BitcoinFormat

NATIVE: Final = ""
"""The asset id of a network's own coin, in which its fees are paid."""


class Family(Enum):
    """Networks of one family share address format, identifiers and the shape of a transaction."""

    BITCOIN = "bitcoin"
    EVM = "evm"
    RIPPLE = "ripple"


class Network(msgspec.Struct, frozen=True):
    """One network: how it is addressed, derived, counted and how fast it goes.

    `purpose` and `coin_type` are the first two hardened steps of the account path (BIP-43, SLIP-44); `decimals` maps
    each asset id to how many decimals the chain keeps; `payment_fee` is a usual fee in the native coin's smallest unit.
    """

    id: str
    family: Family
    purpose: int
    coin_type: int
    decimals: dict[str, int]
    seconds_per_block: float
    payment_fee: int
    bitcoin: BitcoinFormat | None = None

    @property
    def format(self) -> AddressFormat:
        """Return what the network's addresses look like."""
        if self.bitcoin is not None:
            return self.bitcoin
        return formats.EVM if self.family is Family.EVM else formats.RIPPLE


BITCOIN: Final = Network(
    id="BITCOIN",
    family=Family.BITCOIN,
    purpose=84,
    coin_type=1,
    decimals={NATIVE: 8},
    seconds_per_block=10.0,
    payment_fee=2_820,
    bitcoin=formats.BITCOIN_REGTEST,
)
LITECOIN: Final = Network(
    id="LITECOIN",
    family=Family.BITCOIN,
    purpose=84,
    coin_type=2,  # not 1, the test coin of SLIP-44: two networks must never share a key
    decimals={NATIVE: 8},
    seconds_per_block=5.0,
    payment_fee=14_100,
    bitcoin=formats.LITECOIN_REGTEST,
)
ERC20: Final = Network(
    id="ERC20",
    family=Family.EVM,
    purpose=44,
    coin_type=60,
    decimals={NATIVE: 18, "USDT": 6, "USDC": 6},
    seconds_per_block=3.0,
    payment_fee=65_000 * 2 * 10**9,
)
RIPPLE: Final = Network(
    id="RIPPLE",
    family=Family.RIPPLE,
    purpose=44,
    coin_type=144,
    decimals={NATIVE: 6},
    seconds_per_block=2.0,
    payment_fee=12,
)
NETWORKS: Final[dict[str, Network]] = {network.id: network for network in (BITCOIN, LITECOIN, ERC20, RIPPLE)}
"""Every network of the demo by its id."""
