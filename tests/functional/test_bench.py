"""The bench really runs: what docs/performance.md tells can be measured again."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.nodes import need_node

SOURCE = Path(__file__).parents[2]
BENCH = SOURCE / "bench" / "run.py"
ROW = r"^\| Strongroom, {} \| ([\d,]+) \|.*\| 0 \|$"


@pytest.mark.skipif(not (shutil.which("wrk") or os.environ.get("CI")), reason="wrk is not installed")
def test_our_rows_are_measured_in_a_second_each_without_a_failed_request(tmp_path: Path) -> None:
    """A short run of our own part prints its rows, each with some requests and no failure, and leaves nothing."""
    arguments = ["--only", "ours", "--seconds", "1", "--users", "200", "--connections", "4", "--work", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, str(BENCH), *arguments], check=False, capture_output=True, text=True, timeout=110
    )
    assert done.returncode == 0, done.stderr
    for kind in ("balance reads", "transfers", "transfers with Idempotency-Key"):
        row = re.search(ROW.format(kind), done.stdout, re.MULTILINE)
        assert row is not None, done.stdout
        assert int(row[1].replace(",", "")) > 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.soak
def test_nodes_on_postgresql_are_measured_beside_sqlite() -> None:
    """A short run of that part prints a row for each store and number of nodes, without a failed request."""
    # In the bench's own folder: PostgreSQL is another user, who cannot enter a test's.
    arguments = ["--only", "nodes", "--seconds", "1", "--users", "200", "--connections", "4"]
    done = subprocess.run(
        [sys.executable, str(BENCH), *arguments], check=False, capture_output=True, text=True, timeout=110
    )
    assert done.returncode == 0, done.stderr
    rows = re.findall(r"^\| (SQLite|PostgreSQL), transfers.* \| [\d,]+ \|.*\| 0 \|$", done.stdout, re.MULTILINE)
    assert rows == ["SQLite", "PostgreSQL", "PostgreSQL"], done.stdout


def test_blocks_are_measured_with_few_addresses(tmp_path: Path) -> None:
    """A short run of the bench of blocks prints its row: the time to the credit, and the server's CPU."""
    _ = need_node("bitcoind")
    arguments = ["--addresses", "200", "--blocks", "1", "--mixes", "5+10"]
    environment = {**os.environ, "PYTHONPATH": f"{SOURCE}/src:{SOURCE}/tests", "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, str(BENCH.with_name("blocks.py")), *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=110,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"^\| 200 \| 5 \| 10 \| \d+ \| \d+ \| \d+ \| \d+ \|$", done.stdout, re.MULTILINE), done.stdout
