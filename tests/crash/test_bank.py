"""The bank test: while many move money, nobody ever reads books in which some of it is missing or there twice.

`STRONGROOM_CRASH_SEED` repeats the choices of a run that failed.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Final

import pytest

from support import harness_controls
from support.harness_bank import Auditor, Bank, bank_on
from support.harness_rounds import SEED, verified

WRITERS: Final = 16
READERS: Final = 4
LASTING_S: Final = 15
SOAKING_S: Final = 60
FOUND_WITHIN_S: Final = 10
MISTAKES: Final = {"shows-half-a-batch": r"\d (BTC|XRP) of \d", "allows-overdrafts": "below zero"}
"""What a reader of each says."""


async def work(bank: Bank, seconds: float) -> None:
    """Let everybody move money and look for so long; the first who finds something wrong ends it."""
    ends_s = time.monotonic() + seconds
    try:
        async with asyncio.TaskGroup() as group:
            for number in range(WRITERS):
                group.create_task(bank.move(number, ends_s))
            for _ in range(READERS):
                group.create_task(bank.look(ends_s))
    except* AssertionError as failed:
        raise failed.exceptions[0] from None


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seconds", [LASTING_S, pytest.param(SOAKING_S, marks=pytest.mark.soak)])
async def test_money_is_constant_in_every_reading(tmp_path: Path, seconds: int) -> None:
    """Sixteen move money and four read: each reading has all of it, and nobody is ever below zero."""
    async with bank_on(tmp_path / "house", SEED) as bank:
        auditor = Auditor(bank.server.folder)
        auditor.start()
        try:
            await work(bank, seconds)
        finally:
            await auditor.stop()
        print(f"{dict(bank.told)}; readings {bank.readings}, of one moment {bank.of_a_moment}, disk {auditor.readings}")
        expected = {holding: amount + bank.moved[holding] for holding, amount in bank.opening.items()}
        assert await bank.closing() == expected, "balances are what the answers make them"
        assert min(*bank.of_a_moment, *bank.told.values(), auditor.readings) > 10
        assert len(bank.told) == 2
        await verified(bank.server.folder)


@pytest.mark.parametrize("mistake", MISTAKES)
async def test_books_that_are_wrong_for_a_moment_are_found_out(tmp_path: Path, mistake: str) -> None:
    """The readers find half a batch that is shown, and a balance that falls below zero."""
    program = harness_controls.program(mistake, tmp_path / "plan")
    async with bank_on(tmp_path / "house", SEED, program) as bank:
        with pytest.raises(AssertionError, match=MISTAKES[mistake]) as found:
            await work(bank, FOUND_WITHIN_S)
    print(f"{mistake}: {str(found.value)[:200]}")
