"""The audit of kept rows: one row or sum changed behind the journal's back, and exactly what is said of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec
import pytest

from strongroom.ledger.accounts import Account, Purpose, held, house, omnibus, staked
from strongroom.records.addresses import Address, AddressBook, Branch, Placed
from strongroom.records.chains import Holding, Passed, Tip
from strongroom.records.coins import Coin, Pot, Sent
from strongroom.records.deposits import Deposit, Outpoint
from strongroom.records.epochs import Epoch, Reconciled
from strongroom.records.guards import Reply
from strongroom.records.kept import Kept
from strongroom.records.keys import ApiKey
from strongroom.records.settings import Settings
from strongroom.records.users import Name, Profile, User
from strongroom.records.withdrawals import Payment, Reserved, Spent, Withdrawal, WithdrawalState
from strongroom.store.tables import KINDS
from strongroom.wallet.audit.balances import Balances
from strongroom.wallet.audit.effects import Effects, read_effects
from strongroom.wallet.audit.findings import Findings
from strongroom.wallet.audit.keptrows import KeptRows
from support.audited import KeptStore, Told, item, told
from support.world import BITCOIN, BTC, ERC20, ETH, SNAPSHOT, USD, USDT

OWNER: Final = 7
SETTINGS: Final = Settings(0, 1, SNAPSHOT)

COMPARED: Final[tuple[tuple[Kept, Kept, str], ...]] = (
    (SETTINGS, Settings(0, 2, SNAPSHOT), "settings 0"),
    (User(7, created_ms=5, active=True), User(7, created_ms=5), "user 7"),
    (Address(2, "0xab", "9", 3, 7), Address(2, "0xab", "9", 3, 8), "address 2 0xab 9"),
    (AddressBook(7, 1, 2, (3, 4)), AddressBook(7, 1, 2, (3,)), "addressbook 7 1 2"),
    (Placed(2, 3, "0xab"), Placed(2, 3, "0xcd"), "placed 2 3"),
    (Branch(2, 1, 50), Branch(2, 1, 51), "branch 2 1"),
    (Deposit(501, 7, amount=5), Deposit(501, 7, amount=6), "deposit 501"),
    (Outpoint(1, "ab", 4, 501), Outpoint(1, "ab", 4, 502), "outpoint 1 ab 4"),
    (Withdrawal(601, 7, address="bc1"), Withdrawal(601, 7, address="bc2"), "withdrawal 601"),
    (Payment(701, 1, body=b"to bc1"), Payment(701, 1, body=b"to bc2"), "payment 701"),
    (Reserved(1, "ab:0", 701), Reserved(1, "ab:0", 702), "reserved 1 ab:0"),
    (Spent(7, 1, 20_000, 6), Spent(7, 1, 20_000, 5), "spent 7 1 20000"),
    (Holding(ERC20, ETH, "5"), Holding(ERC20, ETH, "6"), "holding 2 3"),
    (Coin(1, "ab:0", units=5), Coin(1, "ab:0", units=6), "coin 1 ab:0"),
    (Pot(2, 3, 1, "5"), Pot(2, 3, 1, "6"), "pot 2 3 1"),
    (Sent(1, "ab", 701), Sent(1, "ab", 702), "sent 1 ab"),
    (Epoch(0, 1), Epoch(0, 2), "epoch 0"),
    (Reconciled(1, 1), Reconciled(1, 2), "reconciled 1"),
)
"""A row of each kind as it was written, as it may be changed, and what it is called."""

LEFT_ALONE: Final[tuple[Kept, ...]] = (
    Tip(1, 800), Passed(1, 5, 800), Reply(7, b"key"), Profile(7, "alice"), Name("alice", 7), ApiKey("key", 1),
)  # fmt: skip
"""A row of each kind that the journal does not tell of."""

each_kind: Final = pytest.mark.parametrize(("row", "changed", "name"), COMPARED, ids=[name for *_, name in COMPARED])


def audit(items: Sequence[Effects], kept: Iterable[Kept], *, declared: bool = True) -> Told:
    """Return what is said of kept rows beside these items, which follow the settings if those are declared."""
    settings = [SETTINGS] if declared else []
    findings = Findings()
    balances = Balances(findings, from_nothing=True)
    rows = KeptRows(findings)
    balances.book(items)
    rows.note([item(1, rows=settings), *items])
    rows.compare(KeptStore(*settings, *kept), balances)
    return told(findings)


def audit_of(row: Kept, items: Sequence[Effects], kept: Iterable[Kept]) -> Told:
    """Return what is said where a row is looked at, which may be the settings themselves."""
    return audit(items, kept, declared=not isinstance(row, Settings))


def booking(number: int, account: Account, balance: int, *rows: Kept) -> Effects:
    """Return an item that brings an account to a balance at once, and writes rows."""
    equity = house(Purpose.EQUITY, account.asset)
    return item(number, (account, balance, balance, 1), (equity, -balance, -balance, 1), rows=rows)


def test_every_kind_of_row_is_compared_or_known_to_be_left_alone() -> None:
    """No kind of row that the journal tells of is forgotten by the audit: a new one has to be put into this list."""
    compared = {type(row) for row, _, _ in COMPARED}
    left_alone = {type(row) for row in LEFT_ALONE}
    assert len(COMPARED) == len(compared)
    assert not compared & left_alone
    assert compared | left_alone == set(KINDS)
    assert compared == {kind for kind in KINDS if kind.SEALED} - {Tip, Passed}


@each_kind
def test_a_row_that_is_kept_as_it_was_written_is_right(row: Kept, changed: Kept, name: str) -> None:
    """Nothing is said of a row that is as the newest item that wrote it says, whatever older ones did."""
    assert audit_of(row, [item(4, rows=[row])], [row]) == []
    assert audit_of(row, [item(4, rows=[row]), item(6, rows=[changed])], [changed]) == []


@each_kind
def test_a_row_that_was_changed_is_told(row: Kept, changed: Kept, name: str) -> None:
    """A row that is not what the journal says is told with the item that wrote it last."""
    items = [item(4, rows=[changed]), item(6, rows=[row])]
    assert audit_of(row, items, [changed]) == [(6, f"the {name} is not as it left it")]


@each_kind
def test_a_row_that_is_gone_is_told(row: Kept, changed: Kept, name: str) -> None:
    """A row that the journal knows of and the tables do not have is told with the item that wrote it."""
    assert audit_of(row, [item(4, rows=[row])], []) == [(4, f"the {name} that it wrote is missing")]


@each_kind
def test_a_row_that_was_made_up_is_told(row: Kept, changed: Kept, name: str) -> None:
    """A row that no item wrote is told, and no item is blamed for it."""
    assert audit_of(row, [item(4)], [row]) == [(0, f"the {name} was written by no item")]


@pytest.mark.parametrize("row", LEFT_ALONE, ids=lambda row: type(row).__name__)
def test_rows_that_the_journal_does_not_tell_of_are_left_alone(row: Kept) -> None:
    """What may be erased, forgotten or seen again on a chain is nothing that an audit holds against anybody."""
    assert audit([item(4)], [row]) == []
    assert audit([item(4, rows=[row])], []) == []


def test_every_row_that_is_wrong_is_told() -> None:
    """One wrong row hides none of the others: first those that are there, by their kinds, then those that are gone."""
    alice, bob = User(7, active=True), User(8, active=True)
    items = [item(2, rows=[alice]), item(3, rows=[bob, Epoch(0, 1)]), item(5, rows=[Sent(1, "ab", 701)])]
    assert audit(items, [User(8), User(9), Epoch(0, 1), Sent(1, "ab", 702)]) == [
        (3, "the user 8 is not as it left it"),
        (0, "the user 9 was written by no item"),
        (5, "the sent 1 ab is not as it left it"),
        (2, "the user 7 that it wrote is missing"),
    ]


def test_a_row_that_is_no_utf_8_is_told_like_any_other_that_cannot_be_read() -> None:
    """Whoever wrote other bytes into the file ends no audit by it: the item is named."""
    findings = Findings()
    rows = KeptRows(findings)
    text = msgspec.json.encode({"number": 4, "at_ms": 1, "command": {}, "rows": [["Address", {"address": "mine"}]]})
    rows.note([read_effects(text.replace(b"mine", b"m\xffne"))])
    assert [(number, what[:27]) for number, what in told(findings)] == [(4, "its effects cannot be read:")]


@pytest.mark.parametrize(
    ("kind", "row", "why"),
    [
        ("User", {"uid": "seven"}, "Expected `int`, got `str` - at `$.uid`"),
        ("User", {}, "Object missing required field `uid`"),
        ("Coin", [1, "ab:0"], "Expected `object`, got `array`"),
    ],
)
def test_a_row_that_cannot_be_read_is_told(kind: str, row: Any, why: str) -> None:
    """An item whose rows make no sense is told, and the items around it are read all the same."""
    alice, bob = User(7, active=True), User(8, active=True)
    findings = Findings()
    rows = KeptRows(findings)
    text = msgspec.json.encode({"number": 4, "at_ms": 1, "command": {}, "rows": [[kind, row]]})
    rows.note([item(3, rows=[alice]), read_effects(text), item(5, rows=[bob])])
    rows.compare(KeptStore(alice, bob), Balances(findings, from_nothing=True))
    assert told(findings) == [(4, f"its effects cannot be read: {why}")]


@pytest.mark.parametrize("size", [1, 2, 100])
def test_a_later_stretch_has_the_last_word(size: int) -> None:
    """Where the journal is divided, and in what portions it is joined, a row is what the newest item says."""
    findings = Findings()
    one, other = KeptRows(findings), KeptRows(findings)
    one.note([item(2, rows=[User(7), User(8), Epoch(0, 1)])])
    other.note([item(5, rows=[User(8, active=True), User(9)]), item(6, rows=[Epoch(0, 2)])])
    parcels = list(other.parcels(size))
    assert [len(parcel) for parcel in parcels[:-1]] == [size] * (len(parcels) - 1)
    for parcel in parcels:
        one.take_over(parcel)
    store = KeptStore(User(7), User(8, active=True), User(9, active=True), Epoch(0, 1))
    one.compare(store, Balances(findings, from_nothing=True))
    assert told(findings) == [(5, "the user 9 is not as it left it"), (6, "the epoch 0 is not as it left it")]


def withdrawal(ref: int, state: int = WithdrawalState.APPROVED, owner: int = OWNER, asset: int = BTC) -> Withdrawal:
    """Return a withdrawal of 100 with a fee of `ref` units."""
    return Withdrawal(ref, owner, asset, BITCOIN, "bc1", to_address=100, fee=ref, state=state)


@pytest.mark.parametrize(
    ("balance", "rows", "expected"),
    [
        pytest.param(107, [withdrawal(7)], [], id="one"),
        pytest.param(212, [withdrawal(7), withdrawal(5)], [], id="two"),
        pytest.param(106, [withdrawal(7)], [(4, "is 106, and its open withdrawals hold 107")], id="too little"),
        pytest.param(108, [withdrawal(7)], [(4, "is 108, and its open withdrawals hold 107")], id="too much"),
        pytest.param(
            107,
            [withdrawal(7), withdrawal(5)],
            [(4, "is 107, and its open withdrawals hold 212")],
            id="for one of two",
        ),
        pytest.param(3, [], [(4, "is 3, and its open withdrawals hold 0")], id="for none"),
    ],
)
def test_what_is_held_is_what_open_withdrawals_hold(balance: int, rows: list[Kept], expected: Told) -> None:
    """Money that is held for no withdrawal, or a withdrawal that holds too little, is told with its amounts."""
    assert audit([booking(4, held(OWNER, BTC), balance, *rows)], rows) == [
        (number, f"HELD of owner 7, asset 1 {what}") for number, what in expected
    ]


def test_an_open_withdrawal_that_holds_nothing_at_all_is_told() -> None:
    """A withdrawal without any held money is told though its account was never posted to, and no item is blamed."""
    rows = [withdrawal(7), withdrawal(5, asset=USDT)]
    assert audit([item(4, rows=rows)], rows) == [
        (0, "HELD of owner 7, asset 1 is 0, and its open withdrawals hold 107"),
        (0, "HELD of owner 7, asset 2 is 0, and its open withdrawals hold 105"),
    ]


@pytest.mark.parametrize("state", WithdrawalState, ids=lambda state: state.name)
def test_a_withdrawal_holds_money_for_as_long_as_it_is_open(state: WithdrawalState) -> None:
    """One that awaits approval, is approved or is being paid holds its money; one that came to an end holds none."""
    row = withdrawal(7, state)
    is_open = state.name in {"AWAITING", "APPROVED", "PAYING"}
    assert audit([booking(4, held(OWNER, BTC), 107, row)], [row]) == (
        [] if is_open else [(4, "HELD of owner 7, asset 1 is 107, and its open withdrawals hold 0")]
    )


def test_a_withdrawal_that_nobody_is_named_for_holds_nothing() -> None:
    """What the house was found to have paid has no customer whose money could be held for it."""
    row = withdrawal(7, WithdrawalState.PAYING, owner=0)
    assert audit([item(4, rows=[row])], [row]) == []


def test_what_is_staked_is_not_taken_for_held() -> None:
    """No withdrawal has to answer for a customer's stake."""
    assert audit([booking(4, staked(OWNER, BTC), 50)], []) == []


ETH_UNIT: Final = 10**10
"""So many wei make one unit of the ledger."""


@pytest.mark.parametrize(
    ("wei", "balance", "expected"),
    [
        pytest.param(5 * ETH_UNIT, -5, [], id="exact"),
        pytest.param(6 * ETH_UNIT - 1, -5, [], id="the floor"),
        pytest.param(ETH_UNIT - 1, 0, [], id="less than a unit"),
        pytest.param(-1, 0, [], id="below nothing is nothing"),
        pytest.param(6 * ETH_UNIT, -5, [(4, "is -5, and its exact total comes to -6")], id="too little"),
        pytest.param(5 * ETH_UNIT - 1, -5, [(4, "is -5, and its exact total comes to -4")], id="too much"),
        pytest.param(0, -5, [(4, "is -5, and its exact total comes to 0")], id="nothing there"),
        pytest.param(ETH_UNIT, 0, [(4, "is 0, and its exact total comes to -1")], id="nothing booked"),
    ],
)
def test_an_omnibus_account_is_the_floor_of_its_exact_total(wei: int, balance: int, expected: Told) -> None:
    """What the house owns on a chain is booked down to the unit, the chain's finer units left out."""
    row = Holding(ERC20, ETH, str(wei))
    assert audit([booking(4, omnibus(ERC20, ETH), balance, row)], [row]) == [
        (number, f"OMNIBUS of owner 2, asset 3 {what}") for number, what in expected
    ]


def test_an_omnibus_account_without_an_exact_total_is_told() -> None:
    """Coins that are booked on a chain on which the house has none are told with the item that booked them."""
    assert audit([booking(4, omnibus(ERC20, ETH), -5)], []) == [
        (4, "OMNIBUS of owner 2, asset 3 is -5, and its exact total comes to 0")
    ]


def test_an_exact_total_without_an_omnibus_account_is_told() -> None:
    """Coins on a chain that were never booked are told, and no item is blamed."""
    row = Holding(ERC20, ETH, str(5 * ETH_UNIT))
    assert audit([item(4, rows=[row])], [row]) == [
        (0, "OMNIBUS of owner 2, asset 3 is 0, and its exact total comes to -5")
    ]


@pytest.mark.parametrize(
    ("units", "expected"),
    [
        ("0", []),
        ("1", [(0, "no offer tells what holding 1 4 comes to")]),
        ("-1", [(0, "no offer tells what holding 1 4 comes to")]),
        ("one", [(0, "the holding 1 4 has no number for its total")]),
    ],
)
def test_a_total_of_what_is_no_longer_offered_cannot_be_told(units: str, expected: Told) -> None:
    """Where nobody can tell the decimals of an asset on a chain, that is said of whatever is left there."""
    row = Holding(BITCOIN, USD, units)
    assert audit([item(4, rows=[row])], [row]) == expected
