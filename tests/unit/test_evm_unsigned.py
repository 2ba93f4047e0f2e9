"""EVM payments that are signed elsewhere: what tools are given, and what is taken back."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from eth_account import Account
from eth_utils.crypto import keccak
from hypothesis import given
from hypothesis import strategies as st

from strongroom.custody.chain import Payee, Rejected
from strongroom.custody.derivation import Branch, BranchKeys, account_xpubs
from strongroom.custody.networks import evm_transactions as transactions
from strongroom.custody.networks.evm_signing import EvmScheme
from strongroom.custody.networks.evm_transactions import EvmPayment, network_of
from strongroom.custody.networks.evm_unsigned import signed_raw, unsigned_bytes, unsigned_text

SEED = bytes(range(64))
TOKEN = "0xdAC17F958D2ee523a2206206994597C13D831ec7"
THEIRS = "0x00000000000000000000000000000000DeaDBeef"
NETWORK = network_of("ETHEREUM", {TOKEN: 6})
KEY = BranchKeys(SEED, NETWORK).private_key(0)
SCHEME = EvmScheme(SEED, NETWORK, 31337)
HOT = Branch(NETWORK, account_xpubs(SEED, [NETWORK])[NETWORK.id]).address(0).address
GWEI = 10**9


def payment_to(payee: Payee) -> EvmPayment:
    to, value, data = transactions.target_of(payee)
    return EvmPayment(
        chain_id=31337,
        sender=HOT,
        nonce=0,
        to=to,
        value=str(value),
        data="0x" + data.hex(),
        gas_limit=65_000,
        max_fee_per_gas=str(30 * GWEI),
        priority_fee_per_gas=str(GWEI),
    )


ETHER = payment_to(Payee(THEIRS, "", "", 2**53 * 10**6 + 1))
TOKENS = payment_to(Payee(THEIRS, "", TOKEN, 123))
BOTH = pytest.mark.parametrize("payment", [ETHER, TOKENS], ids=["ether", "token"])


def body_of(payment: EvmPayment, **changes: Any) -> bytes:
    return transactions.encode_payment(msgspec.structs.replace(payment, **changes))


@BOTH
def test_another_tool_signs_what_it_is_given(payment: EvmPayment) -> None:
    """The fields have the names that web3 takes, to the last wei, and what it signs is the payment's candidate."""
    named = json.loads(unsigned_text(body_of(payment)))["transaction"]
    assert named["from"] == HOT
    assert int(named["value"], 16) == int(payment.value)
    raw = Account.from_key(KEY).sign_transaction(named).raw_transaction
    candidate = signed_raw(body_of(payment), "0x" + raw.hex())
    assert candidate.blob == bytes(raw) == SCHEME.sign(body_of(payment))
    assert candidate.txid == "0x" + keccak(bytes(raw)).hex()
    assert signed_raw(body_of(payment), f" {raw.hex()}\n") == candidate


@BOTH
def test_the_bytes_are_those_that_are_signed(payment: EvmPayment) -> None:
    """The key that signed the hash of the unsigned bytes is the hot wallet's."""
    text = json.loads(unsigned_text(body_of(payment)))["raw"]
    digest = keccak(bytes.fromhex(text.removeprefix("0x")))
    signed = Account.from_key(KEY).sign_transaction(transactions.transaction_of(payment))
    own = Account._recover_hash(digest, vrs=(signed.v, signed.r, signed.s))  # pyright: ignore[reportPrivateUsage]
    assert own == HOT


CHANGES: list[dict[str, Any]] = [
    {"value": "1000000000000000001"},
    {"to": "0x0000000000000000000000000000000000000001"},
    {"max_fee_per_gas": str(31 * GWEI)},
    {"priority_fee_per_gas": str(2 * GWEI)},
    {"gas_limit": 65_001},
    {"nonce": 1},
    {"chain_id": 1},
    {"data": "0x00"},
]


@pytest.mark.parametrize("change", CHANGES, ids=[next(iter(change)) for change in CHANGES])
def test_another_payment_is_refused_however_well_it_is_signed(change: dict[str, Any]) -> None:
    """A changed amount, receiver, fee, nonce, chain or call is not the payment."""
    changed = transactions.transaction_of(msgspec.structs.replace(ETHER, **change))
    raw = Account.from_key(KEY).sign_transaction(changed).raw_transaction
    with pytest.raises(Rejected, match="the signed transaction is not the payment's"):
        _ = signed_raw(body_of(ETHER), raw.hex())


def test_another_wallets_signature_is_refused() -> None:
    """The same transaction from another key pays from another wallet."""
    raw = Account.from_key(b"\x07" * 32).sign_transaction(transactions.transaction_of(ETHER)).raw_transaction
    with pytest.raises(Rejected, match="the signed transaction is not the payment's"):
        _ = signed_raw(body_of(ETHER), raw.hex())


def test_half_a_transaction_and_nonsense_are_refused() -> None:
    """What is cut off, unsigned, too long or no hex at all gets a reason."""
    whole = SCHEME.sign(body_of(ETHER)).hex()
    for text in (*(whole[:size] for size in range(0, len(whole), 3)), unsigned_bytes(ETHER).hex(), whole + "00"):
        with pytest.raises(Rejected):
            _ = signed_raw(body_of(ETHER), text)
    with pytest.raises(Rejected, match="not a signed transaction in hex"):
        _ = signed_raw(body_of(ETHER), unsigned_text(body_of(ETHER)))
    with pytest.raises(Rejected, match="too long"):
        _ = signed_raw(body_of(ETHER), "0" * 100_000)
    with pytest.raises(Rejected, match="the body is no payment"):
        _ = unsigned_text(b"{}")


@given(st.text())
def test_any_text_is_refused(text: str) -> None:
    """Nothing but the signed payment is taken."""
    with pytest.raises(Rejected):
        _ = signed_raw(body_of(TOKENS), text)
