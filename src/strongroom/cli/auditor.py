"""The auditor's command: are the books whole?"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from strongroom.cli.failures import expected_failures
from strongroom.cli.folders import find_place, settings_of
from strongroom.cli.root import root
from strongroom.cli.showing import show

if TYPE_CHECKING:
    from strongroom.wallet.verification import Report


@root.group()
def ledger() -> None:
    """The books."""


@ledger.command("verify")
@click.option("--config", type=click.Path(dir_okay=False, path_type=Path), help="The house's settings file.")
@click.option("--data", type=click.Path(file_okay=False, path_type=Path), help="The house's data folder.")
@click.option(
    "--processes",
    type=click.IntRange(1, 64),
    help="How many processes share the work; default: one for each core up to 4, where there is enough of it.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON.")
def ledger_verify(config: Path | None, data: Path | None, processes: int | None, as_json: bool) -> None:
    """Read the whole journal and work everything out anew; exit with 0 only if all is whole.

    It reads the books themselves and changes nothing, beside a running server or without one.
    """
    with expected_failures():
        from strongroom.admin.auditing import audit_books

        started_ns = time.perf_counter_ns()
        report = audit_books(settings_of(find_place(config, data)), processes)
        took_ms = max(1, (time.perf_counter_ns() - started_ns) // 1_000_000)
    if as_json:
        _show_json(report, took_ms)
    else:
        _show(report, took_ms)
    sys.exit(0 if report.is_whole else 1)


def _postings_per_second(report: Report, took_ms: int) -> int:
    return report.postings * 1_000 // took_ms


def _show(report: Report, took_ms: int) -> None:
    counts = (
        f"{report.items} items, {report.postings} postings, {report.lines} history lines, {report.accounts} accounts"
    )
    print(f"read {counts}")
    print(f"took {took_ms / 1_000:.3f} s, {_postings_per_second(report, took_ms)} postings a second")
    print(f"root {report.root}")
    if report.is_whole:
        print("whole")
        return
    for finding in report.findings:
        where = f"item {finding.item}" if finding.item else "the books"
        click.echo(f"{where}: {finding.what}", err=True)
    first = report.first_wrong_item
    click.echo(f"strongroom: not whole; the first wrong item is {first or 'none of the journal'}", err=True)


def _show_json(report: Report, took_ms: int) -> None:
    import msgspec

    result = {
        **msgspec.to_builtins(report),
        "whole": report.is_whole,
        "first_wrong_item": report.first_wrong_item,
        "took_ms": took_ms,
        "postings_per_second": _postings_per_second(report, took_ms),
    }
    show(result, as_json=True)
