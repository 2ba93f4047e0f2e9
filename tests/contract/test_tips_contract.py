"""Tips on every store: how far a chain was worked through, and which blocks stand."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from strongroom.errors import InvariantBroken
from strongroom.records.chains import REMEMBERED_BLOCKS, Tip
from strongroom.wallet.tips import PassedBlock, has_passed, left_blocks, passed_block, prepare_tip
from support.paying import Payouts, paying
from support.world import BITCOIN, NOW_MS, STORES, new_store


@pytest.fixture(params=STORES)
async def payouts(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Payouts]:
    """A house on each store in turn, which has worked through five blocks in two steps."""
    async with paying(new_store(request.param, tmp_path), tmp_path) as payouts:
        await pass_blocks(payouts, "", 1, 2)
        await pass_blocks(payouts, "b2", 3, 4, 5)
        yield payouts


async def pass_blocks(payouts: Payouts, before: str, *heights: int, branch: str = "b") -> None:
    """Let blocks have been worked through after another."""
    passed = [PassedBlock(height, f"{branch}{height}") for height in heights]
    outcome = await payouts.world.context.submit(prepare_tip(BITCOIN, before, passed))
    assert (outcome.refusal, outcome.stale) == (None, False)


def stands(payouts: Payouts, height: int, block: str = "") -> bool:
    """Say whether what went by a block can be booked."""
    return has_passed(payouts.reads, BITCOIN, height, block or f"b{height}")


async def test_the_tip_is_the_newest_block_of_a_step(payouts: Payouts) -> None:
    """With the time of the step, and no item in the journal: the chain says it again."""
    assert payouts.reads.row(Tip, BITCOIN) == Tip(BITCOIN, 5, "b5", NOW_MS)
    passed = [passed_block(payouts.reads, BITCOIN, height) for height in range(7)]
    assert passed == ["", "b1", "b2", "b3", "b4", "b5", ""]
    items = payouts.world.store.last()[0]
    await pass_blocks(payouts, "b5", 6)
    assert payouts.world.store.last()[0] == items


async def test_a_step_begins_where_the_tip_is(payouts: Payouts) -> None:
    """Whoever comes second, with blocks after another one, changes nothing."""
    late = prepare_tip(BITCOIN, "b2", [PassedBlock(3, "c3")])
    assert (await payouts.world.context.submit(late)).stale
    assert payouts.reads.row(Tip, BITCOIN).block == "b5"
    assert passed_block(payouts.reads, BITCOIN, 3) == "b3"


async def test_a_step_takes_some_blocks_and_no_more_than_are_remembered(payouts: Payouts) -> None:
    """None at all, or one more than there is room for, is a mistake."""
    many = [PassedBlock(height, f"b{height}") for height in range(6, 7 + REMEMBERED_BLOCKS)]
    for wrong in ([], many):
        with pytest.raises(InvariantBroken, match="a step takes some blocks, and no more than are remembered"):
            _ = prepare_tip(BITCOIN, "b5", wrong)
    await pass_blocks(payouts, "b5", *range(6, 6 + REMEMBERED_BLOCKS))
    assert payouts.reads.row(Tip, BITCOIN).height == 5 + REMEMBERED_BLOCKS


async def test_what_went_by_a_block_stands_while_the_chain_has_it(payouts: Payouts) -> None:
    """Up to the tip, not above it, and by no other block at its height."""
    assert [stands(payouts, height) for height in (1, 5, 6)] == [True, True, False]
    assert not stands(payouts, 3, "c3")
    await pass_blocks(payouts, "b5", 3)
    assert [stands(payouts, height) for height in (3, 4, 5)] == [True, False, False]
    await pass_blocks(payouts, "b3", 4, branch="c")
    assert (stands(payouts, 4), stands(payouts, 4, "c4")) == (False, True)


async def test_of_a_block_that_is_remembered_no_more_nothing_can_be_said(payouts: Payouts) -> None:
    """Nor before any was worked through, nor of what names no block: such ends are not held up."""
    await pass_blocks(payouts, "b5", *range(6, 6 + REMEMBERED_BLOCKS))
    assert stands(payouts, 3, "anything")
    assert has_passed(payouts.reads, BITCOIN + 1, 3, "anything")
    assert has_passed(payouts.reads, BITCOIN, 9, "")


async def test_blocks_that_were_left_are_found_above_the_tip(payouts: Payouts) -> None:
    """Lowest first, as many as are asked for, until another branch has taken their place."""
    assert left_blocks(payouts.reads, BITCOIN, 10) == []
    await pass_blocks(payouts, "b5", 2)
    assert left_blocks(payouts.reads, BITCOIN, 10) == ["b3", "b4", "b5"]
    assert left_blocks(payouts.reads, BITCOIN, 2) == ["b3", "b4"]
    await pass_blocks(payouts, "b2", 3, 4, branch="c")
    assert left_blocks(payouts.reads, BITCOIN, 10) == ["b5"]
