"""The wallet v1 ("unified") dialect: enveloped objects with amounts as text."""

from __future__ import annotations

from typing import Final

from strongroom.api.dialects.wallet_v1 import addresses, assets, history, movements

OPERATIONS: Final = [*assets.OPERATIONS, *history.OPERATIONS, *addresses.OPERATIONS, *movements.OPERATIONS]
