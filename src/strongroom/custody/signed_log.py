"""The signer's own memory: every body it has signed, in a file of its own that only grows.

A line of JSON a signature, forced to the disk before the signature leaves. Whoever controls the books cannot reach it,
so what was counted stays counted. A crash may leave half a line at the end: its signature never left.
"""

from __future__ import annotations

import fcntl
import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from strongroom.clock import DAY_MS
from strongroom.custody.chain import Payee
from strongroom.custody.families import NATIVE
from strongroom.files import claim, sync_folder

LOG_FILE: Final = "signed.jsonl"
MAX_LINE_BYTES: Final = 4 * 1024 * 1024


class SignedLogError(Exception):
    """The log cannot be used: another signer has it, it was changed, or the disk refused."""


class Signed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One body that was signed: of which payment, what it comes to, and when (Unix milliseconds).

    `digest` is the SHA-256 of the body in hex; `payees` are in a fixed order; `fee` is in the native coin's smallest
    unit.
    """

    payment: int
    network: str
    digest: str
    fee: int
    spends: tuple[str, ...]
    payees: tuple[Payee, ...]
    withdrawals: tuple[int, ...]
    at_ms: int


def counted(signed: Signed, before: Sequence[Signed]) -> dict[str, int]:
    """Return what a body adds to the sums, by asset id: the first of a payment all, a replacement its higher fee."""
    amounts = {NATIVE: signed.fee - max((it.fee for it in before), default=0)}
    for payee in () if before else signed.payees:
        amounts[payee.asset_id] = amounts.get(payee.asset_id, 0) + payee.amount
    return amounts


class SignedLog:
    """All that was signed, oldest first; one process at a time has it."""

    def __init__(self, folder: Path) -> None:
        """Read the log of a folder, made if it is not there. Raises `SignedLogError`, `OSError`."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._path = folder / LOG_FILE
        claim(self._path)
        self.last_ms = 0
        self._of_payment: dict[int, list[Signed]] = defaultdict(list)
        self._of_withdrawal: dict[int, int] = {}
        self._paid: dict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)
        self._broken = False
        self._handle = os.open(self._path, os.O_RDWR | os.O_APPEND)
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._load()
            sync_folder(folder)
        except BlockingIOError:
            os.close(self._handle)
            raise SignedLogError(f"another signer uses {self._path}") from None
        except BaseException:
            os.close(self._handle)
            raise

    def close(self) -> None:
        """Let another process have it."""
        os.close(self._handle)

    def of_payment(self, payment: int) -> list[Signed]:
        """Return what was signed for a payment, oldest first."""
        return list(self._of_payment.get(payment, ()))

    def payment_of(self, withdrawal: int) -> int:
        """Return the payment that was signed for a withdrawal, 0 if none was."""
        return self._of_withdrawal.get(withdrawal, 0)

    def paid_since(self, network: str, asset_id: str, since_ms: int) -> int:
        """Return the sum of what was counted for signatures after `since_ms`, in the chain's units.

        Sums of more than a day ago are forgotten.
        """
        paid = self._paid[network, asset_id]
        while paid and paid[0][0] <= self.last_ms - DAY_MS:
            del paid[0]
        return sum(amount for at_ms, amount in paid if at_ms > since_ms)

    def append(self, signed: Signed) -> None:
        """Keep what is about to be signed, durably. Raises `SignedLogError`; then nothing is signed any more."""
        if self._broken:
            raise SignedLogError("an earlier line could not be written: start the signer again")
        line = msgspec.json.encode(signed) + b"\n"
        if len(line) > MAX_LINE_BYTES:
            raise SignedLogError("the payment is too large to be remembered")
        self._broken = True
        try:
            if os.write(self._handle, line) != len(line):
                raise SignedLogError("the disk took only a part of a line")
            os.fsync(self._handle)
        except OSError as error:
            raise SignedLogError(f"the signature could not be counted: {error.strerror}") from error
        self._broken = False
        self._remember(signed)

    def _load(self) -> None:
        whole = 0
        with self._path.open("rb") as file:
            while line := file.readline(MAX_LINE_BYTES):
                if not line.endswith(b"\n"):
                    break
                whole += len(line)
                try:
                    self._remember(msgspec.json.decode(line, type=Signed))
                except (msgspec.MsgspecError, UnicodeDecodeError):
                    raise SignedLogError(f"{self._path} was changed: a line of it cannot be read") from None
            if len(line) >= MAX_LINE_BYTES:
                raise SignedLogError(f"{self._path} was changed: a line of it is too long")
        if line:
            os.ftruncate(self._handle, whole)
        # A line that an earlier run wrote and could not force out must not count for less than it is.
        os.fsync(self._handle)

    def _remember(self, signed: Signed) -> None:
        before = self._of_payment[signed.payment]
        for asset_id, amount in counted(signed, before).items():
            self._paid[signed.network, asset_id].append((signed.at_ms, amount))
        before.append(signed)
        self._of_withdrawal.update(dict.fromkeys(signed.withdrawals, signed.payment))
        self.last_ms = max(self.last_ms, signed.at_ms)
