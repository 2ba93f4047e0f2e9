"""The dialects: two spellings of one service, and the markets that clients load before they use it."""

from __future__ import annotations

from typing import Final

from strongroom.api.dialects import markets, v3, wallet_v1

OPERATIONS: Final = [*markets.OPERATIONS, *v3.OPERATIONS, *wallet_v1.OPERATIONS]
"""Everything that the signed API offers."""
