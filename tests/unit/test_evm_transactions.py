"""Payments on EVM networks: bodies, what they come to, and how they are signed, by a second opinion too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from eth_account import Account
from hypothesis import given
from hypothesis import strategies as st
from web3 import Web3

from strongroom.custody.chain import Payee, Rejected
from strongroom.custody.derivation import Branch, BranchKeys, account_xpubs
from strongroom.custody.formats import EVM
from strongroom.custody.networks import evm_transactions as transactions
from strongroom.custody.networks.evm_signing import EvmScheme
from strongroom.custody.networks.evm_transactions import EvmPayment, network_of
from strongroom.custody.signer import Explained, LocalSigner
from strongroom.wallet.payments import nonce_text

SEED = bytes(range(64))
TOKEN = "0xdAC17F958D2ee523a2206206994597C13D831ec7"
THEIRS = "0x00000000000000000000000000000000DeaDBeef"
NETWORK = network_of("ETHEREUM", {TOKEN: 6})
CHAIN_ID = 31337
SCHEME = EvmScheme(SEED, NETWORK, CHAIN_ID)
HOT_KEY = BranchKeys(SEED, NETWORK).private_key(0)
BRANCH = Branch(NETWORK, account_xpubs(SEED, [NETWORK])["ETHEREUM"])
HOT = BRANCH.address(0).address
OURS = BRANCH.address(7).address
GWEI = 10**9

addresses = st.binary(min_size=20, max_size=20).map(lambda raw: EVM.normalise("0x" + raw.hex()))
amounts = st.integers(1, 2**256 - 1)


def payment_to(payee: Payee, nonce: int = 5, **changes: Any) -> EvmPayment:
    """Return a payment of the hot wallet."""
    to, value, data = transactions.target_of(payee)
    payment = EvmPayment(
        chain_id=CHAIN_ID,
        sender=HOT,
        nonce=nonce,
        to=to,
        value=str(value),
        data="0x" + data.hex(),
        gas_limit=21_000,
        max_fee_per_gas=str(30 * GWEI),
        priority_fee_per_gas=str(GWEI),
    )
    return msgspec.structs.replace(payment, **changes)


ETHER = payment_to(Payee(THEIRS, "", "", 10**18))
TOKENS = payment_to(Payee(THEIRS, "", TOKEN, 123))


@given(receiver=addresses, amount=amounts, token=st.booleans(), nonce=st.integers(0, 2**62 - 1))
def test_a_body_says_whom_it_pays(receiver: str, amount: int, token: bool, nonce: int) -> None:
    """What was put into a body is read from it again: receiver, asset, amount, fee and nonce."""
    payee = Payee(receiver, "", TOKEN if token else "", amount)
    body = transactions.encode_payment(payment_to(payee, nonce))
    expected = Explained((payee,), 21_000 * 30 * GWEI, (nonce_text(nonce),))
    assert transactions.explain(body) == SCHEME.explain(body) == expected


@given(receiver=addresses, amount=amounts)
def test_a_token_is_paid_by_the_call_that_others_make(receiver: str, amount: int) -> None:
    """The call data of a token payment are those that another library makes."""
    inputs = [{"name": "to", "type": "address"}, {"name": "amount", "type": "uint256"}]
    abi = [{"type": "function", "name": "transfer", "inputs": inputs, "outputs": []}]
    theirs = (
        Web3().eth.contract(address=Web3.to_checksum_address(TOKEN), abi=abi).encode_abi("transfer", [receiver, amount])
    )
    assert payment_to(Payee(receiver, "", TOKEN, amount)).data == theirs


@given(body=st.binary(max_size=200))
def test_bytes_that_are_no_payment_are_refused(body: bytes) -> None:
    """No bytes at all crash the reading of a body or of a signed transaction."""
    with pytest.raises(Rejected):
        _ = transactions.explain(body)
    for raw in (body, b"\x02" + body):
        with pytest.raises(Rejected):
            _ = transactions.open_raw(raw)


def test_what_stays_ours_is_no_payee() -> None:
    """A sweep and gas for a deposit address pay nobody; they spend a nonce of the address that pays."""
    sweep = payment_to(Payee(HOT, "", TOKEN, 5), nonce=3, sender=OURS, source=7, target=0)
    gas = payment_to(Payee(OURS, "", "", 10**15), target=7)
    for payment, spends in ((sweep, nonce_text(3, 7)), (gas, nonce_text(5))):
        body = transactions.encode_payment(payment)
        explained = SCHEME.explain(body)
        assert (explained.payees, explained.spends) == ((), (spends,))
        candidate = transactions.assemble(body, SCHEME.sign(body))
        assert Account.recover_transaction(candidate.blob) == payment.sender


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"target": 8}, "not the address of ours"), ({"source": 8}, "another wallet"), ({"target": -2}, "position")],
)
def test_a_position_that_is_another_addresss_is_not_signed_for(change: dict[str, Any], reason: str) -> None:
    """Neither the sender nor the receiver is believed to be ours because a body says so."""
    sweep = payment_to(Payee(HOT, "", TOKEN, 5), sender=OURS, source=7, target=0)
    with pytest.raises(Rejected, match=reason):
        _ = SCHEME.sign(transactions.encode_payment(msgspec.structs.replace(sweep, **change)))


@pytest.mark.parametrize("payment", [ETHER, TOKENS])
def test_what_is_signed_is_what_others_sign(payment: EvmPayment) -> None:
    """The signed transaction is the other library's, byte for byte, each time, and its sender is the hot wallet."""
    raw = SCHEME.sign(transactions.encode_payment(payment))
    account = Account.from_key(HOT_KEY)
    theirs = Web3().eth.account.sign_transaction(transactions.transaction_of(payment), account.key)
    assert raw == SCHEME.sign(transactions.encode_payment(payment)) == bytes(theirs.raw_transaction)
    candidate = transactions.assemble(transactions.encode_payment(payment), raw)
    assert candidate.blob == raw
    assert candidate.txid == "0x" + bytes(theirs.hash).hex()
    assert Account.recover_transaction(raw) == HOT
    assert transactions.open_raw(raw) == payment


@dataclass(frozen=True)
class Refusal:
    """A body that is not signed, and why."""

    payment: EvmPayment
    reason: str


REFUSALS = {
    "another chain": Refusal(msgspec.structs.replace(ETHER, chain_id=1), "another chain"),
    "another sender": Refusal(msgspec.structs.replace(ETHER, sender=THEIRS), "another wallet"),
    "a new contract": Refusal(msgspec.structs.replace(ETHER, to=""), "no payment"),
    "another call": Refusal(msgspec.structs.replace(TOKENS, data="0x095ea7b3" + TOKENS.data[10:]), "no token transfer"),
    "a longer call": Refusal(msgspec.structs.replace(TOKENS, data=TOKENS.data + "00"), "no token transfer"),
    "an address with more": Refusal(
        msgspec.structs.replace(TOKENS, data=TOKENS.data[:10] + "01" + TOKENS.data[12:]), "no token transfer"
    ),
    "a token call with ether": Refusal(msgspec.structs.replace(TOKENS, value="1"), "no token transfer"),
    "nothing paid": Refusal(msgspec.structs.replace(ETHER, value="0"), "pays nothing"),
    "no token paid": Refusal(msgspec.structs.replace(TOKENS, data=TOKENS.data[:-64] + "0" * 64), "pays nothing"),
    "a negative amount": Refusal(msgspec.structs.replace(ETHER, value="-1"), "out of range"),
    "too large an amount": Refusal(msgspec.structs.replace(ETHER, value=str(2**256)), "out of range"),
    "an odd number": Refusal(msgspec.structs.replace(ETHER, value="01"), "canonical"),
    "an odd address": Refusal(msgspec.structs.replace(ETHER, to=THEIRS.lower()), "canonical"),
    "odd hex": Refusal(msgspec.structs.replace(TOKENS, data="0x" + TOKENS.data[2:].upper()), "canonical"),
    "a priority above all": Refusal(
        msgspec.structs.replace(ETHER, priority_fee_per_gas=str(31 * GWEI)), "above the whole"
    ),
    "a negative nonce": Refusal(msgspec.structs.replace(ETHER, nonce=-1), "out of range"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_anything_else_is_not_signed(name: str) -> None:
    """Only a payment of this wallet on this chain, in ether or in a token paid here, is explained and signed."""
    body = transactions.encode_payment(REFUSALS[name].payment)
    for use in (SCHEME.sign, SCHEME.explain):
        with pytest.raises(Rejected, match=REFUSALS[name].reason):
            _ = use(body)


def test_another_spelling_of_a_body_is_refused() -> None:
    """A body has one spelling, so that what was committed is what is signed."""
    body = transactions.encode_payment(ETHER)
    with pytest.raises(Rejected, match="canonical"):
        _ = SCHEME.sign(body.replace(b":", b": ", 1))
    with pytest.raises(Rejected, match="no payment"):
        _ = SCHEME.sign(body[:-1] + b',"more":1}')


@pytest.mark.parametrize(
    "change",
    [
        {"chain_id": 1},
        {"nonce": 6},
        {"to": TOKEN},
        {"value": "1"},
        {"gas_limit": 22_000},
        {"max_fee_per_gas": "1000000000"},
        {"priority_fee_per_gas": "1"},
    ],
)
def test_another_transaction_is_not_put_in_a_payments_place(change: dict[str, Any]) -> None:
    """A signed transaction that differs from the body in any field is no candidate of it."""
    transaction = transactions.transaction_of(msgspec.structs.replace(ETHER, **change))
    raw = bytes(Account.sign_transaction(transaction, HOT_KEY).raw_transaction)
    with pytest.raises(Rejected, match="not the payment's"):
        _ = transactions.assemble(transactions.encode_payment(ETHER), raw)


def test_another_wallets_signature_is_refused() -> None:
    """A payment that another key has signed is no candidate."""
    raw = bytes(Account.sign_transaction(transactions.transaction_of(ETHER), b"\x01" * 32).raw_transaction)
    with pytest.raises(Rejected, match="not the payment's"):
        _ = transactions.assemble(transactions.encode_payment(ETHER), raw)


@given(at=st.integers(0, 400), bit=st.integers(0, 7))
def test_no_bit_of_a_signed_transaction_can_be_turned(at: int, bit: int) -> None:
    """A signed transaction with one bit changed is no candidate of the payment."""
    body = transactions.encode_payment(TOKENS)
    raw = bytearray(SCHEME.sign(body))
    raw[at % len(raw)] ^= 1 << bit
    with pytest.raises(Rejected):
        _ = transactions.assemble(body, bytes(raw))


def test_other_kinds_of_transactions_are_refused() -> None:
    """Old transactions, new contracts and access lists are none of ours."""
    key, plain = HOT_KEY, transactions.transaction_of(ETHER)
    entry = {"address": TOKEN, "storageKeys": []}
    old = {name: plain[name] for name in ("chainId", "nonce", "to", "value", "gas")} | {"gasPrice": GWEI}
    for other in (old, plain | {"to": ""}, plain | {"accessList": [entry]}):
        with pytest.raises(Rejected):
            _ = transactions.open_raw(bytes(Account.sign_transaction(other, key).raw_transaction))


@pytest.mark.parametrize(
    "payee",
    [
        Payee("0x12", "", "", 1),
        Payee(THEIRS, "7", "", 1),
        Payee(THEIRS, "", "USDT", 1),
        Payee(THEIRS, "", "", 0),
        Payee(THEIRS, "", TOKEN, 2**256),
    ],
)
def test_a_payee_who_cannot_be_paid_is_refused(payee: Payee) -> None:
    """Nobody is paid at a bad address, with a tag, in an unknown asset, nothing, or more than a number can hold."""
    with pytest.raises(Rejected):
        _ = transactions.target_of(payee)


async def test_the_signer_signs_by_the_scheme() -> None:
    """The signer gives out what the network's scheme makes of a body."""
    body = transactions.encode_payment(ETHER)
    assert await LocalSigner(SEED, [NETWORK], {"ETHEREUM": SCHEME}).sign("ETHEREUM", 1, body) == SCHEME.sign(body)


def test_a_network_counts_each_asset_as_its_chain_does() -> None:
    """A network knows the decimals of its coin and of its tokens, which are named by their addresses in EIP-55."""
    assert NETWORK.decimals == {"": 18, TOKEN: 6}
    for address in (TOKEN.lower(), "USDT"):
        with pytest.raises(ValueError, match=r"."):
            _ = network_of("ETHEREUM", {address: 6})
