"""Payments on chains of inputs and outputs: which coins, what fee, what change, and what a body comes to."""

from __future__ import annotations

import msgspec
import pytest
from bip_utils import Base58Encoder
from hypothesis import given
from hypothesis import strategies as st

from strongroom.custody.chain import Funds, InsufficientFunds, Payee, Rejected
from strongroom.custody.networks import utxo_transactions as transactions
from strongroom.custody.networks.utxo_parameters import CHAINS, CoinChain
from strongroom.custody.networks.utxo_transactions import Body, Paid, Spent, dust_limit, script_of
from strongroom.records.coins import Coin
from support.utxo import BITCOIN_CHAIN, TAPROOT, branch_of

BRANCH = branch_of(TAPROOT)
HOME = BRANCH.address(0).address
STRANGER = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"
RATE = 10_000
DUST = dust_limit(script_of(BITCOIN_CHAIN.format, HOME), BITCOIN_CHAIN)


def address_at(position: int) -> str:
    return BRANCH.address(position).address


def coins(*units: int) -> Funds:
    return Funds(coins=tuple(Coin(1, f"{index:064x}:{index}", index % 3, it, 1) for index, it in enumerate(units)))


def select(amount: int, funds: Funds, rate: int = RATE) -> Body:
    return transactions.select([Payee(STRANGER, "", "", amount)], funds, rate, BITCOIN_CHAIN, address_at)


def balanced(body: Body) -> bool:
    return sum(it.units for it in body.inputs) == sum(it.units for it in body.paid) + body.fee


def test_the_largest_coins_pay_so_that_few_are_spent() -> None:
    """Two large coins pay what would take many small ones."""
    body = select(150_000, coins(60_000, 100_000, 70_000, 90_000))
    assert [it.units for it in body.inputs] == [100_000, 90_000]
    assert [it.address for it in body.inputs] == [address_at(it.position) for it in body.inputs]
    assert balanced(body)


def test_change_goes_home_and_dust_to_the_miner() -> None:
    """What is left over comes back, unless it is worth less than it costs to spend."""
    paid = select(50_000, coins(100_000))
    assert paid.change is not None
    assert paid.change.address == HOME
    fee = paid.fee
    kept = select(100_000 - fee - DUST, coins(100_000))
    assert kept.change == Paid(HOME, DUST)
    given_up = select(100_000 - fee - DUST + 1, coins(100_000))
    assert (given_up.change, given_up.fee) == (None, fee + DUST - 1)


def test_too_little_money_is_told() -> None:
    """A payment that the coins cannot pay with its fee waits for more, also when there are many tiny ones."""
    with pytest.raises(InsufficientFunds):
        _ = select(100_000, coins(100_000))
    with pytest.raises(InsufficientFunds):
        _ = select(1_000, Funds())
    with pytest.raises(InsufficientFunds, match="200 of them at once"):
        _ = select(300_000, coins(*[2_000] * 300))
    assert len(select(250_000, coins(*[2_000] * 300), 1_000).inputs) <= transactions.MAX_INPUTS


@pytest.mark.parametrize(
    "payee",
    [
        Payee(STRANGER, "7", "", 1_000),
        Payee(STRANGER, "", "USDT", 1_000),
        Payee("bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", "", "", 1_000),
        Payee(STRANGER, "", "", 293),
    ],
)
def test_what_no_node_would_relay_is_not_drafted(payee: Payee) -> None:
    """Tags, tokens, addresses of another chain and dust are refused before anything is signed."""
    with pytest.raises(Rejected):
        _ = transactions.select([payee], coins(10**6), RATE, BITCOIN_CHAIN, address_at)


@given(
    units=st.lists(st.integers(1, 10**8), min_size=1, max_size=30),
    amounts=st.lists(st.integers(600, 10**7), min_size=1, max_size=8),
    rate=st.integers(1_000, 500_000),
)
def test_no_unit_is_lost_and_the_fee_is_bounded(units: list[int], amounts: list[int], rate: int) -> None:
    """What comes in goes out, and the fee is what the size asks for and less than dust more."""
    payees = [Payee(STRANGER, "", "", amount) for amount in amounts]
    try:
        body = transactions.select(payees, coins(*units), rate, BITCOIN_CHAIN, address_at)
    except InsufficientFunds:
        fee = transactions.fee_of(
            transactions.Sizes([], script_of(BITCOIN_CHAIN.format, HOME)).of(30, change=True), rate
        )
        worth = sum(amounts) + fee + len(amounts) * 31 * rate // 1_000 + len(amounts)
        assert sum(units) < worth
        return
    assert balanced(body)
    assert transactions.decode(transactions.encode(body)) == body
    assert [(it.address, it.units) for it in body.outputs] == [(it.address, it.amount) for it in payees]
    least = transactions.fee_of(transactions.size_of(body, BITCOIN_CHAIN), rate)
    most = least if body.change else least + DUST + transactions.fee_of(43, rate) + 1
    assert least <= body.fee <= most
    assert body.change is None or body.change.units >= DUST


@given(amount=st.integers(600, 190_000), rate=st.integers(1_000, 200_000), raised=st.integers(1_000, 400_000))
def test_a_raised_fee_comes_out_of_the_change_and_replaces(amount: int, rate: int, raised: int) -> None:
    """A replacement spends and pays the same, and pays the old fee and its own relay on top (BIP-125)."""
    try:
        body = select(amount, coins(100_000, 100_000), rate)
    except InsufficientFunds:
        return
    again = transactions.raise_fee(body, raised, BITCOIN_CHAIN)
    if again is None:
        assert body.change is None or body.change.units < transactions.size_of(body, BITCOIN_CHAIN)
        return
    assert balanced(again)
    assert (again.inputs, again.outputs) == (body.inputs, body.outputs)
    assert again.fee >= body.fee + transactions.size_of(again, BITCOIN_CHAIN) * BITCOIN_CHAIN.relay_per_kvb // 1_000
    assert again.change is None or again.change.units >= DUST


def test_a_body_has_one_spelling_and_a_sum_that_adds_up() -> None:
    """A body that was changed, spelled otherwise, or loses money is refused."""
    body = select(50_000, coins(100_000))
    raw = transactions.encode(body)
    assert raw == transactions.encode(transactions.decode(raw))
    input_ = body.inputs[0]
    wrong = [
        raw + b" ",
        raw.replace(b'"fee"', b'"fees"'),
        b"{}",
        b"\xff",
        transactions.encode(msgspec.structs.replace(body, fee=body.fee + 1)),
        transactions.encode(msgspec.structs.replace(body, fee=-1)),
        transactions.encode(msgspec.structs.replace(body, outputs=())),
        transactions.encode(msgspec.structs.replace(body, inputs=(input_, input_), fee=body.fee + input_.units)),
    ]
    for each in wrong:
        with pytest.raises(Rejected):
            _ = transactions.decode(each)


@pytest.mark.parametrize("outpoint", ["", "ab:1", f"{'AB' * 32}:0", f"{'ab' * 32}:-1", f"{'ab' * 32}:4294967296"])
def test_an_outpoint_that_is_none_is_refused(outpoint: str) -> None:
    """Only a txid of 64 digits with an index of 32 bits names an output."""
    body = Body((Spent(outpoint, 2_000, 0, HOME),), (Paid(STRANGER, 1_000),), None, 1_000)
    with pytest.raises(Rejected):
        _ = transactions.transaction_of(body, BITCOIN_CHAIN.format)


def test_every_input_may_be_replaced() -> None:
    """Each input signals replacement, and nothing is locked in time."""
    transaction = transactions.transaction_of(select(150_000, coins(100_000, 100_000)), BITCOIN_CHAIN.format)
    assert {it.sequence for it in transaction.vin} == {0xFFFFFFFD}
    assert (transaction.version, transaction.lock_time, len(transaction.vin)) == (2, 0, 2)


SCRIPTS = [
    ("bitcoin-main", "1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2", "76a91477bff20c60e522dfaa3350c39b030a5d004e839a88ac"),
    ("bitcoin-main", "3P14159f73E4gFr7JterCCQh9QjiTjiZrG", "a914e9c3dd0c07aac76179ebc76a6c78d4d67c6c160a87"),
    ("bitcoin-main", "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", "0014751e76e8199196d454941c45d1b3a323f1433bd6"),
    (
        "bitcoin-test",
        "tb1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3q0sl5k7",
        "00201863143c14c5166804bd19203356da136c985678cd4d27a1b8c6329604903262",
    ),
    (
        "bitcoin-main",
        "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqzk5jj0",
        "512079be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798",
    ),
]


@pytest.mark.parametrize(("name", "address", "script"), SCRIPTS)
def test_the_script_of_an_address_is_the_published_one(name: str, address: str, script: str) -> None:
    """Each kind of address has the script that the standards print for it."""
    assert script_of(CHAINS[name].format, address).hex() == script


@pytest.mark.parametrize("parameters", CHAINS.values(), ids=list(CHAINS))
def test_each_chain_tells_keys_from_scripts(parameters: CoinChain) -> None:
    """Every version byte of every chain gives one of the two old scripts, and never the other one."""
    for version in parameters.format.versions:
        address = Base58Encoder.CheckEncode(bytes([version]) + bytes(20))
        is_key = version in {0x00, 0x30, 0x6F}
        assert (script_of(parameters.format, address)[0] == 0x76) == is_key
