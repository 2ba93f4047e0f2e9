"""A server on an EVM node in a process of its own, which can be killed at any moment and started again."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from support.coin_process import ServerProcess
from support.nodes import Anvil

HOUSE: Final = """\
data = "data"
[rate_limits.default]
unlimited = true
[nodes.ERC20]
url = "{url}"
chain = "evm"
chain_id = 31337
start_height = 0
[assets.ETH]
number = 3
name = "Ether"
[assets.USDT]
number = 2
name = "Tether"
[networks.ERC20]
number = 2
short_name = "Ethereum"
family = "evm"
confirmations = 2
fee_asset = "ETH"
[offers.ETH.ERC20]
decimals = 18
default = true
[offers.USDT.ERC20]
decimals = 6
token = "{token}"
default = true
"""


class EvmProcess(ServerProcess):
    """A server of a folder that `evm_house` serves as well."""

    watched = "ERC20"

    def __init__(self, folder: Path, anvil: Anvil, token: str) -> None:
        super().__init__(folder, HOUSE.format(url=anvil.url, token=token))
