"""The house's style as tests: each rule lists every place that breaks it, as file:line."""

from __future__ import annotations

import ast
import gc
import io
import re
import subprocess
import tokenize
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

import pytest

ROOT: Final = Path(__file__).parent.parent
SOURCE: Final = ROOT / "src" / "strongroom"

MAX_FUNCTION_LINES: Final = 70
LONG_FUNCTION_LINES: Final = 25
MAX_LONG_SHARE_PERCENT: Final = 10
MAX_MODULE_LINES: Final = 500

PURE: Final = ("ledger", "records")
INTEGERS_ONLY: Final = ("ledger", "records", "wallet", "rates", "money.py")
IMPURE_MODULES: Final = {"asyncio", "os", "random", "secrets", "socket", "subprocess", "threading", "time", "uuid"}
IMPURE_METHODS: Final = {"now", "now_ms", "utcnow", "today", "monotonic_s", "random_bytes"}
LOCKS: Final = ("requirements.lock", "requirements-dev.lock", "requirements-bench.lock", "requirements-ha.lock")

FUNCTIONS: Final = (ast.FunctionDef, ast.AsyncFunctionDef)
Function = ast.FunctionDef | ast.AsyncFunctionDef
Definition = Function | ast.ClassDef


class Module(NamedTuple):
    """One Python file, read and parsed once."""

    path: Path
    text: str
    tree: ast.Module

    def at(self, node: ast.AST | int) -> str:
        """Return where a node or a line stands, as file:line."""
        line = node if isinstance(node, int) else getattr(node, "lineno", 1)
        return f"{self.path.relative_to(ROOT)}:{line}"

    def functions(self) -> Iterator[Function]:
        """Yield every function, methods and nested ones too."""
        return (node for node in ast.walk(self.tree) if isinstance(node, FUNCTIONS))


@cache
def modules(*places: str) -> tuple[Module, ...]:
    """Return every Python file under the given folders of the project."""
    return tuple(read(path) for path in sorted(path for place in places for path in (ROOT / place).rglob("*.py")))


@cache
def read(path: Path) -> Module:
    """Return a file, read once; the collector need not look through half a million nodes again and again."""
    gc.disable()
    try:
        return Module(path, text := path.read_text("utf-8"), ast.parse(text, str(path)))
    finally:
        gc.freeze()
        gc.enable()


def rooms(*names: str) -> Iterator[Module]:
    """Yield the modules of the named rooms of src/strongroom."""
    return (module for module in modules("src") if module.path.relative_to(SOURCE).parts[0] in names)


def lines_of(function: Function) -> int:
    """Return how many lines a function takes, from its `def` to its last, docstring included."""
    return (function.end_lineno or function.lineno) - function.lineno + 1


def refuse(rule: str, places: Iterable[str]) -> None:
    """Fail with the rule and every place that breaks it."""
    found = dict.fromkeys(places)
    if found:
        pytest.fail("\n  ".join((f"{rule}:", *found)), pytrace=False)


def test_there_is_source_to_look_at() -> None:
    """The rules below look at real files, of the source and of the tests."""
    assert len(modules("src")) > len(PURE)
    assert Path(__file__) in {module.path for module in modules("tests")}


def test_no_function_is_longer_than_a_screen() -> None:
    """A function fits on a screen."""
    refuse(
        f"functions are at most {MAX_FUNCTION_LINES} lines long",
        (
            f"{module.at(function)} {function.name} has {lines_of(function)}"
            for module in modules("src", "tests", "bench")
            for function in module.functions()
            if lines_of(function) > MAX_FUNCTION_LINES
        ),
    )


def test_nine_functions_in_ten_are_short() -> None:
    """A long function is an exception in the source."""
    sizes = [(lines_of(function), module.at(function)) for module in modules("src") for function in module.functions()]
    long = sorted((size for size in sizes if size[0] > LONG_FUNCTION_LINES), reverse=True)
    allowed = len(sizes) * MAX_LONG_SHARE_PERCENT // 100
    if len(long) > allowed:
        rule = f"at most {allowed} of {len(sizes)} functions have over {LONG_FUNCTION_LINES} lines, not {len(long)}"
        refuse(rule, (f"{place} has {lines}" for lines, place in long))


def test_no_module_is_longer_than_its_reader_remembers() -> None:
    """A module fits in a head."""
    refuse(
        f"modules are at most {MAX_MODULE_LINES} lines long",
        (
            f"{module.at(lines)} is the last line"
            for module in modules("src", "tests", "bench")
            if (lines := len(module.text.splitlines())) > MAX_MODULE_LINES
        ),
    )


def public_definitions(body: list[ast.stmt]) -> Iterator[Definition]:
    """Yield the public functions and classes of a body, and those of its public classes."""
    for node in body:
        if isinstance(node, (*FUNCTIONS, ast.ClassDef)) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from public_definitions(node.body)


def is_variant(node: Definition) -> bool:
    """Tell whether a definition is one more shape of another, which has the docstring: an overload, a setter."""
    names = {ast.unparse(decorator).rsplit(".", 1)[-1] for decorator in node.decorator_list}
    return bool(names & {"overload", "override", "setter", "deleter"})


def test_everything_public_says_what_it_is() -> None:
    """Every public module, class and function of the source has a docstring."""
    silent = [module.at(1) for module in modules("src") if not ast.get_docstring(module.tree)]
    silent += [
        f"{module.at(node)} {node.name}"
        for module in modules("src")
        for node in public_definitions(module.tree.body)
        if not ast.get_docstring(node) and not is_variant(node)
    ]
    refuse("what is public has a docstring", silent)


def is_one_sentence(text: str | None) -> bool:
    """Tell whether a text begins large, ends with a full stop, and has no second sentence."""
    flat = " ".join((text or "").split())
    return bool(flat) and flat.endswith((".", "!", "?")) and not re.search(r"[.!?] [A-Z]", flat)


def test_a_test_is_one_sentence() -> None:
    """Every test says in one sentence what a user would notice."""
    refuse(
        "a test's docstring is one sentence",
        (
            f"{module.at(function)} {function.name}"
            for module in modules("tests")
            for function in module.functions()
            if function.name.startswith("test_") and not is_one_sentence(ast.get_docstring(function))
        ),
    )


def test_checks_stay_on_in_production() -> None:
    """The source never asserts in a way that an option of the interpreter turns off."""
    refuse(
        "use strongroom.errors.check instead of assert",
        (
            module.at(node)
            for module in modules("src")
            for node in ast.walk(module.tree)
            if isinstance(node, ast.Assert)
        ),
    )


def test_nothing_is_left_for_later() -> None:
    """No comment promises work that is not done."""
    promise = re.compile(r"\b(TO" r"DO|FIX" r"ME|X" r"XX|HA" r"CK)\b")
    refuse(
        "do it, or leave it out",
        (
            module.at(token.start[0])
            for module in modules("src", "tests", "bench")
            if promise.search(module.text)
            for token in tokenize.generate_tokens(io.StringIO(module.text).readline)
            if token.type == tokenize.COMMENT and promise.search(token.string)
        ),
    )


def is_float(node: ast.AST) -> bool:
    """Tell whether a node makes a binary float: a call of float, or a literal with a point or an exponent."""
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id == "float"
    return isinstance(node, ast.Constant) and isinstance(node.value, float)


def test_no_float_comes_near_money() -> None:
    """Where money is, every number is an integer or an exact decimal."""
    refuse(
        f"no float in {', '.join(INTEGERS_ONLY)}",
        (module.at(node) for module in rooms(*INTEGERS_ONLY) for node in ast.walk(module.tree) if is_float(node)),
    )


def imported(node: ast.AST) -> set[str]:
    """Return the top-level names of the modules that a statement imports."""
    if isinstance(node, ast.Import):
        return {alias.name.split(".")[0] for alias in node.names}
    if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
        return {node.module.split(".")[0]}
    return set()


def test_the_pure_rooms_import_nothing_impure() -> None:
    """The ledger and the records cannot reach a clock, randomness, the system or the network."""
    refuse(
        f"no {', '.join(sorted(IMPURE_MODULES))} in {', '.join(PURE)}",
        (
            module.at(node)
            for module in rooms(*PURE)
            for node in ast.walk(module.tree)
            if imported(node) & IMPURE_MODULES
        ),
    )


def is_impure(node: ast.AST) -> bool:
    """Tell whether a node reads a clock, makes an id, opens a file or waits."""
    if isinstance(node, ast.Await):
        return True
    if not isinstance(node, ast.Call):
        return False
    root = ast.unparse(node.func).split(".")[0]
    method = node.func.attr if isinstance(node.func, ast.Attribute) else ""
    return root in IMPURE_MODULES | {"open", "input", "print"} or method in IMPURE_METHODS


def test_decisions_are_pure() -> None:
    """The same command on the same state decides the same: no decision reads a clock, chance, or the world."""
    decisions = [
        (module, function) for module in modules("src") for function in module.functions() if function.name == "decide"
    ]
    pure_rooms = [(module, module.tree) for module in rooms(*PURE)]
    refuse(
        "what is decided comes from the command and the state only",
        (module.at(node) for module, tree in [*decisions, *pure_rooms] for node in ast.walk(tree) if is_impure(node)),
    )


@cache
def tracked_texts() -> dict[str, str]:
    """Return every tracked file that is text, by its path in the project."""
    command = ["git", "-c", "safe.directory=*", "ls-files", "-z"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout.decode().split("\0")
    found = {}
    for name in filter(None, listed):
        content = (ROOT / name).read_bytes() if (ROOT / name).is_file() else b"\0"
        if b"\0" not in content:
            found[name] = content.decode("utf-8")
    return found


def places_of(pattern: re.Pattern[str]) -> Iterator[str]:
    """Yield every place in a tracked file where the pattern stands."""
    for name, text in tracked_texts().items():
        for number, line in enumerate(text.splitlines(), 1):
            if found := pattern.search(line):
                yield f"{name}:{number} {found.group()}"


def test_no_file_names_a_place_of_one_machine() -> None:
    """What is committed works on any machine: no path of the one it was written on."""
    folders = ("work", "root", "home", "Users", "opt/wheels", "opt/pypi")
    pattern = re.compile(r"(?<![\w.~-])/(" + "|".join(folders) + r")(/\S*|\b(?=[\s\"'`:,]|$))")
    refuse("no path of one machine", places_of(pattern))


def test_no_file_names_a_registry() -> None:
    """Where packages come from is the installer's business: no tracked file names a registry's host."""
    hosts = (
        "pypi" r"\.org",
        "python" r"hosted\.org",
        "npm" r"js\.(org|com)",
        "yarn" r"pkg\.com",
        "deb" r"ian\.org/debian",
    )
    refuse("no host of a package registry", places_of(re.compile("|".join(hosts))))


def test_every_locked_package_has_its_hashes() -> None:
    """The locks pin one version of each package with its hashes, and name no index, host or path."""
    line = re.compile(r"#.*|[a-z0-9_.\[\]-]+==\S+( ; [^\\]+)? \\|    --hash=sha256:[0-9a-f]{64}( \\)?")
    broken = []
    for name in LOCKS:
        lines = tracked_texts()[name].splitlines()
        broken += [f"{name}:{n} {text}" for n, text in enumerate(lines, 1) if not line.fullmatch(text) or "/" in text]
        # A line that goes on must go on with a hash, so that no package stands without one.
        pairs = zip(lines, [*lines[1:], ""], strict=True)
        broken += [
            f"{name}:{n} {text}"
            for n, (text, after) in enumerate(pairs, 1)
            if text.endswith("\\") != after.startswith("    --hash=")
        ]
    refuse("a lock has exact versions with hashes, and nothing else", broken)


def test_what_runs_is_what_was_tested() -> None:
    """Every package of the runtime lock has the same version and hashes in the lock of development."""
    runtime, development = (
        {line.split("==")[0]: line for line in tracked_texts()[name].splitlines() if "==" in line} for name in LOCKS[:2]
    )
    versions = {name: line.split("==")[1].split()[0] for name, line in development.items()}
    refuse(
        "both locks have the same versions: run make lock",
        (line for name, line in runtime.items() if versions.get(name) != line.split("==")[1].split()[0]),
    )
