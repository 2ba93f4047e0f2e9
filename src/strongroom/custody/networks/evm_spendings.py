"""What addresses of ours have sent on an EVM network, and what of it a block has carried out or undone."""

from __future__ import annotations

from collections.abc import Sequence

from strongroom.custody.chain import Output, PositionOf, Spending, Unreachable
from strongroom.custody.networks.evm_reading import (
    Receipt,
    Transaction,
    address_of,
    native_output,
    outputs,
    quantity,
)
from strongroom.custody.networks.evm_transactions import transferred
from strongroom.wallet.payments import nonce_text


def of_positions(sent: Sequence[Transaction], position_of: PositionOf) -> list[tuple[int, Transaction]]:
    """Return those transactions that addresses of ours have sent, each with the position of its sender."""
    known = [(position_of(address_of(it.sender)), it) for it in sent]
    return [(position, it) for position, it in known if position is not None]


def spendings(
    sent: Sequence[Transaction], receipts: Sequence[Receipt], position_of: PositionOf, hot_address: str
) -> list[Spending]:
    """Return what our addresses have sent in a block, in order. Raises `Unreachable` where a receipt is missing."""
    ours = of_positions(sent, position_of)
    paid = outputs([it for _, it in ours], receipts, hot_address)
    done = {receipt.transaction_hash for receipt in receipts if receipt.succeeded}
    found: list[Spending] = []
    for position, it in ours:
        undone = it.hash not in done
        pays = _meant(it, hot_address) if undone else [output for output in paid if output.txid == it.hash]
        found.append(Spending(it.hash, (nonce_text(quantity(it.nonce), position),), tuple(pays), undone=undone))
    return found


def _meant(transaction: Transaction, hot_address: str) -> list[Output]:
    """Return what a transaction would have paid: its own value, or else a token by a plain transfer."""
    if (native := native_output(transaction, hot_address)) is not None:
        return [native]
    if transaction.to is None:
        return []
    try:
        transfer = transferred(bytes.fromhex(transaction.data[2:]))
    except ValueError:
        raise Unreachable("the node's answer has no call data where some belong") from None
    if transfer is None:
        return []
    receiver, amount = transfer
    ours = address_of(transaction.sender) == hot_address
    return [Output(transaction.hash, 0, receiver, "", address_of(transaction.to), amount, ours)]
