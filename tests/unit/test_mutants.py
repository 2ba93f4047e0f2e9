"""The record of mutants that survive: each is still in the source, and each has its reason."""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pytest

ROOT: Final = Path(__file__).parent.parent.parent
RECORD: Final[dict[str, Any]] = json.loads((ROOT / "tests" / "data" / "mutants.json").read_text("utf-8"))


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The script that makes mutants."""
    monkeypatch.syspath_prepend(ROOT / "scripts")
    import mutants  # pyright: ignore[reportMissingImports]

    yield mutants
    for name in ("mutants", "mutation"):
        del sys.modules[name]


def test_every_survivor_is_still_in_the_source(scripts: ModuleType) -> None:
    """A reason stands for the code as it is: when that changes, make mutants is due again."""
    known = {scripts.identity(file, mutant) for file, found in scripts.all_mutants().items() for mutant in found}
    gone = [key for key in scripts.explained(RECORD) if key not in known]
    assert gone == [], "run: make mutants MUTANTS='--survivors --write'"


def test_every_survivor_has_a_reason_and_nine_in_ten_are_killed() -> None:
    """No survivor is left to itself, and no target is left to its survivors."""
    assert [survivor for survivor in RECORD["survivors"] if not survivor["why"].endswith(".")] == []
    for file, row in RECORD["targets"].items():
        assert 10 * row["killed"] >= 9 * row["mutants"], file
        assert row["survived"] == sum(survivor["file"] == file for survivor in RECORD["survivors"]), file


SOURCE: Final = '''
LIMIT = 2

def take(balance, amount, *, fee=0):
    """Take an amount."""
    if amount <= 0 or not balance:
        raise ValueError("no amount")
    return max(balance - amount, LIMIT)
'''


def test_the_mutator_makes_the_mistakes_that_people_make(scripts: ModuleType) -> None:
    """Bounds, conditions, checks, numbers, operators and functions are each got wrong once, and docstrings never."""
    tree = ast.parse(SOURCE)
    made = {(mutant.at, mutant.was, mutant.now) for mutant in scripts.mutants_of(tree, {})}
    assert {
        ("", "LIMIT = 2", "LIMIT = 3"),
        ("", "LIMIT = 2", "LIMIT = 1"),
        ("", "0", "1"),
        ("take", "amount <= 0", "amount < 0"),
        ("take", "amount <= 0 or not balance", "amount <= 0 and (not balance)"),
        ("take", "amount <= 0 or not balance", "amount <= 0"),
        ("take", "not balance", "balance"),
        ("take", "raise ValueError('no amount')", "pass"),
        ("take", "balance - amount", "balance + amount"),
        ("take", "max", "min"),
    } <= made
    assert not any("Take an amount" in was for _, was, _ in made)


def test_each_mutant_is_one_mistake_that_compiles(scripts: ModuleType) -> None:
    """Put in, it changes the program, and leaves a program."""
    for nth in range(len(scripts.mutants_of(ast.parse(SOURCE), {}))):
        tree = ast.parse(SOURCE)
        scripts.mutants_of(tree, {})[nth].apply()
        assert ast.unparse(tree) != ast.unparse(ast.parse(SOURCE))
        compile(ast.fix_missing_locations(tree), "source", "exec")
