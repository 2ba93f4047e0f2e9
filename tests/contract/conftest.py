"""What the contracts of every store share: a house on each of them in turn."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from support.world import EVERY_STORE, World, new_store, opened


@pytest.fixture(params=EVERY_STORE)
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    """A house on each store in turn."""
    async with opened(new_store(request.param, tmp_path)) as world:
        yield world
