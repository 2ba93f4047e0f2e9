"""Epochs: what a restore from a backup begins, and what ends it for a network: books and chain agree again.

A backup is an older truth. What the house paid, received and gave out after it is not in it, but on the chain. So in a
new epoch addresses come from a fresh branch, and nothing is reserved, signed or sent on a network, and no withdrawal
there is given up, before the network is reconciled.
"""

from __future__ import annotations

from typing import Final

import msgspec

from strongroom.engine.command import NOBODY, Command, Decision, Guard, Stale, View
from strongroom.engine.port import Reads
from strongroom.errors import PARAMETER_INVALID
from strongroom.records.addresses import Branch
from strongroom.records.epochs import EPOCH_KEY, Epoch, Reconciled
from strongroom.records.kept import Kept, Key
from strongroom.records.settings import Settings
from strongroom.wallet.context import Context

WAITS: Final = "network waits to be reconciled after a restore"


class BeginEpoch(Command, frozen=True):
    """Begin the epoch after `number`, as the first thing that is done with restored books."""

    number: int
    networks: tuple[int, ...]

    def needs(self) -> list[Key]:
        """The epoch, and how far each network's newest branch is derived."""
        return [EPOCH_KEY, *(Branch.at(network, self.number) for network in self.networks)]

    def decide(self, view: View, now_ms: int) -> Decision:
        """Begin it, and note how far the backup knew the addresses."""
        if view.get(Epoch, 0).number != self.number:
            raise Stale
        rows: list[Kept] = [Epoch(0, self.number + 1, now_ms)]
        for network in self.networks:
            branch = view.get(Branch, network, self.number)
            rows.append(msgspec.structs.replace(branch, known=branch.derived))
        return Decision(rows=rows)


class EndWaiting(Command, frozen=True):
    """Let a network's payments go on: it was reconciled, or the operator has said so."""

    network: int
    epoch: int
    by_hand: bool

    def needs(self) -> list[Key]:
        """The epoch, and whether the network waits."""
        return hold_needs(self.network)

    def decide(self, view: View, now_ms: int) -> Decision:
        """Let them, once; by itself only while no payment is left that nobody is named for."""
        reconciled = view.get(Reconciled, self.network)
        if view.get(Epoch, 0).number != self.epoch:
            raise Stale
        if reconciled.epoch == self.epoch:
            raise PARAMETER_INVALID("network does not wait")
        if reconciled.unknown and not self.by_hand:
            raise Stale
        return Decision(rows=[msgspec.structs.replace(reconciled, epoch=self.epoch, by_hand=self.by_hand)])


def epoch_of(reads: Reads) -> int:
    """Return the number of the epoch, 0 before the first restore."""
    return reads.row(Epoch, 0).number


def waits(reads: Reads, network: int) -> bool:
    """Say whether a network's payments wait until books and chain have been compared."""
    return reads.row(Reconciled, network).epoch != epoch_of(reads)


def hold_needs(network: int) -> list[Key]:
    """Return what `check_open` reads."""
    return [EPOCH_KEY, Reconciled.at(network)]


def check_open(view: View, network: int) -> None:
    """Raise `Refused` PARAMETER_INVALID while a network waits to be reconciled."""
    if view.get(Reconciled, network).epoch != view.get(Epoch, 0).number:
        raise PARAMETER_INVALID(WAITS)


def prepare_epoch(context: Context) -> BeginEpoch:
    """Return the command that begins an epoch."""
    networks = context.reads.row(Settings, 0).snapshot.networks
    return BeginEpoch(NOBODY, epoch_of(context.reads), tuple(network.number for network in networks))


def prepare_end(context: Context, network: int, guard: Guard = NOBODY, *, by_hand: bool = False) -> EndWaiting:
    """Return the command that lets a network's payments go on. It is refused where they do not wait."""
    return EndWaiting(guard, network, epoch_of(context.reads), by_hand)
