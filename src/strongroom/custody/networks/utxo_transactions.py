"""Payments on chains of inputs and outputs: the body that is drafted, reserved and signed, and what it comes to.

A body is JSON with one spelling, so that the same payment has the same bytes. Its change returns to the house's own
address and is the transaction's last output; every input may be replaced (BIP-125). Everything here is pure, amounts
and fees are integers, and a fee rate is in the smallest unit for 1,000 virtual bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import msgspec
from bip_utils import Base58Decoder, SegwitBech32Decoder  # pyright: ignore[reportMissingTypeStubs]
from btclib.script.script_pub_key import ScriptPubKey
from btclib.tx.out_point import OutPoint
from btclib.tx.tx import Tx
from btclib.tx.tx_in import TxIn
from btclib.tx.tx_out import TxOut

from strongroom.custody.chain import Funds, InsufficientFunds, Payee, Rejected
from strongroom.custody.families import NATIVE
from strongroom.custody.formats import BitcoinFormat
from strongroom.custody.networks.utxo_parameters import CoinChain
from strongroom.custody.signer import Explained
from strongroom.errors import check
from strongroom.records.coins import Coin
from strongroom.wallet.payments import Draft

MAX_INPUTS: Final = 200
"""A payment spends at most this many coins."""

MAX_PAYEES: Final = 100
"""A payment pays at most this many addresses."""

SEQUENCE: Final = 0xFFFFFFFD
"""What every input says: this transaction may be replaced by one that pays more (BIP-125)."""

VERSION: Final = 2
MAX_BODY_BYTES: Final = 128 * 1024

_TXID_CHARS: Final = 64
_MAX_INDEX: Final = 2**32 - 1
_MAX_UNITS: Final = 2**63 - 1
_TAPROOT_SCRIPT: Final = b"\x51\x20"
_WEIGHT_PER_BYTE: Final = 4
_FRAME_BYTES: Final = 4 + 4 + 2
_MANY: Final = 253
_INPUT_BYTES: Final = 32 + 4 + 1 + 4
_KEY_HASH_WITNESS: Final = 1 + 1 + 72 + 1 + 33
_TAPROOT_WITNESS: Final = 1 + 1 + 64
_SPENDING_WITNESS_OUTPUT: Final = 67
_SPENDING_OLD_OUTPUT: Final = 148


class Spent(msgspec.Struct, frozen=True):
    """A coin that a payment spends; `position` is that of its address."""

    outpoint: str
    units: int
    position: int
    address: str


class Paid(msgspec.Struct, frozen=True):
    """An output: so many units to an address."""

    address: str
    units: int


class Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An unsigned payment: what comes in is what goes out, with the change and the fee."""

    inputs: tuple[Spent, ...]
    outputs: tuple[Paid, ...]
    change: Paid | None
    fee: int

    @property
    def spends(self) -> tuple[str, ...]:
        """Return the outpoints it spends."""
        return tuple(spent.outpoint for spent in self.inputs)

    @property
    def paid(self) -> tuple[Paid, ...]:
        """Return every output of the transaction in its order, the change last."""
        return self.outputs if self.change is None else (*self.outputs, self.change)

    @property
    def draft(self) -> Draft:
        """Return the draft that the sender keeps."""
        return Draft(self.spends, encode(self), self.fee)


_decoder: Final = msgspec.json.Decoder(Body)


def encode(body: Body) -> bytes:
    """Return a body's only spelling."""
    return msgspec.json.encode(body, order="sorted")


def decode(raw: bytes) -> Body:
    """Return the body that bytes spell. Raises `Rejected` for another spelling, or a sum that is off."""
    if len(raw) > MAX_BODY_BYTES:
        raise Rejected("a payment's body is too long")
    try:
        body = _decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Rejected("not a payment's body") from None
    if encode(body) != raw:
        raise Rejected("a payment's body in another spelling")
    _check_body(body)
    return body


def _check_body(body: Body) -> None:
    if not 1 <= len(body.inputs) <= MAX_INPUTS or not body.paid or len(body.outputs) > MAX_PAYEES:
        raise Rejected("a payment of no or too many inputs or outputs")
    if len(set(body.spends)) != len(body.inputs):
        raise Rejected("a payment spends a coin twice")
    amounts = [spent.units for spent in body.inputs] + [paid.units for paid in body.paid]
    if not all(0 < units <= _MAX_UNITS for units in amounts) or body.fee < 0:
        raise Rejected("an amount out of range")
    if sum(spent.units for spent in body.inputs) != sum(paid.units for paid in body.paid) + body.fee:
        raise Rejected("inputs are not outputs, change and fee")


def explain(raw: bytes, home: str) -> Explained:
    """Return what a body comes to, where `home` is the only address that change may go to. Raises `Rejected`."""
    body = decode(raw)
    if body.change is not None and body.change.address != home:
        raise Rejected("change goes to an address that is not the house's own")
    payees = tuple(Payee(paid.address, "", NATIVE, paid.units) for paid in body.outputs)
    return Explained(payees, body.fee, body.spends)


def script_of(spelling: BitcoinFormat, address: str) -> bytes:
    """Return the script that pays an address: P2WPKH, P2WSH, P2TR, P2PKH or P2SH. Raises `ValueError(reason)`."""
    address = spelling.normalise(address)
    if address.startswith(spelling.hrp + "1"):
        version, program = SegwitBech32Decoder.Decode(spelling.hrp, address)
        opcode = 0x50 + version if version else 0
        return bytes([opcode, len(program)]) + program
    payload = Base58Decoder.CheckDecode(address)
    # The first of a format's versions is always that of a key's hash, every other a script's.
    if payload[0] == next(iter(spelling.versions)):
        return b"\x76\xa9\x14" + payload[1:] + b"\x88\xac"
    return b"\xa9\x14" + payload[1:] + b"\x87"


def parse_outpoint(outpoint: str) -> tuple[str, int]:
    """Return the txid and index that `txid:index` names. Raises `Rejected`."""
    txid, _, index = outpoint.partition(":")
    is_hex = len(txid) == _TXID_CHARS and all(digit in "0123456789abcdef" for digit in txid)
    if not is_hex or not index.isascii() or not index.isdigit() or not 0 <= int(index[:11]) <= _MAX_INDEX:
        raise Rejected("not the name of an output")
    return txid, int(index)


def transaction_of(body: Body, spelling: BitcoinFormat) -> Tx:
    """Return the unsigned transaction of a body. Raises `Rejected` for an address or outpoint that is none."""
    inputs: list[TxIn] = []
    for spent in body.inputs:
        txid, index = parse_outpoint(spent.outpoint)
        inputs.append(TxIn(OutPoint(bytes.fromhex(txid), index), b"", SEQUENCE))
    outputs = [output_of(paid.address, paid.units, spelling) for paid in body.paid]
    return Tx(VERSION, 0, inputs, outputs, check_validity=False)


def output_of(address: str, units: int, spelling: BitcoinFormat) -> TxOut:
    """Return an output that pays an address. Raises `Rejected` for an address that is none."""
    try:
        script = script_of(spelling, address)
    except ValueError as problem:
        raise Rejected(str(problem)) from None
    # The library's bound on amounts is Bitcoin's; other chains have more coins. The scripts are looked at above.
    return TxOut(units, ScriptPubKey(script, check_validity=False), check_validity=False)


def virtual_size(inputs: Sequence[bytes], outputs: Sequence[bytes]) -> int:
    """Return the virtual bytes, at most, of a signed transaction of these input and output scripts.

    Inputs are P2WPKH or P2TR. Weight counts each byte four times, those of the witness once (BIP-141).
    """
    counts = 2 * (len(inputs) >= _MANY) + 2 * (len(outputs) >= _MANY)
    plain = _FRAME_BYTES + counts + _INPUT_BYTES * len(inputs) + sum(9 + len(script) for script in outputs)
    witness = sum(_TAPROOT_WITNESS if it.startswith(_TAPROOT_SCRIPT) else _KEY_HASH_WITNESS for it in inputs)
    return -(-(_WEIGHT_PER_BYTE * plain + 2 + witness) // _WEIGHT_PER_BYTE)


def fee_of(size_vb: int, rate_per_kvb: int) -> int:
    """Return the fee of a size at a rate, rounded up."""
    return -(-size_vb * rate_per_kvb // 1_000)


def dust_limit(script: bytes, parameters: CoinChain) -> int:
    """Return the least that an output of a script must pay to be relayed."""
    is_witness = script[:1] == b"\x00" or script.startswith(_TAPROOT_SCRIPT)
    spending = _SPENDING_WITNESS_OUTPUT if is_witness else _SPENDING_OLD_OUTPUT
    return (9 + len(script) + spending) * parameters.dust_per_kvb // 1_000


class Sizes:
    """How large the transactions that pay given payees from one branch are, by their number of inputs."""

    def __init__(self, payees: Sequence[bytes], home: bytes) -> None:
        self._payees = list(payees)
        self._home = home

    def of(self, inputs: int, *, change: bool) -> int:
        """Return the virtual bytes with so many inputs, with change or without."""
        return virtual_size([self._home] * inputs, [*self._payees, self._home] if change else self._payees)


def select(
    payees: Sequence[Payee], funds: Funds, rate_per_kvb: int, parameters: CoinChain, address_at: Callable[[int], str]
) -> Body:
    """Return a body that pays the payees from as few of the coins as will do, largest first.

    `address_at` gives our address of a position; change goes to that of 0, unless it were dust: then the miner has it.
    Raises `Rejected` for payees that cannot be paid, `InsufficientFunds`.
    """
    scripts = [_payee_script(payee, parameters) for payee in payees]
    check(1 <= len(scripts) <= MAX_PAYEES, "a payment has one to a hundred payees")
    home = address_at(0)
    home_script = script_of(parameters.format, home)
    sizes = Sizes(scripts, home_script)
    wanted, total = sum(payee.amount for payee in payees), 0
    coins = sorted(funds.coins, key=lambda coin: (-coin.units, coin.outpoint))[:MAX_INPUTS]
    for count, coin in enumerate(coins, 1):
        total += coin.units
        if total < wanted + fee_of(sizes.of(count, change=False), rate_per_kvb):
            continue
        inputs = tuple(Spent(it.outpoint, it.units, it.position, address_at(it.position)) for it in coins[:count])
        outputs = tuple(Paid(payee.address, payee.amount) for payee in payees)
        left = total - wanted - fee_of(sizes.of(count, change=True), rate_per_kvb)
        change = Paid(home, left) if left >= dust_limit(home_script, parameters) else None
        return Body(inputs, outputs, change, total - wanted - (change.units if change else 0))
    more = f", {MAX_INPUTS} of them at once," if len(funds.coins) > MAX_INPUTS else ""
    raise InsufficientFunds(f"the free coins{more} do not pay this and its fee")


def consolidate(
    coins: Sequence[Coin], rate_per_kvb: int, parameters: CoinChain, address_at: Callable[[int], str]
) -> Body:
    """Return a body that pays nobody: all that the coins come to, less the fee, returns as change.

    Raises `Rejected` where that would be dust.
    """
    check(1 <= len(coins) <= MAX_INPUTS, "a payment spends one to two hundred coins")
    home = address_at(0)
    script = script_of(parameters.format, home)
    fee = fee_of(Sizes([], script).of(len(coins), change=True), rate_per_kvb)
    left = sum(coin.units for coin in coins) - fee
    if left < dust_limit(script, parameters):
        raise Rejected("the coins are not worth the fee that their consolidation costs")
    inputs = tuple(Spent(it.outpoint, it.units, it.position, address_at(it.position)) for it in coins)
    return Body(inputs, (), Paid(home, left), fee)


def _payee_script(payee: Payee, parameters: CoinChain) -> bytes:
    if payee.asset_id != NATIVE or payee.tag:
        raise Rejected("the chain pays its own coin only, and has no tags")
    try:
        script = script_of(parameters.format, payee.address)
    except ValueError as problem:
        raise Rejected(str(problem)) from None
    if payee.amount < dust_limit(script, parameters):
        raise Rejected(f"an output of less than {dust_limit(script, parameters)} units is not relayed")
    return script


def size_of(body: Body, parameters: CoinChain) -> int:
    """Return the virtual bytes, at most, of a body once it is signed."""
    return virtual_size(
        [script_of(parameters.format, spent.address) for spent in body.inputs],
        [script_of(parameters.format, paid.address) for paid in body.paid],
    )


def rate_of(body: Body, parameters: CoinChain) -> int:
    """Return the fee rate of a body, rounded down."""
    return body.fee * 1_000 // size_of(body, parameters)


def raise_fee(body: Body, rate_per_kvb: int, parameters: CoinChain) -> Body | None:
    """Return a body that spends and pays the same at a higher rate, out of its change; None if that cannot replace it.

    A replacement pays the old fee, and relaying its own size on top (BIP-125, rule 4).
    """
    if body.change is None:
        return None
    size_vb = size_of(body, parameters)
    fee = max(fee_of(size_vb, rate_per_kvb), body.fee + fee_of(size_vb, parameters.relay_per_kvb))
    left = body.change.units - (fee - body.fee)
    if left >= dust_limit(script_of(parameters.format, body.change.address), parameters):
        return msgspec.structs.replace(body, change=Paid(body.change.address, left), fee=fee)
    whole = msgspec.structs.replace(body, change=None, fee=body.fee + body.change.units)
    least = body.fee + fee_of(size_of(whole, parameters), parameters.relay_per_kvb)
    return whole if whole.fee >= least else None
