"""Kept rows held against the journal: what stands in a table is what the newest item that wrote it says."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from itertools import islice
from typing import Final, TypeAlias

import msgspec

from strongroom.engine.port import Reads
from strongroom.ledger.accounts import Purpose, held, omnibus
from strongroom.records.addresses import Address, AddressBook, Branch, Placed
from strongroom.records.chains import Holding
from strongroom.records.coins import Coin, Pot, Sent
from strongroom.records.deposits import Deposit, Outpoint
from strongroom.records.epochs import Epoch, Reconciled
from strongroom.records.kept import Kept, Key
from strongroom.records.settings import Settings
from strongroom.records.users import User
from strongroom.records.withdrawals import OPEN_WITHDRAWALS, Payment, Reserved, Spent, Withdrawal
from strongroom.wallet.audit.balances import Balances, name_of
from strongroom.wallet.audit.effects import Effects
from strongroom.wallet.audit.findings import Findings
from strongroom.wallet.catalogue import Catalogue
from strongroom.wallet.holdings import owned_units

_COMPARED: Final[tuple[type[Kept], ...]] = (
    Settings, User, Address, AddressBook, Placed, Branch, Deposit, Outpoint, Withdrawal, Payment, Reserved, Spent,
    Holding, Coin, Pot, Sent, Epoch, Reconciled,
)  # fmt: skip
"""The kinds whose every change stands in the journal; what is known of a chain's blocks is not worth an item."""

_ROWS: Final = {kind.__name__: msgspec.json.Decoder(kind) for kind in _COMPARED}
_ITEM_BYTES: Final = 8

RowsParcel: TypeAlias = list[tuple[Key, bytes]]
"""Rows with the fingerprint and the item that a stretch left them with."""


class KeptRows:
    """A fingerprint (32 bytes) of every row as the journal last wrote it, with the item (8 bytes) that did."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._written: dict[Key, bytes] = {}

    def note(self, items: Iterable[Effects]) -> None:
        """Take note of the rows that items wrote."""
        for item in items:
            try:
                for kind, text in item.rows:
                    if (decoder := _ROWS.get(kind)) is not None:
                        row = decoder.decode(text)
                        self._written[row.key()] = _fingerprint(row) + item.number.to_bytes(_ITEM_BYTES, "big")
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                self._findings.add(item.number, f"its effects cannot be read: {error}")

    def parcels(self, size: int) -> Iterator[RowsParcel]:
        """Yield what a stretch has found out, so many rows at a time."""
        rows = iter(self._written.items())
        while parcel := list(islice(rows, size)):
            yield parcel

    def take_over(self, parcel: RowsParcel) -> None:
        """Continue with what the stretch that follows this one has found out."""
        self._written.update(parcel)

    def compare(self, reads: Reads, balances: Balances) -> None:
        """Check the kept rows, and what they say of the balances."""
        held_units: dict[int, int] = {}
        owned: dict[int, int] = {}
        catalogue = Catalogue(reads.row(Settings, 0).snapshot)
        for kind in _COMPARED:
            for row in reads.each(kind):
                self._compare_row(row)
                if isinstance(row, Withdrawal) and row.owner and row.state in OPEN_WITHDRAWALS:
                    account = held(row.owner, row.asset).pack()
                    held_units[account] = held_units.get(account, 0) + row.held
                elif isinstance(row, Holding):
                    owned[omnibus(row.network, row.asset).pack()] = -self._units_of(row, catalogue)
        for key, written in self._written.items():
            self._findings.add(_item_of(written), f"the {_label(key)} that it wrote is missing")
        self._compare_sums(balances, Purpose.HELD, held_units, "its open withdrawals hold")
        self._compare_sums(balances, Purpose.OMNIBUS, owned, "its exact total comes to")

    def _compare_row(self, row: Kept) -> None:
        key = row.key()
        written = self._written.pop(key, b"")
        if not written:
            self._findings.add(0, f"the {_label(key)} was written by no item")
        elif written[:-_ITEM_BYTES] != _fingerprint(row):
            self._findings.add(_item_of(written), f"the {_label(key)} is not as it left it")

    def _units_of(self, holding: Holding, catalogue: Catalogue) -> int:
        """Return a chain's total in ledger units; where the offer is gone nobody can tell its decimals."""
        offer, asset = catalogue.offer_at(holding.asset, holding.network), catalogue.assets.get(holding.asset)
        try:
            units = int(holding.chain_units)
        except ValueError:
            self._findings.add(0, f"the {_label(holding.key())} has no number for its total")
            return 0
        if offer is not None and asset is not None:
            return owned_units(units, offer, asset)
        if units:
            self._findings.add(0, f"no offer tells what {_label(holding.key())} comes to")
        return 0

    def _compare_sums(self, balances: Balances, purpose: Purpose, expected: Mapping[int, int], what: str) -> None:
        """Check every balance of a purpose against what the rows come to."""
        for account in sorted({*balances.of_purpose(purpose), *expected}):
            after, _, item = balances.head(account)
            units = expected.get(account, 0)
            if after != units:
                self._findings.add(item, f"{name_of(account)} is {after}, and {what} {units}")


def _item_of(written: bytes) -> int:
    return int.from_bytes(written[-_ITEM_BYTES:], "big")


def _fingerprint(row: Kept) -> bytes:
    return sha256(msgspec.json.encode(row)).digest()


def _label(key: Key) -> str:
    return f"{key[0].__name__.lower()} {' '.join(map(str, key[1:]))}"
