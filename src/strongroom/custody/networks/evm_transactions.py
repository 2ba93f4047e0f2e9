"""Payments on EVM networks before they are signed, and signed ones read back: pure, no node needed.

A payment's canonical body is the JSON of its fields in order, an EIP-1559 transaction. It pays one payee: native coin
as its value, a token by a call of the token contract's `transfer(address,uint256)` (ERC-20) with no value.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, Final, cast

import msgspec
import rlp  # pyright: ignore[reportMissingTypeStubs]
from eth_account import Account
from eth_utils.crypto import keccak

from strongroom.custody import formats
from strongroom.custody.chain import Candidate, Payee, Rejected
from strongroom.custody.families import NATIVE, Family, Network
from strongroom.custody.signer import Explained
from strongroom.wallet.payments import nonce_text

# A library that eth-account loads lifts the bound on recursion so far that a hostile node's deeply nested JSON would
# end the process, where it should end in an error.
sys.setrecursionlimit(1_000)

MAX_RAW_BYTES: Final = 4 * 1024
"""A signed payment is under 300 bytes; anything larger is refused unread."""

NATIVE_DECIMALS: Final = 18

_TRANSFER: Final = bytes.fromhex("a9059cbb")  # first four bytes of the hash of transfer(address,uint256)
_TYPE: Final = 2
_WORD: Final = 32
_ADDRESS_BYTES: Final = 20
_CALL_BYTES: Final = 4 + 2 * _WORD
_FIELDS: Final = 12
_NUMBERS: Final = (0, 1, 2, 3, 4, 6, 9, 10, 11)  # all but receiver, data and access list
_MAX_UNITS: Final = 2**256
_MAX_COUNT: Final = 2**62
_HALF_ORDER: Final = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0


class EvmPayment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An unsigned transaction of one of our addresses: amounts and fees in wei as decimal text, `data` in hex with 0x.

    `source` is the position of the sender's key, 0 the hot wallet's; `target` that of the receiver's, -1 for one that
    is not ours.
    """

    chain_id: int
    sender: str
    nonce: int
    to: str
    value: str
    data: str
    gas_limit: int
    max_fee_per_gas: str
    priority_fee_per_gas: str
    source: int = 0
    target: int = -1

    @property
    def spends(self) -> tuple[str, ...]:
        """Return the nonce that it spends, by the text that the books know it by."""
        return (nonce_text(self.nonce, self.source),)

    @property
    def fee(self) -> int:
        """Return the most it can cost, in wei: the gas limit at the highest fee."""
        return self.gas_limit * int(self.max_fee_per_gas)


def network_of(network_id: str, tokens: Mapping[str, int], seconds_per_block: float = 12.0) -> Network:
    """Return a real EVM network; `tokens` maps contract addresses, in EIP-55, to decimals.

    Raises `ValueError` for an address in another spelling.
    """
    for address in tokens:
        if formats.EVM.normalise(address) != address:
            raise ValueError(f"{address} is not spelled with the checksum of EIP-55")
    return Network(
        id=network_id,
        family=Family.EVM,
        purpose=44,
        coin_type=60,
        decimals={NATIVE: NATIVE_DECIMALS, **tokens},
        seconds_per_block=seconds_per_block,
        payment_fee=65_000 * 2 * 10**9,
    )


def target_of(payee: Payee) -> tuple[str, int, bytes]:
    """Return to whom a transaction goes that pays `payee`, its value in wei, and its call data. Raises `Rejected`."""
    try:
        address, asset_id = (
            formats.EVM.normalise(payee.address),
            payee.asset_id and formats.EVM.normalise(payee.asset_id),
        )
        _ = formats.EVM.normalise_tag(payee.tag)
    except ValueError as problem:
        raise Rejected(str(problem)) from None
    if not 0 < payee.amount < _MAX_UNITS:
        raise Rejected("an amount is positive and below 2^256")
    if asset_id == NATIVE:
        return address, payee.amount, b""
    receiver = bytes.fromhex(address[2:]).rjust(_WORD, b"\0")
    return asset_id, 0, _TRANSFER + receiver + payee.amount.to_bytes(_WORD, "big")


def transferred(data: bytes) -> tuple[str, int] | None:
    """Return the receiver (EIP-55) and the amount of a token transfer's call data; None for any other data."""
    if len(data) != _CALL_BYTES or not data.startswith(_TRANSFER):
        return None
    receiver, amount = data[4 : 4 + _WORD], data[4 + _WORD :]
    if any(receiver[: _WORD - _ADDRESS_BYTES]):
        return None
    return formats.EVM.normalise("0x" + receiver[-_ADDRESS_BYTES:].hex()), int.from_bytes(amount, "big")


def encode_payment(payment: EvmPayment) -> bytes:
    """Return the payment's canonical body."""
    return msgspec.json.encode(payment)


def decode_payment(body: bytes) -> EvmPayment:
    """Return the payment of a canonical body; raises `Rejected` for anything else."""
    try:
        payment = msgspec.json.decode(body, type=EvmPayment)
        amounts = [int(text) for text in (payment.value, payment.max_fee_per_gas, payment.priority_fee_per_gas)]
        data = _bytes_of(payment.data)
        spelled = all(formats.EVM.normalise(address) == address for address in (payment.sender, payment.to))
    except (msgspec.DecodeError, ValueError):
        raise Rejected("the body is no payment") from None
    texts = (payment.value, payment.max_fee_per_gas, payment.priority_fee_per_gas)
    canonical = tuple(str(amount) for amount in amounts) == texts and payment.data == "0x" + data.hex()
    if not spelled or not canonical or encode_payment(payment) != body:
        raise Rejected("the body is not in its canonical encoding")
    if not 0 <= payment.source < _MAX_COUNT or not -1 <= payment.target < _MAX_COUNT:
        raise Rejected("a position that no address has")
    counts = (payment.chain_id, payment.nonce, payment.gas_limit)
    if not all(0 <= count < _MAX_COUNT for count in counts) or not all(0 <= it < _MAX_UNITS for it in amounts):
        raise Rejected("a number of the body is out of range")
    if amounts[2] > amounts[1]:
        raise Rejected("the priority fee is above the whole fee")
    return payment


def explain(body: bytes) -> Explained:
    """Return whom a body pays, its highest fee in wei and the nonce it spends. Raises `Rejected`. Pure."""
    payment = decode_payment(body)
    return Explained((payee_of(payment),), payment.fee, payment.spends)


def payee_of(payment: EvmPayment) -> Payee:
    """Return whom a payment pays; raises `Rejected` for data that is no token transfer, or that pays nothing."""
    data, value = _bytes_of(payment.data), int(payment.value)
    if not data:
        payee = Payee(payment.to, "", NATIVE, value)
    elif (transfer := transferred(data)) is not None and value == 0:
        payee = Payee(transfer[0], "", payment.to, transfer[1])
    else:
        raise Rejected("the data is no token transfer")
    if payee.amount <= 0:
        raise Rejected("the payment pays nothing")
    return payee


def transaction_of(payment: EvmPayment) -> dict[str, Any]:
    """Return the transaction that is to be signed, with the field names of the JSON-RPC interface."""
    return {
        "type": _TYPE,
        "chainId": payment.chain_id,
        "nonce": payment.nonce,
        "to": payment.to,
        "value": int(payment.value),
        "data": payment.data,
        "gas": payment.gas_limit,
        "maxFeePerGas": int(payment.max_fee_per_gas),
        "maxPriorityFeePerGas": int(payment.priority_fee_per_gas),
    }


def txid_of(raw: bytes) -> str:
    """Return the txid of a raw signed transaction: the keccak-256 of its bytes."""
    return "0x" + keccak(raw).hex()


def open_raw(raw: bytes) -> EvmPayment:
    """Return the fields of a raw signed EIP-1559 transaction with the sender its signature names; raises `Rejected`.

    What it does not tell, the positions of keys, is as for a payment of the hot wallet to somebody else.
    """
    if not raw or len(raw) > MAX_RAW_BYTES or raw[0] != _TYPE:
        raise Rejected("not an EIP-1559 transaction")
    try:
        fields = cast("list[bytes]", rlp.decode(raw[1:]))  # pyright: ignore[reportUnknownMemberType]
        if len(fields) != _FIELDS or fields[8] or len(fields[5]) != _ADDRESS_BYTES:
            raise Rejected("a transaction of another shape than ours")
        if any(fields[at].startswith(b"\0") for at in _NUMBERS):
            raise Rejected("a number of the transaction has a second form")
        chain_id, nonce, tip, fee, gas, value, *_, s = (int.from_bytes(fields[at], "big") for at in _NUMBERS)
        sender = str(Account.recover_transaction(raw))  # pyright: ignore[reportUnknownMemberType]
        to, data = formats.EVM.normalise("0x" + fields[5].hex()), "0x" + fields[7].hex()
    except Rejected:
        raise
    except Exception:  # noqa: BLE001 - the libraries raise errors of many kinds for bytes that are no transaction
        raise Rejected("the transaction is malformed") from None
    if s > _HALF_ORDER:
        raise Rejected("the signature has a second form")
    return EvmPayment(chain_id, sender, nonce, to, str(value), data, gas, str(fee), str(tip))


def assemble(body: bytes, raw: bytes) -> Candidate:
    """Return the candidate of a body and its signed form; raises `Rejected` unless one is the other, signed by the
    address that the body names."""
    wanted = msgspec.structs.replace(decode_payment(body), source=0, target=-1)
    if open_raw(raw) != wanted:
        raise Rejected("the signed transaction is not the payment's")
    return Candidate(txid_of(raw), raw)


def _bytes_of(data: str) -> bytes:
    """Return the bytes of hex with 0x; raises `ValueError`."""
    if not data.startswith("0x"):
        raise ValueError("no 0x")
    return bytes.fromhex(data[2:])
