"""Reading what a node of a chain of inputs and outputs tells: blocks, outputs, amounts.

An answer that is not what the node's own documentation promises raises `Unreachable`: it settles nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from typing import Any, Final, cast

import msgspec

from strongroom.custody.chain import Block, Output, Unreachable
from strongroom.custody.rpc import decode


class _Block(msgspec.Struct):
    """Of a block only its transactions, as they came."""

    tx: list[msgspec.Raw]


UNITS_PER_COIN: Final = 10**8

_TXID: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_SCRIPTS: Final = frozenset(
    {"pubkeyhash", "scripthash", "witness_v0_keyhash", "witness_v0_scripthash", "witness_v1_taproot"}
)
"""The kinds of script that one address stands for; older nodes tell addresses of others, too, that pay no address."""


def units_of(amount: Any) -> int:
    """Return an amount of coins, as a node tells it, in the smallest unit. Raises `Unreachable`."""
    try:
        units = Decimal(str(amount)) * UNITS_PER_COIN
        whole = int(units)
    except (InvalidOperation, ValueError, OverflowError):
        raise Unreachable("the node tells an amount that is none") from None
    if whole != units or whole < 0:
        raise Unreachable("the node tells an amount that is none")
    return whole


def block_of(header: Any) -> Block:
    """Return the block of a header. Raises `Unreachable`."""
    parent = record_of(header).get("previousblockhash", "")
    return Block(
        whole_of(header, "height"),
        hash_of(field_of(header, "hash")),
        parent and hash_of(parent),
        whole_of(header, "time") * 1_000,
    )


def outputs_of(transaction: Any) -> list[Output]:
    """Return the outputs of a verbose transaction that pay an address. Raises `Unreachable`."""
    txid = hash_of(field_of(transaction, "txid"))
    coinbase = is_coinbase(transaction)
    found: list[Output] = []
    for output in records_of(transaction, "vout"):
        address = _address_of(output)
        if address and output.get("n") is not None:
            units = units_of(field_of(output, "value"))
            found.append(Output(txid, whole_of(output, "n"), address, "", "", units, coinbase=coinbase))
    return found


def is_coinbase(transaction: Any) -> bool:
    """Say whether a verbose transaction is the one that pays its block's miner."""
    return any("coinbase" in spent for spent in records_of(transaction, "vin"))


def outpoints_of(transaction: Any) -> Iterator[tuple[str, int]]:
    """Yield the txid and index of each output that a verbose transaction spends. Raises `Unreachable`."""
    for spent in records_of(transaction, "vin"):
        # A coinbase spends nothing, and an input of an extension block names no output of this chain.
        if "txid" in spent and "vout" in spent:
            yield hash_of(spent["txid"]), whole_of(spent, "vout")


def _address_of(output: Any) -> str:
    """Return the one address that an output pays, `""` for none. Nodes of before 2021 tell a list of addresses."""
    # An output of an extension block has no script.
    script = record_of(output.get("scriptPubKey", {}))
    if script.get("type") not in _SCRIPTS:
        return ""
    addresses = [script["address"]] if "address" in script else list_of(script, "addresses")
    return addresses[0] if len(addresses) == 1 and isinstance(addresses[0], str) else ""


def each_transaction(block: msgspec.Raw) -> Iterator[Any]:
    """Yield the verbose transactions of a block, each read when it is asked for: a whole block takes tenths of a
    second. Raises `Unreachable`."""
    try:
        transactions = msgspec.json.decode(block, type=_Block).tx
        for transaction in transactions:
            yield decode(transaction)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Unreachable("the node tells a block that is none") from None


def transactions_of(block: Any) -> list[dict[str, Any]]:
    """Return the verbose transactions of a block. Raises `Unreachable`."""
    return records_of(block, "tx")


def records_of(answer: Any, name: str) -> list[dict[str, Any]]:
    """Return a field that is a list of records. Raises `Unreachable`."""
    return [record_of(item) for item in list_of(answer, name)]


def list_of(answer: Any, name: str) -> list[Any]:
    """Return a field that is a list. Raises `Unreachable`."""
    found = field_of(answer, name)
    if not isinstance(found, list):
        raise Unreachable(f"the node tells no list of {name}")
    return cast("list[Any]", found)


def record_of(answer: Any) -> dict[str, Any]:
    """Return an answer that is a record of named fields. Raises `Unreachable`."""
    if not isinstance(answer, dict):
        raise Unreachable("the node tells something of another shape")
    return cast("dict[str, Any]", answer)


def field_of(answer: Any, name: str) -> Any:
    """Return a field of an answer. Raises `Unreachable` if there is none."""
    record = record_of(answer)
    if name not in record:
        raise Unreachable(f"the node tells no {name}")
    return record[name]


def whole_of(answer: Any, name: str) -> int:
    """Return a field that is a whole number. Raises `Unreachable`."""
    number = field_of(answer, name)
    if not isinstance(number, int) or isinstance(number, bool):
        raise Unreachable(f"the node tells a {name} that is no whole number")
    return number


def hash_of(text: Any) -> str:
    """Return a hash of 64 hex digits. Raises `Unreachable` for anything else."""
    if not isinstance(text, str) or not _TXID.fullmatch(text):
        raise Unreachable("the node tells a hash that is none")
    return text
