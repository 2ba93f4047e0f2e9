"""What an EVM node answers is read strictly, and what is paid for gas stays within its bounds."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.custody.chain import Output, Rejected, Unreachable
from strongroom.custody.networks import evm_reading as reading
from strongroom.custody.networks.evm_fees import Fees, FeeTerms, fees_from, gas_limit, raised
from strongroom.custody.networks.evm_reading import Header, Log, Receipt, Transaction

GWEI = 10**9
TERMS = FeeTerms()
HOT = "0xdAC17F958D2ee523a2206206994597C13D831ec7"
THEIRS = "0x00000000000000000000000000000000DeaDBeef"


def word(address: str) -> str:
    """Return an address as a topic."""
    return "0x" + address[2:].lower().rjust(64, "0")


def receipt(*logs: Log, status: str = "0x1") -> Receipt:
    """Return what became of a transaction that logged something."""
    return Receipt("0xaa", "0xbb", "0x1", "0x5208", "0x2", status, logs)


def paying(to: str | None = THEIRS, value: str = "0x5", sender: str = THEIRS) -> Transaction:
    """Return a transaction."""
    return Transaction("0xaa", sender.lower(), "0x0", value, "0x5208", "0x", to, gasPrice="0x2")


MOVED = Log(HOT.lower(), (reading.TRANSFER_TOPIC, word(HOT), word(THEIRS)), "0x" + "7".rjust(64, "0"))


def test_a_log_is_named_by_its_place_in_the_receipt() -> None:
    """A token output's index counts every log of its transaction, also those that move nothing."""
    approval = Log(HOT, ("0x" + "8" * 64, word(HOT), word(THEIRS)), MOVED.data)
    collectible = Log(HOT, (*MOVED.topics, word(THEIRS)), "0x")
    nothing = Log(HOT, MOVED.topics, "0x" + "0" * 64)
    found = list(reading.token_outputs(receipt(approval, collectible, nothing, MOVED, MOVED), ours=False))
    assert found == [Output("0xaa", index, THEIRS, "", HOT, 7) for index in (4, 5)]


def test_a_transaction_of_our_own_is_known_as_such() -> None:
    """What the hot wallet pays is marked as ours, native and token."""
    found = reading.outputs([paying(sender=HOT)], [receipt(MOVED)], HOT)
    assert [(output.index, output.ours) for output in found] == [(0, True), (1, True)]
    assert not any(output.ours for output in reading.outputs([paying()], [receipt(MOVED)], HOT))


def test_what_pays_nobody_is_no_output() -> None:
    """A new contract, a value of nothing and a failed transaction have no output."""
    assert reading.outputs([paying(to=None)], [receipt()], HOT) == []
    assert reading.outputs([paying(value="0x0")], [receipt()], HOT) == []
    assert reading.outputs([paying()], [receipt(MOVED, status="0x0")], HOT) == []


def test_a_missing_receipt_settles_nothing() -> None:
    """A block is not read in part: without a receipt the node is asked again."""
    with pytest.raises(Unreachable):
        _ = reading.outputs([paying()], [], HOT)


@pytest.mark.parametrize("answer", [None, 3, "0x1", {}, {"parentHash": 1, "timestamp": "0x1"}])
def test_an_answer_of_another_shape_settles_nothing(answer: Any) -> None:
    """An answer that is not a block is no answer."""
    with pytest.raises(Unreachable):
        _ = reading.read(answer, Header)


@pytest.mark.parametrize("text", [None, "", "0x", "zz", 5])
def test_a_number_that_is_none_settles_nothing(text: Any) -> None:
    """A number that cannot be read is no answer."""
    with pytest.raises(Unreachable):
        _ = reading.quantity(text)


def test_a_pending_block_is_no_block_yet() -> None:
    """A block without a hash is not taken for one of the chain."""
    with pytest.raises(Unreachable):
        _ = Header("0xaa", "0x1").block()
    with pytest.raises(Unreachable):
        _ = reading.address_of("0x12")


def test_fees_follow_the_base_fee_and_the_usual_priority() -> None:
    """The offer is twice the next base fee and the median of what others paid, at least the floor."""
    history = {"baseFeePerGas": [hex(5 * GWEI), hex(10 * GWEI)], "reward": [[hex(it * GWEI)] for it in (9, 2, 3)]}
    assert fees_from(history, TERMS) == Fees(23 * GWEI, 3 * GWEI)
    assert fees_from(history | {"reward": None}, TERMS) == Fees(21 * GWEI, GWEI)
    assert fees_from(history, FeeTerms(fee_cap=2 * GWEI)) == Fees(2 * GWEI, 2 * GWEI)


@given(highest=st.integers(1, 10**12), priority=st.integers(0, 10**12), now=st.integers(0, 10**12))
def test_a_raised_fee_replaces_the_last_and_stays_under_the_cap(highest: int, priority: int, now: int) -> None:
    """Both fees rise by an eighth at least, and the whole never passes the cap nor the priority the whole."""
    before = Fees(highest, min(priority, highest))
    after = raised(before, Fees(min(now, TERMS.fee_cap), min(now, TERMS.fee_cap)), TERMS)
    if after is None:
        assert 9 * highest > 8 * (TERMS.fee_cap - 1)
        return
    assert after.priority <= after.highest <= TERMS.fee_cap
    assert 8 * after.highest >= 9 * before.highest
    assert 8 * after.priority >= 9 * before.priority
    assert after.highest > before.highest
    assert after.priority > before.priority


def test_gas_has_a_margin_and_a_bound() -> None:
    """A plain transfer takes what it always takes, a call gets a quarter more, and a costly one is refused."""
    assert gas_limit(21_000, TERMS) == 21_000
    assert gas_limit(40_000, TERMS) == 50_000
    assert gas_limit(480_000, TERMS) == 500_000
    with pytest.raises(Rejected):
        _ = gas_limit(500_001, TERMS)
