"""What every family of tests shares: its budget of time, its mark, and how many examples hypothesis tries."""

from __future__ import annotations

import gc
import logging
import os
from collections import Counter, defaultdict
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Final

import hypothesis
import pytest
import structlog
from _pytest.nodeid import coerce_node_id

from support.postgres import leave_databases, stop_shared_server

TESTS: Final = Path(__file__).parent

BUDGETS_S: Final = {
    "unit": 40,
    "contract": 80,
    "property": 90,
    "simulation": 340,
    "functional": 750,
    "crash": 400,
    "browser": 20,
}
"""Seconds each family may use of the half an hour that three processes on two cores have for all in ten minutes; more
is shown, and never fails."""

ORDER: Final = (
    "crash/test_killed_server.py",
    "functional/chains",
    "simulation",
    "crash",
    "functional",
    "browser",
    "property",
    "contract",
)
"""What several processes begin with: what takes longest, so that in the end none is alone with a long file, and
between one thing that needs every core and the next something that waits for blocks."""

used_s: defaultdict[str, float] = defaultdict(float)
ran: Counter[str] = Counter()

# No deadline for one example: a slow machine is no bug. In CI the examples are the same every time.
hypothesis.settings.register_profile("dev", deadline=None, max_examples=100)
hypothesis.settings.register_profile("ci", deadline=None, max_examples=100, derandomize=True, database=None)
hypothesis.settings.register_profile("soak", deadline=None, max_examples=5_000, print_blob=True)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "dev"))


def family_of(path: Path) -> str:
    """Return the family a test's file belongs to: its folder under tests/, or "tidy" for what lies beside them."""
    parts = path.relative_to(TESTS).parts if path.is_relative_to(TESTS) else ()
    return parts[0] if len(parts) > 1 else "tidy"


def rank_of(path: Path) -> int:
    """Return when a test's file has its turn."""
    place = path.relative_to(TESTS).as_posix() if path.is_relative_to(TESTS) else ""
    return next((rank for rank, begins in enumerate(ORDER) if place.startswith(begins)), len(ORDER))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Run one process more than there are cores: many tests wait for a node, a block or a disk most of their time."""
    return len(os.sched_getaffinity(0)) + 1


def pytest_configure(config: pytest.Config) -> None:
    """Declare each family's mark, so that `-m` can choose by it."""
    for family, budget_s in BUDGETS_S.items():
        config.addinivalue_line("markers", f"{family}: the tests in tests/{family}, {budget_s} s in all")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Look for no garbage in what is imported and collected: all of it stays until the end."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark each test with its family, and name each apart: of two of one name only one runs beside another process.

    Where there are several processes, the longest files come first.
    """
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: rank_of(item.path))
    named: Counter[str] = Counter()
    for item in items:
        named[item.nodeid] += 1
        if (nth := named[item.nodeid]) > 1:
            item._id = coerce_node_id(f"{item.nodeid}[{nth}]")
        if (family := family_of(item.path)) in BUDGETS_S:
            item.add_marker(family)


@pytest.fixture(autouse=True)
def logs_as_they_were() -> Iterator[None]:
    """Let no test leave the next one of its process with logs as a command in it wanted them."""
    root, told = logging.getLogger(), structlog.get_config() if structlog.is_configured() else None
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    if told is None:
        structlog.reset_defaults()
    else:
        structlog.configure(**told)


def pytest_runtest_logfinish() -> None:
    """Give the databases of a test to the next ones."""
    leave_databases()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Add what each part of a test took to its family."""
    family = family_of(TESTS.parent / report.nodeid.partition("::")[0])
    used_s[family] += report.duration
    ran[family] += report.when == "call"


def pytest_sessionfinish() -> None:
    """Stop the database server that tests of this process have shared."""
    stop_shared_server()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what each family used of its budget."""
    terminalreporter.section("time by family of tests")
    for family in sorted(used_s, key=lambda name: -used_s[name]):
        budget_s = BUDGETS_S.get(family)
        budget = "" if budget_s is None else f" of {budget_s} s"
        over = "  OVER ITS BUDGET" if budget_s is not None and used_s[family] > budget_s else ""
        terminalreporter.write_line(f"{family:<12}{ran[family]:>5} tests {used_s[family]:>8.1f} s{budget}{over}")
