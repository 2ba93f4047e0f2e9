"""What an EVM node answers, read strictly: an answer of another shape is `Unreachable`, for it settles nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, TypeVar

import msgspec

from strongroom.custody import formats
from strongroom.custody.chain import Block, Output, Unreachable
from strongroom.custody.families import NATIVE

TRANSFER_TOPIC: Final = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"
"""The hash of `Transfer(address,address,uint256)`, by which ERC-20 contracts log what they move."""

_TOPICS: Final = 3
_WORD_CHARS: Final = 2 + 64
_ADDRESS_CHARS: Final = 40

T = TypeVar("T")


class Header(msgspec.Struct, frozen=True, rename="camel"):
    """A block without its transactions; a pending one may have no number and no hash."""

    parent_hash: str
    timestamp: str
    number: str | None = None
    hash: str | None = None

    def block(self) -> Block:
        """Return the port's block; raises `Unreachable` for a pending one."""
        if self.hash is None:
            raise Unreachable("the node's block has no hash")
        return Block(quantity(self.number), self.hash, self.parent_hash, 1_000 * quantity(self.timestamp))


class Transaction(msgspec.Struct, frozen=True, rename={"sender": "from", "data": "input"}):
    """A transaction in a block or waiting; one without `to` makes a contract."""

    hash: str
    sender: str
    nonce: str
    value: str
    gas: str
    data: str
    to: str | None = None
    maxFeePerGas: str | None = None  # noqa: N815 - the node's name
    gasPrice: str | None = None  # noqa: N815 - the node's name

    @property
    def fee(self) -> int:
        """Return the most it can cost, in wei."""
        return quantity(self.gas) * quantity(self.maxFeePerGas or self.gasPrice)


class FullBlock(Header, frozen=True, rename="camel"):
    """A block with its transactions."""

    transactions: tuple[Transaction, ...] = ()


class Log(msgspec.Struct, frozen=True):
    """What a contract logged."""

    address: str
    topics: tuple[str, ...]
    data: str


class Receipt(msgspec.Struct, frozen=True, rename="camel"):
    """What became of a transaction in its block."""

    transaction_hash: str
    block_hash: str
    block_number: str
    gas_used: str
    effective_gas_price: str = "0x0"
    status: str = "0x0"
    logs: tuple[Log, ...] = ()

    @property
    def succeeded(self) -> bool:
        """Tell whether it did what it was to do."""
        return quantity(self.status) == 1

    @property
    def fee(self) -> int:
        """Return what the chain took for it, in wei."""
        return quantity(self.gas_used) * quantity(self.effective_gas_price)


def read(answer: Any, kind: type[T]) -> T:
    """Return a node's answer as `kind`. Raises `Unreachable`."""
    try:
        return msgspec.convert(answer, kind)
    except msgspec.ValidationError as problem:
        raise Unreachable(f"the node's answer has another shape: {problem}") from None


def quantity(text: Any) -> int:
    """Return a number that the node tells in hex. Raises `Unreachable`."""
    try:
        return int(text, 16)
    except (TypeError, ValueError):
        raise Unreachable("the node's answer has no number where one belongs") from None


def address_of(text: str) -> str:
    """Return an address, in any case, in EIP-55. Raises `Unreachable`."""
    try:
        return formats.EVM.normalise(text.lower())
    except ValueError as problem:
        raise Unreachable(f"the node's answer has no address where one belongs: {problem}") from None


def native_output(transaction: Transaction, hot_address: str) -> Output | None:
    """Return what a transaction itself pays, at index 0; None when it pays nothing or makes a contract."""
    amount = quantity(transaction.value)
    if not amount or transaction.to is None:
        return None
    ours = address_of(transaction.sender) == hot_address
    return Output(transaction.hash, 0, address_of(transaction.to), "", NATIVE, amount, ours)


def token_outputs(receipt: Receipt, *, ours: bool) -> Iterator[Output]:
    """Yield what tokens a transaction moved; the log's ordinal in the receipt, and not in the block, names an output
    for ever: a reorganisation may place the transaction elsewhere."""
    for ordinal, log in enumerate(receipt.logs):
        # A fourth topic would be the number of a collectible (ERC-721), which is no amount.
        if len(log.topics) != _TOPICS or log.topics[0].lower() != TRANSFER_TOPIC or len(log.data) != _WORD_CHARS:
            continue
        if amount := quantity(log.data):
            receiver = address_of("0x" + log.topics[2][-_ADDRESS_CHARS:])
            yield Output(receipt.transaction_hash, 1 + ordinal, receiver, "", address_of(log.address), amount, ours)


def outputs(transactions: Iterable[Transaction], receipts: Sequence[Receipt], hot_address: str) -> list[Output]:
    """Return every output of a block, in order. Raises `Unreachable` where a receipt is missing."""
    by_txid = {receipt.transaction_hash: receipt for receipt in receipts}
    found: list[Output] = []
    for transaction in transactions:
        receipt = by_txid.get(transaction.hash)
        if receipt is None:
            raise Unreachable("the node has no receipt of a transaction in a block")
        if receipt.succeeded:
            if (native := native_output(transaction, hot_address)) is not None:
                found.append(native)
            found.extend(token_outputs(receipt, ours=address_of(transaction.sender) == hot_address))
    return found
