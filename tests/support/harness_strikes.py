"""A server that dies, hangs or meets a bad disk where a test says: `python -m support.harness_strikes PLAN demo ...`.

The test says so while the server runs, by files beside PLAN; each place to die at that was really reached leaves one.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any, Final

import apsw
import msgspec

from strongroom import books, crashpoints
from strongroom.cli.main import main
from strongroom.custody.networks.simulated import SimulatedNode
from strongroom.custody.sender import Sender
from strongroom.records.withdrawals import Payment, PaymentState
from strongroom.store.sqlite import checkpoints
from strongroom.store.sqlite.store import SqliteStore
from support.harness_disk import DATABASE, LOG, SYNC, WRITE, FaultyDisk, FaultyFile

_FILES: Final = {LOG: "log", DATABASE: "database"}
DISK_PLACES: Final = tuple(
    f"{where} of the {file}" for file in _FILES.values() for where in ("in a write", "before a sync", "after a sync")
)
"""Inside COMMIT, which goes to the log, and inside the copying of the log into the database. Of a write that is torn
the first part is there."""

PLACES: Final = (*crashpoints.BATCH_POINTS, *crashpoints.SENDER_POINTS, *DISK_PLACES)
"""Everywhere a server of simulated chains can be made to die; moves of the house's own money are made on real ones."""

_CHECKPOINT_AT_PAGES: Final = 200
_MOMENT_S: Final = 0.01
_ERRORS: Final[dict[str, type[apsw.Error]]] = {"error": apsw.IOError, "full": apsw.FullError}


class Strike(msgspec.Struct, frozen=True):
    """Where to die: the `nth` time that the server comes to `place` from now on; `share` of a torn write is written."""

    place: str
    nth: int = 1
    share: float = 0.5


class Fault(msgspec.Struct, frozen=True):
    """What the log's disk does for a while: an "error", or "full", at writes or syncs; or it hangs at syncs."""

    operation: str
    kind: str

    @property
    def name(self) -> str:
        """What goes wrong where."""
        return f"{self.kind} at a {self.operation}"


class Plan:
    """What is to happen to a server, as both it and the test see it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fault = path.with_suffix(".fault")
        self._struck = path.with_suffix(".struck")
        self._met = path.with_suffix(".met")

    # The test's side.

    @property
    def program(self) -> tuple[str, ...]:
        """The program that follows this plan."""
        return (sys.executable, "-m", "support.harness_strikes", str(self.path))

    def aim(self, strike: Strike) -> None:
        """Let the server die at a place."""
        self.forget()
        _write(self.path, strike)

    def forget(self) -> None:
        """Take back what has not happened."""
        for file in (self.path, self._struck, self._fault, self._met):
            file.unlink(missing_ok=True)

    @property
    def struck(self) -> bool:
        """Whether the server died where it was to."""
        return self._struck.exists()

    @property
    def met(self) -> bool:
        """Whether the server has met the fault."""
        return self._met.exists()

    def fail(self, fault: Fault) -> None:
        """Let the log's disk be bad from now on."""
        self._met.unlink(missing_ok=True)
        _write(self._fault, fault)

    def heal(self) -> None:
        """Let the log's disk be good again."""
        self._fault.unlink(missing_ok=True)

    # The server's side.

    def strike(self) -> Strike | None:
        """Return what is planned by now."""
        return _read(self.path, Strike)

    def die(self) -> None:
        """Leave the sign that the place was reached, and be gone."""
        self.path.rename(self._struck)
        os.kill(os.getpid(), signal.SIGKILL)

    def fault(self, operation: str) -> Fault | None:
        """Return what an operation on the log meets now."""
        fault = _read(self._fault, Fault)
        if fault is None or fault.operation != operation:
            return None
        self._met.touch()
        return fault


def _write(path: Path, content: Any) -> None:
    fresh = path.with_suffix(".fresh")
    fresh.write_bytes(msgspec.json.encode(content))
    fresh.rename(path)


def _read(path: Path, kind: type[Any]) -> Any:
    if not path.exists():
        return None
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        return None


class Striker:
    """Counts how often the server comes to the place where it is to die; any thread may come there."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._strike: Strike | None = None
        self._left = 0
        self._lock = threading.Lock()

    def due(self, place: str) -> Strike | None:
        """Return the strike that is due here and now."""
        with self._lock:
            if self._strike is None and (strike := self.plan.strike()):
                self._strike, self._left = strike, strike.nth
            if self._strike is None or self._strike.place != place:
                return None
            self._left -= 1
            return self._strike if self._left == 0 else None

    def reach(self, point: str) -> None:
        """Die at a crash point if it is the one."""
        if point not in crashpoints.POINTS:
            os.abort()
        if self.due(point):
            self.plan.die()


class StrikingDisk(FaultyDisk):
    """The disk of a server that can die in the middle of a write, and before and after a sync."""

    def __init__(self, striker: Striker) -> None:
        self.striker = striker
        super().__init__()

    def xOpen(self, name: Any, flags: Any) -> StrikingFile:  # noqa: N802 - SQLite's name
        """Open a file on which the server can die."""
        return StrikingFile(self, name, flags)

    def ask(self, operation: str, file: str) -> None:
        """Meet what the plan says of the log's disk."""
        if file != LOG or operation not in {WRITE, SYNC}:
            return
        while (fault := self.striker.plan.fault(operation)) is not None:
            if error := _ERRORS.get(fault.kind):
                raise error("a fault of the test")
            time.sleep(_MOMENT_S)


class StrikingFile(FaultyFile):
    """A file on which the server can die."""

    def __init__(self, disk: StrikingDisk, name: Any, flags: Any) -> None:
        super().__init__(disk, name, flags)
        self._striker = disk.striker

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        """Write all, or a part and die."""
        if strike := self._due("in a write"):
            super().xWrite(data[: int(strike.share * len(data))], offset)
            self._striker.plan.die()
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:  # noqa: N802
        """Sync, or die before or after it."""
        if self._due("before a sync"):
            self._striker.plan.die()
        super().xSync(flags)
        if self._due("after a sync"):
            self._striker.plan.die()

    def _due(self, where: str) -> Strike | None:
        return self._striker.due(f"{where} of the {_FILES[self._file]}") if self._file in _FILES else None


def copy_the_log_often() -> None:
    """Let the log be copied into the database many times a second, so that a server can die in the middle of it."""
    checkpoints.START_AT_PAGES = _CHECKPOINT_AT_PAGES  # pyright: ignore[reportConstantRedefinition]
    checkpoints.FINISH_AT_PAGES = _CHECKPOINT_AT_PAGES // 10  # pyright: ignore[reportConstantRedefinition]
    checkpoints.LOOK_EVERY_COMMITS = 2  # pyright: ignore[reportConstantRedefinition]


def drop_at_reorganisations() -> None:
    """Let a reorganisation take our payments out of the chain for good: somebody else spent what they spend."""
    right = SimulatedNode.reorg

    async def reorg(self: SimulatedNode, network: str, depth: int, drop: Any = (), mend: Any = ()) -> Any:
        height = self.chain(network).newest().height
        ours = self._store._db.execute(
            "SELECT txid FROM tx JOIN block ON block.hash = tx.block_hash AND block.network = tx.network"
            " WHERE tx.network = ? AND nonce IS NOT NULL AND state = 'mined' AND height > ?",
            (network, height - depth),
        )
        return await right(self, network, depth, [*drop, *(txid for (txid,) in ours)], mend)

    SimulatedNode.reorg = reorg


def raise_some_fees() -> None:
    """Let every third payment be offered for a higher fee with every look at it, as far as its chain allows."""
    right = Sender._is_due

    def is_due(self: Sender, payment: Payment) -> bool:
        raised = payment.state == PaymentState.SIGNED and payment.ref % 3 == 0
        return raised or right(self, payment)

    Sender._is_due = is_due


def serve(plan: Path) -> None:
    """Run the program under a plan."""
    striker = Striker(Plan(plan))
    disk = StrikingDisk(striker)
    crashpoints.arm(striker.reach)
    books.SqliteStore = partial(SqliteStore, vfs=disk.name)  # pyright: ignore[reportPrivateImportUsage]
    copy_the_log_often()
    drop_at_reorganisations()
    raise_some_fees()
    main()


if __name__ == "__main__":
    serve(Path(sys.argv.pop(1)))
