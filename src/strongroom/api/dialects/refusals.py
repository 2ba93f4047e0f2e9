"""What each use case can be refused with, by the errors' names: the same in both dialects."""

from __future__ import annotations

from typing import Final

TRANSFER: Final = ("invalid_currency", "receiver_not_found", "transfer_refused", "insufficient_balance")
WITHDRAW: Final = (
    "invalid_currency",
    "invalid_network",
    "invalid_withdraw_amount",
    "invalid_withdraw_address",
    "withdraw_refused",
    "insufficient_balance",
)
CONVERT: Final = ("invalid_currency", "conversion_refused", "insufficient_balance")
RATE: Final = ("invalid_currency", "conversion_refused")
ADDRESS: Final = ("invalid_currency", "invalid_network")
NEW_ADDRESS: Final = (*ADDRESS, "address_unused")
