"""The auditor's command: are the books whole?"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from strongroom.cli.failures import expected_failures, fail
from strongroom.cli.folders import data_folder, find_place
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
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON.")
def ledger_verify(config: Path | None, data: Path | None, as_json: bool) -> None:
    """Read the whole journal and work everything out anew; exit with 0 only if all is whole.

    It reads the data folder itself and changes nothing, beside a running server or without one.
    """
    with expected_failures():
        report = _report(data_folder(find_place(config, data)))
    if as_json:
        _show_json(report)
    else:
        _show(report)
    sys.exit(0 if report.is_whole else 1)


def _report(folder: Path) -> Report:
    import apsw
    import msgspec

    from strongroom.store.sqlite.connection import DATABASE_FILE
    from strongroom.store.sqlite.snapshot import SqliteSnapshot
    from strongroom.wallet.verification import verify

    if not (folder / DATABASE_FILE).is_file():
        fail(f"{folder} has no ledger")
    try:
        snapshot = SqliteSnapshot(folder)
        try:
            return verify(snapshot)
        finally:
            snapshot.close()
    except (apsw.Error, msgspec.MsgspecError, ValueError, TypeError, KeyError, IndexError, ArithmeticError) as error:
        # Whoever changed the file may have left anything in it: what cannot be read is not whole.
        fail(f"the ledger of {folder} cannot be read: {type(error).__name__}: {error}")


def _show(report: Report) -> None:
    counts = (
        f"{report.items} items, {report.postings} postings, {report.lines} history lines, {report.accounts} accounts"
    )
    print(f"read {counts}")
    print(f"root {report.root}")
    if report.is_whole:
        print("whole")
        return
    for finding in report.findings:
        where = f"item {finding.item}" if finding.item else "the books"
        click.echo(f"{where}: {finding.what}", err=True)
    first = report.first_wrong_item
    click.echo(f"strongroom: not whole; the first wrong item is {first or 'none of the journal'}", err=True)


def _show_json(report: Report) -> None:
    import msgspec

    fields = msgspec.to_builtins(report)
    show({**fields, "whole": report.is_whole, "first_wrong_item": report.first_wrong_item}, as_json=True)
