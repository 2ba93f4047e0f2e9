"""Write docs/reference anew from the code: `make docs`, or with --check say which pages are not current.

`metrics.md` is written by hand, because a number needs more words than its help has; a test compares it with a scrape.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import click

from strongroom.api import parameters
from strongroom.api.dialects import OPERATIONS
from strongroom.api.openapi_schemas import has_required, request_body
from strongroom.api.operations import MOUNT, Access, Dialect, Operation
from strongroom.cli.main import root
from strongroom.config.reading import settings_page
from strongroom.errors import ERRORS, PARAMETER_INVALID, PARAMETER_MISSING, Error

FOLDER: Final = Path(__file__).parent.parent / "docs" / "reference"

_DIALECTS: Final = {
    Dialect.WALLET_V1: "Wallet v1: enveloped objects, amounts as text",
    Dialect.V3: "v3: bare rows, amounts as numbers",
    Dialect.MARKETS: "Markets: what clients load first",
}
_ACCESS: Final = {
    Access.OPEN: "public; authentication headers are ignored",
    Access.PUBLIC: "public; a signature is verified if there is one",
}

_ERRORS: Final = """\
# Errors

Every failure has a body, on every path and status, and its `code` says what went wrong: these, and no others. In wallet
v1, markets and on unknown paths it has five members:

```json
{"code": 51523, "msg": "BADREQUEST: Insufficient wallet balance", "time": 1790000000000, "data": null, "success": false}
```

In v3 it has, beside these, what older clients read:

```json
{"status": 400, "errorCode": 51523, "message": "BADREQUEST: Insufficient wallet balance"}
```

A reply with `Retry-After` promises that nothing was done and nothing will be. `{}` stands for what is wrong.
"""
_ENDPOINTS: Final = f"""\
# Endpoints

What each operation takes, who may call it, and what it is refused with. Replies are described field by field at `/docs`
of every server and in its `/openapi.json`; beside these two there are `/healthz`, `/readyz` and `/metrics`. Signing the
query string, and the futures and trading surfaces, are not offered.

Paths of v3 are answered with and without the mount `{MOUNT}`, and signed without it. Paths match byte for byte. HEAD
answers as GET, OPTIONS says the methods. A POST that changes state reads its body only; any other request may carry its
parameters in the query or as one JSON object in the body. What changes state takes an `Idempotency-Key`.

Any operation can answer 405, 408, 413, 429, 500 and 503, a signed one also 401 and 403, and one that changes state also
422: see [errors](errors.md)."""


def table(*heads: str) -> list[str]:
    """Return the first two lines of a table."""
    return [row(*heads), "|" + "---|" * len(heads)]


def row(*cells: object) -> str:
    """Return one line of a table."""
    return "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def code(text: object) -> str:
    """Return a text set as code."""
    return f"`{text}`"


def errors_page() -> str:
    """Return the page of everything a client can be refused with."""
    lines = [_ERRORS, *table("status", "code", "name", "message", "when", "Retry-After")]
    ordered = sorted(ERRORS.values(), key=lambda error: error.status)
    lines += [
        row(
            error.status,
            code(error.code),
            code(error.name),
            code(error.message),
            error.when,
            f"{error.retry_after_s} s or more" if error.retry_after_s else "",
        )
        for error in ordered
    ]
    return page(lines)


def endpoints_page() -> str:
    """Return the page of all operations, with their parameters and refusals."""
    lines = [_ENDPOINTS]
    for dialect, title in _DIALECTS.items():
        lines += ["", f"## {title}"]
        for operation in OPERATIONS:
            if operation.dialect is dialect:
                lines += ["", *described(operation)]
    return page(lines)


def described(operation: Operation) -> Iterator[str]:
    """Yield the lines of one operation."""
    yield f"### {operation.summary}"
    yield ""
    for path in operation.paths:
        yield f"- `{operation.method} {path}`"
    yield ""
    needs = operation.permission and f"needs the permission {(operation.permission.name or '').capitalize()}"
    facts = [needs or _ACCESS[operation.access], f"counts as `{operation.name}` for its rate limit"]
    if "Deprecation" in dict(operation.headers):
        facts.append(f"deprecated: answers with {', '.join(code(name) for name, _ in operation.headers)}")
    facts.append("refused with " + ", ".join(code(f"{error.code} {error.name}") for error in refusals(operation)))
    sentence = "; ".join(facts)
    yield sentence[0].upper() + sentence[1:] + "."
    fields = parameters.schema(operation.request)
    if fields:
        yield ""
        where = "body" if request_body(operation) else "query"
        yield from table(f"parameter ({where})", "mandatory", "takes", "what it is", "example")
        for field in fields:
            mandatory = "yes" if field["required"] else ""
            yield row(
                code(field["name"]), mandatory, taken(field["schema"]), field["description"], code(field["example"])
            )


def refusals(operation: Operation) -> list[Error]:
    """Return what a request may be refused with beside what any can be."""
    common = [PARAMETER_INVALID, *([PARAMETER_MISSING] if has_required(operation) else [])]
    return [*common, *(ERRORS[name] for name in operation.errors)]


def taken(schema: Any) -> str:
    """Return what a parameter takes, in words."""
    choices = schema.get("anyOf", [schema])
    first = choices[0]
    kind = first["type"]
    if any(choice["type"] == "number" for choice in choices):
        return "a decimal, as text or number"
    if "enum" in first:
        return " or ".join(code(value) for value in first["enum"])
    if kind == "array":
        return "a JSON array of texts"
    if kind == "boolean":
        return "true or false"
    if kind == "integer":
        return "Unix milliseconds" if first.get("format") else f"{first['minimum']} to {first['maximum']}"
    return f"text, at most {first['maxLength']} characters"


def commands_page() -> str:
    """Return the page of the command line."""
    lines = ["# Commands", "", "`.venv/bin/strongroom`, as its own `--help` says it."]
    for context in commands(root, None):
        lines += ["", f"## {context.command_path}", "", "```text", context.get_help().rstrip(), "```"]
    return page(lines)


def commands(command: click.Command, parent: click.Context | None) -> Iterator[click.Context]:
    """Yield the context of every command below one, itself first."""
    name = command.name if parent else "strongroom"
    context = click.Context(command, parent=parent, info_name=name, terminal_width=100, **command.context_settings)
    yield context
    if isinstance(command, click.Group):
        for below in sorted(command.commands):
            yield from commands(command.commands[below], context)


def page(lines: list[str]) -> str:
    """Return a page's text."""
    return "\n".join(lines) + "\n"


PAGES: Final[dict[str, Callable[[], str]]] = {
    "commands.md": commands_page,
    "endpoints.md": endpoints_page,
    "errors.md": errors_page,
    "settings.md": settings_page,
}


def stale() -> list[str]:
    """Return the names of the pages that are not what the code says now."""
    return [
        name
        for name, make in PAGES.items()
        if not (FOLDER / name).is_file() or (FOLDER / name).read_text("utf-8") != make()
    ]


def main() -> None:
    """Write the pages, or with --check only compare them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 if a page is not current")
    changed = stale()
    if not parser.parse_args().check:
        for name in changed:
            (FOLDER / name).write_text(PAGES[name](), "utf-8")
            print(f"wrote {name}")
    elif changed:
        sys.exit(f"not current: {', '.join(changed)}; run make docs")


if __name__ == "__main__":
    main()
