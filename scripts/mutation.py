"""Mutants: every small mistake that somebody could have made in a module, as one edit of its syntax tree each.

Annotations, docstrings, imports, decorators and a class's keywords (its memory layout) are left alone: none decides.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
COMPARISONS = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
}
ARITHMETIC = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
OPPOSITES = {"max": "min", "min": "max", "any": "all", "all": "any"}
SKIPPED_FIELDS = {"annotation", "returns", "decorator_list", "keywords of a class", "bases"}


class Mutant(NamedTuple):
    """One edit: `holder[key]` becomes `new`, or goes where that is None. `at` names the function it is in, "" for what
    runs at import; `was`, `now` and `nth` (of the same in that function) tell it from the others of its file."""

    holder: Any
    key: Any
    new: ast.AST | None
    at: str
    was: str
    now: str
    nth: int
    lines: range

    @property
    def name(self) -> tuple[str, str, str, int]:
        """What it is known by, whatever line it stands on."""
        return self.at, self.was, self.now, self.nth

    def apply(self) -> None:
        """Make the edit, for good."""
        if isinstance(self.key, str):
            setattr(self.holder, self.key, self.new)
        elif self.new is None:
            del self.holder[self.key]
        else:
            self.holder[self.key] = self.new


class Place(NamedTuple):
    """Where a node hangs: what holds it and under which key, its parents, and the function it is in."""

    holder: Any
    key: Any
    parents: tuple[ast.AST, ...]
    at: str
    names: tuple[str, ...]


def members_of(trees: list[ast.Module]) -> dict[str, list[str]]:
    """Return the members of every enumeration, in their order."""
    return {
        node.name: [t.id for s in node.body if isinstance(s, ast.Assign) for t in s.targets if isinstance(t, ast.Name)]
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and any(ast.unparse(base).endswith("Enum") for base in node.bases)
    }


def mutants_of(tree: ast.Module, members: dict[str, list[str]]) -> list[Mutant]:
    """Return every mutant of a module, in the order of its lines."""
    found: list[Mutant] = []
    seen = Counter[tuple[str, str, str]]()
    for node, place in nodes_of(tree):
        for new, was, now in [*edits_of(node, place, members), *list_edits_of(node)]:
            shown = (place.at, shorten(was), shorten(now))
            seen[shown] += 1
            holder, key, what = new if isinstance(new, tuple) else (place.holder, place.key, new)
            found.append(Mutant(holder, key, what, *shown, seen[shown], lines_of(node, place)))
    return found


def shorten(text: str) -> str:
    """Return a text on one line."""
    return " ".join(text.split())


def lines_of(node: ast.AST, place: Place) -> range:
    """Return the lines of the innermost statement around a node; of a compound one, those of its head."""
    statement = next(n for n in reversed((*place.parents, node)) if isinstance(n, ast.stmt) or n is place.parents[0])
    body = getattr(statement, "body", None)
    first = getattr(statement, "lineno", 1)
    last = body[0].lineno - 1 if isinstance(body, list) and body else getattr(statement, "end_lineno", first)
    return range(first, max(first, last) + 1)


def nodes_of(tree: ast.Module) -> Iterator[tuple[ast.AST, Place]]:
    """Yield every node that may be changed, with its place."""

    def children(node: ast.AST, place: Place) -> Iterator[tuple[ast.AST, Place]]:
        parents = (*place.parents, node)
        for field, value in ast.iter_fields(node):
            if field in SKIPPED_FIELDS or (field == "keywords" and isinstance(node, ast.ClassDef)):
                continue
            at = place.at or (".".join(place.names) if field == "body" and isinstance(node, FUNCTIONS) else "")
            entries = enumerate(value) if isinstance(value, list) else [(field, value)]
            holder = value if isinstance(value, list) else node
            for key, child in entries:
                if isinstance(child, ast.AST) and not is_left_alone(child, node):
                    yield from visit(child, Place(holder, key, parents, at, place.names))

    def visit(node: ast.AST, place: Place) -> Iterator[tuple[ast.AST, Place]]:
        if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            place = place._replace(names=(*place.names, node.name))
        yield node, place
        yield from children(node, place)

    yield from children(tree, Place(None, None, (), "", ()))


def is_left_alone(node: ast.AST, parent: ast.AST) -> bool:
    """Say whether a node decides nothing: an import, a docstring, the name of a type."""
    if isinstance(node, (ast.Import, ast.ImportFrom, ast.expr_context)):
        return True
    if isinstance(node, ast.AnnAssign) and ast.unparse(node.annotation) == "TypeAlias":
        return True
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(parent, ast.AST)


def edits_of(node: ast.AST, place: Place, members: dict[str, list[str]]) -> Iterator[tuple[Any, str, str]]:
    """Yield what may stand in a node's place: the new node, and how both read."""
    for new in [*expressions_for(node, place, members), *statements_for(node, place)]:
        context, text = place.parents[-1], ast.unparse(node)
        now = ast.unparse(new)
        shows = (ast.Compare, ast.BinOp, ast.Assign, ast.AnnAssign, ast.Subscript, ast.Return, ast.keyword, ast.arg)
        if isinstance(node, ast.Constant | ast.Attribute | ast.Name) and isinstance(context, shows):
            text, now = ast.unparse(context), in_context(context, place, new)
        yield new, text, now


def in_context(context: ast.AST, place: Place, new: ast.AST) -> str:
    """Return how a parent reads with another child."""
    old = getattr(place.holder, place.key) if isinstance(place.key, str) else place.holder[place.key]
    edit = Mutant(place.holder, place.key, new, "", "", "", 0, range(0))
    edit.apply()
    text = ast.unparse(context)
    edit._replace(new=old).apply()
    return text


def expressions_for(node: ast.AST, place: Place, members: dict[str, list[str]]) -> Iterator[ast.expr]:
    """Yield the expressions that may stand in an expression's place."""
    match node:
        case ast.Compare() | ast.BoolOp() | ast.BinOp() | ast.UnaryOp():
            yield from operations_for(node)
        case ast.Constant():
            yield from constants_for(node.value)
        case ast.Name(name) if name in OPPOSITES and is_called(node, place):
            yield ast.Name(OPPOSITES[name], ast.Load())
        case ast.Attribute(ast.Name(enum), member) if member in members.get(enum, ()):
            names = members[enum]
            yield ast.Attribute(node.value, names[(names.index(member) + 1) % len(names)], ast.Load())
        case ast.Call(args=[one, other, *rest]) if can_be_swapped(node, one, other):
            yield ast.Call(node.func, [other, one, *rest], node.keywords)
        case _:
            pass
    if is_condition(node, place) and not isinstance(node, ast.Compare | ast.BoolOp | ast.UnaryOp):
        yield ast.UnaryOp(ast.Not(), node)


def operations_for(node: ast.expr) -> Iterator[ast.expr]:
    """Yield what may stand in the place of an operation: with another operator, or without one of its parts."""
    match node:
        case ast.Compare(left, ops, comparators):
            for nth, op in enumerate(ops):
                for other in COMPARISONS[type(op)]:
                    yield ast.Compare(left, [*ops[:nth], other(), *ops[nth + 1 :]], comparators)
        case ast.BoolOp(op, values):
            yield ast.BoolOp(ast.And() if isinstance(op, ast.Or) else ast.Or(), values)
            for nth in range(len(values)):
                rest = [*values[:nth], *values[nth + 1 :]]
                yield ast.BoolOp(op, rest) if len(rest) > 1 else rest[0]
        case ast.BinOp(left, op, right) if type(op) in ARITHMETIC:
            yield ast.BinOp(left, ARITHMETIC[type(op)](), right)
        case ast.UnaryOp(ast.Not() | ast.USub() as op, operand):
            # A number's own sign is left to the numbers.
            if not (isinstance(op, ast.USub) and isinstance(operand, ast.Constant)):
                yield operand
        case _:
            pass


def constants_for(value: Any) -> Iterator[ast.Constant]:
    """Yield the constants that may stand in a constant's place."""
    if isinstance(value, bool):
        yield ast.Constant(not value)
    elif isinstance(value, int):
        yield from (ast.Constant(value + 1), ast.Constant(value - 1))
    elif isinstance(value, str):
        yield ast.Constant("mutated")
    elif isinstance(value, bytes):
        yield ast.Constant(b"mutated")


def is_called(node: ast.AST, place: Place) -> bool:
    """Say whether a name is that of a function being called."""
    return isinstance(place.parents[-1], ast.Call) and place.parents[-1].func is node


def can_be_swapped(call: ast.Call, *arguments: ast.expr) -> bool:
    """Say whether it may matter in which order a call has its first two arguments."""
    same = len({ast.dump(argument) for argument in arguments}) == 1
    starred = any(isinstance(argument, ast.Starred) for argument in arguments)
    return not (same or starred or ast.unparse(call.func) in {"min", "max"})


def is_condition(node: ast.AST, place: Place) -> bool:
    """Say whether a node decides which way it goes on."""
    parent = place.parents[-1]
    return isinstance(node, ast.expr) and (
        (place.key == "test" and isinstance(parent, ast.If | ast.IfExp | ast.While))
        or (isinstance(parent, ast.comprehension) and place.holder is parent.ifs)
    )


def statements_for(node: ast.AST, place: Place) -> Iterator[ast.stmt]:
    """Yield the statements that may stand in a statement's place."""
    match node:
        case ast.Continue():
            yield ast.Break()
        case ast.Break():
            yield ast.Continue()
        case ast.Expr() | ast.Raise() | ast.Delete():
            yield ast.Pass()
        case ast.Return() if not isinstance(place.parents[-1], FUNCTIONS):
            yield ast.Pass()
        case ast.Assign(targets=[ast.Subscript() | ast.Attribute()]):
            yield ast.Pass()
        case ast.AugAssign():
            yield ast.Pass()
            if type(node.op) in ARITHMETIC:
                yield ast.AugAssign(node.target, ARITHMETIC[type(node.op)](), node.value)
        case _:
            pass


def list_edits_of(node: ast.AST) -> Iterator[tuple[Any, str, str]]:
    """Yield the edits that leave one thing out: an element, an argument by name, a pair, a condition."""
    lists: list[list[Any]] = []
    match node:
        case ast.List(elts, ast.Load()) | ast.Tuple(elts, ast.Load()) | ast.Set(elts):
            lists = [elts]
        case ast.Call(keywords=keywords):
            lists = [keywords]
        case ast.comprehension(ifs=ifs):
            lists = [ifs]
        case _:
            pass
    for holder in lists:
        for key, element in enumerate(holder):
            yield (holder, key, None), ast.unparse(element), "left out"
