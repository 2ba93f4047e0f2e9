"""What tells the chains of inputs and outputs apart: their address prefixes, first blocks and relay rules."""

from __future__ import annotations

from typing import Final

import msgspec

from strongroom.custody import formats
from strongroom.custody.formats import BitcoinFormat

COINBASE_MATURITY: Final = 100
"""So many blocks must follow before anybody can spend what a coinbase transaction pays (consensus rule)."""


class CoinChain(msgspec.Struct, frozen=True):
    """One chain of inputs and outputs.

    `first_blocks` maps each name that a node may give its chain to the hash of that chain's block 0. Rates are in the
    coin's smallest unit for 1,000 virtual bytes, as nodes count them: `relay_per_kvb` is the least that is relayed, and
    by how much a replacement's fee must grow; an output worth less than its own spending would cost at `dust_per_kvb`
    is not relayed. `coin_type` is SLIP-44's. `practice` is true where blocks are made at will. `replaces`
    is false where nodes keep the first of two transactions that spend the same, whatever the other pays.
    """

    name: str
    format: BitcoinFormat
    first_blocks: dict[str, str]
    coin_type: int
    relay_per_kvb: int = 1_000
    dust_per_kvb: int = 3_000
    max_weight: int = 400_000
    practice: bool = False
    replaces: bool = True


CHAINS: Final[dict[str, CoinChain]] = {
    chain.name: chain
    for chain in (
        CoinChain(
            "bitcoin-main",
            formats.BITCOIN_MAINNET,
            {"main": "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f"},
            coin_type=0,
        ),
        CoinChain(
            "bitcoin-test",
            formats.BITCOIN_TESTNET,
            {
                "test": "000000000933ea01ad0ee984209779baaec3ced90fa3f408719526f8d77f4943",
                "testnet4": "00000000da84f2bafbbc53dee25a72ae507ff4914b867c565be350b0da8bf043",
            },
            coin_type=1,
        ),
        CoinChain(
            "bitcoin-regtest",
            formats.BITCOIN_REGTEST,
            {"regtest": "0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206"},
            coin_type=1,
            practice=True,
        ),
        CoinChain(
            "litecoin-main",
            formats.LITECOIN_MAINNET,
            {"main": "12a765e31ffd4059bada1e25190f6e98c99d9714d334efa41a195a7e7e04bfe2"},
            coin_type=2,
            dust_per_kvb=30_000,
            replaces=False,
        ),
        CoinChain(
            "litecoin-test",
            formats.LITECOIN_TESTNET,
            {"test": "4966625a4b2851d9fdee139e56211a0d88575f59ed816ff5e6a63deb4e3e29a0"},
            coin_type=1,
            dust_per_kvb=30_000,
            replaces=False,
        ),
        CoinChain(
            "litecoin-regtest",
            formats.LITECOIN_REGTEST,
            {"regtest": "530827f38f93b43ed12af0b3ad25a288dc02ed74d6d7857862df51fc56c416f9"},
            coin_type=1,
            dust_per_kvb=30_000,
            replaces=False,
            practice=True,
        ),
    )
}
"""Every chain known here, by its name."""
