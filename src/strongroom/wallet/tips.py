"""Tips: how far a chain has been worked through, and the hashes of its newest blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

from strongroom.engine.command import NOBODY, Command, Decision, Stale, View
from strongroom.engine.port import Reads
from strongroom.errors import PARAMETER_INVALID, check
from strongroom.records.chains import REMEMBERED_BLOCKS, Passed, Tip
from strongroom.records.kept import Kept, Key


class PassedBlock(NamedTuple):
    """A block that was worked through."""

    height: int
    block: str


class AdvanceTip(Command, frozen=True):
    """Remember the blocks that were worked through since the block `before`, or the block that a reorganisation spared.

    It moves no money and says nothing that the chain does not say again: the journal does not hold it.
    """

    JOURNALED: ClassVar[bool] = False

    network: int
    before: str
    passed: tuple[PassedBlock, ...]

    def needs(self) -> list[Key]:
        """The tip and the places of the blocks in the ring."""
        slots = [Passed.at(self.network, block.height % REMEMBERED_BLOCKS) for block in self.passed]
        return [Tip.at(self.network), *slots]

    def decide(self, view: View, now_ms: int) -> Decision:
        """Remember them, if the tip is still where they begin."""
        if view.get(Tip, self.network).block != self.before:
            raise Stale
        height, newest = self.passed[-1]
        rows: list[Kept] = [Tip(self.network, height, newest, now_ms)]
        rows += [Passed(self.network, block.height % REMEMBERED_BLOCKS, *block) for block in self.passed]
        return Decision(rows=rows)


def prepare_tip(network: int, before: str, passed: Sequence[PassedBlock]) -> AdvanceTip:
    """Return the command that remembers blocks, oldest first, worked through after the block `before`."""
    check(0 < len(passed) <= REMEMBERED_BLOCKS, "a step takes some blocks, and no more than are remembered")
    return AdvanceTip(NOBODY, network, before, tuple(passed))


def passed_needs(network: int, height: int) -> list[Key]:
    """Return what `check_passed` reads."""
    return [Tip.at(network), Passed.at(network, height % REMEMBERED_BLOCKS)]


def check_passed(view: View, network: int, height: int, block: str) -> None:
    """Raise `Refused` PARAMETER_INVALID unless the watcher has worked through a block and the chain has not left it.

    What goes by the chain's word on a block is booked only so, because the watcher takes it back with the block. Where
    no block was ever worked through, or the block is unknown or remembered no more, nothing can be said.
    """
    tip, passed = view.get(Tip, network), view.get(Passed, network, height % REMEMBERED_BLOCKS)
    if not _stands(tip, passed, PassedBlock(height, block)):
        raise PARAMETER_INVALID("the payment's block is not worked through, or the chain has left it")


def has_passed(reads: Reads, network: int, height: int, block: str) -> bool:
    """Say whether `check_passed` would let it pass."""
    tip, passed = reads.row(Tip, network), reads.row(Passed, network, height % REMEMBERED_BLOCKS)
    return _stands(tip, passed, PassedBlock(height, block))


def _stands(tip: Tip, passed: Passed, placed: PassedBlock) -> bool:
    if not tip.block or not placed.block or passed.height > placed.height:
        return True
    return tip.height >= placed.height and (passed.height, passed.block) == placed


def left_blocks(reads: Reads, network: int, limit: int) -> list[str]:
    """Return the blocks that were worked through above the tip, lowest first: the chain has left them."""
    height = reads.row(Tip, network).height
    found: list[str] = []
    while len(found) < limit and (block := passed_block(reads, network, height + 1 + len(found))):
        found.append(block)
    return found


def passed_block(reads: Reads, network: int, height: int) -> str:
    """Return the hash of the block that was passed at a height; empty if none was, or it is remembered no more."""
    passed = reads.row(Passed, network, height % REMEMBERED_BLOCKS)
    return passed.block if passed.height == height else ""
