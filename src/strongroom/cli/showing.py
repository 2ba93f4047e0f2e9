"""What the command line shows: tables for people, one line of JSON for tools."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any, cast


def show(result: Any, *, as_json: bool) -> None:
    """Print a result, made of dicts and lists."""
    if as_json:
        print(json.dumps(result, separators=(",", ":")))
    elif isinstance(result, list):
        _show_rows(cast(Sequence[Mapping[str, Any]], result))
    else:
        _show_fields(cast(Mapping[str, Any], result))


def _show_fields(fields: Mapping[str, Any]) -> None:
    width = max(map(len, fields), default=0)
    for name, value in fields.items():
        print(f"{name.replace('_', ' '):<{width}}  {_text(value)}")


def _show_rows(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print a table; into a file or pipe without frames, and never cut."""
    if not rows:
        print("none")
        return
    columns = list(rows[0])
    if not sys.stdout.isatty():
        print("\t".join(columns))
        for row in rows:
            print("\t".join(_text(row[column]) for column in columns))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column.replace("_", " "), overflow="fold")
    for row in rows:
        # Texts, not markup: what a user chose as a name is shown as it is.
        table.add_row(*(Text(_text(row[column])) for column in columns))
    Console().print(table)


def _text(value: Any) -> str:
    if value in (None, ""):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, cast(list[Any], value))) or "-"
    return str(value)
