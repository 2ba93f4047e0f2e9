"""What must be true after a crash, worked out from what was asked and answered alone: the server's code has no part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final, TypeAlias

from support.harness import Answer, Signed

ASSETS: Final = ("BTC", "USDT", "XRP")
FEES: Final = {"BTC": Decimal("0.0005"), "USDT": Decimal("6.41"), "XRP": Decimal("0.25")}
"""What a withdrawal of the demo's costs."""

FAMILY: Final = {"alice", "alice-sub1"}
CONVERSION: Final = "Convert fiat"
DONE, FAILED = "COMPLETED", "FAILURE"
MAKE, GIVE_UP = "make an address", "give up an address"

Mark: TypeAlias = tuple[str, str, str, Decimal]
"""What a history row is known by: user, asset, type, and the amount; a conversion's is what was given for it."""

Row: TypeAlias = Mapping[str, Any]
Balances: TypeAlias = dict[tuple[str, str], Decimal]


@dataclass
class Deed:
    """Something a user asked for, and all that was answered to it. No two deeds have the same asset and amount."""

    user: str
    kind: str
    asset: str
    amount: Decimal
    first: Signed
    receiver: str = ""
    target: str = ""
    on_top: bool = False
    doomed: bool = False
    address: str = ""
    answers: list[Answer] = field(default_factory=list)
    unanswered: int = 0

    @property
    def moves_money(self) -> bool:
        """Whether history tells of it; otherwise it makes or gives up an address."""
        return self.kind not in {MAKE, GIVE_UP}

    @property
    def key(self) -> str:
        """The Idempotency-Key, if it has one."""
        return self.first.headers.get("idempotency-key", "")

    @property
    def done(self) -> Answer | None:
        """The answer that said so."""
        return next((answer for answer in self.answers if answer.status == 200), None)

    @property
    def refused(self) -> bool:
        """Whether every attempt was answered, and each with a refusal."""
        return not self.done and not self.unanswered and bool(self.answers)

    @property
    def credited(self) -> Decimal:
        """What arrives at the receiver."""
        return self.amount - (FEES[self.asset] if self.kind == "withdraw" and not self.on_top else 0)

    @property
    def debited(self) -> Decimal:
        """What leaves the user's available balance."""
        return Decimal(0) if self.kind == "deposit" else self.amount + (FEES[self.asset] if self.on_top else 0)

    def marks(self) -> list[Mark]:
        """Return the history rows that must be there if it was done."""
        if self.kind == "deposit":
            return [(self.receiver, self.asset, "Deposit", self.amount)]
        if self.kind == "convert":
            return [(self.user, asset, CONVERSION, self.amount) for asset in (self.asset, self.target)]
        if self.kind == "withdraw":
            arrival = [(self.receiver, self.asset, "Deposit", self.credited)] if self.receiver else []
            return [(self.user, self.asset, "Withdraw", self.amount), *arrival]
        within = {self.user, self.receiver} <= FAMILY
        kinds = ("Sub Account Transfer Out", "Sub Account Transfer In") if within else ("Transfer_Out", "Transfer_In")
        users = (self.user, self.receiver)
        return [(user, self.asset, kind, self.amount) for user, kind in zip(users, kinds, strict=True)]


def mark_of(row: Row) -> Mark:
    """Return what a history row is known by."""
    amount = row["sourceAmount"] if row["type"] == CONVERSION else row["amount"]
    return (row["username"], row["currency"], row["type"], Decimal(amount))


class Model:
    """Everything that was asked since `opening` was read; `check` compares it with what the server shows."""

    def __init__(self, opening: Balances) -> None:
        self.opening = opening
        self.deeds: list[Deed] = []

    def check(self, rows: Iterable[Row], balances: Balances) -> list[Deed]:
        """Return the deeds that happened; raise `AssertionError` for whatever must not be."""
        found = {mark_of(row): row for row in rows}
        counts = Counter(mark_of(row) for row in rows)
        happened: list[Deed] = []
        for deed in filter(lambda deed: deed.moves_money, self.deeds):
            times = {counts[mark] for mark in deed.marks()}
            assert len(times) == 1, f"half done: {deed}"
            assert times <= {0, 1}, f"done twice: {deed}"
            if times == {1}:
                happened.append(deed)
                _check_answers(deed, found)
            assert deed.done is None or times == {1}, f"answered and lost: {deed}"
            assert not (deed.refused or deed.doomed) or times == {0}, f"refused and done: {deed}"
        assert sum(counts.values()) == sum(len(deed.marks()) for deed in happened), "history has what nobody asked for"
        orders = Counter(row["orderId"] for row in rows)
        assert orders.total() == len(orders), "an order is listed twice"
        assert balances == self._balances(happened, found), "balances are what the deeds make them"
        return happened

    def _balances(self, happened: Iterable[Deed], found: Mapping[Mark, Row]) -> Balances:
        """Return what everybody has after these deeds."""
        balances = dict(self.opening)
        for deed in happened:
            if deed.receiver == "" and deed.kind == "withdraw" and found[deed.marks()[0]]["status"] == FAILED:
                continue  # The chain did not take it: the money is back.
            balances[deed.user, deed.asset] -= deed.debited
            if deed.receiver:
                balances[deed.receiver, deed.asset] += deed.credited
            if deed.target:
                arrived = found[deed.user, deed.target, CONVERSION, deed.amount]
                balances[deed.user, deed.target] += Decimal(arrived["amount"])
        return balances


def _check_answers(deed: Deed, found: Mapping[Mark, Row]) -> None:
    """Compare every answer to a deed that happened with its history rows."""
    rows = [found[mark] for mark in deed.marks()]
    for answer in deed.answers:
        if answer.status == 200:
            assert answer.body == deed.answers[0].body or deed.answers[0].status != 200, f"two answers: {deed}"
            said = answer.json()
            said = said.get("data", said)
            refs = [said[name] for name in ("fromTransactionRef", "transactionRef", "withdrawId") if name in said]
            assert not refs or refs == [rows[0]["orderId"]], f"another order: {deed}"
            arrived = said.get("toAmount", said.get("settlementAmount"))
            assert arrived is None or Decimal(arrived) == rows[1]["amount"], f"another amount: {deed}"
