"""The nodes that the tests on chains begin with."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from support.nodes import FIRST_COINS, Anvil, Bitcoind


@pytest.fixture
async def bitcoind(tmp_path: Path) -> AsyncIterator[Bitcoind]:
    """A node whose stranger has coins to spend."""
    async with Bitcoind(tmp_path / "node") as node:
        _ = await node.mine(FIRST_COINS)
        yield node


@pytest.fixture
async def anvil(tmp_path: Path) -> AsyncIterator[Anvil]:
    """A node of a chain of its own."""
    async with Anvil(tmp_path / "node") as node:
        yield node
