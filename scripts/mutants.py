"""Mutation testing: make every small mistake in what keeps the money, one at a time, and see that a test notices.

Works on a copy of the tree in a temporary folder. The tests are collected once; then each mutant gets a process of its
own, forked off, that puts the mistake in and runs the tests that go over its lines, quickest first, until one fails.
What a function does is changed in the function itself; for what runs at import the modules are imported anew.
"""

from __future__ import annotations

import argparse
import ast
import importlib.abc
import importlib.util
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import CodeType, FrameType, FunctionType
from typing import Any, NamedTuple

from mutation import Mutant, members_of, mutants_of

ROOT = Path(__file__).parent.parent
RECORD = ROOT / "tests" / "data" / "mutants.json"
TARGETS = (
    "money.py",
    "ledger/accounts.py",
    "ledger/entries.py",
    "ledger/seals.py",
    "records/withdrawals.py",
    "wallet/withdrawals.py",
    "wallet/approvals.py",
    "wallet/payments.py",
    "wallet/settlements.py",
    "wallet/moves.py",
    "wallet/reopenings.py",
    "wallet/adoptions.py",
    "wallet/replacements.py",
    "wallet/assignments.py",
    "wallet/epochs.py",
    "wallet/pots.py",
    "wallet/cold.py",
    "wallet/tips.py",
    "wallet/transfers.py",
    "wallet/conversions.py",
    "wallet/bookings.py",
    "wallet/credits.py",
    "wallet/audit/stretch.py",
    "wallet/audit/balances.py",
    "wallet/audit/histories.py",
    "wallet/audit/keptrows.py",
    "wallet/audit/seals.py",
    "engine/settle.py",
)
TESTS = (
    "tests/unit/test_money.py",
    "tests/unit/test_ledger_*.py",
    "tests/unit/test_withdrawal_*.py",
    "tests/unit/test_wallet_*.py",
    "tests/unit/test_audit_*.py",
    "tests/unit/test_kept_rows.py",
    "tests/unit/test_adoptions.py",
    "tests/contract/test_store_contract.py",
    "tests/contract/test_bookings_contract.py",
    "tests/contract/test_transfers_contract.py",
    "tests/contract/test_deposits_contract.py",
    "tests/contract/test_withdrawals_contract.py",
    "tests/contract/test_sender_contract.py",
    "tests/contract/test_moves_contract.py",
    "tests/contract/test_coin_moves_contract.py",
    "tests/contract/test_reopenings_contract.py",
    "tests/contract/test_adoptions_contract.py",
    "tests/contract/test_assignments_contract.py",
    "tests/contract/test_replacements_contract.py",
    "tests/contract/test_restoration_contract.py",
    "tests/contract/test_watcher_contract.py",
    "tests/contract/test_cold_contract.py",
    "tests/contract/test_tips_contract.py",
    "tests/property/test_ledger.py",
    "tests/property/test_holdings.py",
    "tests/property/test_withdrawals.py",
)
WANTED_PERCENT = 90
EXAMPLES = 25
KILLED, SURVIVED = 1, 0
# Without PostgreSQL: no target knows which store it is kept in, and each mutant would start a server of its own.
ON_POSTGRES = ("postgres", "same_salts", "newer_release", "no_database", "a_database")
WITHOUT_POSTGRES = " and ".join(f"not {name}" for name in ON_POSTGRES)
QUIET = ("-q", "--no-header", "--capture=no", "-p", "no:cacheprovider", "-k", WITHOUT_POSTGRES)


class Job(NamedTuple):
    """A mutant of a file, and the tests to try it on."""

    file: str
    mutant: Mutant
    tests: list[str]
    limit_s: float


class Watcher:
    """A plugin that notes which lines of the targets each test goes over, and how long it takes."""

    def __init__(self, source: Path) -> None:
        self.names = {str(source / file): file for file in TARGETS}
        self.lines: defaultdict[str, set[tuple[str, int]]] = defaultdict(set)
        self.seconds: dict[str, float] = {}
        self.failed: list[str] = []
        self._now = ""

    def trace(self, frame: FrameType, event: str, argument: Any) -> Any:
        """Note a line of a target; look no further into what is none."""
        file = self.names.get(frame.f_code.co_filename)
        if file is None:
            return None
        self.lines[self._now].add((file, frame.f_lineno))
        return self.trace

    def run(self, items: list[Any]) -> None:
        """Run all tests, looked at."""
        threading.settrace(self.trace)
        for nth, item in enumerate(items):
            # A test may have taken the place over, as hypothesis does when it looks for what matters.
            sys.settrace(self.trace)
            self._now, started_s = item.nodeid, time.monotonic()
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=next(iter(items[nth + 1 :]), None))
            self.seconds[item.nodeid] = time.monotonic() - started_s
        sys.settrace(None)

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Note a test that fails without any mutant."""
        if report.failed:
            self.failed.append(f"{report.nodeid}\n{report.longreprtext}")


class Judge:
    """A plugin that ends the process at the first test that fails: the mutant is killed."""

    def __init__(self, names: list[str]) -> None:
        self._places = {name: place for place, name in enumerate(names)}

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        """Put the tests into the mutant's order; first those that only have another name because of it."""
        items.sort(key=lambda item: self._places.get(item.nodeid, -1))

    def pytest_runtest_logreport(self, report: Any) -> None:
        """End it."""
        if report.failed:
            os._exit(KILLED)

    def pytest_collectreport(self, report: Any) -> None:
        """End it where a module cannot even be imported any more."""
        if report.failed:
            os._exit(KILLED)


class Campaign:
    """A plugin that takes the place of pytest's loop over the tests, once they are collected."""

    def __init__(self, root: Path, options: argparse.Namespace, chosen: Callable[[str, Mutant], bool]) -> None:
        self.root = root
        self.source = root / "src" / "strongroom"
        self.options = options
        self.chosen = chosen
        self.results: list[tuple[str, Mutant, str]] = []
        self._running: dict[int, tuple[Job, float, Path]] = {}

    @staticmethod
    def pytest_load_initial_conftests() -> None:
        """Let hypothesis try the same few examples each time, before the tests choose how many."""
        import hypothesis

        few = hypothesis.settings(deadline=None, max_examples=EXAMPLES, derandomize=True, database=None)
        hypothesis.settings.register_profile("mutants", few)

    def pytest_runtestloop(self, session: Any) -> bool:
        """Watch the tests once, then try every mutant."""
        if session.testsfailed:
            raise session.Interrupted("the tests cannot even be collected")
        lines, seconds = self._watched(session)
        jobs = list(self._jobs(lines, seconds))
        for nth, job in enumerate(jobs, 1):
            while len(self._running) >= self.options.processes:
                self._reap()
            self._start(session, job)
            if nth % 50 == 0:
                print(f"{nth} of {len(jobs)} mutants", file=sys.stderr, flush=True)
        while self._running:
            self._reap()
        return True

    def _watched(self, session: Any) -> tuple[dict[str, set[tuple[str, int]]], dict[str, float]]:
        """Return the lines and seconds of each test, as a process of its own found them."""
        folder, answer = Path(tempfile.mkdtemp(dir=self.root)), self.root / "watched.json"
        pid = os.fork()
        if not pid:
            enter(folder)
            watcher = Watcher(self.source)
            session.config.pluginmanager.register(watcher)
            watcher.run(session.items)
            found = {"lines": {k: list(v) for k, v in watcher.lines.items()}, "seconds": watcher.seconds}
            answer.write_text(json.dumps({**found, "failed": watcher.failed}))
            os._exit(0)
        os.waitpid(pid, 0)
        found = json.loads(answer.read_text())
        if found["failed"]:
            sys.exit("mutants: these fail without any mutant:\n" + "\n".join(found["failed"]))
        return {k: {(f, n) for f, n in v} for k, v in found["lines"].items()}, found["seconds"]

    def _jobs(self, lines: dict[str, set[tuple[str, int]]], seconds: dict[str, float]) -> Iterator[Job]:
        """Yield every chosen mutant with its tests; what is imported is everybody's."""
        for file, mutants in all_mutants(self.source).items():
            for mutant in mutants:
                if not self.chosen(file, mutant):
                    continue
                places = {(file, line) for line in mutant.lines}
                names = [name for name in seconds if not mutant.at or places & lines.get(name, set())]
                names.sort(key=lambda name: seconds[name])
                yield Job(file, mutant, names, 10 + 3 * sum(seconds[name] for name in names))

    def _start(self, session: Any, job: Job) -> None:
        folder = Path(tempfile.mkdtemp(dir=self.root))
        pid = os.fork()
        if not pid:
            os.setpgid(0, 0)
            enter(folder)
            try:
                judge(session, self.source, job, self.options.tests)
            except BaseException as error:  # noqa: BLE001 - a mutant that breaks even the trial is noticed
                print(repr(error))
                os._exit(KILLED)
            os._exit(SURVIVED)
        self._running[pid] = (job, time.monotonic() + job.limit_s, folder)

    def _reap(self) -> None:
        """Take in those that ended, and end those that take too long."""
        for pid, (job, end_s, folder) in list(self._running.items()):
            late = time.monotonic() > end_s
            if late:
                os.killpg(pid, signal.SIGKILL)
            ended, status = os.waitpid(pid, 0 if late else os.WNOHANG)
            if ended:
                del self._running[pid]
                shutil.rmtree(folder, ignore_errors=True)
                survived = not late and os.waitstatus_to_exitcode(status) == SURVIVED
                self.results.append((job.file, job.mutant, "survived" if survived else "late" if late else "killed"))
                if survived or late:
                    print("" if survived else "late, so killed: ", end="", file=sys.stderr)
                    print(told(job.file, job.mutant), file=sys.stderr, flush=True)
        time.sleep(0.005)


def enter(folder: Path) -> None:
    """Make a forked process quiet, with temporary files of its own."""
    with open(folder / "output", "w") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    os.environ["TMPDIR"] = os.environ["PYTEST_DEBUG_TEMPROOT"] = tempfile.tempdir = str(folder)


def judge(session: Any, source: Path, job: Job, patterns: Iterable[str]) -> None:
    """Put a mutant in and run its tests; this process ends as soon as one of them fails."""
    path = source / job.file
    trees = parsed(source)
    mutant = next(m for m in mutants_of(trees[job.file], members_of(list(trees.values()))) if m.name == job.mutant.name)
    mutant.apply()
    code = compile(ast.fix_missing_locations(trees[job.file]), str(path), "exec")
    if mutant.at:
        function = living(module_of(job.file), mutant.at)
        function.__code__ = code_of(code, mutant.at)
        judge_here(session, job.tests)
    else:
        import_anew(source.parent.parent, module_of(job.file), code)
        import pytest

        tests = globbed(source.parent.parent, patterns)
        if pytest.main([*QUIET, *tests], plugins=[Judge(job.tests)]) != pytest.ExitCode.OK:
            os._exit(KILLED)


def judge_here(session: Any, names: list[str]) -> None:
    """Run tests of those that are collected."""
    session.config.pluginmanager.register(Judge(names))
    by_name = {item.nodeid: item for item in session.items}
    items = [by_name[name] for name in names]
    for nth, item in enumerate(items):
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=next(iter(items[nth + 1 :]), None))


def module_of(file: str) -> str:
    """Return the module of a file."""
    return "strongroom." + file.removesuffix(".py").replace("/", ".")


def living(module: str, at: str) -> FunctionType:
    """Return a function of an imported module, from under whatever wraps it."""
    found: Any = sys.modules[module]
    for name in at.split("."):
        found = vars(found)[name]
    while not isinstance(found, FunctionType) or hasattr(found, "__wrapped__"):
        found = getattr(found, "__wrapped__", None) or getattr(found, "fget", None) or found.__func__
    return found


def code_of(code: CodeType, at: str) -> CodeType:
    """Return the code of a function inside that of its module."""
    inner = [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    for one in inner:
        if one.co_qualname == at:
            return one
    return next(found for one in inner if at.startswith(f"{one.co_qualname}.") for found in [code_of(one, at)])


class Anew(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds one module, with other code than its file has."""

    def __init__(self, name: str, code: CodeType) -> None:
        self._name, self._code = name, code

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        """Find it."""
        return importlib.util.spec_from_loader(fullname, self) if fullname == self._name else None

    def create_module(self, spec: Any) -> None:
        """Let it be made as any other."""

    def exec_module(self, module: Any) -> None:
        """Run the other code."""
        exec(self._code, module.__dict__)


def import_anew(root: Path, name: str, code: CodeType) -> None:
    """Forget every module of the tree, and let one of them have other code."""
    for known, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(str(root)) and known != "__main__":
            del sys.modules[known]
    sys.meta_path.insert(0, Anew(name, code))


def parsed(source: Path) -> dict[str, ast.Module]:
    """Return the syntax trees of the targets."""
    return {file: ast.parse((source / file).read_text("utf-8")) for file in TARGETS}


def all_mutants(source: Path = ROOT / "src" / "strongroom") -> dict[str, list[Mutant]]:
    """Return the mutants of each target."""
    trees = parsed(source)
    members = members_of(list(trees.values()))
    return {file: mutants_of(tree, members) for file, tree in trees.items()}


def told(file: str, mutant: Mutant) -> str:
    """Return how a mutant reads."""
    nth = f" ({mutant.nth})" if mutant.nth > 1 else ""
    return f"{file}:{mutant.lines.start} {mutant.at or 'at import'}{nth}: {mutant.was}  ->  {mutant.now}"


def globbed(root: Path, patterns: Iterable[str]) -> list[str]:
    """Return the files of the tests that patterns name."""
    return [str(path.relative_to(root)) for pattern in patterns for path in sorted(root.glob(pattern))]


def copy_tree(folder: Path) -> None:
    """Copy what is needed, so that nobody's work on the tree disturbs this or is disturbed."""
    for name in ("src", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)


def identity(file: str, mutant: Mutant) -> tuple[Any, ...]:
    """Return what tells a mutant from all others, as the record has it."""
    return (file, *mutant.name)


def read_record() -> dict[str, Any]:
    """Return the record: counts by target, and the survivors that were looked at, each with its reason."""
    return json.loads(RECORD.read_text("utf-8")) if RECORD.exists() else {"targets": {}, "survivors": []}


def explained(record: dict[str, Any]) -> dict[tuple[Any, ...], str]:
    """Return the reasons by mutant."""
    return {key_of(survivor): survivor["why"] for survivor in record["survivors"]}


def key_of(survivor: dict[str, Any]) -> tuple[Any, ...]:
    """Return what tells a survivor of the record from all other mutants."""
    return tuple(survivor[name] for name in ("file", "at", "was", "now", "nth"))


def summary(
    results: Iterable[tuple[str, Mutant, str]], reasons: dict[tuple[Any, ...], str]
) -> dict[str, dict[str, int]]:
    """Return the table's rows by target."""
    rows: dict[str, Counter[str]] = {}
    for file, mutant, fate in results:
        row = rows.setdefault(file, Counter(mutants=0, killed=0, survived=0, explained=0))
        row["mutants"] += 1
        row["survived" if fate == "survived" else "killed"] += 1
        row["explained"] += fate == "survived" and bool(reasons.get(identity(file, mutant)))
    return {file: dict(rows[file]) for file in TARGETS if file in rows}


def print_table(rows: dict[str, dict[str, int]]) -> None:
    """Print what became of the mutants of each target, and of all."""
    total = sum((Counter(row) for row in rows.values()), Counter())
    print(f"{'target':<26}{'mutants':>9}{'killed':>9}{'survived':>10}{'explained':>11}{'killed %':>10}")
    for name, row in [*rows.items(), ("all", total)]:
        share = f"{100 * row['killed'] / max(1, row['mutants']):.1f}"
        numbers = f"{row['mutants']:>9}{row['killed']:>9}{row['survived']:>10}{row['explained']:>11}"
        print(f"{name:<26}{numbers}{share:>10}")


def write_record(rows: dict[str, dict[str, int]], results: list[tuple[str, Mutant, str]]) -> None:
    """Write the counts of what was tried, and the survivors with the reasons that are known; the others have none.

    Where survivors alone were tried again, those that are killed by now are counted over.
    """
    record = read_record()
    reasons = explained(record)
    tried = {identity(file, mutant) for file, mutant, _ in results}
    whole = {file for file, row in rows.items() if row["mutants"] == len(all_mutants()[file])}
    survivors = [s for s in record["survivors"] if s["file"] not in whole and key_of(s) not in tried]
    for file, mutant, fate in results:
        if fate == "survived":
            at, was, now, nth = mutant.name
            why = reasons.get(identity(file, mutant), "")
            survivors.append({"file": file, "at": at, "was": was, "now": now, "nth": nth, "why": why})
    survivors.sort(key=lambda survivor: TARGETS.index(survivor["file"]))
    targets = {file: rows[file] if file in whole else dict(row) for file, row in {**record["targets"], **rows}.items()}
    for file, row in targets.items():
        if file not in whole:
            row |= {"mutants": record["targets"].get(file, row)["mutants"]}
        row["survived"] = sum(survivor["file"] == file for survivor in survivors)
        row["explained"] = sum(survivor["file"] == file and bool(survivor["why"]) for survivor in survivors)
        row["killed"] = row["mutants"] - row["survived"]
    record = {"targets": {file: targets[file] for file in TARGETS if file in targets}, "survivors": survivors}
    RECORD.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", "utf-8")


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", help=f"which of {', '.join(TARGETS)}; all without any")
    parser.add_argument("--survivors", action="store_true", help="try only those that the record has as survivors")
    parser.add_argument("--tests", nargs="+", default=TESTS, help="try them on these files only, as patterns")
    parser.add_argument("--write", action="store_true", help="write counts and survivors into the record")
    parser.add_argument("--list", action="store_true", help="list the mutants and try none")
    parser.add_argument("--processes", type=int, default=2, help="how many are tried at once (2)")
    return parser.parse_args()


def main() -> int:
    """Try the mutants; 0 if nine in ten of each target are killed and each survivor is explained."""
    chosen, reasons = options(), explained(read_record())
    files = set(chosen.targets) or set(TARGETS)

    def is_chosen(file: str, mutant: Mutant) -> bool:
        return file in files and (not chosen.survivors or identity(file, mutant) in reasons)

    if chosen.list:
        print("\n".join(told(f, m) for f, found in all_mutants().items() for m in found if is_chosen(f, m)))
        return 0
    results = run(chosen, is_chosen)
    rows = summary(results, reasons)
    print_table(rows)
    if chosen.write:
        write_record(rows, results)
    unexplained = sum(row["survived"] - row["explained"] for row in rows.values())
    weak = [file for file, row in rows.items() if 100 * row["killed"] < WANTED_PERCENT * row["mutants"]]
    return int(bool(unexplained or (weak and not chosen.survivors)))


def run(chosen: argparse.Namespace, is_chosen: Callable[[str, Mutant], bool]) -> list[tuple[str, Mutant, str]]:
    """Try the chosen mutants on a copy of the tree, and return what became of each."""
    import pytest

    os.nice(10)
    os.environ["HYPOTHESIS_PROFILE"] = "mutants"
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        root = Path(folder).resolve()
        copy_tree(root)
        os.chdir(root)
        campaign = Campaign(root, chosen, is_chosen)
        _ = pytest.main([*QUIET, *globbed(root, chosen.tests)], plugins=[campaign])
        os.chdir(ROOT)
    return campaign.results


if __name__ == "__main__":
    sys.exit(main())
