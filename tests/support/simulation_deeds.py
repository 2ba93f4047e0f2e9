"""What customers, the operator and strangers did in a simulation, and everything that was answered."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

import msgspec

from strongroom.records.history import LineType
from support.simulation_house import CHAIN_UNIT, DEPOSIT_FEE, DEPOSIT_MINIMUM, FAMILY, WITHDRAW_FEE

NOT_TRIED: Final = frozenset({408, 429, 503})
"""Statuses that say that nothing at all was done."""

NOT_USED_UP: Final = NOT_TRIED | {401}
"""Statuses after which the signature may still be good: a nonce may only have been too far from the clock."""


class Answer(NamedTuple):
    """What came back, whole."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes

    def json(self) -> Any:
        """Return the body."""
        return msgspec.json.decode(self.body)

    @property
    def repeated(self) -> bool:
        """Whether it is an earlier answer, told again."""
        return self.headers.get(b"idempotency-replayed") == b"true"


class Signed(NamedTuple):
    """A request that can be sent again exactly as it is."""

    method: str
    path: str
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    query: str = ""


class Mark(NamedTuple):
    """What a history line is known by: no two deeds of a simulation have the same asset and amount."""

    owner: int
    asset: int
    type: int
    amount: int
    arrives: bool


class Attempt(NamedTuple):
    """One sending of a request; `answer` is None where nobody heard one.

    `sent` and `heard` number all sendings and hearings of a simulation in their order.
    """

    request: Signed
    answer: Answer | None
    sent: int
    heard: int = 0


@dataclass
class Deed:
    """Something a customer asked for; `amount` in ledger units names it."""

    kind: str
    user: str
    asset: int
    amount: int
    first: Signed
    key: str = ""
    receiver: str = ""
    target: int = 0
    on_top: bool = False
    address: str = ""
    attempts: list[Attempt] = field(default_factory=list)
    barred: bool = False
    """Whether it is not asked for again: a restored house may have forgotten that it was done."""

    @property
    def answers(self) -> list[Answer]:
        """Everything that was answered."""
        return [attempt.answer for attempt in self.attempts if attempt.answer is not None]

    @property
    def done(self) -> Answer | None:
        """The first answer that said it was done."""
        return next((answer for answer in self.answers if answer.status == 200), None)

    @property
    def in_doubt(self) -> bool:
        """Whether a sending of it was never answered."""
        return any(attempt.answer is None for attempt in self.attempts)

    @property
    def fee(self) -> int:
        """What a withdrawal costs."""
        return WITHDRAW_FEE[self.asset] if self.kind == "withdraw" else 0

    @property
    def credited(self) -> int:
        """What arrives at the receiver."""
        return self.amount - (0 if self.on_top else self.fee)

    @property
    def debited(self) -> int:
        """What the customer is charged in all."""
        return self.credited + self.fee

    def marks(self, uids: dict[str, int]) -> list[Mark]:
        """Return the history lines that must be there if it was done; a receiver's last."""
        owner, receiver = uids[self.user], uids.get(self.receiver, 0)
        if self.kind == "convert":
            ends = ((self.asset, False), (self.target, True))
            return [Mark(owner, asset, LineType.CONVERT, self.amount, arrives) for asset, arrives in ends]
        if self.kind == "withdraw":
            return [Mark(owner, self.asset, LineType.WITHDRAW, self.amount, False)]
        within = {self.user, self.receiver} <= FAMILY
        types = (
            (LineType.SUB_ACCOUNT_OUT, LineType.SUB_ACCOUNT_IN)
            if within
            else (LineType.TRANSFER_OUT, LineType.TRANSFER_IN)
        )
        ends = ((owner, False), (receiver, True))
        return [
            Mark(uid, self.asset, type_, self.amount, arrives)
            for (uid, arrives), type_ in zip(ends, types, strict=True)
        ]

    def told(self) -> str:
        """Return the deed in a few words."""
        to = self.receiver or self.address or self.target
        return f"{self.kind} {self.amount} of {self.asset}: {self.user} -> {to}" + (" (keyed)" if self.key else "")


class Faucet(NamedTuple):
    """What a stranger paid to a customer's address on a chain."""

    txid: str
    network: str
    user: str
    asset: int
    amount: int
    address: str = ""

    @property
    def net(self) -> int:
        """What the customer must be credited, 0 for what is too small."""
        net = self.amount - DEPOSIT_FEE[self.asset]
        return 0 if self.amount < DEPOSIT_MINIMUM[self.asset] else max(net, 0)

    @property
    def chain_units(self) -> int:
        """The amount in the chain's unit."""
        return self.amount // CHAIN_UNIT[self.asset]


class Verdict(NamedTuple):
    """What the operator said of a withdrawal, and whether it was confirmed."""

    ref: int
    word: str
    known: bool


class Marking(NamedTuple):
    """A customer frozen or let free: when it was sent, and when it was confirmed, 0 where it never was."""

    user: str
    frozen: bool
    sent: int
    heard: int


def address_of(deed: Deed) -> str:
    """Return the address that a deed was given, "" if it was not."""
    return msgspec.json.decode(deed.done.body)["data"]["address"] if deed.done else ""


def _copied(deed: Deed) -> Deed:
    return replace(deed, attempts=list(deed.attempts))


class Thawed(NamedTuple):
    """What the cold address has paid to the house's own one, in ledger units."""

    network: str
    asset: int
    units: int


class Return(NamedTuple):
    """What the operator booked as come back from the cold address, in ledger units, and whether that was confirmed."""

    asset: int
    units: int
    fee: int
    known: bool


@dataclass
class Record:
    """Everything that was asked, said and paid; the server's code has no part in it."""

    deeds: list[Deed] = field(default_factory=list)
    faucets: list[Faucet] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    markings: list[Marking] = field(default_factory=list)
    addresses: list[Deed] = field(default_factory=list)
    returns: list[Return] = field(default_factory=list)
    thawed: dict[str, Thawed] = field(default_factory=dict)
    """What came to the house's own address from the cold one, by its txid: the chain forgets nothing of it."""

    seen_refs: dict[int, str] = field(default_factory=dict)
    numbers: int = 0
    ticks: int = 0
    lost: list[Deed] = field(default_factory=list)
    """What was asked for, and perhaps done, after a backup that was restored since."""

    lost_addresses: dict[str, str] = field(default_factory=dict)
    """Addresses that were given to somebody after such a backup, and to whom."""

    came_back: bool = False
    """Whether the house was restored from a backup."""

    def copy(self) -> Record:
        """Return all of it as it is now: what has no answer yet is in doubt in it."""
        return replace(
            self,
            deeds=[_copied(deed) for deed in self.deeds],
            verdicts=list(self.verdicts),
            markings=list(self.markings),
            returns=list(self.returns),
            addresses=[_copied(deed) for deed in self.addresses],
            seen_refs=dict(self.seen_refs),
        )

    def go_back_to(self, backup: Record) -> None:
        """Forget what a house forgets that is restored from a backup; the world outside it forgets nothing."""
        self.came_back = True
        known = list(zip(self.deeds, backup.deeds, strict=False))
        self.lost += self.deeds[len(known) :]
        for now, then in known:
            if then.in_doubt or len(now.attempts) != len(then.attempts):
                self.lost.append(now)
                then.barred = True
        for now in self.addresses:
            if now.kind == "give" and now.done:
                self.lost_addresses[address_of(now)] = now.user
        for then in backup.addresses:
            if then.kind == "give" and then.done:
                del self.lost_addresses[address_of(then)]
        self.deeds, self.verdicts, self.markings = backup.deeds, backup.verdicts, backup.markings
        self.addresses, self.returns, self.seen_refs = backup.addresses, backup.returns, backup.seen_refs

    def tick(self) -> int:
        """Return the next number in the order of events."""
        self.ticks += 1
        return self.ticks

    def next_amount(self, base: int, step: int = 100) -> int:
        """Return an amount that nobody has used: `base` is a multiple of a million units, 0.01."""
        self.numbers += 1
        return base + self.numbers * step
