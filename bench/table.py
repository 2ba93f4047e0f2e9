"""Tables, in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from load import Result


class Aim(NamedTuple):
    """A figure beside its aim."""

    figure: str
    measured: str
    aim: str
    met: bool


def at_least(figure: str, value: float | None, aim: float, form: str, note: str = "") -> list[Aim]:
    """Return a figure that shall be as high as its aim, nothing if it was not measured."""
    return (
        [] if value is None else [Aim(figure, form.format(value) + note, f"{form.format(aim)} or more", value >= aim)]
    )


def at_most(figure: str, value: float | None, aim: float, form: str, note: str = "") -> list[Aim]:
    """Return a figure that shall be no higher than its aim, nothing if it was not measured."""
    return (
        [] if value is None else [Aim(figure, form.format(value) + note, f"{form.format(aim)} or less", value <= aim)]
    )


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table whose first column is text and whose others are figures."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def of_results(results: dict[str, Result]) -> str:
    """Return the table of what was measured under load."""
    head = ["measured", "a second", "p50 ms", "p99 ms", "CPU µs a request", "cores busy", "failed"]
    rows = [[name, f"{r.per_second:,.0f}", *_figures(r), str(r.failures)] for name, r in results.items()]
    return markdown(head, rows)


def of_aims(aims: Sequence[Aim]) -> str:
    """Return the table of aims."""
    rows = [[aim.figure, aim.measured, aim.aim, "yes" if aim.met else "no"] for aim in aims]
    return markdown(["figure", "measured", "aim", "met"], rows)


def _figures(result: Result) -> list[str]:
    """Return the times and the CPU of a row, nothing where there is none."""
    given = (result.p50_ms, 2), (result.p99_ms, 2), (result.cpu_us, 1), (result.busy, 2)
    return [f"{value:.{digits}f}" if value else "" for value, digits in given]
