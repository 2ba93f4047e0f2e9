"""The nodes that tests start: what a missing or a broken one looks like to whoever runs the tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support import nodes
from support.nodes import Anvil, Bitcoind, asking, need_node


def test_a_missing_node_skips_its_tests_at_home_and_fails_them_in_ci(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a node's program a test says how to get it, and nothing is passed over silently in CI."""
    monkeypatch.setattr(nodes, "BINARIES", tmp_path)
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="make nodes"):
        need_node("anvil")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="make nodes"):
        need_node("anvil")


async def test_a_node_that_does_not_start_says_why(tmp_path: Path) -> None:
    """A node that ends at once fails the test with what it said, without a long wait."""
    node = Anvil(tmp_path, "--no-such-option")
    with pytest.raises(pytest.fail.Exception, match="no-such-option"):
        await node.start()
    assert node.pid == 0


async def test_a_node_that_is_stopped_leaves_no_process(tmp_path: Path) -> None:
    """After the end of a test its node is gone, whether it was stopped or killed."""
    for folder, ends_by_itself in (("one", True), ("two", False)):
        async with Anvil(tmp_path / folder) as node:
            pid = node.pid
            if not ends_by_itself:
                await node.kill()
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


async def test_many_nodes_run_at_once(tmp_path: Path) -> None:
    """Nodes of several chains run side by side, and each has its own password."""
    async with Bitcoind(tmp_path / "one") as one, Bitcoind(tmp_path / "two") as two, Anvil(tmp_path / "three") as three:
        assert len({one.port, one.peer_port, two.port, two.peer_port, three.port}) == 5
        assert one.password != two.password
        for url, method in ((one.url, "getblockcount"), (two.url, "getblockcount"), (three.url, "eth_blockNumber")):
            async with asking(url) as node:
                assert await node.call(method) in {0, "0x0"}
