"""Whatever is credited, spent and taken back: the omnibus is the floor of the exact total, and the books are whole."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from strongroom.engine.command import NOBODY, Command
from strongroom.engine.settle import Outcome, settle
from strongroom.engine.state import DeclaredState, State
from strongroom.ledger.accounts import Purpose, available, house, omnibus, owed
from strongroom.money import FeeFormula
from strongroom.records.chains import Holding, Passed, Tip
from strongroom.records.deposits import Deposit, DepositState
from strongroom.records.history import LineType
from strongroom.records.kept import Kept, Key
from strongroom.records.settings import AssetSettings, NetworkSettings, OfferSettings, Settings, Snapshot
from strongroom.records.users import User
from strongroom.store.memory import MemoryStore
from strongroom.wallet.bookings import Book
from strongroom.wallet.deposits import prepare_credit, prepare_placing
from strongroom.wallet.holdings import chain_units, ledger_units
from strongroom.wallet.reversals import prepare_reversal

OWNER, ASSET, NETWORK = 7, 1, 1
FEE = FeeFormula(extra=3, extra_rate_e8=1_000_000)


class Books:
    """A state with one user, one asset of `scale` on a network of `decimals`, and deposits of given chain units."""

    def __init__(self, decimals: int, scale: int, amounts: list[int]) -> None:
        self.asset = AssetSettings(ASSET, "ETH", "Ether", fiat=False, scale=scale)
        self.offer = OfferSettings(ASSET, NETWORK, decimals, default=True, deposit_minimum=10)
        network = NetworkSettings(NETWORK, "ERC20", "Ethereum", "Ethereum (ERC20)", "evm", confirmations=1)
        settings = Settings(0, 1, Snapshot((self.asset,), (network,), (self.offer,)))
        rows: list[Kept] = [
            settings,
            Tip(NETWORK, 5, "b5"),
            Passed(NETWORK, 5, 5, "b5"),
            User(OWNER, 0, 1, active=True),
        ]
        rows += [self._deposit(ref, units) for ref, units in enumerate(amounts, 1)]
        self.state = DeclaredState(MemoryStore(), 1, 0)
        self.state.rows.update({row.key(): row for row in rows})

    def _deposit(self, ref: int, units: int) -> Deposit:
        amount = ledger_units(units, self.offer, self.asset)
        fee = FEE.fee(amount)
        fee, net = (fee, amount - fee) if amount >= self.offer.deposit_minimum and fee < amount else (0, 0)
        return Deposit(
            ref, OWNER, ASSET, NETWORK, chain_units=str(units), amount=amount, fee=fee, net=net,
            state=DepositState.CONFIRMING, height=5, block="b5",
        )  # fmt: skip

    def settle(self, command: Command) -> Outcome:
        """Settle a command over the rows, absent ones included."""
        return settle(command, self.state, 1)

    def row(self, key: Key) -> Any:
        """Return a row."""
        return self.state.rows.get(key) or key[0].absent(key)

    def balance(self, account: Any) -> int:
        """Return an account's balance."""
        return State.head(self.state, account.pack()).after


@given(
    decimals=st.sampled_from([6, 8, 9, 18]),
    scale=st.sampled_from([4, 6, 8]),
    amounts=st.lists(st.integers(1, 10**22), min_size=1, max_size=5),
    steps=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 100)), max_size=30),
)
def test_the_omnibus_is_always_the_floor_of_what_is_there(
    decimals: int, scale: int, amounts: list[int], steps: list[tuple[int, int]]
) -> None:
    """Credits and reversals in any order, with spending between: no unit appears, disappears or drifts."""
    books = Books(decimals, scale, [amount % 10 ** (decimals + 4) + 1 for amount in amounts])
    spent = 0
    for which, percent in steps:
        deposit = books.row(Deposit.at(which % len(amounts) + 1))
        if deposit.state == DepositState.CONFIRMING:
            assert books.settle(prepare_credit(deposit)).refusal is None
        elif deposit.state == DepositState.REVERSED:
            books.settle(prepare_placing(deposit, 5, "b5"))
        else:
            amount = books.balance(available(OWNER, ASSET)) * percent // 100
            if amount and not books.settle(Book(NOBODY, OWNER, ASSET, LineType.STRATEGY_PAY, amount, 99)).refusal:
                spent += amount
            assert not books.settle(prepare_reversal(deposit)).stale
        booked = [
            row
            for row in books.state.rows.values()
            if isinstance(row, Deposit) and row.state in (DepositState.CREDITED, DepositState.TOO_SMALL)
        ]
        total = int(books.row(Holding.at(NETWORK, ASSET)).chain_units)
        assert total == sum(int(row.chain_units) for row in booked)
        assert -books.balance(omnibus(NETWORK, ASSET)) == ledger_units(total, books.offer, books.asset)
        assert 0 <= books.balance(house(Purpose.DUST, ASSET)) <= len(booked)
        assert books.balance(house(Purpose.FEES, ASSET)) == sum(row.fee for row in booked)
        own = books.balance(available(OWNER, ASSET)) + books.balance(owed(OWNER, ASSET))
        assert own == sum(row.net for row in booked) - spent
        assert not sum(head.after for head in books.state.heads.values())


@given(st.integers(0, 10**30), st.sampled_from([0, 6, 8, 18]), st.sampled_from([0, 6, 8]))
def test_what_the_ledger_can_tell_comes_back_from_the_chain_as_it_was(units: int, decimals: int, scale: int) -> None:
    """Units of the ledger that fit the chain go there and back unchanged; the way back never rounds up."""
    asset, offer = AssetSettings(1, "A", "A", fiat=False, scale=scale), OfferSettings(1, 1, decimals)
    floor = ledger_units(units, offer, asset)
    assert chain_units(floor, offer, asset) <= units < chain_units(floor, offer, asset) + 10 ** max(0, decimals - scale)
    assert ledger_units(chain_units(floor, offer, asset), offer, asset) == floor
