"""What a block's outputs are to the house: found in a few questions where each is a round trip."""

from __future__ import annotations

from pathlib import Path

from strongroom.clock import Ids, SetClock
from strongroom.custody.chain import Block, Output
from strongroom.custody.sightings import Sightings, no_report
from strongroom.engine.command import NOBODY
from strongroom.records.addresses import Address
from strongroom.wallet.context import perform_own
from strongroom.wallet.deposits import SeeDeposit
from support.counted import Counted
from support.effects import Do
from support.postgres import database_of
from support.world import BITCOIN, BTC, NOW_MS, opened

STRANGERS = 400
OURS = 50


async def test_a_blocks_outputs_cost_a_few_questions(tmp_path: Path) -> None:
    """Each output of ours is seen, none of a stranger's is, and the event loop waits a few times for all of them."""
    async with opened(Counted(database_of(tmp_path), Ids(SetClock(NOW_MS)))) as world:
        store, alice = world.store, await world.user("alice")
        assert isinstance(store, Counted)
        given = tuple(Address(BITCOIN, f"ours{n}", "", n + 1, alice, BTC, NOW_MS, paid=False) for n in range(OURS))
        await perform_own(world.context, lambda: Do(NOBODY, kept=given))
        outputs = [Output(f"{n:064x}", 0, f"theirs{n}", "", "", 1_000) for n in range(STRANGERS)]
        outputs += [Output(f"{n:064x}", 1, f"ours{n}", "", "", 2_000) for n in range(OURS)]
        before = store.questions
        commands = Sightings(world.context, BITCOIN, "BITCOIN", no_report).commands(outputs, Block(7, "b", "a", NOW_MS))
        assert store.questions - before <= 5
        assert [(type(it), it.to.address, it.chain_units) for it in commands if isinstance(it, SeeDeposit)] == [
            (SeeDeposit, f"ours{n}", "2000") for n in range(OURS)
        ]
