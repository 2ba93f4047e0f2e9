"""Payments on EVM networks that are signed elsewhere: out as what common tools take, back as a raw transaction.

Numbers go out in hex, as the JSON-RPC interface has them: a tool that reads JSON numbers as floats would change a wei.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
import rlp  # pyright: ignore[reportMissingTypeStubs]

from strongroom.custody.chain import Candidate, Rejected
from strongroom.custody.networks.evm_transactions import (
    MAX_RAW_BYTES,
    EvmPayment,
    assemble,
    decode_payment,
    transaction_of,
)

_TYPE: Final = b"\x02"
_MAX_CHARS: Final = 4 * MAX_RAW_BYTES


class _Unsigned(msgspec.Struct, frozen=True):
    transaction: dict[str, str]
    raw: str


def unsigned_text(body: bytes) -> str:
    """Return a body's unsigned EIP-1559 transaction as JSON. Raises `Rejected` for what is no body.

    `transaction` has its fields as the JSON-RPC interface and web3 name them (ethers calls `gas` `gasLimit`), `raw` its
    bytes in hex before they are signed (RLP), which ethers reads with `Transaction.from`.
    """
    payment = decode_payment(body)
    named = {"from": payment.sender} | {name: _spelled(value) for name, value in transaction_of(payment).items()}
    text = msgspec.json.encode(_Unsigned(named, "0x" + unsigned_bytes(payment).hex()))
    return msgspec.json.format(text, indent=2).decode()


def _spelled(value: Any) -> str:
    return hex(value) if isinstance(value, int) else str(value)


def unsigned_bytes(payment: EvmPayment) -> bytes:
    """Return the bytes whose keccak-256 is signed (EIP-1559)."""
    fields: list[Any] = [
        payment.chain_id,
        payment.nonce,
        int(payment.priority_fee_per_gas),
        int(payment.max_fee_per_gas),
        payment.gas_limit,
        bytes.fromhex(payment.to[2:]),
        int(payment.value),
        bytes.fromhex(payment.data[2:]),
        [],
    ]
    return _TYPE + bytes(rlp.encode(fields))  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]


def signed_raw(body: bytes, text: str) -> Candidate:
    """Return the candidate of a body and its signed transaction in hex, with 0x or without.

    Raises `Rejected` unless it is the body's transaction, signed by the wallet that the body names.
    """
    if len(text) > _MAX_CHARS:
        raise Rejected("the signed text is too long")
    try:
        raw = bytes.fromhex("".join(text.split()).removeprefix("0x"))
    except ValueError:
        raise Rejected("not a signed transaction in hex") from None
    return assemble(body, raw)
