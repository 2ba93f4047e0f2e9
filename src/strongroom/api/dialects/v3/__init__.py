"""The v3 ("spot") dialect: bare rows with JSON numbers, as clients of two generations read them."""

from __future__ import annotations

from typing import Final

from strongroom.api.dialects.v3 import addresses, assets, balances, history, movements

OPERATIONS: Final = [
    *assets.OPERATIONS,
    *balances.OPERATIONS,
    *history.OPERATIONS,
    *addresses.OPERATIONS,
    *movements.OPERATIONS,
]
