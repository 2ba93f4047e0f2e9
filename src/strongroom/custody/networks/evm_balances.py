"""What addresses of an EVM network hold, and what the transactions that wait will take of it."""

from __future__ import annotations

from typing import Any, Final

from strongroom.custody.chain import Unreachable
from strongroom.custody.families import NATIVE
from strongroom.custody.networks.evm_reading import Transaction, address_of, quantity
from strongroom.custody.networks.evm_transactions import transferred

_BALANCE_OF: Final = "0x70a08231"  # first four bytes of the hash of balanceOf(address)


def question(address: str, asset_id: str) -> tuple[Any, ...]:
    """Return the method and the parameters that ask what an address holds."""
    if asset_id == NATIVE:
        return ("eth_getBalance", address, "latest")
    call = {"to": asset_id, "data": _BALANCE_OF + address[2:].lower().rjust(64, "0")}
    return ("eth_call", call, "latest")


def taken(transaction: Transaction, asset_id: str) -> int:
    """Return what a waiting transaction of the hot wallet takes at most of an asset. Raises `Unreachable`."""
    if asset_id == NATIVE:
        return quantity(transaction.value) + transaction.fee
    if transaction.to is None or address_of(transaction.to) != asset_id:
        return 0
    try:
        transfer = transferred(bytes.fromhex(transaction.data[2:]))
    except ValueError:
        raise Unreachable("the node's answer has no call data where some belong") from None
    return 0 if transfer is None else transfer[1]
